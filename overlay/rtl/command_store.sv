`default_nettype none

// Commands that have been taken from the ring and have not ended, in any order. `scan` looks through all of them, one a
// cycle, for the oldest of some kind: Entries + 2 cycles. Waiting ones have not been taken to run.
module command_store
  import speckv_pkg::*;
#(
    parameter int unsigned Entries = 64,  // a power of two
    localparam int unsigned IndexBits = $clog2(Entries)
) (
    input wire clk_i,
    input wire rst_i,

    output logic            full_o,          // not to be pushed to
    input  wire             push_i,          // at most every third cycle
    input  command_t        push_command_i,
    input  wire      [ 2:0] push_class_i,    // one bit: dma_batch, prefetch, poll_done from bit 0 up
    input  wire      [47:0] push_time_i,

    input wire                 take_i,  // waits no longer
    input wire                 end_i,   // is gone
    input wire [IndexBits-1:0] index_i, // of take and end

    input  wire      [IndexBits-1:0] read_index_i,
    output command_t                 read_command_o,  // a cycle later
    output logic     [         47:0] read_time_o,

    input  wire                  scan_i,
    input  wire  [          2:0] scan_classes_i,  // held until scan_done_o, like what follows
    input  wire                  scan_waiting_i,  // those that wait only
    input  wire                  scan_any_i,      // of any owner
    input  wire  [         31:0] scan_owner_i,
    output logic                 scan_done_o,     // a pulse, with
    output logic [IndexBits : 0] scan_count_o,    // how many there are, and of the oldest
    output logic [IndexBits-1:0] scan_index_o,
    output logic                 scan_poll_o,     // that it is a poll_done

    output logic [          2:0] waiting_o,     // whether any of a class waits
    output logic [IndexBits : 0] prefetches_o,  // that wait
    output logic                 polls_o,       // whether any poll_done is open
    output logic                 empty_o
);
  typedef struct packed {
    logic [31:0] owner;
    logic [31:0] number;  // grows with every push
    logic [2:0]  kind;
  } key_t;

  (* ram_style = "distributed" *) key_t key_q[Entries];
  (* ram_style = "block" *) logic [CommandBytes*8+47:0] command_q[Entries];
  logic [Entries-1:0] open_q;
  logic [2:0][Entries-1:0] waiting_q;  // by class
  logic [31:0] number_q;

  logic [IndexBits-1:0] free;
  always_comb begin
    free = '0;
    for (int i = Entries - 1; i >= 0; --i) if (!open_q[i]) free = IndexBits'(i);
  end

  logic [IndexBits-1:0] free_q;
  always_ff @(posedge clk_i) begin
    free_q <= free;
    if (push_i) begin
      key_q[free_q]     <= '{owner: push_command_i.owner, number: number_q, kind: push_class_i};
      command_q[free_q] <= {push_time_i, push_command_i};
      open_q[free_q]    <= 1'b1;
      for (int c = 0; c < 3; ++c) waiting_q[c][free_q] <= push_class_i[c];
      number_q <= number_q + 32'd1;
    end
    if (take_i || end_i) for (int c = 0; c < 3; ++c) waiting_q[c][index_i] <= 1'b0;
    if (end_i) open_q[index_i] <= 1'b0;
    if (rst_i) begin
      open_q    <= '0;
      waiting_q <= '0;
      number_q  <= '0;
    end
  end

  always_ff @(posedge clk_i) {read_time_o, read_command_o} <= command_q[read_index_i];

  assign full_o  = &open_q;
  assign empty_o = ~|open_q;
  assign polls_o = |waiting_q[2];
  always_comb for (int c = 0; c < 3; ++c) waiting_o[c] = |waiting_q[c];
  always_ff @(posedge clk_i) prefetches_o <= (IndexBits + 1)'($countones(waiting_q[1]));

  // The scan: a key is read in one cycle and looked at in the next.
  logic scanning_q;
  logic last_q;
  logic look_q;
  logic candidate_q;
  logic [IndexBits-1:0] at_q;
  logic [IndexBits-1:0] looked_q;
  key_t key_read_q;
  logic [31:0] oldest_q;  // the best one's age
  logic [31:0] age;
  logic match;

  assign age = number_q - key_read_q.number;
  assign match = candidate_q && |(key_read_q.kind & scan_classes_i) && (scan_any_i || key_read_q.owner == scan_owner_i);

  always_ff @(posedge clk_i) begin
    scan_done_o <= look_q & last_q;
    look_q <= scanning_q;
    last_q <= &at_q;
    looked_q <= at_q;
    key_read_q <= key_q[at_q];
    candidate_q <= scan_waiting_i ? waiting_q[0][at_q] | waiting_q[1][at_q] | waiting_q[2][at_q] : open_q[at_q];
    if (scanning_q) at_q <= at_q + 1'b1;
    if (&at_q) scanning_q <= 1'b0;
    if (look_q && match) begin
      scan_count_o <= scan_count_o + 1'b1;
      if (age > oldest_q) begin
        oldest_q     <= age;
        scan_index_o <= looked_q;
        scan_poll_o  <= key_read_q.kind[2];
      end
    end
    if (scan_i) begin
      scanning_q   <= 1'b1;
      at_q         <= '0;
      scan_count_o <= '0;
      oldest_q     <= '0;
    end
    if (rst_i) begin
      scanning_q  <= 1'b0;
      look_q      <= 1'b0;
      scan_done_o <= 1'b0;
    end
  end

`ifndef SYNTHESIS
  always_ff @(posedge clk_i)
    if (!rst_i) begin
      assert (!(push_i && (open_q[free_q])))
      else $fatal(1, "a push into a full store");
      assert (!(end_i && !open_q[index_i]))
      else $fatal(1, "an end of nothing");
    end
`endif
endmodule

`default_nettype wire
