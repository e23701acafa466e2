`default_nettype none

// Chooses one of the requests, in turn: the next after the one chosen last. Nothing moves while not enabled.
module round_robin #(
    parameter int unsigned Count = 16
) (
    input  wire              clk_i,
    input  wire              rst_i,
    input  wire  [Count-1:0] request_i,
    input  wire              enable_i,
    output logic [Count-1:0] grant_o     // one hot, or zero
);
  logic [Count-1:0] later_q;  // those after the one chosen last
  logic [Count-1:0] later;
  logic [Count-1:0] from;

  assign later = request_i & later_q;
  assign from  = (later != '0) ? later : request_i;

  always_comb begin
    grant_o = '0;
    if (enable_i) grant_o = from & (~from + 1'b1);
  end

  always_ff @(posedge clk_i) begin
    if (grant_o != '0) later_q <= ~(grant_o | (grant_o - 1'b1));
    if (rst_i) later_q <= '0;
  end
endmodule

`default_nettype wire
