`default_nettype none

// CXL.mem, device side, to AXI4: the transaction layer of a memory expander (Type 3, single logical device, HDM-H).
//
// Subset of the CXL 2.0 specification (section 3.3, CXL.mem): messages as they are before they are packed into flits.
//   M2S Req:  MemRd, MemRdData -> MemData; MemInv, MemInvNT -> Cmp (no metadata is kept, so there is nothing to do);
//             MemSpecRd is dropped (it has no answer). MemRdFwd, MemWrFwd (of devices with a cache) and reserved
//             opcodes are refused: Cmp, memory is not touched, counted.
//   M2S RwD:  MemWr, MemWrPtl -> Cmp. Reserved opcodes are refused in the same way.
//   S2M NDR:  Cmp alone: Cmp-S and Cmp-E answer hosts of devices with a cache (HDM-D). S2M DRS: MemData.
//   Metadata and snoop type of a request have no meaning here and are ignored; answers say MetaField No-Op.
// Not in it: link layer, flits, retry, CXL.io, CXL.cache, HDM-D, metadata storage, interleave, TC, LD-ID (zero) and
// DevLoad (zero). docs/rtl_cxl.md says more. No common Alveo or Zynq board has a CXL endpoint: link and transport come
// from a vendor's hard IP.
//
// Every request accepted is answered once, with its tag. Between requests of one line, the order of acceptance is the
// order of memory (of a read and a write in one cycle, the read is first); between different lines there is none.
// Answers of either kind wait for their own credits alone. One request a cycle and channel.
//
// Addresses outside base and size: reads give all ones, poisoned where `poison_on_decode_error_i`; writes are dropped
// and completed. AXI errors and `m_axi_ruser_i` poison MemData; a poisoned write is stored with `m_axi_wuser_o` set, so
// the memory must keep that bit with the line. After DeadlineCycles, half as long again at most, a request is answered
// as it stands: a read poisoned. A write that may be lost (error, deadline) sets `lost_o`: from then on every MemData is
// poisoned, until `clear_lost_i` while AXI owes no answer.
module cxl_mem_if #(
    parameter int unsigned ReqCredits = 16,  // requests held of M2S Req; a power of two
    parameter int unsigned RwdCredits = 16,  // of M2S RwD
    parameter int unsigned AddressBits = 40,  // of AXI
    parameter int unsigned DeadlineCycles = 65536,
    localparam int unsigned ReadIdBits = $clog2(ReqCredits),
    localparam int unsigned WriteIdBits = $clog2(RwdCredits),
    localparam int unsigned LineBits = AddressBits - 6
) (
    input wire clk_i,
    input wire rst_i,

    // Decoder: host physical addresses [base, base + size) are device addresses [0, size). Stable while in use.
    input wire [51:6] base_line_i,
    input wire [51:6] size_lines_i,  // at most 2 ** (AddressBits - 6)
    input wire poison_on_decode_error_i,

    input  wire         m2s_req_valid_i,       // uses a credit
    input  wire  [ 3:0] m2s_req_opcode_i,
    input  wire  [ 1:0] m2s_req_meta_field_i,
    input  wire  [ 1:0] m2s_req_meta_value_i,
    input  wire  [ 2:0] m2s_req_snoop_type_i,
    input  wire  [51:5] m2s_req_address_i,     // bit 5 asks for a half first: a whole line is one message here
    input  wire  [15:0] m2s_req_tag_i,
    output logic        m2s_req_credit_o,

    input  wire          m2s_rwd_valid_i,
    input  wire  [  3:0] m2s_rwd_opcode_i,
    input  wire  [  1:0] m2s_rwd_meta_field_i,
    input  wire  [  1:0] m2s_rwd_meta_value_i,
    input  wire  [  2:0] m2s_rwd_snoop_type_i,
    input  wire  [ 51:6] m2s_rwd_address_i,
    input  wire  [ 15:0] m2s_rwd_tag_i,
    input  wire          m2s_rwd_poison_i,
    input  wire  [ 63:0] m2s_rwd_byte_enable_i,  // of MemWrPtl
    input  wire  [511:0] m2s_rwd_data_i,
    output logic         m2s_rwd_credit_o,

    output logic        s2m_ndr_valid_o,
    output logic [ 2:0] s2m_ndr_opcode_o,
    output logic [ 1:0] s2m_ndr_meta_field_o,
    output logic [ 1:0] s2m_ndr_meta_value_o,
    output logic [15:0] s2m_ndr_tag_o,
    input  wire         s2m_ndr_credit_i,

    output logic         s2m_drs_valid_o,
    output logic [  2:0] s2m_drs_opcode_o,
    output logic [  1:0] s2m_drs_meta_field_o,
    output logic [  1:0] s2m_drs_meta_value_o,
    output logic [ 15:0] s2m_drs_tag_o,
    output logic         s2m_drs_poison_o,
    output logic [511:0] s2m_drs_data_o,
    input  wire          s2m_drs_credit_i,

    output logic [ ReadIdBits-1:0] m_axi_arid_o,
    output logic [AddressBits-1:0] m_axi_araddr_o,
    output logic [            7:0] m_axi_arlen_o,
    output logic [            2:0] m_axi_arsize_o,
    output logic [            1:0] m_axi_arburst_o,
    output logic                   m_axi_arvalid_o,
    input  wire                    m_axi_arready_i,
    input  wire  [ ReadIdBits-1:0] m_axi_rid_i,
    input  wire  [          511:0] m_axi_rdata_i,
    input  wire  [            1:0] m_axi_rresp_i,
    input  wire                    m_axi_rlast_i,
    input  wire                    m_axi_ruser_i,    // the line is poisoned
    input  wire                    m_axi_rvalid_i,
    output logic                   m_axi_rready_o,
    output logic [WriteIdBits-1:0] m_axi_awid_o,
    output logic [AddressBits-1:0] m_axi_awaddr_o,
    output logic [            7:0] m_axi_awlen_o,
    output logic [            2:0] m_axi_awsize_o,
    output logic [            1:0] m_axi_awburst_o,
    output logic                   m_axi_awvalid_o,
    input  wire                    m_axi_awready_i,
    output logic [          511:0] m_axi_wdata_o,
    output logic [           63:0] m_axi_wstrb_o,
    output logic                   m_axi_wlast_o,
    output logic                   m_axi_wuser_o,    // the line is poisoned from now on
    output logic                   m_axi_wvalid_o,
    input  wire                    m_axi_wready_i,
    input  wire  [WriteIdBits-1:0] m_axi_bid_i,
    input  wire  [            1:0] m_axi_bresp_i,
    input  wire                    m_axi_bvalid_i,
    output logic                   m_axi_bready_o,

    input  wire         clear_lost_i,
    output logic        lost_o,
    output logic        over_run_o,       // a message came without a credit and was dropped; stays until reset
    output logic [31:0] reads_o,          // counters since reset: of accepted requests ...
    output logic [31:0] writes_o,
    output logic [31:0] refused_o,        // opcodes outside the subset
    output logic [31:0] decode_errors_o,
    output logic [31:0] poisoned_o,       // MemData sent with poison
    output logic [31:0] timed_out_o
);
  localparam logic [3:0] ReqMemInv = 4'b0000;
  localparam logic [3:0] ReqMemRd = 4'b0001;
  localparam logic [3:0] ReqMemRdData = 4'b0010;
  localparam logic [3:0] ReqMemSpecRd = 4'b1000;
  localparam logic [3:0] ReqMemInvNt = 4'b1001;
  localparam logic [3:0] RwdMemWr = 4'b0001;
  localparam logic [3:0] RwdMemWrPtl = 4'b0010;
  localparam logic [2:0] NdrCmp = 3'b000;
  localparam logic [2:0] DrsMemData = 3'b000;
  localparam logic [1:0] MetaNoOp = 2'b11;

  // All of a request's answer is known before it enters the table: what it is, and whether its line is here.
  typedef struct packed {
    logic valid;
    logic access;
    logic completion;
    logic decode_error;
    logic [15:0] tag;
    logic [LineBits-1:0] line;
  } request_t;
  request_t req_q, rwd_q;
  logic rwd_poison_q;
  logic [63:0] rwd_strobe_q;
  logic [511:0] rwd_data_q;

  logic req_over_run, rwd_over_run;
  logic req_read, req_known, req_here, req_dropped, rwd_known, rwd_here;
  logic [51:6] req_line, rwd_line;
  assign req_read = m2s_req_opcode_i == ReqMemRd || m2s_req_opcode_i == ReqMemRdData;
  assign req_dropped = m2s_req_opcode_i == ReqMemSpecRd;
  assign req_known = req_read || req_dropped || m2s_req_opcode_i == ReqMemInv || m2s_req_opcode_i == ReqMemInvNt;
  assign rwd_known = m2s_rwd_opcode_i == RwdMemWr || m2s_rwd_opcode_i == RwdMemWrPtl;
  assign req_line = m2s_req_address_i[51:6] - base_line_i;
  assign rwd_line = m2s_rwd_address_i - base_line_i;
  assign req_here = m2s_req_address_i[51:6] >= base_line_i && req_line < size_lines_i;
  assign rwd_here = m2s_rwd_address_i >= base_line_i && rwd_line < size_lines_i;

  logic req_taken, rwd_taken;
  assign req_taken = m2s_req_valid_i && !req_over_run;
  assign rwd_taken = m2s_rwd_valid_i && !rwd_over_run;

  logic tick_q;
  localparam int unsigned Quarter = DeadlineCycles / 4;
  logic [$clog2(Quarter)-1:0] timer_q;

  logic [ReadIdBits:0] reads_timed_out;
  logic [WriteIdBits:0] writes_timed_out;
  logic lost, late;
  logic drs_valid, drs_poison, drs_may_send, drs_taken;
  logic [ 15:0] drs_tag;
  logic [511:0] drs_data;

  always_ff @(posedge clk_i) begin
    req_q <= '{
        valid: req_taken && !req_dropped,
        access : req_read && req_here,
        completion: !req_read,
        decode_error: poison_on_decode_error_i && req_read && !req_here,
        tag: m2s_req_tag_i,
        line: req_line[LineBits+5:6]
    };
    rwd_q <= '{
        valid: rwd_taken,
        access : rwd_known && rwd_here,
        completion: 1'b1,
        decode_error: 1'b0,
        tag: m2s_rwd_tag_i,
        line: rwd_line[LineBits+5:6]
    };
    rwd_poison_q <= m2s_rwd_poison_i;
    rwd_strobe_q <= m2s_rwd_opcode_i == RwdMemWrPtl ? m2s_rwd_byte_enable_i : '1;
    rwd_data_q <= m2s_rwd_data_i;

    timer_q <= timer_q == '0 ? ($bits(timer_q))'(Quarter - 1) : timer_q - 1'b1;
    tick_q <= timer_q == '0;

    if (clear_lost_i && !late) lost_o <= 1'b0;
    if (lost) lost_o <= 1'b1;
    if (req_over_run || rwd_over_run) over_run_o <= 1'b1;
    reads_o <= reads_o + 32'(req_taken && req_read);
    writes_o <= writes_o + 32'(rwd_taken && rwd_known);
    refused_o <= refused_o + 32'(req_taken && !req_known) + 32'(rwd_taken && !rwd_known);
    decode_errors_o <= decode_errors_o + 32'(req_taken && req_read && !req_here) +
        32'(rwd_taken && rwd_known && !rwd_here);
    poisoned_o <= poisoned_o + 32'(s2m_drs_valid_o && s2m_drs_poison_o);
    timed_out_o <= timed_out_o + 32'(reads_timed_out) + 32'(writes_timed_out);
    if (rst_i) begin
      req_q.valid <= 1'b0;
      rwd_q.valid <= 1'b0;
      timer_q <= '0;
      tick_q <= 1'b0;
      lost_o <= 1'b0;
      over_run_o <= 1'b0;
      reads_o <= '0;
      writes_o <= '0;
      refused_o <= '0;
      decode_errors_o <= '0;
      poisoned_o <= '0;
      timed_out_o <= '0;
    end
  end

  // Order within a line: which entries of the other channel come before this request.
  logic [ReqCredits-1:0] reads_pending, older_reads, reads_accepting;
  logic [RwdCredits-1:0] writes_pending, older_writes;
  logic [ReqCredits-1:0][LineBits-1:0] read_lines;
  logic [RwdCredits-1:0][LineBits-1:0] write_lines;
  always_comb begin
    for (int unsigned i = 0; i < ReqCredits; i++) begin
      older_reads[i] = (reads_pending[i] && read_lines[i] == rwd_q.line) ||
          (reads_accepting[i] && req_q.line == rwd_q.line);
    end
    for (int unsigned i = 0; i < RwdCredits; i++) begin
      older_writes[i] = writes_pending[i] && write_lines[i] == req_q.line;
    end
  end

  logic ar_valid, ar_ready, aw_valid, aw_ready, w_ready, w_poison;
  logic [ ReadIdBits-1:0] ar_id;
  logic [WriteIdBits-1:0] aw_id;
  logic [LineBits-1:0] ar_line, aw_line;
  logic [ 63:0] w_strobe;
  logic [511:0] w_data;
  logic read_ndr_valid, read_ndr_taken, write_ndr_valid, write_ndr_taken;
  logic [15:0] read_ndr_tag, write_ndr_tag;
  logic ndr_may_send;

  cxl_mem_reads #(
      .Entries (ReqCredits),
      .Writes  (RwdCredits),
      .LineBits(LineBits)
  ) reads (
      .clk_i,
      .rst_i,
      .tick_i(tick_q),
      .accept_i(req_q.valid),
      .tag_i(req_q.tag),
      .line_i(req_q.line),
      .access_i(req_q.access),
      .completion_i(req_q.completion),
      .decode_error_i(req_q.decode_error),
      .older_i(older_writes),
      .pending_o(reads_pending),
      .lines_o(read_lines),
      .accepting_o(reads_accepting),
      .writes_pending_i(writes_pending),
      .issue_valid_o(ar_valid),
      .issue_id_o(ar_id),
      .issue_line_o(ar_line),
      .issue_ready_i(ar_ready),
      .r_valid_i(m_axi_rvalid_i),
      .r_id_i(m_axi_rid_i),
      .r_data_i(m_axi_rdata_i),
      .r_bad_i(m_axi_rresp_i != '0 || m_axi_ruser_i || !m_axi_rlast_i),
      .drs_valid_o(drs_valid),
      .drs_tag_o(drs_tag),
      .drs_poison_o(drs_poison),
      .drs_data_o(drs_data),
      .drs_taken_i(drs_taken),
      .ndr_valid_o(read_ndr_valid),
      .ndr_tag_o(read_ndr_tag),
      .ndr_taken_i(read_ndr_taken),
      .timed_out_o(reads_timed_out)
  );

  cxl_mem_writes #(
      .Entries (RwdCredits),
      .Reads   (ReqCredits),
      .LineBits(LineBits)
  ) writes (
      .clk_i,
      .rst_i,
      .tick_i(tick_q),
      .accept_i(rwd_q.valid),
      .tag_i(rwd_q.tag),
      .line_i(rwd_q.line),
      .access_i(rwd_q.access),
      .poison_i(rwd_poison_q),
      .strobe_i(rwd_strobe_q),
      .data_i(rwd_data_q),
      .older_reads_i(older_reads),
      .pending_o(writes_pending),
      .lines_o(write_lines),
      .reads_pending_i(reads_pending),
      .issue_valid_o(aw_valid),
      .issue_id_o(aw_id),
      .issue_line_o(aw_line),
      .issue_poison_o(w_poison),
      .issue_strobe_o(w_strobe),
      .issue_data_o(w_data),
      .issue_ready_i(aw_ready && w_ready),
      .b_valid_i(m_axi_bvalid_i),
      .b_id_i(m_axi_bid_i),
      .b_bad_i(m_axi_bresp_i != '0),
      .ndr_valid_o(write_ndr_valid),
      .ndr_tag_o(write_ndr_tag),
      .ndr_taken_i(write_ndr_taken),
      .lost_o(lost),
      .late_o(late),
      .timed_out_o(writes_timed_out)
  );

  axis_register #(
      .Width(ReadIdBits + LineBits)
  ) ar_register (
      .clk_i,
      .rst_i,
      .data_i ({ar_id, ar_line}),
      .valid_i(ar_valid),
      .ready_o(ar_ready),
      .data_o ({m_axi_arid_o, m_axi_araddr_o[AddressBits-1:6]}),
      .valid_o(m_axi_arvalid_o),
      .ready_i(m_axi_arready_i)
  );
  // Address and data of a write enter their registers together and leave them each by itself.
  axis_register #(
      .Width(WriteIdBits + LineBits)
  ) aw_register (
      .clk_i,
      .rst_i,
      .data_i ({aw_id, aw_line}),
      .valid_i(aw_valid && w_ready),
      .ready_o(aw_ready),
      .data_o ({m_axi_awid_o, m_axi_awaddr_o[AddressBits-1:6]}),
      .valid_o(m_axi_awvalid_o),
      .ready_i(m_axi_awready_i)
  );
  axis_register #(
      .Width(577)
  ) w_register (
      .clk_i,
      .rst_i,
      .data_i ({w_poison, w_strobe, w_data}),
      .valid_i(aw_valid && aw_ready),
      .ready_o(w_ready),
      .data_o ({m_axi_wuser_o, m_axi_wstrb_o, m_axi_wdata_o}),
      .valid_o(m_axi_wvalid_o),
      .ready_i(m_axi_wready_i)
  );
  assign m_axi_araddr_o[5:0] = '0;
  assign m_axi_awaddr_o[5:0] = '0;
  assign {m_axi_arlen_o, m_axi_arsize_o, m_axi_arburst_o} = {8'd0, 3'd6, 2'b01};
  assign {m_axi_awlen_o, m_axi_awsize_o, m_axi_awburst_o} = {8'd0, 3'd6, 2'b01};
  assign m_axi_wlast_o = 1'b1;
  // Every answer has its place: AXI never waits for the host.
  assign m_axi_rready_o = 1'b1;
  assign m_axi_bready_o = 1'b1;

  credit_giver #(
      .Credits(ReqCredits)
  ) req_credits (
      .clk_i,
      .rst_i,
      .taken_i(m2s_req_valid_i),
      .freed_i(2'(drs_taken) + 2'(read_ndr_taken) + 2'(req_taken && req_dropped)),
      .credit_o(m2s_req_credit_o),
      .over_run_o(req_over_run)
  );
  credit_giver #(
      .Credits(RwdCredits)
  ) rwd_credits (
      .clk_i,
      .rst_i,
      .taken_i(m2s_rwd_valid_i),
      .freed_i(2'(write_ndr_taken)),
      .credit_o(m2s_rwd_credit_o),
      .over_run_o(rwd_over_run)
  );
  credit_taker drs_credits (
      .clk_i,
      .rst_i,
      .credit_i(s2m_drs_credit_i),
      .sent_i(drs_taken),
      .may_send_o(drs_may_send)
  );
  credit_taker ndr_credits (
      .clk_i,
      .rst_i,
      .credit_i(s2m_ndr_credit_i),
      .sent_i(read_ndr_taken || write_ndr_taken),
      .may_send_o(ndr_may_send)
  );

  // Completions of the two channels take turns.
  logic read_ndr_last_q;
  assign drs_taken = drs_valid && drs_may_send;
  assign read_ndr_taken = ndr_may_send && read_ndr_valid && !(write_ndr_valid && read_ndr_last_q);
  assign write_ndr_taken = ndr_may_send && write_ndr_valid && !read_ndr_taken;

  assign s2m_ndr_opcode_o = NdrCmp;
  assign s2m_drs_opcode_o = DrsMemData;
  assign {s2m_ndr_meta_field_o, s2m_ndr_meta_value_o} = {MetaNoOp, 2'b00};
  assign {s2m_drs_meta_field_o, s2m_drs_meta_value_o} = {MetaNoOp, 2'b00};
  always_ff @(posedge clk_i) begin
    s2m_ndr_valid_o <= read_ndr_taken || write_ndr_taken;
    s2m_ndr_tag_o   <= read_ndr_taken ? read_ndr_tag : write_ndr_tag;
    if (read_ndr_taken || write_ndr_taken) read_ndr_last_q <= read_ndr_taken;
    s2m_drs_valid_o  <= drs_taken;
    s2m_drs_tag_o    <= drs_tag;
    s2m_drs_poison_o <= drs_poison || lost || lost_o;
    s2m_drs_data_o   <= drs_data;
    if (rst_i) begin
      s2m_ndr_valid_o <= 1'b0;
      s2m_drs_valid_o <= 1'b0;
      read_ndr_last_q <= 1'b0;
    end
  end

  if (ReqCredits != 1 << ReadIdBits || RwdCredits != 1 << WriteIdBits || ReqCredits < 2 || RwdCredits < 2)
  begin : g_bad_credits
    $error("credits %0d and %0d are not powers of two above 1", ReqCredits, RwdCredits);
  end
  if (DeadlineCycles < 32) begin : g_bad_deadline
    $error("DeadlineCycles %0d < 32", DeadlineCycles);
  end

  logic unused;
  assign unused = &{1'b0, m2s_req_meta_field_i, m2s_req_meta_value_i, m2s_req_snoop_type_i, m2s_req_address_i[5],
                    m2s_rwd_meta_field_i, m2s_rwd_meta_value_i, m2s_rwd_snoop_type_i, req_line, rwd_line,
                    rwd_q.completion, rwd_q.decode_error};
endmodule

`default_nettype wire
