`default_nettype none

// The code of an int4 group's step and its zero point z, five cycles after the step. least_i comes with the group's
// extremes, four cycles before the step.
module int4_code (
    input  wire                clk_i,
    input  wire                bf16_i,
    input  wire         [ 4:0] k_i,      // bits that the step has below the kind's exponent, 4 to 16
    input  wire signed  [ 9:0] base_i,   // shift of codes 0 to 63
    input  wire         [15:0] least_i,
    input  wire         [22:0] step_i,
    output logic        [ 7:0] code_o,
    output logic signed [11:0] z_o
);
  logic [6:1][15:0] least_q;
  always_ff @(posedge clk_i) least_q <= {least_q[5:1], least_i};

  // The step to six significant bits.
  logic [11:0] v, v_q;
  logic [22:0] rounded;
  logic [ 2:0] e;
  logic [ 7:0] code;
  always_comb begin
    rounded = (step_i + (23'd1 << (k_i - 5'd1))) >> k_i;
    v = rounded == '0 ? 12'd1 : rounded[11:0];
    e = '0;
    for (int i = 0; i < 6; ++i) if (v_q[6+i]) e = 3'(i + 1);
    code = 8'({e, 5'b0} + 8'((v_q + ((12'd1 << e) >> 1)) >> e));
  end

  logic [3:1][7:0] code_q;
  always_ff @(posedge clk_i) begin
    v_q <= v;
    code_q <= {code_q[2:1], code};
    code_o <= code_q[3];
  end

  logic signed [31:0] product;
  int4_quotient i_quotient (
      .clk_i,
      .bf16_i,
      .base_i,
      .code_i(code_q[1]),
      .bits_i(least_q[6] ^ (least_q[6][15] ? 16'h7FFF : 16'h0)),
      .product_o(product)
  );

  logic signed [13:0] z;
  assign z = 14'((product + 32'sd131072) >>> 18);
  always_ff @(posedge clk_i) z_o <= z < -14'sd2048 ? -12'sd2048 : z > 14'sd2047 ? 12'sd2047 : 12'(z);
endmodule

`default_nettype wire
