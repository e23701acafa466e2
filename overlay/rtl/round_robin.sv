`default_nettype none

// Picks one of several requests, each in its turn: after `taken_i` the search begins behind the one picked, so a
// request that stays up is picked after at most Requests - 1 others.
module round_robin #(
    parameter  int unsigned Requests  = 16,
    localparam int unsigned IndexBits = $clog2(Requests)
) (
    input  wire                  clk_i,
    input  wire                  rst_i,
    input  wire  [ Requests-1:0] request_i,
    input  wire                  taken_i,
    output logic                 valid_o,
    output logic [IndexBits-1:0] index_o
);
  logic [Requests-1:0] behind_q;  // those after the one picked last
  logic [Requests-1:0] preferred;
  assign preferred = |(request_i & behind_q) ? request_i & behind_q : request_i;
  assign valid_o   = |request_i;

  always_comb begin
    index_o = '0;
    for (int unsigned i = Requests; i > 0; i--) if (preferred[i-1]) index_o = IndexBits'(i - 1);
  end

  always_ff @(posedge clk_i) begin
    if (taken_i) for (int unsigned i = 0; i < Requests; i++) behind_q[i] <= i > 32'(index_o);
    if (rst_i) behind_q <= '0;
  end
endmodule

`default_nettype wire
