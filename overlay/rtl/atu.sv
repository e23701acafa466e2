`default_nettype none

// Translates virtual KV addresses to page table entries. The block key is the address's bits under `key_mask_i`: with
// positions below a block's length, the kind and whatever else a record holds together masked out, every address of
// a record has the same key. The TLB holds Entries of them; what it lacks is walked for in memory while further
// lookups go on (Misses of them at most wait), so answers come in any order, told apart by their tags.
//
// One pipeline does everything, one thing a cycle: lookups, outcomes of walks, forgetting. An answer of a hit is
// offered in the fourth cycle after its lookup was taken. A fill holds lookups up for three cycles. Key mask, table and
// timeout may change only while nothing is under way, and everything must be forgotten then.
//
// A host that changes an entry writes its line, then forgets the key: `forget_done_o` says that no answer with the
// old entry comes any more. Faults are not kept: each lookup walks again.
module atu
  import speckv_pkg::*;
#(
    parameter  int unsigned Entries  = 256,
    parameter  int unsigned Ways     = 4,
    parameter  int unsigned Misses   = 8,
    parameter  int unsigned TagBits  = 8,
    localparam int unsigned SlotBits = Misses > 1 ? $clog2(Misses) : 1
) (
    input  wire                                 clk_i,
    input  wire                                 rst_i,
    input  wire               [AddressBits-1:0] key_mask_i,
    input  wire               [           63:0] table_base_i,       // a multiple of LineBytes
    input  wire               [            5:0] table_log2_i,       // its entries
    input  wire               [           31:0] timeout_i,          // cycles of a walk
    input  wire                                 request_valid_i,
    output logic                                request_ready_o,
    input  wire               [AddressBits-1:0] request_address_i,
    input  wire               [    TagBits-1:0] request_tag_i,
    output logic                                response_valid_o,
    input  wire                                 response_ready_i,
    output logic              [    TagBits-1:0] response_tag_o,
    output logic              [            2:0] response_status_o,  // Translation*
    output page_table_entry_t                   response_entry_o,   // zero unless ok
    input  wire                                 forget_valid_i,
    output logic                                forget_ready_o,
    input  wire               [            1:0] forget_kind_i,      // Invalidate*
    input  wire               [AddressBits-1:0] forget_address_i,
    output logic                                forget_done_o,
    output logic                                fault_valid_o,      // for a cycle
    output logic              [            2:0] fault_status_o,     // of the last fault
    output logic              [AddressBits-1:0] fault_key_o,
    output logic              [           31:0] hits_o,
    output logic              [           31:0] misses_o,
    output logic              [           31:0] faults_o,
    output logic              [           63:0] m_axi_araddr,
    output logic              [            7:0] m_axi_arlen,
    output logic              [            2:0] m_axi_arsize,
    output logic              [            1:0] m_axi_arburst,
    output logic              [   SlotBits-1:0] m_axi_arid,
    output logic                                m_axi_arvalid,
    input  wire                                 m_axi_arready,
    input  wire               [          511:0] m_axi_rdata,
    input  wire               [   SlotBits-1:0] m_axi_rid,
    input  wire               [            1:0] m_axi_rresp,
    input  wire                                 m_axi_rlast,
    input  wire                                 m_axi_rvalid,
    output logic                                m_axi_rready
);
  localparam int unsigned Sets = Entries / Ways;
  localparam int unsigned SetBits = $clog2(Sets);
  localparam int unsigned WayBits = $clog2(Ways);

  if (Sets * Ways != Entries || Sets != 1 << SetBits || Ways != 1 << WayBits || Sets < 2 || Ways < 2) begin : g_bad_size
    $error("Entries %0d and Ways %0d must be powers of two, with two sets and ways at least", Entries, Ways);
  end
  if (Misses < 4) begin : g_bad_misses
    $error("Misses %0d < 4: the pipeline alone may hold three", Misses);
  end

  typedef enum logic [2:0] {
    OpNone,
    OpLookup,
    OpAgain,   // a lookup that waits in a slot
    OpFill,    // the entry that a slot's walk has found
    OpFault,
    OpForget
  } op_e;

  typedef struct packed {
    op_e op;
    logic [AddressBits-1:0] key;
    logic [31:0] hash;
    logic [TagBits-1:0] tag;
    logic [SlotBits-1:0] slot;
    logic [2:0] status;
    logic last;  // of a request to forget
  } step_t;

  // ---- What enters the pipeline ----
  step_t enter;
  step_t [3:1] step_q;
  logic advance;
  logic changing;  // a step ahead changes the TLB, and a lookup now would read it before that
  logic filling;
  logic settled;  // none is before or in its last cycle
  logic room;
  logic [SlotBits:0] lookups;
  logic [SlotBits:0] slots_free;
  logic slots_late;
  logic reply_valid, reply_take, reply_again;
  logic [SlotBits-1:0] reply_slot;
  logic [2:0] reply_status;
  logic [AddressBits-1:0] reply_key;
  logic [TagBits-1:0] reply_tag;

  logic forgets_q;
  logic [1:0] forget_kind_q;
  logic [AddressBits-1:0] forget_key_q;
  logic [SetBits-1:0] forget_set_q;
  logic forget_sent_q;  // all steps of it are in the pipeline
  logic forget_issue;
  logic forget_last;

  function automatic logic changes(input op_e op);
    return op == OpFill || op == OpForget;
  endfunction

  assign advance  = !response_valid_o || response_ready_i;
  assign changing = changes(step_q[1].op) || changes(step_q[2].op);
  assign settled  = !changing && !changes(step_q[3].op);

  // A lookup that may miss needs a slot; where memory is late it may enter without, to be told so.
  always_comb begin
    lookups = '0;
    for (int i = 1; i <= 3; i++) lookups += (SlotBits + 1)'(step_q[i].op == OpLookup);
  end
  assign room = slots_free > lookups || slots_late;

  assign forget_ready_o = !forgets_q;
  assign forget_last = forget_kind_q != 2'(InvalidateRequest) || forget_set_q == SetBits'(Sets - 1);
  // Steps to forget follow each other: no two are about the same set.
  assign filling = step_q[1].op == OpFill || step_q[2].op == OpFill;
  assign forget_issue = forgets_q && advance && !forget_sent_q && !filling;
  assign reply_take = reply_valid && advance && settled && !(forgets_q && !forget_sent_q);
  assign request_ready_o = advance && room && !changing && !(forgets_q && !forget_sent_q) && !(reply_valid && settled);

  logic [AddressBits-1:0] key;
  logic [31:0] hash;

  always_comb begin
    key = request_address_i & key_mask_i;
    if (forget_issue) key = forget_key_q;
    else if (reply_take) key = reply_key;
  end

  always_comb begin
    enter = '0;
    enter.op = OpNone;
    enter.key = key;
    enter.hash = hash;
    enter.tag = request_tag_i;
    if (forget_issue) begin
      enter.op   = OpForget;
      enter.last = forget_last;
      if (forget_kind_q == 2'(InvalidateRequest)) enter.hash = 32'(forget_set_q);
    end else if (reply_take) begin
      enter.op = reply_again ? OpAgain : (reply_status == 3'(TranslationOk) ? OpFill : OpFault);
      enter.tag = reply_tag;
      enter.slot = reply_slot;
      enter.status = reply_again ? '0 : reply_status;
    end else if (request_valid_i && request_ready_o) enter.op = OpLookup;
  end

  key_hash hash_of (
      .key_i (key),
      .hash_o(hash)
  );

  always_ff @(posedge clk_i) begin
    if (advance) step_q <= {step_q[2:1], enter};
    if (forget_valid_i && forget_ready_o) begin
      forgets_q <= 1'b1;
      forget_sent_q <= 1'b0;
      forget_kind_q <= forget_kind_i;
      forget_key_q <= forget_address_i & (forget_kind_i == 2'(InvalidateKey) ? key_mask_i : '1);
      forget_set_q <= '0;
    end
    if (forget_issue) begin
      forget_set_q  <= forget_set_q + 1'b1;
      forget_sent_q <= forget_last;
    end
    forget_done_o <= 1'b0;
    if (advance && step_q[3].op == OpForget && step_q[3].last) begin
      forgets_q <= 1'b0;
      forget_done_o <= 1'b1;
    end
    if (rst_i) begin
      for (int i = 1; i <= 3; i++) step_q[i].op <= OpNone;
      forgets_q <= 1'b0;
      forget_sent_q <= 1'b0;
      forget_done_o <= 1'b0;
    end
  end

  // ---- First step: tags are read. Second: compared. Third: the entry is read or written. ----
  logic [SetBits-1:0] set;  // of the third
  logic [WayBits-1:0] way;
  logic found;
  logic looks;
  logic fill;
  logic hit;

  assign set   = SetBits'(step_q[3].hash);
  assign looks = step_q[3].op == OpLookup || step_q[3].op == OpAgain;
  assign fill  = step_q[3].op == OpFill;
  assign hit   = looks && found;

  tlb_tags #(
      .Entries(Entries),
      .Ways   (Ways)
  ) tlb (
      .clk_i,
      .rst_i,
      .advance_i(advance),
      .read_set_i(SetBits'(step_q[1].hash)),
      .compare_set_i(SetBits'(step_q[2].hash)),
      .compare_key_i(step_q[2].key),
      .whole_request_i(step_q[2].op == OpForget && forget_kind_q == 2'(InvalidateRequest)),
      .set_i(set),
      .key_i(step_q[3].key),
      .use_i(looks),
      .fill_i(fill),
      .forget_i(step_q[3].op == OpForget),
      .clear_i(step_q[3].op == OpForget && forget_kind_q == 2'(InvalidateEverything)),
      .found_o(found),
      .way_o(way)
  );

  // ---- Answers ----
  logic [511:0] held;
  logic [511:0] filled;
  logic [511:0] filled_q;
  logic from_walk_q;
  logic miss;
  logic homeless;
  logic ends;

  assign miss = advance && looks && !found;
  assign homeless = step_q[3].op == OpLookup && slots_free == '0;
  assign ends = advance && (fill || step_q[3].op == OpFault || (step_q[3].op == OpAgain && found));

  ram_1r1w #(
      .Width(512),
      .Depth(Entries)
  ) entries (
      .clk_i,
      .write_i(advance && fill),
      .write_index_i({set, way}),
      .data_i(filled),
      .read_i(advance),
      .read_index_i({set, way}),
      .data_o(held)
  );

  assign response_entry_o = response_status_o != 3'(TranslationOk) ? '0 : (from_walk_q ? filled_q : held);

  always_ff @(posedge clk_i) begin
    fault_valid_o <= 1'b0;
    if (advance) begin
      response_valid_o <= ends || hit || (miss && homeless);
      response_tag_o <= step_q[3].tag;
      response_status_o <= miss ? 3'(TranslationWalkTimeout) : step_q[3].status;
      from_walk_q <= fill;
      filled_q <= filled;
      if (step_q[3].op == OpLookup) begin
        hits_o   <= hits_o + 32'(hit);
        misses_o <= misses_o + 32'(!hit);
      end
      if (step_q[3].op == OpFault || (miss && homeless)) begin
        fault_valid_o <= 1'b1;
        fault_status_o <= miss ? 3'(TranslationWalkTimeout) : step_q[3].status;
        fault_key_o <= step_q[3].key;
        faults_o <= faults_o + 1'b1;
      end
    end
    if (rst_i) begin
      response_valid_o <= 1'b0;
      fault_valid_o <= 1'b0;
      hits_o <= '0;
      misses_o <= '0;
      faults_o <= '0;
    end
  end

  // ---- Memory ----
  logic unused_last;
  assign unused_last   = m_axi_rlast;  // every read is one line
  assign m_axi_arlen   = '0;
  assign m_axi_arsize  = 3'($clog2(LineBytes));
  assign m_axi_arburst = 2'b01;
  assign m_axi_rready  = 1'b1;

  atu_walker #(
      .Slots  (Misses),
      .TagBits(TagBits)
  ) walker (
      .clk_i,
      .rst_i,
      .table_base_i,
      .table_log2_i,
      .timeout_i,
      .miss_i(miss && !homeless),
      .miss_again_i(step_q[3].op == OpAgain),
      .miss_slot_i(step_q[3].slot),
      .miss_key_i(step_q[3].key),
      .miss_hash_i(step_q[3].hash),
      .miss_tag_i(step_q[3].tag),
      .free_o(slots_free),
      .late_o(slots_late),
      .reply_valid_o(reply_valid),
      .reply_ready_i(reply_take),
      .reply_again_o(reply_again),
      .reply_slot_o(reply_slot),
      .reply_status_o(reply_status),
      .reply_key_o(reply_key),
      .reply_tag_o(reply_tag),
      .read_i(advance),
      .read_slot_i(step_q[2].slot),
      .entry_o(filled),
      .end_i(ends),
      .end_slot_i(step_q[3].slot),
      .end_fault_i(step_q[3].op == OpFault),
      .forget_i(advance && step_q[3].op == OpForget && step_q[3].last),
      .forget_kind_i(forget_kind_q),
      .forget_key_i(forget_key_q),
      .m_axi_araddr,
      .m_axi_arid,
      .m_axi_arvalid,
      .m_axi_arready,
      .m_axi_rdata,
      .m_axi_rid,
      .m_axi_rresp,
      .m_axi_rvalid
  );
endmodule

`default_nettype wire
