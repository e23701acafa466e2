`default_nettype none

// Stages 1 to 8 of int8_delta_rle: 32 values a cycle to 8 bits with a sign, by the reciprocal of the kind's largest.
//   1-4  input buffering: the beat, its fields, distance of exponents, operands
//   5-8  scaling and quantisation: multiply (5, 6), round and shift, saturate and sign
module int8_quantise (
    input  wire               clk_i,
    input  wire               rst_i,
    input  wire               valid_i,
    input  wire               first_i,       // of its kind
    input  wire               last_i,
    input  wire  [511:0]      beat_i,
    input  wire               bf16_i,
    input  wire  [  7:0]      exponent_i,    // of the kind's largest
    input  wire  [ 26:0]      reciprocal_i,  // floor(127 * 2^20 / its mantissa)
    output logic              valid_o,
    output logic              first_o,
    output logic              last_o,
    output logic [ 31:0][7:0] level_o
);
  logic [8:1] valid_q, first_q, last_q;
  logic bf16_q;
  logic [2:1][7:0] exponent_q;
  logic [4:1][26:0] reciprocal_q;
  logic [511:0] beat_q;
  logic [31:0][7:0] field2_q;
  logic [31:0][10:0] mantissa2_q, mantissa3_q, mantissa4_q;
  logic [7:2][31:0] sign_q;
  logic [7:3][31:0] tiny_q;  // cannot reach a half
  logic [6:3][31:0][3:0] near_q;
  logic [31:0][27:0] product5_q, product6_q;  // a mantissa at most the largest's, or twice: below 2^28
  logic [31:0][8:0] rounded7_q;

  assign {valid_o, first_o, last_o} = {valid_q[8], first_q[8], last_q[8]};

  always_ff @(posedge clk_i) begin
    valid_q <= {valid_q[7:1], valid_i} & {8{~rst_i}};
    first_q <= {first_q[7:1], first_i};
    last_q <= {last_q[7:1], last_i};
    bf16_q <= bf16_i;
    exponent_q <= {exponent_q[1], exponent_i};
    reciprocal_q <= {reciprocal_q[3:1], reciprocal_i};
    beat_q <= beat_i;
    sign_q[7:3] <= sign_q[6:2];
    tiny_q[7:4] <= tiny_q[6:3];
    near_q[6:4] <= near_q[5:3];
    mantissa3_q <= mantissa2_q;
    mantissa4_q <= mantissa3_q;
    product6_q <= product5_q;
    for (int i = 0; i < 32; ++i) begin
      automatic logic [14:0] magnitude = beat_q[16*i+:15];
      automatic logic [ 7:0] field = bf16_q ? magnitude[14:7] : 8'(magnitude[14:10]);
      automatic logic [ 7:0] distance = exponent_q[2] - field2_q[i];
      field2_q[i] <= field == '0 ? 8'd1 : field;
      mantissa2_q[i] <= bf16_q ? {3'b0, |field, magnitude[6:0]} : {|field, magnitude[9:0]};
      sign_q[2][i] <= beat_q[16*i+15];
      tiny_q[3][i] <= distance > 8'd8;
      near_q[3][i] <= distance[3:0];
      product5_q[i] <= 28'(mantissa4_q[i] * reciprocal_q[4]);
      rounded7_q[i] <= 9'(((product6_q[i] >> 19 >> near_q[6][i]) + 28'd1) >> 1);
      if (tiny_q[7][i]) level_o[i] <= '0;
      else if (rounded7_q[i] > 9'd127) level_o[i] <= sign_q[7][i] ? 8'd129 : 8'd127;
      else level_o[i] <= sign_q[7][i] ? -8'(rounded7_q[i]) : 8'(rounded7_q[i]);
    end
  end
endmodule

`default_nettype wire
