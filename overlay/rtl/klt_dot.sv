`default_nettype none

// A row times a token, Count values a cycle: a chain of DSP blocks, each with its own registers, product plus what
// comes from the one before. Value k arrives k cycles late; the sum of a beat is there 2 + Count cycles after its
// value 0. No adder tree outside of the blocks.
module klt_dot #(
    parameter int unsigned CoefficientBits = 16,
    parameter int unsigned InputBits = 16,
    parameter int unsigned Count = 16
) (
    input  wire                                   clk_i,
    input  wire  [Count-1:0][CoefficientBits-1:0] row_i,
    input  wire  [Count-1:0][      InputBits-1:0] token_i,
    output logic [     31:0]                      sum_o
);
  logic signed [31:0] sum[Count+1];  // of the values before each

  assign sum[0] = '0;
  assign sum_o  = sum[Count];

  for (genvar k = 0; k < Count; ++k) begin : g_value
    logic signed [CoefficientBits-1:0] row_q;
    logic signed [InputBits-1:0] token_q;
    logic signed [CoefficientBits+InputBits-1:0] product_q;

    always_ff @(posedge clk_i) begin
      row_q <= row_i[k];
      token_q <= token_i[k];
      product_q <= row_q * token_q;
      sum[k+1] <= 32'(product_q) + sum[k];
    end
  end
endmodule

`default_nettype wire
