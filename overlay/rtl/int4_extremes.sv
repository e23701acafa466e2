`default_nettype none

// Least and greatest value of every int4 group of a block, while it comes in. Keys: a word of 32 channels is read,
// widened by the token's values and written back each cycle. Values: a tree over the segment; eight results are a
// write. A word holds 32 groups, {greatest, least} each, as bits whose signed order is that of the values (-0 below
// +0). Two blocks fit: the one that comes in and the one whose groups are coded.
module int4_extremes #(
    parameter int unsigned WordBits = 8
) (
    input  wire                            clk_i,
    input  wire                            rst_i,
    // One segment a cycle; see int4_segments.
    input  wire                            valid_i,
    input  wire  [       511:0]            segment_i,
    input  wire                            key_i,
    input  wire                            narrow_i,
    input  wire                            first_token_i,
    input  wire                            slot_i,         // of the two blocks
    input  wire  [WordBits-1:0]            word_i,
    input  wire  [         4:0]            lane_i,
    // Read port of the coder: eight groups.
    input  wire                            read_i,
    input  wire  [  WordBits:0]            read_word_i,    // slot first
    input  wire  [         1:0]            read_eight_i,
    output logic [         7:0][1:0][15:0] read_o          // a cycle later
);
  localparam int unsigned Depth = 2 << WordBits;
  typedef logic signed [15:0] order_t;
  typedef logic [7:0][1:0][15:0] eight_t;  // {greatest, least} of eight groups

  function automatic order_t sortable(input logic [15:0] bits);
    return order_t'(bits[15] ? bits ^ 16'h7FFF : bits);
  endfunction
  function automatic order_t lesser(input order_t a, input order_t b);
    return a < b ? a : b;
  endfunction
  function automatic order_t greater(input order_t a, input order_t b);
    return a > b ? a : b;
  endfunction

  // Stages 1 to 3 find a segment's extremes, for values; keys wait, so that both write in stage 4, in order.
  logic [3:1] valid_q, key_q, first_q;
  logic narrow_q;
  logic [3:1][WordBits:0] word_q;
  logic [3:1][4:0] lane_q;
  logic [3:1][31:0][15:0] keys_q;
  order_t least2_q[8], greatest2_q[8], least3_q, greatest3_q;

  always_ff @(posedge clk_i) begin
    valid_q  <= {valid_q[2:1], valid_i} & {3{~rst_i}};
    key_q    <= {key_q[2:1], key_i};
    first_q  <= {first_q[2:1], first_token_i};
    narrow_q <= narrow_i;
    word_q   <= {word_q[2:1], {slot_i, word_i}};
    lane_q   <= {lane_q[2:1], lane_i};
    keys_q   <= {keys_q[2:1], keys_q[1]};
    for (int i = 0; i < 32; ++i) keys_q[1][i] <= sortable(segment_i[16*i+:16]);
  end

  // Lanes past a narrow segment repeat those of its half.
  order_t least2[8], greatest2[8], least3, greatest3;
  always_comb begin
    for (int g = 0; g < 8; ++g) begin
      least2[g] = order_t'(16'h7FFF);
      greatest2[g] = order_t'(16'h8000);
      for (int i = 4 * g; i < 4 * g + 4; ++i) begin
        least2[g] = lesser(least2[g], order_t'(keys_q[1][i%(narrow_q?16 : 32)]));
        greatest2[g] = greater(greatest2[g], order_t'(keys_q[1][i%(narrow_q?16 : 32)]));
      end
    end
    least3 = least2_q[0];
    greatest3 = greatest2_q[0];
    for (int g = 1; g < 8; ++g) begin
      least3 = lesser(least3, least2_q[g]);
      greatest3 = greater(greatest3, greatest2_q[g]);
    end
  end
  always_ff @(posedge clk_i) begin
    least2_q <= least2;
    greatest2_q <= greatest2;
    least3_q <= least3;
    greatest3_q <= greatest3;
  end

  // Stage 4: what a write needs. Rows are two segments at least: a word is written before it is read again.
  eight_t [3:0] widened, kept;
  eight_t gathered;
  logic [6:0][1:0][15:0] gathering_q;
  logic key_write, value_write;

  assign key_write = valid_q[3] && key_q[3];
  assign value_write = valid_q[3] && !key_q[3] && &lane_q[3][2:0];
  assign gathered = {greatest3_q, least3_q, gathering_q};
  always_comb
    for (int i = 0; i < 32; ++i) begin
      widened[i/8][i%8][0] = keys_q[3][i];
      widened[i/8][i%8][1] = keys_q[3][i];
      if (!first_q[3]) begin
        widened[i/8][i%8][0] = lesser(order_t'(keys_q[3][i]), order_t'(kept[i/8][i%8][0]));
        widened[i/8][i%8][1] = greater(order_t'(keys_q[3][i]), order_t'(kept[i/8][i%8][1]));
      end
    end
  always_ff @(posedge clk_i) if (valid_q[3]) gathering_q <= {greatest3_q, least3_q, gathering_q[6:1]};

  // Four banks of eight groups, each in two copies: one is read to be widened, one by the coder.
  eight_t [3:0] banks;
  logic   [1:0] eight_q;
  for (genvar b = 0; b < 4; ++b) begin : g_bank
    logic   write;
    eight_t data;
    assign write = key_write || (value_write && lane_q[3][4:3] == 2'(b));
    assign data  = key_q[3] ? widened[b] : gathered;
    ram_1r1w #(
        .Width(256),
        .Depth(Depth)
    ) i_kept (
        .clk_i,
        .write_i(write),
        .write_index_i(word_q[3]),
        .data_i(data),
        .read_i(1'b1),
        .read_index_i(word_q[2]),
        .data_o(kept[b])
    );
    ram_1r1w #(
        .Width(256),
        .Depth(Depth)
    ) i_bank (
        .clk_i,
        .write_i(write),
        .write_index_i(word_q[3]),
        .data_i(data),
        .read_i,
        .read_index_i(read_word_i),
        .data_o(banks[b])
    );
  end
  always_ff @(posedge clk_i) if (read_i) eight_q <= read_eight_i;
  assign read_o = banks[eight_q];
endmodule

`default_nettype wire
