`default_nettype none

// Payload lines on their way into the ring: as they are, no more than the block has beats.
module payload_store #(
    parameter int unsigned LineBits = 11
) (
    input  wire               clk_i,
    input  wire               rst_i,
    input  wire               begin_i,
    input  wire  [      19:0] beats_i,
    input  wire               runs_i,
    input  wire               line_valid_i,
    input  wire               line_empty_i,
    input  wire               line_last_i,
    input  wire               line_short_i,
    input  wire  [      25:0] line_beats_i,
    input  wire  [     511:0] line_i,
    output logic              line_ready_o,
    input  wire               room_i,
    output logic              write_o,
    output logic [     511:0] line_o,
    output logic              ended_valid_o,
    output logic [LineBits:0] ended_lines_o,
    output logic              ended_short_o,
    output logic [      25:0] ended_beats_o
);
  logic [LineBits:0] lines_q;
  logic [19:0] left_q;
  logic fire, write;
  assign line_ready_o = room_i;
  assign fire = line_valid_i && line_ready_o;
  assign write = fire && !line_empty_i && left_q != '0;

  always_ff @(posedge clk_i) begin
    write_o <= write && !rst_i;
    line_o <= line_i;
    ended_valid_o <= fire && line_last_i && !rst_i;
    ended_lines_o <= lines_q + (LineBits + 1)'(write);
    ended_short_o <= line_short_i;
    ended_beats_o <= line_beats_i;
    if (begin_i) begin
      lines_q <= '0;
      left_q  <= beats_i;
    end
    if (write) begin
      lines_q <= lines_q + 1'b1;
      left_q  <= left_q - 20'd1;
    end
  end
  logic unused;
  assign unused = &{1'b0, runs_i};
endmodule

`default_nettype wire
