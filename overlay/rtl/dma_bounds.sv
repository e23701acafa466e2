`default_nettype none

// Do the places that a descriptor names lie inside their buffers? The first fault as csim gives it
// (hls/csim/bounds.h): a record (or a copy's source), then K (or a copy's target), then V. Two cycles.
module dma_bounds
  import speckv_pkg::*;
(
    input  wire         clk_i,
    input  wire  [63:0] records_bytes_i,
    input  wire  [63:0] blocks_bytes_i,
    input  wire  [63:0] record_offset_i,
    input  wire  [63:0] key_offset_i,
    input  wire  [63:0] value_offset_i,
    input  wire  [31:0] record_bytes_i,
    input  wire  [31:0] key_bytes_i,      // 0: there is none, wherever its offset points
    input  wire  [31:0] value_bytes_i,
    output logic [15:0] status_o,
    output logic [31:0] value_o,
    output logic [31:0] limit_o
);
  localparam int unsigned Spans = 3;
  logic [Spans-1:0][63:0] offset, room, room_q;
  logic [Spans-1:0][31:0] bytes;
  logic [Spans-1:0] fits, fits_q, fault;

  assign offset = {value_offset_i, key_offset_i, record_offset_i};
  assign bytes  = {value_bytes_i, key_bytes_i, record_bytes_i};

  // No sum that could wrap: how far from its base a span of these bytes may begin.
  always_comb begin
    for (int unsigned i = 0; i < Spans; ++i) begin
      {fits[i], room[i]} = {1'b1, i == 0 ? records_bytes_i : blocks_bytes_i} - 65'(bytes[i]);
      fault[i] = bytes[i] != '0 && (!fits_q[i] || offset[i] > room_q[i]);
    end
  end

  logic [1:0] first;
  assign first = fault[0] ? 2'd0 : fault[1] ? 2'd1 : 2'd2;

  always_ff @(posedge clk_i) begin
    fits_q   <= fits;
    room_q   <= room;
    status_o <= fault != '0 ? StatusOutOfRange : StatusOk;
    value_o  <= offset[first][31:0];
    limit_o  <= fits_q[first] ? room_q[first][31:0] : '0;
  end
endmodule

`default_nettype wire
