`default_nettype none

// The beats of a block as int4 sees them: segments of 32 values of one token and head, 16 for the last of head_dim
// 80, whose heads begin in the middle of a beat. One segment a cycle, so five beats of head_dim 80 take six cycles.
// Beside each goes where its groups stand: keys have a group a channel, word_o for the segment's 32; values have one
// group a segment, in lane_o of word_o. K's words come first, V's behind them.
module int4_segments #(
    parameter int unsigned WordBits = 8
) (
    input  wire                 clk_i,
    input  wire                 rst_i,
    // The block that comes next; may be given as the last segment goes.
    input  wire                 load_i,
    input  wire                 has_key_i,
    input  wire                 has_value_i,
    input  wire                 dim80_i,
    input  wire  [         6:0] tokens_i,
    input  wire  [WordBits-1:0] row_segments_i,  // of one token, all heads
    input  wire  [       511:0] beat_i,
    input  wire                 valid_i,
    output logic                ready_o,
    output logic [       511:0] segment_o,
    output logic                valid_o,
    input  wire                 ready_i,
    output logic                key_o,
    output logic                narrow_o,        // 16 values
    output logic [WordBits-1:0] word_o,
    output logic [         4:0] lane_o,
    output logic                first_token_o,   // of a group of keys
    output logic                kind_last_o,
    output logic                done_o           // no segment is left behind this one
);
  logic loaded_q, key_q, has_value_q, dim80_q, left_valid_q;
  logic [6:0] tokens_q, token_q;
  logic [WordBits-1:0] row_q, segment_q, base_q, word_q;
  logic [  4:0] lane_q;
  logic [  1:0] third_q;  // segment of its head, head_dim 80
  logic [255:0] left_q;

  logic need_beat, advance, row_last, group_last;
  assign narrow_o = dim80_q && third_q == 2'd2;
  assign need_beat = !(narrow_o && left_valid_q);
  assign valid_o = loaded_q && (valid_i || !need_beat);
  assign ready_o = loaded_q && need_beat && ready_i;
  assign advance = valid_o && ready_i;
  assign segment_o = left_valid_q ? {beat_i[255:0], left_q} : beat_i;

  assign row_last = segment_q == row_q - 1'b1;
  assign group_last = &token_q[4:0] || token_q == tokens_q - 1'b1;
  assign key_o = key_q;
  assign word_o = key_q ? base_q + segment_q : word_q;
  assign lane_o = lane_q;
  assign first_token_o = token_q[4:0] == '0;
  assign done_o = !loaded_q || (advance && kind_last_o && !(key_q && has_value_q));
  assign kind_last_o = row_last && token_q == tokens_q - 1'b1;

  always_ff @(posedge clk_i) begin
    if (advance) begin
      if (need_beat) left_q <= beat_i[511:256];
      if (narrow_o) left_valid_q <= !left_valid_q;
      third_q   <= narrow_o || !dim80_q ? '0 : third_q + 1'b1;
      segment_q <= row_last ? '0 : segment_q + 1'b1;
      if (row_last) token_q <= token_q + 1'b1;
      if (row_last && group_last) base_q <= base_q + row_q;
      if (!key_q) {word_q, lane_q} <= {word_q, lane_q} + 1'b1;
      if (kind_last_o) begin
        token_q <= '0;
        key_q <= 1'b0;
        {word_q, lane_q} <= {WordBits'(base_q + row_q), 5'd0};
        loaded_q <= key_q && has_value_q;
      end
    end
    if (load_i) begin
      loaded_q <= 1'b1;
      key_q <= has_key_i;
      has_value_q <= has_value_i;
      dim80_q <= dim80_i;
      tokens_q <= tokens_i;
      row_q <= row_segments_i;
      {token_q, segment_q, base_q, word_q, lane_q, third_q} <= '0;
      left_valid_q <= 1'b0;
    end
    if (rst_i) loaded_q <= 1'b0;
  end
endmodule

`default_nettype wire
