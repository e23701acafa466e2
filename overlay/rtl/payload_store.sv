`default_nettype none

// Payload lines on their way into the ring: as they are, no more than the block has beats; or runs as the values that
// they hold, 32 a line. A record of runs is busy until its last values are stored.
module payload_store
  import speckv_pkg::*;
#(
    parameter int unsigned LineBits = 11
) (
    input  wire                              clk_i,
    input  wire                              rst_i,
    input  wire                              begin_i,
    input  wire                 [      19:0] beats_i,
    input  wire                              runs_i,
    output logic                             busy_o,
    // Of the record, from the cycle after begin_i.
    input  wire record_header_t              header_i,
    input  wire                 [      19:0] key_beats_i,
    input  wire                 [      19:0] value_beats_i,
    input  wire                              line_valid_i,
    input  wire                              line_empty_i,
    input  wire                              line_last_i,
    input  wire                              line_short_i,
    input  wire                 [      25:0] line_beats_i,
    input  wire                 [     511:0] line_i,
    output logic                             line_ready_o,
    input  wire                              room_i,
    output logic                             write_o,
    output logic                [     511:0] line_o,
    output logic                             ended_valid_o,
    output logic                [LineBits:0] ended_lines_o,
    output logic                             ended_short_o,
    output logic                [      25:0] ended_beats_o,
    output logic                             runs_bad_o,
    output logic                [      31:0] runs_value_o,
    output logic                [      31:0] runs_limit_o
);
  logic [LineBits:0] lines_q;
  logic [19:0] left_q;
  logic fire, write, runs_q, runs_ready, values_valid, runs_ended;
  logic [255:0] values;
  assign line_ready_o = runs_q ? runs_ready : room_i;
  assign fire = line_valid_i && line_ready_o;
  assign write = runs_q ? values_valid : fire && !line_empty_i && left_q != '0;
  assign busy_o = runs_q;

  int8_run_decoder i_runs (
      .clk_i,
      .rst_i,
      .begin_i(begin_i && runs_i),
      .header_i,
      .key_beats_i,
      .value_beats_i,
      .line_valid_i(line_valid_i && runs_q),
      .line_empty_i,
      .line_last_i,
      .line_i,
      .line_ready_o(runs_ready),
      .room_i,
      .values_valid_o(values_valid),
      .values_o(values),
      .ended_o(runs_ended),
      .bad_o(runs_bad_o),
      .value_o(runs_value_o),
      .limit_o(runs_limit_o)
  );

  always_ff @(posedge clk_i) begin
    write_o <= write && !rst_i;
    line_o <= runs_q ? 512'(values) : line_i;
    ended_valid_o <= !rst_i && (runs_q ? runs_ended : fire && line_last_i);
    ended_lines_o <= lines_q + (LineBits + 1)'(write);
    if (fire && line_last_i) {ended_short_o, ended_beats_o} <= {line_short_i, line_beats_i};
    if (write) begin
      lines_q <= lines_q + 1'b1;
      left_q  <= left_q - 20'd1;
    end
    if (runs_ended) runs_q <= 1'b0;
    if (begin_i) begin
      lines_q <= '0;
      left_q  <= beats_i;
      runs_q  <= runs_i;
    end
    if (rst_i) runs_q <= 1'b0;
  end
endmodule

`default_nettype wire
