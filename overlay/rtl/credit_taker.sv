`default_nettype none

// The sending end of a channel with credits: counts what the receiver gives and says whether a message may go. A
// receiver that gives more than the counter holds loses the surplus, which is safe.
module credit_taker #(
    parameter int unsigned CountBits = 8
) (
    input wire clk_i,
    input wire rst_i,
    input wire credit_i,
    input wire sent_i,  // only where may_send_o
    output logic may_send_o
);
  logic [CountBits-1:0] credits_q;
  assign may_send_o = credits_q != '0;

  always_ff @(posedge clk_i) begin
    if (credit_i && !sent_i && credits_q != '1) credits_q <= credits_q + 1'b1;
    if (sent_i && !credit_i) credits_q <= credits_q - 1'b1;
    if (rst_i) credits_q <= '0;
  end

`ifndef SYNTHESIS
  assert property (@(posedge clk_i) disable iff (rst_i) sent_i |-> may_send_o)
  else $error("a message without a credit");
`endif
endmodule

`default_nettype wire
