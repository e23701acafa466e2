`default_nettype none

// For each |q| of 0 to 127 the magnitude |q| * Mm * 2**(Em - bias - b) / 127, rounded once to nearest, as bits of the
// type; Em, Mm from the largest magnitude of a kind. 127 is odd: there are no ties. One entry a cycle, K's then V's of
// each record that is told; `built_o` with the last.
module int8_table (
    input  wire         clk_i,
    input  wire         rst_i,
    input  wire         valid_i,
    input  wire         bf16_i,
    input  wire  [31:0] largest_i,  // of K, of V
    output logic        write_o,
    output logic [ 7:0] index_o,    // kind, |q|
    output logic [14:0] entry_o,
    output logic        built_o
);
  logic told_valid, bf16, take, busy_q, bf16_q;
  logic [31:0] largest;
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width(33),
      .Depth(4)
  ) i_told (
      .clk_i,
      .rst_i,
      .data_i ({bf16_i, largest_i}),
      .valid_i(valid_i),
      .ready_o(),
      .data_o ({bf16, largest}),
      .valid_o(told_valid),
      .ready_i(take),
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  // 1: q times the mantissa, by adding it up.
  logic [ 7:0] index1_q;
  logic [17:0] n1_q;
  logic [15:0] value_largest_q;
  logic [10:0] mantissa_q;
  logic [ 7:0] exponent_q;
  function automatic logic [18:0] parts(input logic wide, input logic [14:0] bits);
    logic [7:0] field;
    field = wide ? bits[14:7] : {3'd0, bits[14:10]};
    return {field == '0 ? 8'd1 : field, wide ? {3'd0, field != '0, bits[6:0]} : {field != '0, bits[9:0]}};
  endfunction
  assign take = told_valid && (!busy_q || &index1_q);
  always_ff @(posedge clk_i) begin
    index1_q <= index1_q + 1'b1;
    n1_q <= n1_q + 18'(mantissa_q);
    if (busy_q && index1_q == 8'd127) begin
      {exponent_q, mantissa_q} <= parts(bf16_q, value_largest_q[14:0]);
      n1_q <= '0;
    end
    if (&index1_q) busy_q <= 1'b0;
    if (take) begin
      busy_q <= 1'b1;
      bf16_q <= bf16;
      {exponent_q, mantissa_q} <= parts(bf16, largest[14:0]);
      value_largest_q <= largest[31:16];
      index1_q <= '0;
      n1_q <= '0;
    end
    if (rst_i) busy_q <= 1'b0;
  end

  // 2: how many more bits the quotient needs: up to a full mantissa, or to the last exponent.
  logic [5:2] valid_q;
  logic [5:2] bf_q;
  logic [5:2][7:0] index_q, exponent2_q;
  logic [17:0] n2_q, x3_q;
  logic [7:1] less2_q;
  logic [24:0] full;
  logic [2:0] up;
  logic [3:3][2:0] up_q;
  assign full = bf16_q ? 25'd127 << 7 : 25'd127 << 10;
  always_comb begin
    up = '0;
    for (int s = 1; s < 8; ++s) up += 3'(less2_q[s]);
  end
  // 3: n << up has 18 bits. 4: divided by 127 digit by digit to the base 128, which leaves 1. 5: rounded.
  logic [10:0] quotient4_q, quotient;
  logic [8:0] digits;
  logic [6:0] rest4_q;
  logic [7:0] field4_q;
  logic zero4_q;
  assign digits   = 9'(x3_q[6:0]) + 9'(x3_q[13:7]) + 9'(x3_q[17:14]);
  assign quotient = {x3_q[17:14], x3_q[13:7]} + 11'(x3_q[17:14]);
  logic [11:0] rounded;
  assign rounded = 12'(quotient4_q) + 12'(rest4_q > 7'd63);
  always_ff @(posedge clk_i) begin
    valid_q <= {valid_q[4:2], busy_q} & {4{~rst_i}};
    bf_q <= {bf_q[4:2], bf16_q};
    index_q <= {index_q[4:2], index1_q};
    exponent2_q <= {exponent2_q[4:2], exponent_q};

    n2_q <= n1_q;
    for (int s = 1; s < 8; ++s) less2_q[s] <= 25'(n1_q) << (s - 1) < full && 8'(s) < exponent_q;

    x3_q <= n2_q << up;
    up_q[3] <= up;

    quotient4_q <= quotient + 11'(digits >= 9'd127) + 11'(digits >= 9'd254);
    rest4_q <= 7'(digits >= 9'd254 ? digits - 9'd254 : digits >= 9'd127 ? digits - 9'd127 : digits);
    field4_q <= exponent2_q[3] - 8'(up_q[3]) - 8'd1;
    zero4_q <= x3_q == '0;

    if (zero4_q) entry_o <= '0;
    else entry_o <= bf_q[4] ? {field4_q, 7'd0} + 15'(rounded) : {field4_q[4:0], 10'd0} + 15'(rounded);
    write_o <= valid_q[4] && !rst_i;
    index_o <= index_q[4];
    built_o <= valid_q[4] && &index_q[4] && !rst_i;
  end
  logic unused;
  assign unused = &{1'b0, valid_q[5], bf_q[5], index_q[5], exponent2_q[5:4], value_largest_q[15], largest[15]};
endmodule

`default_nettype wire
