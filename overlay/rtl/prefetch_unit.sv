`default_nettype none

// The prefetch core with what it needs: the translation unit, and a mover that runs its descriptors on the DMA engine.
// The predictor, and whoever owns L2, stand at the streams. m_axi_walk_* reads the page table and writes the mover's
// descriptors.
module prefetch_unit
  import speckv_pkg::*;
#(
    parameter int unsigned Hints = 8,
    parameter int unsigned Fetches = 16,
    parameter int unsigned OwnerBits = 8,
    parameter int unsigned SlotBits = 16,
    parameter int unsigned SlotBytes = 131072,
    parameter int unsigned PredictorCycles = 65536,
    parameter int unsigned PatienceCycles = 4096,
    parameter int unsigned TlbEntries = 256,
    parameter int unsigned Misses = 8,
    localparam int unsigned WalkIdBits = $clog2(Misses)
) (
    input  wire                                  clk_i,
    input  wire                                  rst_i,
    input  csr_state_t                           state_i,
    input  csr_order_t                           order_i,
    input  wire             [               8:0] prefetch_depth_i,
    output csr_value_t                           value_o,
    input  wire                                  hint_valid_i,
    output logic                                 hint_ready_o,
    input  wire             [              15:0] hint_tag_i,
    input  wire             [              31:0] hint_req_id_i,
    input  wire             [              15:0] hint_layer_i,
    input  wire             [              31:0] hint_position_i,
    input  wire             [              15:0] hint_depth_i,
    input  wire             [     OwnerBits-1:0] hint_owner_i,
    input  wire             [               1:0] hint_priority_i,
    input  wire                                  hint_dense_i,
    output logic                                 result_valid_o,
    input  wire                                  result_ready_i,
    output logic            [              15:0] result_tag_o,
    output logic            [               2:0] result_status_o,
    output logic            [              15:0] result_issued_o,
    output logic                                 predict_valid_o,
    input  wire                                  predict_ready_i,
    output logic            [               7:0] predict_id_o,
    output logic            [              31:0] predict_req_id_o,
    output logic            [              15:0] predict_layer_o,
    output logic            [              31:0] predict_position_o,
    input  wire                                  candidate_valid_i,
    output logic                                 candidate_ready_o,
    input  wire             [               7:0] candidate_id_i,
    input  wire candidate_t                      candidate_i,
    input  wire                                  candidate_last_i,
    input  wire                                  slot_valid_i,
    output logic                                 slot_ready_o,
    input  wire             [      SlotBits-1:0] slot_i,
    output logic                                 returned_valid_o,
    input  wire                                  returned_ready_i,
    output logic            [      SlotBits-1:0] returned_slot_o,
    output logic                                 filled_valid_o,
    input  wire                                  filled_ready_i,
    output logic            [      SlotBits-1:0] filled_slot_o,
    output address_t                             filled_key_o,
    input  wire                                  note_valid_i,
    output logic                                 note_ready_o,
    input  wire                                  note_resident_i,
    input  wire             [   AddressBits-1:0] note_address_i,
    input  wire                                  note_used_i,
    output logic            [ 8*DmaJobBytes-1:0] job_tdata_o,
    output logic                                 job_tvalid_o,
    input  wire                                  job_tready_i,
    input  wire             [8*DmaDoneBytes-1:0] done_tdata_i,
    input  wire                                  done_tvalid_i,
    output logic                                 done_tready_o,
    output logic            [              63:0] m_axi_walk_araddr_o,
    output logic            [               7:0] m_axi_walk_arlen_o,
    output logic            [               2:0] m_axi_walk_arsize_o,
    output logic            [               1:0] m_axi_walk_arburst_o,
    output logic            [    WalkIdBits-1:0] m_axi_walk_arid_o,
    output logic                                 m_axi_walk_arvalid_o,
    input  wire                                  m_axi_walk_arready_i,
    input  wire             [             511:0] m_axi_walk_rdata_i,
    input  wire             [    WalkIdBits-1:0] m_axi_walk_rid_i,
    input  wire             [               1:0] m_axi_walk_rresp_i,
    input  wire                                  m_axi_walk_rlast_i,
    input  wire                                  m_axi_walk_rvalid_i,
    output logic                                 m_axi_walk_rready_o,
    output logic            [              63:0] m_axi_walk_awaddr_o,
    output logic                                 m_axi_walk_awvalid_o,
    input  wire                                  m_axi_walk_awready_i,
    output logic            [             511:0] m_axi_walk_wdata_o,
    output logic                                 m_axi_walk_wvalid_o,
    input  wire                                  m_axi_walk_wready_i,
    input  wire             [               1:0] m_axi_walk_bresp_i,
    input  wire                                  m_axi_walk_bvalid_i,
    output logic                                 m_axi_walk_bready_o,
    output logic            [               7:0] m_axi_walk_awlen_o,
    output logic            [               2:0] m_axi_walk_awsize_o,
    output logic            [               1:0] m_axi_walk_awburst_o,
    output logic            [              63:0] m_axi_walk_wstrb_o,
    output logic                                 m_axi_walk_wlast_o
);
  localparam int unsigned IdBits = $clog2(Fetches);

  logic [AddressBits-1:0] key_mask;
  assign key_mask = {state_i.key_mask_high, state_i.key_mask_low};

  logic lookup_valid, lookup_ready, translation_valid, translation_ready;
  logic [IdBits-1:0] lookup_id, translation_id;
  address_t lookup_address;
  logic [2:0] translation_status;
  page_table_entry_t translation_entry;
  logic descriptor_valid, descriptor_ready, moved_valid, moved_ready, moved_ok;
  logic [IdBits-1:0] descriptor_id, moved_id;
  descriptor_t descriptor;

  logic [31:0]
      count_asked,
      count_dropped,
      count_cancelled,
      count_predicted,
      count_resident,
      count_faults,
      count_issued,
      count_failed,
      count_useful,
      count_wasted;
  prefetch_core #(
      .Hints(Hints),
      .Fetches(Fetches),
      .OwnerBits(OwnerBits),
      .SlotBits(SlotBits),
      .SlotBytes(SlotBytes),
      .PredictorCycles(PredictorCycles),
      .PatienceCycles(PatienceCycles)
  ) u_core (
      .clk_i,
      .rst_i,
      .prefetch_depth_i(16'(prefetch_depth_i)),
      .most_moving_i((IdBits + 1)'(state_i.prefetch_moves_most)),
      .rate_i(state_i.prefetch_rate),
      .burst_lines_i(state_i.prefetch_burst),
      .layers_i(state_i.prefetch_layers_layers),
      .layer_step_i(state_i.prefetch_layers_step),
      .block_shift_i(state_i.prefetch_moves_block_shift),
      .key_mask_i(key_mask),
      .slot_base_i(state_i.prefetch_slot_base),
      .hint_valid_i,
      .hint_ready_o,
      .hint_tag_i,
      .hint_req_id_i,
      .hint_layer_i,
      .hint_position_i,
      .hint_depth_i,
      .hint_owner_i,
      .hint_priority_i,
      .hint_dense_i,
      .cancel_i(order_i.prefetch_cancel_valid),
      .cancel_req_id_i(order_i.prefetch_cancel),
      .result_valid_o,
      .result_ready_i,
      .result_tag_o,
      .result_status_o,
      .result_issued_o,
      .predict_valid_o,
      .predict_ready_i,
      .predict_id_o,
      .predict_req_id_o,
      .predict_layer_o,
      .predict_position_o,
      .candidate_valid_i,
      .candidate_ready_o,
      .candidate_id_i,
      .candidate_i,
      .candidate_last_i,
      .lookup_valid_o(lookup_valid),
      .lookup_ready_i(lookup_ready),
      .lookup_id_o(lookup_id),
      .lookup_address_o(lookup_address),
      .translation_valid_i(translation_valid),
      .translation_ready_o(translation_ready),
      .translation_id_i(translation_id),
      .translation_status_i(16'(translation_status)),
      .translation_entry_i(translation_entry),
      .descriptor_valid_o(descriptor_valid),
      .descriptor_ready_i(descriptor_ready),
      .descriptor_id_o(descriptor_id),
      .descriptor_o(descriptor),
      .moved_valid_i(moved_valid),
      .moved_ready_o(moved_ready),
      .moved_id_i(moved_id),
      .moved_ok_i(moved_ok),
      .slot_valid_i,
      .slot_ready_o,
      .slot_i,
      .returned_valid_o,
      .returned_ready_i,
      .returned_slot_o,
      .filled_valid_o,
      .filled_ready_i,
      .filled_slot_o,
      .filled_key_o,
      .note_valid_i,
      .note_ready_o,
      .note_resident_i,
      .note_address_i,
      .note_used_i,
      .asked_o(count_asked),
      .dropped_o(count_dropped),
      .cancelled_o(count_cancelled),
      .predicted_o(count_predicted),
      .resident_o(count_resident),
      .faults_o(count_faults),
      .issued_o(count_issued),
      .failed_o(count_failed),
      .useful_o(count_useful),
      .wasted_o(count_wasted)
  );

  // An order to forget waits until the translation unit takes it, and is over when it says so.
  logic forget_q, forgetting_q, forget_ready, forget_done, fault_valid;
  logic [1:0] forget_kind_q;
  logic [2:0] fault_status, fault_status_q;
  logic [31:0] hits, misses, faults;
  always_ff @(posedge clk_i) begin
    if (order_i.forget_valid) {forget_q, forgetting_q, forget_kind_q} <= {2'b11, order_i.forget};
    else begin
      if (forget_ready) forget_q <= 1'b0;
      if (forget_done) forgetting_q <= 1'b0;
    end
    if (fault_valid) fault_status_q <= fault_status;
    if (rst_i) {forget_q, forgetting_q, fault_status_q} <= '0;
  end

  // verilator lint_off PINCONNECTEMPTY
  atu #(
      .Entries(TlbEntries),
      .Misses (Misses),
      .TagBits(IdBits)
  ) u_atu (
      .clk_i,
      .rst_i,
      .key_mask_i(key_mask),
      .table_base_i(state_i.page_table_base),
      .table_log2_i(state_i.page_table_log2),
      .timeout_i(state_i.walk_timeout),
      .request_valid_i(lookup_valid),
      .request_ready_o(lookup_ready),
      .request_address_i(lookup_address),
      .request_tag_i(lookup_id),
      .response_valid_o(translation_valid),
      .response_ready_i(translation_ready),
      .response_tag_o(translation_id),
      .response_status_o(translation_status),
      .response_entry_o(translation_entry),
      .forget_valid_i(forget_q),
      .forget_ready_o(forget_ready),
      .forget_kind_i(forget_kind_q),
      .forget_address_i({state_i.forget_address_high, state_i.forget_address_low}),
      .forget_done_o(forget_done),
      .fault_valid_o(fault_valid),
      .fault_status_o(fault_status),
      .fault_key_o(),
      .hits_o(hits),
      .misses_o(misses),
      .faults_o(faults),
      .m_axi_araddr(m_axi_walk_araddr_o),
      .m_axi_arlen(m_axi_walk_arlen_o),
      .m_axi_arsize(m_axi_walk_arsize_o),
      .m_axi_arburst(m_axi_walk_arburst_o),
      .m_axi_arid(m_axi_walk_arid_o),
      .m_axi_arvalid(m_axi_walk_arvalid_o),
      .m_axi_arready(m_axi_walk_arready_i),
      .m_axi_rdata(m_axi_walk_rdata_i),
      .m_axi_rid(m_axi_walk_rid_i),
      .m_axi_rresp(m_axi_walk_rresp_i),
      .m_axi_rlast(m_axi_walk_rlast_i),
      .m_axi_rvalid(m_axi_walk_rvalid_i),
      .m_axi_rready(m_axi_walk_rready_o)
  );
  // verilator lint_on PINCONNECTEMPTY

  assign {m_axi_walk_awlen_o, m_axi_walk_awsize_o, m_axi_walk_awburst_o} = {8'd0, 3'd6, 2'd1};
  assign {m_axi_walk_wstrb_o, m_axi_walk_wlast_o} = '1;
  prefetch_mover #(
      .IdBits(IdBits)
  ) u_mover (
      .clk_i,
      .rst_i,
      .state_i,
      .descriptor_id_i(descriptor_id),
      .descriptor_i(descriptor),
      .descriptor_valid_i(descriptor_valid),
      .descriptor_ready_o(descriptor_ready),
      .moved_id_o(moved_id),
      .moved_ok_o(moved_ok),
      .moved_valid_o(moved_valid),
      .moved_ready_i(moved_ready),
      .job_o(job_tdata_o),
      .job_valid_o(job_tvalid_o),
      .job_ready_i(job_tready_i),
      .done_i(done_tdata_i),
      .done_valid_i(done_tvalid_i),
      .done_ready_o(done_tready_o),
      .m_axi_awaddr_o(m_axi_walk_awaddr_o),
      .m_axi_awvalid_o(m_axi_walk_awvalid_o),
      .m_axi_awready_i(m_axi_walk_awready_i),
      .m_axi_wdata_o(m_axi_walk_wdata_o),
      .m_axi_wvalid_o(m_axi_walk_wvalid_o),
      .m_axi_wready_i(m_axi_walk_wready_i),
      .m_axi_bresp_i(m_axi_walk_bresp_i),
      .m_axi_bvalid_i(m_axi_walk_bvalid_i),
      .m_axi_bready_o(m_axi_walk_bready_o)
  );

  always_comb begin
    value_o = '0;
    value_o.translation_status_forgetting = forgetting_q;
    value_o.translation_status_fault = fault_status_q;
    value_o.count_tlb_hits = hits;
    value_o.count_tlb_misses = misses;
    value_o.count_tlb_faults = faults;
    value_o.count_prefetch_asked = count_asked;
    value_o.count_prefetch_dropped = count_dropped;
    value_o.count_prefetch_cancelled = count_cancelled;
    value_o.count_prefetch_predicted = count_predicted;
    value_o.count_prefetch_resident = count_resident;
    value_o.count_prefetch_faults = count_faults;
    value_o.count_prefetch_issued = count_issued;
    value_o.count_prefetch_failed = count_failed;
    value_o.count_prefetch_useful = count_useful;
    value_o.count_prefetch_wasted = count_wasted;
  end
endmodule

`default_nettype wire
