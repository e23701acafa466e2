`default_nettype none

// Cuts runs of whole lines into AXI4 bursts: none crosses a 4 KiB boundary, so none is longer than 64 beats of 64
// bytes. A burst a cycle. `last_o`: the run's last burst; `tag_o` is the run's own.
module axi_burst #(
    parameter int unsigned TagWidth = 1
) (
    input  wire                 clk_i,
    input  wire                 rst_i,
    input  wire  [        57:0] run_line_i,   // address / 64
    input  wire  [        25:0] run_beats_i,  // not 0
    input  wire  [TagWidth-1:0] run_tag_i,
    input  wire                 run_valid_i,
    output logic                run_ready_o,
    output logic [        57:0] line_o,
    output logic [         6:0] beats_o,      // 1..64
    output logic                last_o,
    output logic [TagWidth-1:0] tag_o,
    output logic                valid_o,
    input  wire                 ready_i
);
  logic [57:0] line_q;
  logic [25:0] left_q;

  logic [ 6:0] to_boundary;
  assign to_boundary = 7'd64 - 7'(line_q[5:0]);

  assign last_o = left_q <= 26'(to_boundary);
  assign beats_o = last_o ? left_q[6:0] : to_boundary;
  assign line_o = line_q;
  assign run_ready_o = !valid_o || (ready_i && last_o);

  always_ff @(posedge clk_i) begin
    if (run_ready_o) begin
      line_q  <= run_line_i;
      left_q  <= run_beats_i;
      tag_o   <= run_tag_i;
      valid_o <= run_valid_i;
    end else if (ready_i) begin
      line_q <= line_q + 58'(to_boundary);
      left_q <= left_q - 26'(to_boundary);
    end
    if (rst_i) valid_o <= 1'b0;
  end
endmodule

`default_nettype wire
