`default_nettype none

// floor(127 * 2^20 / mantissa) of a value's magnitude bits, a bit a cycle: 27 cycles from start_i to done_o. 1 stands
// for a mantissa of zero.
module int8_reciprocal (
    input  wire         clk_i,
    input  wire         rst_i,
    input  wire         start_i,
    input  wire         bf16_i,
    input  wire  [14:0] magnitude_i,
    output logic        done_o,       // and quotient_o stands until the next start
    output logic [26:0] quotient_o
);
  logic [10:0] divisor, divisor_q;
  logic [11:0] rest;
  logic [10:0] rest_q;  // below the divisor
  logic [26:0] dividend_q;
  logic [4:0] left_q;
  logic fits;

  always_comb begin
    divisor = bf16_i ? {3'b0, |magnitude_i[14:7], magnitude_i[6:0]} : {|magnitude_i[14:10], magnitude_i[9:0]};
    rest = {rest_q, dividend_q[26]};
    fits = rest >= 12'(divisor_q);
  end

  assign done_o = left_q == '0;

  always_ff @(posedge clk_i) begin
    if (left_q != '0) begin
      rest_q <= 11'(fits ? rest - 12'(divisor_q) : rest);
      dividend_q <= dividend_q << 1;
      quotient_o <= {quotient_o[25:0], fits};
      left_q <= left_q - 1'b1;
    end
    if (start_i) begin
      divisor_q <= divisor == '0 ? 11'd1 : divisor;
      dividend_q <= 27'd127 << 20;
      rest_q <= '0;
      left_q <= 5'd27;
    end
    if (rst_i) left_q <= '0;
  end
endmodule

`default_nettype wire
