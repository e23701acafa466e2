`default_nettype none

// Runs the prefetch core's descriptors on the DMA engine, one at a time: each is written to a line of memory, where the
// engine reads its tables from, and is a table of one.
module prefetch_mover
  import speckv_pkg::*;
#(
    parameter int unsigned IdBits = 4
) (
    input  wire                      clk_i,
    input  wire                      rst_i,
    input  csr_state_t               state_i,
    input  wire         [IdBits-1:0] descriptor_id_i,
    input  descriptor_t              descriptor_i,
    input  wire                      descriptor_valid_i,
    output logic                     descriptor_ready_o,
    output logic        [IdBits-1:0] moved_id_o,
    output logic                     moved_ok_o,
    output logic                     moved_valid_o,
    input  wire                      moved_ready_i,
    output dma_job_t                 job_o,
    output logic                     job_valid_o,
    input  wire                      job_ready_i,
    input  dma_done_t                done_i,
    input  wire                      done_valid_i,
    output logic                     done_ready_o,
    output logic        [      63:0] m_axi_awaddr_o,
    output logic                     m_axi_awvalid_o,
    input  wire                      m_axi_awready_i,
    output logic        [     511:0] m_axi_wdata_o,
    output logic                     m_axi_wvalid_o,
    input  wire                      m_axi_wready_i,
    input  wire         [       1:0] m_axi_bresp_i,
    input  wire                      m_axi_bvalid_i,
    output logic                     m_axi_bready_o
);
  typedef enum logic [2:0] {
    Take,
    Write,
    Offer,
    Run,
    Tell
  } state_e;
  state_e state_q;

  assign descriptor_ready_o = state_q == Take;
  assign m_axi_bready_o = state_q == Write;
  assign job_valid_o = state_q == Offer;
  assign done_ready_o = state_q == Run;
  assign moved_valid_o = state_q == Tell;
  assign m_axi_awaddr_o = state_i.prefetch_table;

  always_comb begin
    job_o = '0;
    job_o.table_address = state_i.prefetch_table;
    job_o.records = state_i.prefetch_records_base;
    job_o.records_bytes = state_i.prefetch_records_bytes;
    job_o.blocks = state_i.prefetch_blocks_base;
    job_o.blocks_bytes = state_i.prefetch_blocks_bytes;
    job_o.count = 32'd1;
    job_o.move = MoveDecompress[7:0];
  end

  always_ff @(posedge clk_i) begin
    if (m_axi_awready_i) m_axi_awvalid_o <= 1'b0;
    if (m_axi_wready_i) m_axi_wvalid_o <= 1'b0;
    unique case (state_q)
      Take:
      if (descriptor_valid_i) begin
        moved_id_o      <= descriptor_id_i;
        m_axi_wdata_o   <= descriptor_i;
        m_axi_awvalid_o <= 1'b1;
        m_axi_wvalid_o  <= 1'b1;
        state_q         <= Write;
      end
      Write:
      if (m_axi_bvalid_i) begin
        moved_ok_o <= 1'b0;
        state_q    <= m_axi_bresp_i[1] ? Tell : Offer;
      end
      Offer:   if (job_ready_i) state_q <= Run;
      Run:
      if (done_valid_i) begin
        moved_ok_o <= done_i.status == CommandStatusOk;
        state_q    <= Tell;
      end
      default: if (moved_ready_i) state_q <= Take;
    endcase
    if (rst_i) begin
      state_q <= Take;
      m_axi_awvalid_o <= 1'b0;
      m_axi_wvalid_o <= 1'b0;
    end
  end

  logic unused;
  assign unused = m_axi_bresp_i[0];
endmodule

`default_nettype wire
