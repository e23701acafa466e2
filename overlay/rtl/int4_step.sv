`default_nettype none

// The step T of an int4 group, a fifteenth of its range in units of the kind, from its extremes: four cycles.
// The kind's largest value has 24 bits in these units. Extremes as int4_extremes keeps them.
module int4_step (
    input  wire         clk_i,
    input  wire         bf16_i,
    input  wire  [ 7:0] field_i,  // exponent of the kind's largest value
    input  wire  [15:0] least_i,
    input  wire  [15:0] most_i,
    output logic [22:0] step_o
);
  // First: how far each is shifted, right to drop bits and left to add zeros.
  logic [1:0][15:0] bits;
  logic [1:0][ 7:0] field;
  logic [1:0][10:0] mantissa, mantissa_q;
  logic signed [1:0][9:0] distance;
  logic [1:0][4:0] right, right_q;
  logic [1:0][3:0] up, up_q;
  logic [1:0] sign_q;

  always_comb
    for (int i = 0; i < 2; ++i) begin
      bits[i] = i == 0 ? least_i : most_i;
      bits[i] ^= bits[i][15] ? 16'h7FFF : 16'h0;
      field[i] = bf16_i ? bits[i][14:7] : 8'(bits[i][14:10]);
      mantissa[i] = bf16_i ? {3'b0, |field[i], bits[i][6:0]} : {|field[i], bits[i][9:0]};
      if (field[i] == '0) field[i] = 8'd1;
      distance[i] = 10'(field[i]) - 10'(field_i) + (bf16_i ? 10'd16 : 10'd13);
      right[i] = $signed(distance[i]) >= 7 ? 5'd0 : $signed(distance[i]) <= -16 ? 5'd23 : 5'(10'd7 - distance[i]);
      up[i] = $signed(distance[i]) > 7 ? 4'(distance[i] - 10'd7) : 4'd0;
    end

  logic [1:0][24:0] magnitude_q;
  logic [1:0] negative_q;
  logic [25:0] range, range_q, rough;
  logic [21:0] reach[2];

  always_ff @(posedge clk_i) begin
    mantissa_q <= mantissa;
    right_q <= right;
    up_q <= up;
    sign_q <= {bits[1][15], bits[0][15]};
    for (int i = 0; i < 2; ++i) magnitude_q[i] <= (((25'(mantissa_q[i]) << 8 >> right_q[i]) + 25'd1) >> 1) << up_q[i];
    negative_q <= sign_q;
    range_q <= range;
    step_o <= 23'((rough + 26'd8) >> 4);
  end

  // A step also reaches a sixteenth of either magnitude, since z has a range too.
  always_comb begin
    range = (negative_q[0] ? 26'(magnitude_q[0]) : -26'(magnitude_q[0])) +
        (negative_q[1] ? -26'(magnitude_q[1]) : 26'(magnitude_q[1]));
    for (int i = 0; i < 2; ++i) begin
      reach[i] = 22'((26'(magnitude_q[i]) + 26'd15) >> 4);
      if (range < 26'(reach[i])) range = 26'(reach[i]);
    end
    rough = range_q + (range_q >> 4) + (range_q >> 8) + (range_q >> 12) + (range_q >> 16);
  end
endmodule

`default_nettype wire
