`default_nettype none

// round(x * 2^-unit) of an fp16 or bf16 value, halves away from zero: one right shift, of a mantissa that has Point
// bits (8, bf16 11) below it. shift_i: the exponent field at which just these fall away.
module int4_scaled (
    input  wire                bf16_i,
    input  wire         [15:0] bits_i,
    input  wire signed  [ 9:0] shift_i,
    output logic signed [17:0] y_o
);
  logic [7:0] field;
  logic [10:0] mantissa;
  logic signed [10:0] distance;
  logic [4:0] right;  // 0 to 23
  logic [18:0] wide;
  logic [17:0] magnitude;

  always_comb begin
    field = bf16_i ? bits_i[14:7] : 8'(bits_i[14:10]);
    mantissa = bf16_i ? {3'b0, |field, bits_i[6:0]} : {|field, bits_i[9:0]};
    if (field == '0) field = 8'd1;
    distance = 11'(shift_i) - signed'({3'b0, field});
    right = distance < 1 ? 5'd0 : distance > 24 ? 5'd23 : 5'(distance - 11'sd1);
    wide = bf16_i ? 19'(mantissa) << 11 : 19'(mantissa) << 8;
    magnitude = 18'(((wide >> right) + 19'd1) >> 1);
    y_o = bits_i[15] ? -magnitude : magnitude;
  end
endmodule

`default_nettype wire
