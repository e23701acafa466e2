`default_nettype none

// One value of scheme int4: (S << sh) * (8 q + z) * 2**(U - 3), rounded once to nearest, ties to even, at most the
// largest finite value; zero is +0. A value a cycle, `Latency` cycles, nothing to stall.
//
// The product m = S * |8 q + z| has 18 bits; sh and U only move the exponent. m stands at the bottom of 34 bits and is
// shifted up until its first bit is on top (a normal result) or `reach` steps are done (a subnormal one); what is left
// of `reach` is then the exponent field less one, and 0 for subnormals, so both go the same way. reach_i = U - 3 +
// exponent bias + 32, of the kind, at least -8 (less gives the same), at most 300.
module int4_value (
    input  wire               clk_i,
    input  wire               bf16_i,   // changes with a value, as do the others
    input  wire signed [ 9:0] reach_i,
    input  wire        [ 7:0] code_i,
    input  wire        [11:0] z_i,
    input  wire        [ 3:0] q_i,
    output logic       [15:0] value_o
);
  // 1: 8 q + z, the step's mantissa and exponent.
  logic signed [12:0] w_q;
  logic [5:0] s1_q;
  logic signed [9:0] reach1_q;
  logic [2:0] sh;
  assign sh = code_i[7:5] == 3'd0 ? 3'd0 : code_i[7:5] - 3'd1;
  always_ff @(posedge clk_i) begin
    w_q <= {{2{z_i[11]}}, z_i[10:0]} + {6'd0, q_i, 3'd0};
    s1_q <= {code_i[7:5] != 3'd0, code_i[4:0]};
    reach1_q <= reach_i + 10'(sh);
  end

  // 2: sign and magnitude.
  logic [11:0] a_q;
  logic [ 5:0] s2_q;
  logic [ 8:0] reach2_q;
  logic [ 8:2] negative_q;
  always_ff @(posedge clk_i) begin
    a_q <= (w_q[11:0] ^ {12{w_q[12]}}) + 12'(w_q[12]);
    s2_q <= s1_q;
    reach2_q <= reach1_q < 0 ? '0 : reach1_q[8:0];
    negative_q <= {negative_q[7:2], w_q[12]};
  end

  // 3, 4: the product.
  logic [13:0] low_q, middle_q, high_q;
  logic [17:0] m4_q;
  logic [8:0] reach3_q, reach4_q;
  always_ff @(posedge clk_i) begin
    low_q <= 14'(a_q & {12{s2_q[0]}}) + {1'b0, a_q & {12{s2_q[1]}}, 1'b0};
    middle_q <= 14'(a_q & {12{s2_q[2]}}) + {1'b0, a_q & {12{s2_q[3]}}, 1'b0};
    high_q <= 14'(a_q & {12{s2_q[4]}}) + {1'b0, a_q & {12{s2_q[5]}}, 1'b0};
    reach3_q <= reach2_q;
    m4_q <= 18'(low_q) + {2'd0, 16'({middle_q, 2'd0})} + {high_q, 4'd0};
    reach4_q <= reach3_q;
  end

  // 5: zeros above the product's first bit.
  logic [4:0] zeros, zeros5_q;
  logic [17:0] m5_q;
  logic [ 8:0] reach5_q;
  always_comb begin
    zeros = 5'd17;
    for (int i = 1; i < 18; ++i) if (m4_q[i]) zeros = 5'd17 - 5'(i);
  end
  always_ff @(posedge clk_i) begin
    zeros5_q <= zeros;
    m5_q <= m4_q;
    reach5_q <= reach4_q;
  end

  // 6: how far it goes up.
  logic signed [9:0] spare;
  logic [5:0] up6_q;
  logic [8:0] rest6_q;
  logic [17:0] m6_q;
  assign spare = 10'(reach5_q) - 10'(zeros5_q) - 10'd16;
  always_ff @(posedge clk_i) begin
    up6_q <= spare < 0 ? reach5_q[5:0] : 6'(zeros5_q) + 6'd16;
    rest6_q <= spare < 0 ? '0 : spare[8:0];
    m6_q <= m5_q;
  end

  // 7, 8: up.
  logic [33:0] m7_q, m8_q;
  logic [3:0] up7_q;
  logic [8:0] rest7_q, rest8_q;
  logic nonzero7_q, nonzero8_q;
  always_ff @(posedge clk_i) begin
    m7_q <= up6_q[5] ? {m6_q[1:0], 32'd0} : up6_q[4] ? {m6_q, 16'd0} : {16'd0, m6_q};
    up7_q <= up6_q[3:0];
    rest7_q <= rest6_q;
    nonzero7_q <= m6_q != '0;
    m8_q <= m7_q << up7_q;
    rest8_q <= rest7_q;
    nonzero8_q <= nonzero7_q;
  end

  // 9: to the type's mantissa, hidden bit and carry included.
  logic [ 6:0] bf16_q;  // of stages 2 to 8
  logic [11:0] kept9_q;
  logic [ 8:0] rest9_q;
  logic nonzero9_q, half, more;
  logic [10:0] kept;
  logic bf8, bf9_q, negative9_q;
  assign bf8  = bf16_q[6];
  assign kept = bf8 ? {3'd0, m8_q[33:26]} : m8_q[33:23];
  assign half = bf8 ? m8_q[25] : m8_q[22];
  assign more = kept[0] || (|m8_q[21:0]) || (bf8 && |m8_q[24:22]);
  logic bf1_q;
  always_ff @(posedge clk_i) begin
    bf1_q <= bf16_i;
    bf16_q <= {bf16_q[5:0], bf1_q};
    kept9_q <= 12'(kept) + 12'(half && more);
    rest9_q <= rest8_q;
    nonzero9_q <= nonzero8_q;
    bf9_q <= bf8;
    negative9_q <= negative_q[8] && nonzero8_q;
  end

  // 10: exponent. 11: largest finite value at most.
  logic [8:0] field10_q;
  logic [9:0] mantissa10_q;
  logic bf10_q, negative10_q, over;
  assign over = bf10_q ? field10_q[8] || (&field10_q[7:0]) : (|field10_q[8:5]) || (&field10_q[4:0]);
  always_ff @(posedge clk_i) begin
    field10_q <= nonzero9_q ? rest9_q + 9'(bf9_q ? kept9_q[8:7] : kept9_q[11:10]) : '0;
    mantissa10_q <= kept9_q[9:0];
    bf10_q <= bf9_q;
    negative10_q <= negative9_q;
    value_o[15] <= negative10_q;
    if (bf10_q) value_o[14:0] <= over ? 15'h7F7F : {field10_q[7:0], mantissa10_q[6:0]};
    else value_o[14:0] <= over ? 15'h7BFF : {field10_q[4:0], mantissa10_q};
  end
endmodule

`default_nettype wire
