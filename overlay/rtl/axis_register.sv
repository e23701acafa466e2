`default_nettype none

// A register on a ready/valid stream that keeps full throughput (skid buffer): neither valid nor ready nor data
// passes combinationally. One cycle of latency; while stalled, valid and data hold.
module axis_register #(
    parameter int unsigned Width = 512
) (
    input  wire              clk_i,
    input  wire              rst_i,
    input  wire  [Width-1:0] data_i,
    input  wire              valid_i,
    output logic             ready_o,
    output logic [Width-1:0] data_o,
    output logic             valid_o,
    input  wire              ready_i
);
  logic [Width-1:0] skid_q;
  logic skid_valid_q;

  assign ready_o = ~skid_valid_q;

  always_ff @(posedge clk_i) begin
    if (ready_i || !valid_o) begin
      valid_o <= skid_valid_q | valid_i;
      data_o <= skid_valid_q ? skid_q : data_i;
      skid_valid_q <= 1'b0;
    end else if (valid_i && ready_o) begin
      skid_q <= data_i;
      skid_valid_q <= 1'b1;
    end
    if (rst_i) begin
      valid_o <= 1'b0;
      skid_valid_q <= 1'b0;
    end
  end
endmodule

`default_nettype wire
