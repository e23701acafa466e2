`default_nettype none

// A receiver that gives credits and a sender that keeps to them, with any timing: the receiver never holds more than it
// has places, and no message finds it full.
module credits_proof (
    input wire clk_i,
    input wire rst_i,
    input wire send_i,
    input wire free_i
);
  localparam int Places = 5;
  logic [2:0] held_q;
  logic credit, may_send, over_run, sent, freed;
  assign sent  = send_i && may_send;
  assign freed = free_i && held_q != '0;

  credit_giver #(
      .Credits(Places)
  ) giver (
      .clk_i,
      .rst_i,
      .taken_i(sent),
      .freed_i({1'b0, freed}),
      .credit_o(credit),
      .over_run_o(over_run)
  );
  credit_taker #(
      .CountBits(3)
  ) taker (
      .clk_i,
      .rst_i,
      .credit_i(credit),
      .sent_i(sent),
      .may_send_o(may_send)
  );
  always_ff @(posedge clk_i) begin
    held_q  <= held_q + 3'(sent) - 3'(freed);
    if (rst_i) held_q <= '0;
  end

  always_comb
    if (!rst_i) begin
      assert (!over_run);
      assert (held_q <= Places);
      // No credit is lost or made: what the sender has, what is owed and what is held is all there is.
      assert (6'(giver.owed_q) + 6'(giver.given_q) + 6'(held_q) == Places);
      assert (taker.credits_q == giver.given_q);
    end
endmodule

`default_nettype wire
