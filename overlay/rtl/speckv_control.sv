`default_nettype none

// The host's side of the engine: registers over AXI4-Lite, the command processor, and its AXI4 port, which moves single
// lines of the rings and of the buffer table.
module speckv_control
  import speckv_pkg::*;
#(
    parameter int unsigned Entries = 64,
    parameter int unsigned Prefetches = 32
) (
    input  wire                                  clk_i,
    input  wire                                  rst_i,
    input  wire        [RegisterAddressBits-1:0] s_axi_awaddr_i,
    input  wire                                  s_axi_awvalid_i,
    output logic                                 s_axi_awready_o,
    input  wire        [                   31:0] s_axi_wdata_i,
    input  wire        [                    3:0] s_axi_wstrb_i,
    input  wire                                  s_axi_wvalid_i,
    output logic                                 s_axi_wready_o,
    output logic       [                    1:0] s_axi_bresp_o,
    output logic                                 s_axi_bvalid_o,
    input  wire                                  s_axi_bready_i,
    input  wire        [RegisterAddressBits-1:0] s_axi_araddr_i,
    input  wire                                  s_axi_arvalid_i,
    output logic                                 s_axi_arready_o,
    output logic       [                   31:0] s_axi_rdata_o,
    output logic       [                    1:0] s_axi_rresp_o,
    output logic                                 s_axi_rvalid_o,
    input  wire                                  s_axi_rready_i,
    output logic                                 irq_o,
    // For the rest of the engine: what it shows of the registers is zero where the command processor has it.
    output csr_state_t                           state_o,
    output csr_order_t                           order_o,
    output csr_value_t                           value_o,
    input  csr_value_t                           value_i,
    output logic       [      8*DmaJobBytes-1:0] job_tdata_o,
    output logic                                 job_tvalid_o,
    input  wire                                  job_tready_i,
    input  wire        [     8*DmaDoneBytes-1:0] done_tdata_i,
    input  wire                                  done_tvalid_i,
    output logic                                 done_tready_o,
    output logic                                 cancel_o,
    output logic       [                   63:0] m_axi_araddr_o,
    output logic       [                    7:0] m_axi_arlen_o,
    output logic       [                    2:0] m_axi_arsize_o,
    output logic       [                    1:0] m_axi_arburst_o,
    output logic                                 m_axi_arvalid_o,
    input  wire                                  m_axi_arready_i,
    input  wire        [                  511:0] m_axi_rdata_i,
    input  wire        [                    1:0] m_axi_rresp_i,
    input  wire                                  m_axi_rlast_i,
    input  wire                                  m_axi_rvalid_i,
    output logic                                 m_axi_rready_o,
    output logic       [                   63:0] m_axi_awaddr_o,
    output logic       [                    7:0] m_axi_awlen_o,
    output logic       [                    2:0] m_axi_awsize_o,
    output logic       [                    1:0] m_axi_awburst_o,
    output logic                                 m_axi_awvalid_o,
    input  wire                                  m_axi_awready_i,
    output logic       [                  511:0] m_axi_wdata_o,
    output logic       [                   63:0] m_axi_wstrb_o,
    output logic                                 m_axi_wlast_o,
    output logic                                 m_axi_wvalid_o,
    input  wire                                  m_axi_wready_i,
    input  wire        [                    1:0] m_axi_bresp_i,
    input  wire                                  m_axi_bvalid_i,
    output logic                                 m_axi_bready_o
);
  localparam logic [2:0] Size64 = 3'd6;
  localparam logic [1:0] Increasing = 2'd1;

  assign {m_axi_arlen_o, m_axi_arsize_o, m_axi_arburst_o} = {8'd0, Size64, Increasing};
  assign {m_axi_awlen_o, m_axi_awsize_o, m_axi_awburst_o} = {8'd0, Size64, Increasing};
  assign {m_axi_wstrb_o, m_axi_wlast_o} = '1;

  csr_event_t happened;

  speckv_csr u_csr (
      .clk_i,
      .rst_i,
      .s_axi_awaddr_i,
      .s_axi_awvalid_i,
      .s_axi_awready_o,
      .s_axi_wdata_i,
      .s_axi_wstrb_i,
      .s_axi_wvalid_i,
      .s_axi_wready_o,
      .s_axi_bresp_o,
      .s_axi_bvalid_o,
      .s_axi_bready_i,
      .s_axi_araddr_i,
      .s_axi_arvalid_i,
      .s_axi_arready_o,
      .s_axi_rdata_o,
      .s_axi_rresp_o,
      .s_axi_rvalid_o,
      .s_axi_rready_i,
      .state_o,
      .order_o,
      .value_i(value_o | value_i),
      .event_i(happened),
      .irq_o
  );

  command_processor #(
      .Entries(Entries),
      .Prefetches(Prefetches)
  ) u_processor (
      .clk_i,
      .rst_i,
      .state_i         (state_o),
      .order_i         (order_o),
      .value_o,
      .event_o         (happened),
      .dma_job_o       (job_tdata_o),
      .dma_job_valid_o (job_tvalid_o),
      .dma_job_ready_i (job_tready_i),
      .dma_done_i      (done_tdata_i),
      .dma_done_valid_i(done_tvalid_i),
      .dma_done_ready_o(done_tready_o),
      .dma_cancel_o    (cancel_o),
      .m_axi_araddr_o,
      .m_axi_arvalid_o,
      .m_axi_arready_i,
      .m_axi_rdata_i,
      .m_axi_rresp_i,
      .m_axi_rvalid_i,
      .m_axi_rready_o,
      .m_axi_awaddr_o,
      .m_axi_awvalid_o,
      .m_axi_awready_i,
      .m_axi_wdata_o,
      .m_axi_wvalid_o,
      .m_axi_wready_i,
      .m_axi_bresp_i,
      .m_axi_bvalid_i,
      .m_axi_bready_o
  );

  logic unused;
  assign unused = m_axi_rlast_i;
endmodule

`default_nettype wire
