`default_nettype none

// Scheme int8_delta_rle, the published pipeline of 20 stages, a beat of 32 values a cycle:
//   1-4    input buffering             int8_quantise
//   5-8    scaling and quantisation    int8_quantise
//   9-14   delta                       int8_run_lengths
//   15-18  run lengths                 int8_run_lengths
//   19-20  output formatting           byte_packer, behind the queue of pieces
// The largest value of each kind is known before: it was found as the block came in. Out comes a piece of up to 64
// bytes for each beat in which a run ends; in the worst case as many bytes as came in. hold_i keeps beats out; those
// inside still come.
module int8_delta_rle #(
    parameter int unsigned BeatBits = 13
) (
    input  wire                       clk_i,
    input  wire                       rst_i,
    input  wire                       load_i,        // a block, while done_o
    output logic                      done_o,
    input  wire                       bf16_i,
    input  wire                       has_key_i,
    input  wire                       has_value_i,
    input  wire  [BeatBits-1:0]       kind_beats_i,
    input  wire  [         1:0][14:0] largest_i,     // magnitude bits
    input  wire  [         1:0][26:0] reciprocal_i,
    input  wire  [       511:0]       beat_i,
    input  wire                       valid_i,
    output logic                      ready_o,
    input  wire                       hold_i,
    output logic                      valid_o,
    output logic                      kind_last_o,
    output logic [         6:0]       bytes_o,
    output logic [       511:0]       data_o
);
  logic loaded_q, kind_q, has_value_q, bf16_q;
  logic [BeatBits-1:0] beats_q, left_q;
  logic [1:0][14:0] largest_q;
  logic [1:0][26:0] reciprocal_q;
  logic take, kind_last;
  logic [7:0] field;

  assign ready_o = loaded_q && !hold_i;
  assign take = valid_i && ready_o;
  assign kind_last = take && left_q == 1;
  assign done_o = !loaded_q || (kind_last && (kind_q || !has_value_q));
  assign field = bf16_q ? largest_q[kind_q][14:7] : 8'(largest_q[kind_q][14:10]);

  always_ff @(posedge clk_i) begin
    if (take) left_q <= kind_last ? beats_q : left_q - 1'b1;
    if (kind_last) kind_q <= 1'b1;
    if (done_o) loaded_q <= 1'b0;
    if (load_i) begin
      loaded_q <= 1'b1;
      kind_q <= !has_key_i;
      has_value_q <= has_value_i;
      bf16_q <= bf16_i;
      {beats_q, left_q} <= {2{kind_beats_i}};
      largest_q <= largest_i;
      reciprocal_q <= reciprocal_i;
    end
    if (rst_i) loaded_q <= 1'b0;
  end

  logic valid, first, last;
  logic [31:0][7:0] level;

  int8_quantise i_quantise (
      .clk_i,
      .rst_i,
      .valid_i(take),
      .first_i(left_q == beats_q),
      .last_i(kind_last),
      .beat_i,
      .bf16_i(bf16_q),
      .exponent_i(field == '0 ? 8'd1 : field),
      .reciprocal_i(reciprocal_q[kind_q]),
      .valid_o(valid),
      .first_o(first),
      .last_o(last),
      .level_o(level)
  );
  int8_run_lengths i_runs (
      .clk_i,
      .rst_i,
      .valid_i(valid),
      .first_i(first),
      .last_i (last),
      .level_i(level),
      .valid_o,
      .last_o (kind_last_o),
      .bytes_o,
      .pairs_o(data_o)
  );
endmodule

`default_nettype wire
