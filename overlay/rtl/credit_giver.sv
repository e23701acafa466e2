`default_nettype none

// The receiving end of a channel with credits: gives `Credits` of them after reset, one a cycle, and one more for
// every place that becomes free. Credits given, messages held and credits still owed are `Credits` at all times, so a
// sender that keeps to them cannot over-run.
module credit_giver #(
    parameter  int unsigned Credits   = 16,
    localparam int unsigned CountBits = $clog2(Credits + 1)
) (
    input  wire        clk_i,
    input  wire        rst_i,
    input  wire        taken_i,    // a message came in: it uses a credit
    input  wire  [1:0] freed_i,    // places that became free, 0 to 3
    output logic       credit_o,   // one credit for the sender
    output logic       over_run_o  // a message came in without a credit: it is to be dropped
);
  logic [CountBits-1:0] owed_q;
  logic [CountBits-1:0] given_q;  // credits that the sender has
  assign credit_o   = owed_q != '0;
  assign over_run_o = taken_i && given_q == '0;

  always_ff @(posedge clk_i) begin
    owed_q  <= owed_q + CountBits'(freed_i) - CountBits'(credit_o);
    given_q <= given_q + CountBits'(credit_o) - CountBits'(taken_i && !over_run_o);
    if (rst_i) begin
      owed_q  <= CountBits'(Credits);
      given_q <= '0;
    end
  end
endmodule

`default_nettype wire
