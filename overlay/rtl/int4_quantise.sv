`default_nettype none

// Every value of a block to a nibble of its int4 group: one segment of 32 values a cycle, seven cycles deep. Nibbles
// leave as pieces of up to 64 bytes: four segments, or a head of head_dim 80 (32 + 32 + 16 values in 40 bytes).
// hold_i keeps new segments out; those inside still come.
module int4_quantise #(
    parameter int unsigned WordBits = 8
) (
    input  wire                             clk_i,
    input  wire                             rst_i,
    input  wire                             load_i,          // a block, while done_o
    output logic                            done_o,
    input  wire                             bf16_i,
    input  wire                             has_key_i,
    input  wire                             has_value_i,
    input  wire                             dim80_i,
    input  wire        [         6:0]       tokens_i,
    input  wire        [WordBits-1:0]       row_segments_i,
    input  wire signed [         1:0][ 9:0] base_i,          // of keys, of values
    input  wire        [       511:0]       beat_i,
    input  wire                             valid_i,
    output logic                            ready_o,
    input  wire                             hold_i,
    output logic                            read_o,
    output logic       [WordBits-1:0]       read_word_o,
    input  wire        [        31:0][19:0] read_i,          // {z, code} of 32 groups, a cycle later
    output logic                            valid_o,
    output logic       [         6:0]       bytes_o,
    output logic                            kind_last_o,
    output logic       [       511:0]       data_o
);
  localparam int unsigned Stages = 6;

  logic [511:0] segment;
  logic valid, key, narrow, kind_last, unused_first;
  logic [4:0] lane;

  int4_segments #(
      .WordBits(WordBits)
  ) i_segments (
      .clk_i,
      .rst_i,
      .load_i,
      .has_key_i,
      .has_value_i,
      .dim80_i,
      .tokens_i,
      .row_segments_i,
      .beat_i,
      .valid_i,
      .ready_o,
      .segment_o(segment),
      .valid_o(valid),
      .ready_i(!hold_i),
      .key_o(key),
      .narrow_o(narrow),
      .word_o(read_word_o),
      .lane_o(lane),
      .first_token_o(unused_first),
      .kind_last_o(kind_last),
      .done_o
  );
  assign read_o = valid && !hold_i;

  // Stage 1: the groups' parameters are there. Stage 2: each lane has its own. 3 and 4: scaled, multiplied. 5: a
  // nibble.
  logic [Stages:1] valid_q, narrow_q, kind_last_q;
  logic [2:1] key_q;
  logic [4:0] lane_q;
  logic [2:1][31:0][15:0] values_q;
  logic [31:0][19:0] group_q;
  logic signed [1:0][9:0] base_q;
  logic signed [2:1][9:0] lane_base_q;
  logic bf16_q;
  logic [2:1] lane_bf16_q;
  logic signed [11:0] zero3_q[32], zero4_q[32];
  logic signed [31:0] product[32];
  logic [31:0][3:0] nibble_q;

  always_ff @(posedge clk_i) begin
    valid_q <= {valid_q[Stages-1:1], read_o} & {Stages{~rst_i}};
    narrow_q <= {narrow_q[Stages-1:1], narrow};
    kind_last_q <= {kind_last_q[Stages-1:1], kind_last};
    key_q <= {key_q[1], key};
    lane_q <= lane;
    values_q <= {values_q[1], segment};
    lane_base_q <= {lane_base_q[1], base_q[!key]};
    lane_bf16_q <= {lane_bf16_q[1], bf16_q};
    if (load_i) {bf16_q, base_q} <= {bf16_i, base_i};
    for (int i = 0; i < 32; ++i) group_q[i] <= read_i[key_q[1]?5'(i) : lane_q];
  end

  for (genvar i = 0; i < 32; ++i) begin : g_lane
    int4_quotient i_quotient (
        .clk_i,
        .bf16_i(lane_bf16_q[2]),
        .base_i(lane_base_q[2]),
        .code_i(group_q[i][7:0]),
        .bits_i(values_q[2][i]),
        .product_o(product[i])
    );
    logic signed [31:0] rounded;
    logic signed [10:0] level;
    assign rounded = product[i] + 32'sd1048576 - (32'(zero4_q[i]) <<< 18);
    assign level   = 11'(rounded >>> 21);
    always_ff @(posedge clk_i) begin
      zero3_q[i]  <= signed'(group_q[i][19:8]);
      zero4_q[i]  <= zero3_q[i];
      nibble_q[i] <= level < 0 ? 4'd0 : level > 15 ? 4'd15 : level[3:0];
    end
  end

  // Stage 6: byte j joins lanes j and j + 16, in a narrow segment j + 8. Then the pieces.
  logic [127:0] bytes_q;
  logic [2:0][127:0] gathered_q;
  logic [1:0] count_q;

  always_ff @(posedge clk_i) begin
    for (int j = 0; j < 16; ++j) bytes_q[8*j+:8] <= {nibble_q[narrow_q[5]?(j+8)%32 : j+16], nibble_q[j]};
    valid_o <= 1'b0;
    kind_last_o <= kind_last_q[6];
    bytes_o <= narrow_q[6] ? 7'd40 : 7'd64;
    if (valid_q[6]) begin
      for (int i = 0; i < 3; ++i) if (count_q == 2'(i)) gathered_q[i] <= bytes_q;
      count_q <= narrow_q[6] ? '0 : count_q + 1'b1;
      valid_o <= narrow_q[6] || count_q == 2'd3;
    end
    data_o <= {bytes_q, narrow_q[6] ? bytes_q : gathered_q[2], gathered_q[1], gathered_q[0]};
    if (rst_i) {valid_o, count_q} <= '0;
  end

  logic unused;
  assign unused = &{1'b0, unused_first, key_q[2]};
endmodule

`default_nettype wire
