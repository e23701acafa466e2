`default_nettype none

// Walks the page table in memory for what the TLB misses, several at once. Each waiting lookup has a slot; a lookup of
// a key that is walked for already follows that walk and is looked up anew after it. A walk reads one entry after the
// other from the key's place on, until it finds the key, an empty entry, or has looked at PageProbeLimit of them. It
// ends with a fault when `timeout_i` cycles are over; its slot is free again once the memory has answered.
//
// The pipeline of the TLB takes outcomes with reply_*, and names a slot again when it is done with it (end_i) or when
// it missed on looking it up anew (miss_again_i). What is forgotten while a walk is on is walked for from the start.
module atu_walker
  import speckv_pkg::*;
#(
    parameter  int unsigned Slots    = 8,
    parameter  int unsigned TagBits  = 8,
    localparam int unsigned SlotBits = Slots > 1 ? $clog2(Slots) : 1
) (
    input  wire                    clk_i,
    input  wire                    rst_i,
    input  wire  [           63:0] table_base_i,
    input  wire  [            5:0] table_log2_i,
    input  wire  [           31:0] timeout_i,
    // A lookup that missed: to a free slot, or (again) to the one it has.
    input  wire                    miss_i,
    input  wire                    miss_again_i,
    input  wire  [   SlotBits-1:0] miss_slot_i,
    input  wire  [AddressBits-1:0] miss_key_i,
    input  wire  [           31:0] miss_hash_i,
    input  wire  [    TagBits-1:0] miss_tag_i,
    output logic [     SlotBits:0] free_o,          // slots
    output logic                   late_o,          // a slot waits for memory that is late
    // An outcome to take: the entry (read_slot_i says which), a fault, or a lookup to do anew.
    output logic                   reply_valid_o,
    input  wire                    reply_ready_i,
    output logic                   reply_again_o,
    output logic [   SlotBits-1:0] reply_slot_o,
    output logic [            2:0] reply_status_o,
    output logic [AddressBits-1:0] reply_key_o,
    output logic [    TagBits-1:0] reply_tag_o,
    input  wire                    read_i,
    input  wire  [   SlotBits-1:0] read_slot_i,
    output logic [          511:0] entry_o,         // in the cycle after read_i
    input  wire                    end_i,
    input  wire  [   SlotBits-1:0] end_slot_i,
    input  wire                    end_fault_i,
    input  wire                    forget_i,
    input  wire  [            1:0] forget_kind_i,
    input  wire  [AddressBits-1:0] forget_key_i,
    output logic [           63:0] m_axi_araddr,
    output logic [   SlotBits-1:0] m_axi_arid,
    output logic                   m_axi_arvalid,
    input  wire                    m_axi_arready,
    input  wire  [          511:0] m_axi_rdata,
    input  wire  [   SlotBits-1:0] m_axi_rid,
    input  wire  [            1:0] m_axi_rresp,
    input  wire                    m_axi_rvalid
);
  typedef enum logic [2:0] {
    SlotFree,
    SlotPending,  // wants to read
    SlotReading,
    SlotFollowing,
    SlotAgain,  // to be looked up anew
    SlotDone,  // has an outcome
    SlotTaken  // the pipeline has it
  } slot_e;

  slot_e [Slots-1:0] state_q;
  logic [Slots-1:0] outstanding_q;  // the memory owes an answer
  logic [Slots-1:0][AddressBits-1:0] key_q;
  logic [Slots-1:0][31:0] hash_q;
  logic [Slots-1:0][TagBits-1:0] tag_q;
  logic [Slots-1:0][$clog2(PageProbeLimit)-1:0] probe_q;
  logic [Slots-1:0][SlotBits-1:0] leader_q;
  logic [Slots-1:0][2:0] status_q;
  logic [Slots-1:0][31:0] start_q;
  logic [31:0] now_q;
  logic [SlotBits-1:0] watched_q;  // the slot whose deadline is looked at

  // ---- Which slot ----
  logic [Slots-1:0] free;
  logic [Slots-1:0] late;
  logic [Slots-1:0] pending;
  logic [SlotBits-1:0] free_slot;
  logic [SlotBits-1:0] pending_slot;
  logic [SlotBits-1:0] slot;  // of the miss
  logic follows;
  logic [SlotBits-1:0] leader;

  always_comb begin
    free_o = '0;
    free_slot = '0;
    pending_slot = '0;
    reply_slot_o = '0;
    reply_valid_o = 1'b0;
    for (int i = int'(Slots) - 1; i >= 0; i--) begin
      free[i] = state_q[i] == SlotFree && !outstanding_q[i];
      late[i] = outstanding_q[i] && state_q[i] != SlotReading && state_q[i] != SlotPending;
      pending[i] = state_q[i] == SlotPending && !outstanding_q[i];
      free_o += (SlotBits + 1)'(free[i]);
      if (free[i]) free_slot = SlotBits'(i);
      if (pending[i]) pending_slot = SlotBits'(i);
      if (state_q[i] == SlotDone || state_q[i] == SlotAgain) begin
        reply_slot_o  = SlotBits'(i);
        reply_valid_o = 1'b1;
      end
    end
  end

  assign late_o = |late;
  assign slot = miss_again_i ? miss_slot_i : free_slot;
  assign reply_again_o = state_q[reply_slot_o] == SlotAgain;
  assign reply_status_o = status_q[reply_slot_o];
  assign reply_key_o = key_q[reply_slot_o];
  assign reply_tag_o = tag_q[reply_slot_o];

  always_comb begin
    follows = 1'b0;
    leader  = '0;
    for (int i = 0; i < int'(Slots); i++) begin
      if (key_q[i] == miss_key_i &&
          (state_q[i] == SlotPending || state_q[i] == SlotReading || state_q[i] == SlotDone || state_q[i] == SlotTaken)
          && !(miss_again_i && miss_slot_i == SlotBits'(i))) begin
        follows = 1'b1;
        leader  = SlotBits'(i);
      end
    end
  end

  // ---- Reading ----
  logic issue;
  logic [63:0] index;

  assign issue = |pending && (!m_axi_arvalid || m_axi_arready);
  assign index = (64'(hash_q[pending_slot]) + 64'(probe_q[pending_slot])) & ((64'd1 << table_log2_i) - 64'd1);

  logic answer_valid_q;
  logic [SlotBits-1:0] answer_slot_q;
  logic answer_error_q;
  page_table_entry_t answer_q;
  logic [2:0] found;
  logic ended;

  ram_1r1w #(
      .Width(512),
      .Depth(Slots),
      .Style("distributed")
  ) results (
      .clk_i,
      .write_i(answer_valid_q && state_q[answer_slot_q] == SlotReading),
      .write_index_i(answer_slot_q),
      .data_i(answer_q),
      .read_i,
      .read_index_i(read_slot_i),
      .data_o(entry_o)
  );

  page_entry_check check (
      .entry_i(answer_q),
      .key_i(key_q[answer_slot_q]),
      .error_i(answer_error_q),
      .last_i(probe_q[answer_slot_q] == $clog2(PageProbeLimit)'(PageProbeLimit - 1)),
      .ended_o(ended),
      .status_o(found)
  );

  always_ff @(posedge clk_i) begin
    now_q <= now_q + 1'b1;
    watched_q <= watched_q == SlotBits'(Slots - 1) ? '0 : watched_q + 1'b1;

    if (m_axi_arready) m_axi_arvalid <= 1'b0;
    if (issue) begin
      m_axi_arvalid <= 1'b1;
      m_axi_arid <= pending_slot;
      m_axi_araddr <= table_base_i + (index << $clog2(PageTableEntryBytes));
      state_q[pending_slot] <= SlotReading;
      outstanding_q[pending_slot] <= 1'b1;
    end

    if ((state_q[watched_q] == SlotPending || state_q[watched_q] == SlotReading) &&
        now_q - start_q[watched_q] >= timeout_i) begin
      state_q[watched_q]  <= SlotDone;
      status_q[watched_q] <= 3'(TranslationWalkTimeout);
    end

    answer_valid_q <= m_axi_rvalid;
    answer_slot_q <= m_axi_rid;
    answer_error_q <= m_axi_rresp != '0;
    answer_q <= m_axi_rdata;
    if (answer_valid_q) begin
      outstanding_q[answer_slot_q] <= 1'b0;
      if (state_q[answer_slot_q] == SlotReading) begin
        state_q[answer_slot_q]  <= ended ? SlotDone : SlotPending;
        status_q[answer_slot_q] <= found;
        probe_q[answer_slot_q]  <= probe_q[answer_slot_q] + 1'b1;
      end
    end

    if (reply_valid_o && reply_ready_i) state_q[reply_slot_o] <= SlotTaken;

    if (miss_i && (miss_again_i || |free)) begin
      state_q[slot] <= follows ? SlotFollowing : SlotPending;
      leader_q[slot] <= leader;
      key_q[slot] <= miss_key_i;
      hash_q[slot] <= miss_hash_i;
      tag_q[slot] <= miss_tag_i;
      probe_q[slot] <= '0;
      start_q[slot] <= now_q;
    end

    if (end_i) begin
      state_q[end_slot_i] <= SlotFree;
      for (int i = 0; i < int'(Slots); i++) begin
        if (state_q[i] == SlotFollowing && leader_q[i] == end_slot_i) begin
          state_q[i]  <= end_fault_i ? SlotDone : SlotAgain;
          status_q[i] <= status_q[end_slot_i];
        end
      end
    end

    if (forget_i) begin
      for (int i = 0; i < int'(Slots); i++) begin
        if ((state_q[i] == SlotPending || state_q[i] == SlotReading || state_q[i] == SlotDone) && forgotten(
                forget_kind_i, forget_key_i, key_q[i]
            )) begin
          state_q[i] <= SlotPending;
          probe_q[i] <= '0;
        end
      end
    end

    if (rst_i) begin
      for (int i = 0; i < int'(Slots); i++) state_q[i] <= SlotFree;
      outstanding_q <= '0;
      now_q <= '0;
      watched_q <= '0;
      m_axi_arvalid <= 1'b0;
      answer_valid_q <= 1'b0;
    end
  end

  function automatic logic forgotten(input logic [1:0] kind, input address_t which, input address_t key);
    case (kind)
      2'(InvalidateKey): return key == which;
      2'(InvalidateRequest): return key.req_id == which.req_id;
      default: return 1'b1;
    endcase
  endfunction
endmodule

`default_nettype wire
