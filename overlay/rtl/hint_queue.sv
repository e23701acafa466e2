`default_nettype none

// Hints that wait. The next one is the oldest of the highest priority. An owner has at most `depth_i` waiting: a
// further one, or a smaller depth, pushes its oldest ones out; a full queue pushes out the oldest of the lowest
// priority. Those pushed out, and those of a request that is cancelled, are reported one after the other.
module hint_queue #(
    parameter  int unsigned Entries   = 8,
    parameter  int unsigned OwnerBits = 8,
    localparam int unsigned IndexBits = $clog2(Entries)
) (
    input wire clk_i,
    input wire rst_i,
    input wire [15:0] depth_i,

    input  wire                  valid_i,
    output logic                 ready_o,
    input  wire  [         15:0] tag_i,
    input  wire  [         31:0] req_id_i,
    input  wire  [         15:0] layer_i,
    input  wire  [         31:0] position_i,
    input  wire  [         15:0] depth_blocks_i,
    input  wire  [OwnerBits-1:0] owner_i,
    input  wire  [          1:0] priority_i,
    input  wire                  dense_i,

    input wire        cancel_i,
    input wire [31:0] cancel_req_id_i,

    // The next hint may change until it is taken.
    output logic        next_valid_o,
    input  wire         take_i,
    output logic [15:0] tag_o,
    output logic [31:0] req_id_o,
    output logic [15:0] layer_o,
    output logic [31:0] position_o,
    output logic [15:0] depth_blocks_o,
    output logic        dense_o,

    output logic        gone_valid_o,     // until taken
    input  wire         gone_taken_i,
    output logic [15:0] gone_tag_o,
    output logic        gone_cancelled_o  // cancelled, else pushed out
);
  typedef struct packed {
    logic live;
    logic cancelled;
    logic [15:0] tag;
    logic [31:0] req_id;
    logic [15:0] layer;
    logic [31:0] position;
    logic [15:0] depth_blocks;
    logic [OwnerBits-1:0] owner;
    logic [1:0] rank;
    logic dense;
  } hint_t;
  hint_t [Entries-1:0] queue_q, marked;  // the oldest first
  logic [IndexBits:0] count_q;
  logic [IndexBits-1:0] next_index, gone_index, oldest_low;
  logic remove;
  logic [IndexBits-1:0] removed;

  assign ready_o = !count_q[IndexBits];

  logic [1:0] lowest, highest;
  logic [Entries-1:0] live, gone, surplus;
  always_comb begin
    lowest  = '1;
    highest = '0;
    for (int unsigned i = 0; i < Entries; i++) begin
      live[i] = 32'(count_q) > i && queue_q[i].live;
      gone[i] = 32'(count_q) > i && !queue_q[i].live;
      if (live[i] && queue_q[i].rank < lowest) lowest = queue_q[i].rank;
      if (live[i] && queue_q[i].rank > highest) highest = queue_q[i].rank;
    end
    next_index = '0;
    gone_index = '0;
    oldest_low = '0;
    for (int unsigned i = Entries; i > 0; i--) begin
      if (live[i-1] && queue_q[i-1].rank == highest) next_index = IndexBits'(i - 1);
      if (live[i-1] && queue_q[i-1].rank == lowest) oldest_low = IndexBits'(i - 1);
      if (gone[i-1]) gone_index = IndexBits'(i - 1);
    end
    // Newer ones of the same owner leave an entry no room within the depth.
    for (int unsigned i = 0; i < Entries; i++) begin
      logic [IndexBits:0] newer;
      newer = '0;
      for (int unsigned j = i + 1; j < Entries; j++)
      if (live[j] && queue_q[j].owner == queue_q[i].owner) newer = newer + 1'b1;
      surplus[i] = live[i] && 16'(newer) >= depth_i;
    end
  end

  always_comb begin
    marked = queue_q;
    for (int unsigned i = 0; i < Entries; i++) begin
      if (surplus[i]) marked[i].live = 1'b0;
      if (valid_i && !ready_o && !take_i && gone == '0 && IndexBits'(i) == oldest_low) marked[i].live = 1'b0;
      if (cancel_i && live[i] && queue_q[i].req_id == cancel_req_id_i) begin
        marked[i].live = 1'b0;
        marked[i].cancelled = 1'b1;
      end
    end
  end

  // A hint that is surplus in this cycle is not taken; one that is cancelled in this cycle is for the taker to drop.
  assign next_valid_o = live != '0 && !surplus[next_index] && gone == '0;
  assign {tag_o, req_id_o, layer_o, position_o, depth_blocks_o, dense_o} = {
    queue_q[next_index].tag,
    queue_q[next_index].req_id,
    queue_q[next_index].layer,
    queue_q[next_index].position,
    queue_q[next_index].depth_blocks,
    queue_q[next_index].dense
  };
  assign gone_valid_o = gone != '0;
  assign gone_tag_o = queue_q[gone_index].tag;
  assign gone_cancelled_o = queue_q[gone_index].cancelled;
  assign remove = take_i || gone_taken_i;
  assign removed = gone_valid_o ? gone_index : next_index;

  hint_t fresh;
  logic  add;
  assign add = valid_i && ready_o;
  assign fresh = '{
          live: 1'b1,
          cancelled: 1'b0,
          tag: tag_i,
          req_id: req_id_i,
          layer: layer_i,
          position: position_i,
          depth_blocks: depth_blocks_i,
          owner: owner_i,
          rank: priority_i,
          dense: dense_i
      };

  always_ff @(posedge clk_i) begin
    for (int unsigned i = 0; i < Entries; i++) begin
      queue_q[i] <= marked[i];
      if (remove && i >= 32'(removed) && i + 1 < Entries) queue_q[i] <= marked[i+1];
      if (add && (IndexBits + 1)'(i) == count_q - (IndexBits + 1)'(remove)) queue_q[i] <= fresh;
    end
    count_q <= count_q + (IndexBits + 1)'(add) - (IndexBits + 1)'(remove);
    if (rst_i) count_q <= '0;
  end
endmodule

`default_nettype wire
