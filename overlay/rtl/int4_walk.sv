`default_nettype none

// Walks the segments of a kind in the order of the block: token, head, up to 32 channels. Tells where the scales of a
// segment stand: keys from the sixteen `half_o` on, values in group `group_o` of it.
module int4_walk #(
    parameter int unsigned HalfBits = 8
) (
    input  wire                 clk_i,
    input  wire                 rst_i,
    input  wire                 kind_valid_i,
    output logic                kind_ready_o,
    input  wire                 key_i,
    input  wire  [        15:0] tokens_i,
    input  wire  [        15:0] heads_i,
    input  wire  [        15:0] head_dim_i,
    output logic                kind_done_o,   // with its last segment
    output logic                valid_o,
    input  wire                 ready_i,
    output logic                bank_o,
    output logic [HalfBits-1:0] half_o,
    output logic [         3:0] group_o,
    output logic                short_o
);
  logic active_q, key_q;
  logic [2:0] segment_q, last_segment_q;
  logic [15:0] more_heads_q, heads_q;  // than one; left after this one
  logic [5:0] tokens_q;
  logic last_head_q, last_token_q, middle, short_head_q;
  logic [HalfBits-1:0] row_q;  // keys: where a token's scales begin

  logic segment_ends, head_ends, token_ends;
  assign segment_ends = segment_q == last_segment_q;
  assign head_ends = segment_ends && last_head_q;
  assign token_ends = head_ends && last_token_q;
  assign short_o = short_head_q && segment_ends;
  assign valid_o = active_q;
  assign kind_done_o = ready_i && token_ends;
  assign kind_ready_o = !active_q || kind_done_o;

  logic [HalfBits-1:0] following;
  assign middle = tokens_q == 6'd32;
  assign following = half_o + (short_o ? HalfBits'(1) : HalfBits'(2));

  always_ff @(posedge clk_i) begin
    if (ready_i) begin
      segment_q <= segment_ends ? '0 : segment_q + 1'b1;
      if (segment_ends) begin
        heads_q <= last_head_q ? more_heads_q : heads_q - 16'd1;
        last_head_q <= last_head_q ? more_heads_q == '0 : heads_q == 16'd1;
      end
      if (head_ends) begin
        tokens_q <= tokens_q - 1'b1;
        last_token_q <= tokens_q == 6'd1;
      end
      if (key_q) begin
        half_o <= following;
        if (head_ends) begin
          // Token 32 of 64 begins the second row of groups.
          half_o <= middle ? following : row_q;
          if (middle) row_q <= following;
        end
      end else begin
        {half_o, group_o} <= {half_o, group_o} + 1'b1;
      end
      if (token_ends) begin
        active_q <= 1'b0;
        bank_o   <= !bank_o;
      end
    end
    if (kind_valid_i && kind_ready_o) begin
      active_q <= 1'b1;
      key_q <= key_i;
      segment_q <= '0;
      case (head_dim_i)
        16'd64: last_segment_q <= 3'd1;
        16'd80, 16'd96: last_segment_q <= 3'd2;
        16'd128: last_segment_q <= 3'd3;
        default: last_segment_q <= 3'd7;
      endcase
      short_head_q <= head_dim_i == 16'd80;
      more_heads_q <= heads_i - 16'd1;
      heads_q <= heads_i - 16'd1;
      last_head_q <= heads_i == 16'd1;
      tokens_q <= 6'(tokens_i - 16'd1);
      last_token_q <= 1'b0;
      {row_q, half_o, group_o} <= '0;
    end
    if (rst_i) begin
      active_q <= 1'b0;
      bank_o   <= 1'b0;
    end
  end
endmodule

`default_nettype wire
