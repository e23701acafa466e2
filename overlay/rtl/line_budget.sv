`default_nettype none

// Lines that may be asked for: `rate_i` / 256 a cycle, and what is not used is kept up to `burst_lines_i`. The last one
// asked for may overdraw, so that one larger than a burst still comes. A rate of zero is no limit.
module line_budget #(
    parameter  int unsigned LineBits = 16,  // of burst and of one asked for
    localparam int unsigned Fraction = 8
) (
    input  wire                 clk_i,
    input  wire                 rst_i,
    input  wire  [        15:0] rate_i,
    input  wire  [LineBits-1:0] burst_lines_i,
    input  wire                 take_i,         // only where may_take_o
    input  wire  [LineBits-1:0] lines_i,
    output logic                may_take_o
);
  localparam int unsigned Bits = LineBits + Fraction + 3;
  logic signed [Bits-1:0] left_q, full, more, filled, spent;
  assign full = signed'(Bits'(burst_lines_i) << Fraction);
  assign more = left_q + signed'(Bits'(rate_i));
  assign filled = more > full ? full : more;
  assign spent = signed'(Bits'(lines_i) << Fraction);
  assign may_take_o = rate_i == '0 || left_q > 0;

  always_ff @(posedge clk_i) begin
    if (rst_i || rate_i == '0) left_q <= full;
    else left_q <= take_i ? filled - spent : filled;
  end
endmodule

`default_nettype wire
