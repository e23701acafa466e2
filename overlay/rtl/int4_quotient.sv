`default_nettype none

// A value over its group's step, in eighths and with 18 more bits: two cycles, of one shifter and one multiplier.
// Below 2^17 in magnitude before it is multiplied, for every value that is in the group.
module int4_quotient (
    input  wire                clk_i,
    input  wire                bf16_i,
    input  wire signed  [ 9:0] base_i,    // shift of codes 0 to 63: see int4_scaled
    input  wire         [ 7:0] code_i,
    input  wire         [15:0] bits_i,
    output logic signed [31:0] product_o
);
  // round(2^18 / s)
  typedef logic [63:0][18:0] table_t;
  function automatic table_t make_table();
    make_table[0] = '0;
    for (int s = 1; s < 64; ++s) make_table[s] = 19'((262144 + s / 2) / s);
  endfunction
  localparam table_t Reciprocal = make_table();

  logic signed [17:0] y, y_q;
  logic [18:0] reciprocal_q;

  int4_scaled i_scaled (
      .bf16_i,
      .bits_i,
      .shift_i(base_i + (code_i[7:6] == '0 ? 10'sd0 : signed'({7'b0, code_i[7:5] - 3'd1}))),
      .y_o(y)
  );

  always_ff @(posedge clk_i) begin
    y_q <= y;
    reciprocal_q <= Reciprocal[code_i[7:5]=='0?{1'b0, code_i[4:0]} : {1'b1, code_i[4:0]}];
    product_o <= 32'(y_q * signed'({1'b0, reciprocal_q}));
  end
endmodule

`default_nettype wire
