`default_nettype none

// The read side of the engine: descriptors (AXI id 1) and what they name (id 0) over one channel. Nothing is asked
// for without room for it, so answers are always taken at once. With count_reads_i it also says how the reads of
// each descriptor went (reads_*: the first bad response, or 0), once its last beat has been handed over.
module dma_read
  import speckv_pkg::*;
#(
    parameter int unsigned BufferBeats = 512
) (
    input  wire                 clk_i,
    input  wire                 rst_i,
    input  wire                 start_i,
    input  wire         [ 57:0] table_line_i,
    input  wire         [ 31:0] count_i,
    input  wire                 stop_i,
    output logic                idle_o,                 // no descriptor is under way or waits
    output descriptor_t         descriptor_o,
    output logic        [  1:0] descriptor_response_o,
    output logic                descriptor_valid_o,
    input  wire                 descriptor_ready_i,
    input  wire         [ 57:0] run_line_i,
    input  wire         [ 25:0] run_beats_i,
    input  wire                 run_final_i,
    input  wire                 run_valid_i,
    output logic                run_ready_o,
    output logic        [511:0] data_o,
    output logic        [  1:0] data_response_o,
    output logic                data_last_o,
    output logic                data_valid_o,
    input  wire                 data_ready_i,
    input  wire                 count_reads_i,
    output logic        [  1:0] reads_response_o,
    output logic                reads_valid_o,
    input  wire                 reads_ready_i,
    output logic                m_axi_arid_o,
    output logic        [ 63:0] m_axi_araddr_o,
    output logic        [  7:0] m_axi_arlen_o,
    output logic        [  2:0] m_axi_arsize_o,
    output logic        [  1:0] m_axi_arburst_o,
    output logic                m_axi_arvalid_o,
    input  wire                 m_axi_arready_i,
    input  wire                 m_axi_rid_i,
    input  wire         [511:0] m_axi_rdata_i,
    input  wire         [  1:0] m_axi_rresp_i,
    input  wire                 m_axi_rlast_i,
    input  wire                 m_axi_rvalid_i,
    output logic                m_axi_rready_o
);
  localparam int unsigned Words = 32;  // more than the descriptors that can be under way

  logic [57:0] fetch_line, read_line;
  logic [6:0] fetch_beats, read_beats, ar_beats;
  logic fetch_valid, read_valid, ar_ready;
  assign m_axi_rready_o = 1'b1;
  assign m_axi_arsize_o = 3'd6;
  assign m_axi_arburst_o = 2'b01;
  assign m_axi_arlen_o = 8'(ar_beats) - 8'd1;
  assign m_axi_araddr_o[5:0] = '0;
  axis_register #(
      .Width(66)
  ) u_ar (
      .clk_i,
      .rst_i,
      .data_i (fetch_valid ? {1'b1, fetch_beats, fetch_line} : {1'b0, read_beats, read_line}),
      .valid_i(fetch_valid || read_valid),
      .ready_o(ar_ready),
      .data_o ({m_axi_arid_o, ar_beats, m_axi_araddr_o[63:6]}),
      .valid_o(m_axi_arvalid_o),
      .ready_i(m_axi_arready_i)
  );

  dma_fetch u_fetch (
      .clk_i,
      .rst_i,
      .start_i,
      .line_i(table_line_i),
      .count_i,
      .stop_i,
      .idle_o,
      .ar_line_o(fetch_line),
      .ar_beats_o(fetch_beats),
      .ar_valid_o(fetch_valid),
      .ar_ready_i(ar_ready),
      .r_data_i(m_axi_rdata_i),
      .r_response_i(m_axi_rresp_i),
      .r_valid_i(m_axi_rvalid_i && m_axi_rid_i),
      .descriptor_o,
      .response_o(descriptor_response_o),
      .valid_o(descriptor_valid_o),
      .ready_i(descriptor_ready_i)
  );

  axi_reader #(
      .Depth(BufferBeats)
  ) u_reader (
      .clk_i,
      .rst_i,
      .run_line_i,
      .run_beats_i,
      .run_final_i,
      .run_valid_i,
      .run_ready_o,
      .ar_line_o(read_line),
      .ar_beats_o(read_beats),
      .ar_valid_o(read_valid),
      .ar_ready_i(ar_ready && !fetch_valid),
      .r_data_i(m_axi_rdata_i),
      .r_response_i(m_axi_rresp_i),
      .r_last_i(m_axi_rlast_i),
      .r_valid_i(m_axi_rvalid_i && !m_axi_rid_i),
      .data_o,
      .data_response_o,
      .data_last_o,
      .data_valid_o,
      .data_ready_i
  );

  logic [1:0] bad_q, bad;
  logic taken, ends, room;
  assign taken = data_valid_o && data_ready_i && count_reads_i;
  assign ends  = taken && data_last_o;
  assign bad   = bad_q != '0 ? bad_q : data_response_o;
  always_ff @(posedge clk_i) begin
    if (taken) bad_q <= data_last_o ? '0 : bad;
    if (rst_i) bad_q <= '0;
  end
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width(2),
      .Depth(Words)
  ) u_words (
      .clk_i,
      .rst_i,
      .data_i (bad),
      .valid_i(ends),
      .ready_o(room),
      .data_o (reads_response_o),
      .valid_o(reads_valid_o),
      .ready_i(reads_ready_i),
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  always_ff @(posedge clk_i) begin
    if (!rst_i && ends) begin
      assert (room)
      else $error("more descriptors read than can be under way");
    end
  end
endmodule

`default_nettype wire
