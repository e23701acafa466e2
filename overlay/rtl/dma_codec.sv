`default_nettype none

// dma_engine with both codecs: tables of descriptors between one AXI4 port and memory. See dma_engine for the jobs.
module dma_codec
  import speckv_pkg::*;
#(
    parameter int unsigned MaxBlockBytes = 131072,
    parameter int unsigned BufferBeats   = 512
) (
    input  wire                       clk_i,
    input  wire                       rst_i,
    input  wire  [ 8*DmaJobBytes-1:0] job_tdata_i,
    input  wire                       job_tvalid_i,
    output logic                      job_tready_o,
    output logic [8*DmaDoneBytes-1:0] done_tdata_o,
    output logic                      done_tvalid_o,
    input  wire                       done_tready_i,
    input  wire                       cancel_i,
    output logic                      m_axi_arid_o,
    output logic [              63:0] m_axi_araddr_o,
    output logic [               7:0] m_axi_arlen_o,
    output logic [               2:0] m_axi_arsize_o,
    output logic [               1:0] m_axi_arburst_o,
    output logic                      m_axi_arvalid_o,
    input  wire                       m_axi_arready_i,
    input  wire                       m_axi_rid_i,
    input  wire  [             511:0] m_axi_rdata_i,
    input  wire  [               1:0] m_axi_rresp_i,
    input  wire                       m_axi_rlast_i,
    input  wire                       m_axi_rvalid_i,
    output logic                      m_axi_rready_o,
    output logic                      m_axi_awid_o,
    output logic [              63:0] m_axi_awaddr_o,
    output logic [               7:0] m_axi_awlen_o,
    output logic [               2:0] m_axi_awsize_o,
    output logic [               1:0] m_axi_awburst_o,
    output logic                      m_axi_awvalid_o,
    input  wire                       m_axi_awready_i,
    output logic [             511:0] m_axi_wdata_o,
    output logic [              63:0] m_axi_wstrb_o,
    output logic                      m_axi_wlast_o,
    output logic                      m_axi_wvalid_o,
    input  wire                       m_axi_wready_i,
    input  wire                       m_axi_bid_i,
    input  wire  [               1:0] m_axi_bresp_i,
    input  wire                       m_axi_bvalid_i,
    output logic                      m_axi_bready_o
);
  // A run uses one of the codecs, which is idle again before the run is reported.
  logic compress;
  logic [511:0] descriptor, source, target, record, block;
  logic descriptor_valid, descriptor_ready, source_last, source_valid, source_ready;
  logic target_last, target_valid, target_ready, completion_valid, completion_ready;
  logic record_last, record_valid, block_last, block_valid;
  logic [127:0] completion, compressed, decompressed;
  logic compressed_valid, decompressed_valid;
  logic compress_descriptor_ready, decompress_descriptor_ready, compress_source_ready, decompress_source_ready;

  assign descriptor_ready = compress ? compress_descriptor_ready : decompress_descriptor_ready;
  assign source_ready = compress ? compress_source_ready : decompress_source_ready;
  assign {target, target_last} = compress ? {record, record_last} : {block, block_last};
  assign target_valid = compress ? record_valid : block_valid;
  assign completion = compress ? compressed : decompressed;
  assign completion_valid = compress ? compressed_valid : decompressed_valid;

  dma_engine #(
      .MaxBlockBytes(MaxBlockBytes),
      .BufferBeats  (BufferBeats)
  ) u_dma (
      .clk_i,
      .rst_i,
      .job_tdata_i,
      .job_tvalid_i,
      .job_tready_o,
      .done_tdata_o,
      .done_tvalid_o,
      .done_tready_i,
      .cancel_i,
      .compress_o(compress),
      .descriptor_tdata_o(descriptor),
      .descriptor_tvalid_o(descriptor_valid),
      .descriptor_tready_i(descriptor_ready),
      .source_tdata_o(source),
      .source_tlast_o(source_last),
      .source_tvalid_o(source_valid),
      .source_tready_i(source_ready),
      .target_tdata_i(target),
      .target_tlast_i(target_last),
      .target_tvalid_i(target_valid),
      .target_tready_o(target_ready),
      .completion_tdata_i(completion),
      .completion_tvalid_i(completion_valid),
      .completion_tready_o(completion_ready),
      .m_axi_arid_o,
      .m_axi_araddr_o,
      .m_axi_arlen_o,
      .m_axi_arsize_o,
      .m_axi_arburst_o,
      .m_axi_arvalid_o,
      .m_axi_arready_i,
      .m_axi_rid_i,
      .m_axi_rdata_i,
      .m_axi_rresp_i,
      .m_axi_rlast_i,
      .m_axi_rvalid_i,
      .m_axi_rready_o,
      .m_axi_awid_o,
      .m_axi_awaddr_o,
      .m_axi_awlen_o,
      .m_axi_awsize_o,
      .m_axi_awburst_o,
      .m_axi_awvalid_o,
      .m_axi_awready_i,
      .m_axi_wdata_o,
      .m_axi_wstrb_o,
      .m_axi_wlast_o,
      .m_axi_wvalid_o,
      .m_axi_wready_i,
      .m_axi_bid_i,
      .m_axi_bresp_i,
      .m_axi_bvalid_i,
      .m_axi_bready_o
  );

  kv_compress #(
      .MaxBlockBytes(MaxBlockBytes)
  ) u_compress (
      .clk_i,
      .rst_i,
      .descriptor_tdata_i (descriptor),
      .descriptor_tvalid_i(descriptor_valid && compress),
      .descriptor_tready_o(compress_descriptor_ready),
      .block_tdata_i      (source),
      .block_tvalid_i     (source_valid && compress),
      .block_tready_o     (compress_source_ready),
      .record_tdata_o     (record),
      .record_tlast_o     (record_last),
      .record_tvalid_o    (record_valid),
      .record_tready_i    (target_ready && compress),
      .completion_tdata_o (compressed),
      .completion_tvalid_o(compressed_valid),
      .completion_tready_i(completion_ready && compress)
  );

  kv_decompress #(
      .MaxBlockBytes(MaxBlockBytes)
  ) u_decompress (
      .clk_i,
      .rst_i,
      .descriptor_tdata_i (descriptor),
      .descriptor_tvalid_i(descriptor_valid && !compress),
      .descriptor_tready_o(decompress_descriptor_ready),
      .record_tdata_i     (source),
      .record_tlast_i     (source_last),
      .record_tvalid_i    (source_valid && !compress),
      .record_tready_o    (decompress_source_ready),
      .block_tdata_o      (block),
      .block_tlast_o      (block_last),
      .block_tvalid_o     (block_valid),
      .block_tready_i     (target_ready && !compress),
      .completion_tdata_o (decompressed),
      .completion_tvalid_o(decompressed_valid),
      .completion_tready_i(completion_ready && !compress)
  );
endmodule

`default_nettype wire
