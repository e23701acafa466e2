`default_nettype none

// Scatter-gather DMA: runs a table of descriptors (job_*, dma_job_t) between memory and a codec's streams, or
// copies lines, and says how it went (done_*, dma_done_t) when every read and write has been answered. One table
// at a time; up to 16 of its descriptors are under way at once, so reading, coding and writing overlap.
//
//   compress:   K and V -> source_*, target_* -> the record's slot
//   decompress: the record -> source_*, target_* -> K and V
//   copy:       record_offset in the source buffer -> key_offset in the target buffer, past the codec
//
// A codec offers a descriptor's completion after its last beat has been taken, at once where it fails and gives no
// beats, and no later than the first beat of the next one. A descriptor that fails a check never reaches it. A fault
// of one descriptor, a bus error included, is in its completion and does not touch the others.
// cancel_i: no further descriptor of the run begins; those begun are finished.
module dma_engine
  import speckv_pkg::*;
#(
    parameter int unsigned       MaxBlockBytes = 131072,
    parameter logic        [7:0] LastScheme    = SchemeInt4,  // of the codec
    parameter int unsigned       BufferBeats   = 512          // read ahead, and as many to be written
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
    // The codec of the run's move: compress_o says which one.
    output logic                      compress_o,
    output logic [             511:0] descriptor_tdata_o,
    output logic                      descriptor_tvalid_o,
    input  wire                       descriptor_tready_i,
    output logic [             511:0] source_tdata_o,
    output logic                      source_tlast_o,
    output logic                      source_tvalid_o,
    input  wire                       source_tready_i,
    input  wire  [             511:0] target_tdata_i,
    input  wire                       target_tlast_i,
    input  wire                       target_tvalid_i,
    output logic                      target_tready_o,
    input  wire  [             127:0] completion_tdata_i,
    input  wire                       completion_tvalid_i,
    output logic                      completion_tready_o,
    // AXI4: id 0 is data, id 1 descriptors and completions.
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
  // verilator lint_off UNUSEDSIGNAL
  dma_job_t  job;  // its reserved byte
  // verilator lint_on UNUSEDSIGNAL
  dma_done_t counted;
  logic start, stop, complete, fetch_idle, issue_idle, is_copy, planned;
  logic [31:0] issued;
  assign is_copy = 16'(job.move) == MoveCopy;
  assign compress_o = 16'(job.move) == MoveCompress;
  dma_run u_run (
      .clk_i,
      .rst_i,
      .job_i(job_tdata_i),
      .job_valid_i(job_tvalid_i),
      .job_ready_o(job_tready_o),
      .done_o(done_tdata_o),
      .done_valid_o(done_tvalid_o),
      .done_ready_i(done_tready_i),
      .cancel_i,
      .job_o(job),
      .start_o(start),
      .stop_o(stop),
      .planned_i(planned),
      .issued_o(issued),
      .complete_i(complete),
      .counted_i(counted)
  );

  descriptor_t descriptor;
  logic [1:0] descriptor_response;
  logic descriptor_valid, descriptor_ready;
  logic [57:0] source_line;
  logic [25:0] source_beats;
  logic source_final, source_run_valid, source_run_ready;
  logic [1:0] source_response, reads_response;
  logic source_valid, source_ready, reads_valid, reads_ready;
  dma_read #(
      .BufferBeats(BufferBeats)
  ) u_read (
      .clk_i,
      .rst_i,
      .start_i(start),
      .table_line_i(job.table_address[63:6]),
      .count_i(job.count),
      .stop_i(stop),
      .idle_o(fetch_idle),
      .descriptor_o(descriptor),
      .descriptor_response_o(descriptor_response),
      .descriptor_valid_o(descriptor_valid),
      .descriptor_ready_i(descriptor_ready),
      .run_line_i(source_line),
      .run_beats_i(source_beats),
      .run_final_i(source_final),
      .run_valid_i(source_run_valid),
      .run_ready_o(source_run_ready),
      .data_o(source_tdata_o),
      .data_response_o(source_response),
      .data_last_o(source_tlast_o),
      .data_valid_o(source_valid),
      .data_ready_i(source_ready),
      .count_reads_i(!is_copy),
      .reads_response_o(reads_response),
      .reads_valid_o(reads_valid),
      .reads_ready_i(reads_ready),
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
      .m_axi_rready_o
  );

  completion_t plan_verdict;
  logic [57:0] plan_first_line, plan_second_line;
  logic [25:0] plan_first_beats;
  logic [19:0] plan_second_beats;
  logic plan_valid, plan_ready;
  dma_issue #(
      .MaxBlockBytes(MaxBlockBytes),
      .LastScheme(LastScheme)
  ) u_issue (
      .clk_i,
      .rst_i,
      .is_copy_i(is_copy),
      .is_compress_i(compress_o),
      .set_scheme_i(compress_o && |(job.flags & 8'(CommandFlagDefaultScheme))),
      .scheme_i(job.scheme),
      .records_line_i(job.records[63:6]),
      .records_bytes_i(job.records_bytes),
      .blocks_line_i(job.blocks[63:6]),
      .blocks_bytes_i(job.blocks_bytes),
      .drop_i(stop),
      .idle_o(issue_idle),
      .descriptor_i(descriptor),
      .response_i(descriptor_response),
      .descriptor_valid_i(descriptor_valid),
      .descriptor_ready_o(descriptor_ready),
      .run_line_o(source_line),
      .run_beats_o(source_beats),
      .run_final_o(source_final),
      .run_valid_o(source_run_valid),
      .run_ready_i(source_run_ready),
      .codec_descriptor_o(descriptor_tdata_o),
      .codec_valid_o(descriptor_tvalid_o),
      .codec_ready_i(descriptor_tready_i),
      .planned_o(planned),
      .plan_verdict_o(plan_verdict),
      .plan_first_line_o(plan_first_line),
      .plan_first_beats_o(plan_first_beats),
      .plan_second_line_o(plan_second_line),
      .plan_second_beats_o(plan_second_beats),
      .plan_valid_o(plan_valid),
      .plan_ready_i(plan_ready)
  );

  // A copy's beats go past the codec.
  logic collect_ready;
  assign source_tvalid_o = source_valid && !is_copy;
  assign source_ready = is_copy ? collect_ready : source_tready_i;
  assign target_tready_o = collect_ready && !is_copy;

  completion_t verdict;
  logic verdict_written, verdict_valid, verdict_ready;
  logic [57:0] target_line;
  logic [25:0] target_beats;
  logic target_final, target_run_valid, target_run_ready;
  logic [511:0] target_data;
  logic target_strobe, target_last, target_valid, target_ready;
  dma_collect u_collect (
      .clk_i,
      .rst_i,
      .is_copy_i(is_copy),
      .plan_verdict_i(plan_verdict),
      .plan_first_line_i(plan_first_line),
      .plan_first_beats_i(plan_first_beats),
      .plan_second_line_i(plan_second_line),
      .plan_second_beats_i(plan_second_beats),
      .plan_valid_i(plan_valid),
      .plan_ready_o(plan_ready),
      .read_response_i(reads_response),
      .read_valid_i(reads_valid),
      .read_ready_o(reads_ready),
      .data_i(is_copy ? source_tdata_o : target_tdata_i),
      .data_response_i(source_response),
      .data_last_i(is_copy ? source_tlast_o : target_tlast_i),
      .data_valid_i(is_copy ? source_valid : target_tvalid_i),
      .data_ready_o(collect_ready),
      .completion_i(completion_tdata_i),
      .completion_valid_i(completion_tvalid_i),
      .completion_ready_o(completion_tready_o),
      .run_line_o(target_line),
      .run_beats_o(target_beats),
      .run_final_o(target_final),
      .run_valid_o(target_run_valid),
      .run_ready_i(target_run_ready),
      .data_o(target_data),
      .data_strobe_o(target_strobe),
      .data_last_o(target_last),
      .data_valid_o(target_valid),
      .data_ready_i(target_ready),
      .verdict_o(verdict),
      .verdict_written_o(verdict_written),
      .verdict_valid_o(verdict_valid),
      .verdict_ready_i(verdict_ready)
  );

  // Writing.
  logic [1:0] written_response;
  logic written_valid, written_ready;
  logic [ 57:0] note_line;
  logic [511:0] note_data;
  logic [ 63:0] note_strobe;
  logic note_valid, note_ready, notes_idle, notes_failed;
  logic [6:0] aw_beats;
  assign m_axi_bready_o = 1'b1;
  assign m_axi_awsize_o = 3'd6;
  assign m_axi_awburst_o = 2'b01;
  assign m_axi_awlen_o = 8'(aw_beats) - 8'd1;
  assign m_axi_awaddr_o[5:0] = '0;
  axi_writer #(
      .Depth(BufferBeats)
  ) u_writer (
      .clk_i,
      .rst_i,
      .run_line_i(target_line),
      .run_beats_i(target_beats),
      .run_final_i(target_final),
      .run_valid_i(target_run_valid),
      .run_ready_o(target_run_ready),
      .data_i(target_data),
      .data_strobe_i(target_strobe),
      .data_last_i(target_last),
      .data_valid_i(target_valid),
      .data_ready_o(target_ready),
      .written_response_o(written_response),
      .written_valid_o(written_valid),
      .written_ready_i(written_ready),
      .note_line_i(note_line),
      .note_data_i(note_data),
      .note_strobe_i(note_strobe),
      .note_valid_i(note_valid),
      .note_ready_o(note_ready),
      .notes_idle_o(notes_idle),
      .notes_failed_o(notes_failed),
      .note_clear_i(start),
      .aw_id_o(m_axi_awid_o),
      .aw_line_o(m_axi_awaddr_o[63:6]),
      .aw_beats_o(aw_beats),
      .aw_valid_o(m_axi_awvalid_o),
      .aw_ready_i(m_axi_awready_i),
      .w_data_o(m_axi_wdata_o),
      .w_strobe_o(m_axi_wstrb_o),
      .w_last_o(m_axi_wlast_o),
      .w_valid_o(m_axi_wvalid_o),
      .w_ready_i(m_axi_wready_i),
      .b_id_i(m_axi_bid_i),
      .b_response_i(m_axi_bresp_i),
      .b_valid_i(m_axi_bvalid_i)
  );

  dma_retire u_retire (
      .clk_i,
      .rst_i,
      .start_i(start),
      .tag_i(job.tag),
      .results_line_i(job.results_address[63:6]),
      .end_i(fetch_idle && issue_idle),
      .issued_i(issued),
      .complete_o(complete),
      .done_o(counted),
      .verdict_i(verdict),
      .verdict_written_i(verdict_written),
      .verdict_valid_i(verdict_valid),
      .verdict_ready_o(verdict_ready),
      .written_response_i(written_response),
      .written_valid_i(written_valid),
      .written_ready_o(written_ready),
      .note_line_o(note_line),
      .note_data_o(note_data),
      .note_strobe_o(note_strobe),
      .note_valid_o(note_valid),
      .note_ready_i(note_ready),
      .notes_idle_i(notes_idle),
      .notes_failed_i(notes_failed)
  );
endmodule

`default_nettype wire
