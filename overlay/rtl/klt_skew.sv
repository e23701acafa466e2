`default_nettype none

// Delays value k of a beat by k cycles, as a chain of multipliers takes them.
module klt_skew #(
    parameter int unsigned Width = 16,
    parameter int unsigned Count = 16
) (
    input  wire                         clk_i,
    input  wire  [Count-1:0][Width-1:0] data_i,
    output logic [Count-1:0][Width-1:0] data_o
);
  assign data_o[0] = data_i[0];
  for (genvar k = 1; k < Count; ++k) begin : g_value
    logic [k-1:0][Width-1:0] line_q;
    always_ff @(posedge clk_i) line_q <= (k * Width)'({line_q, data_i[k]});
    assign data_o[k] = line_q[k-1];
  end
endmodule

`default_nettype wire
