`default_nettype none

// Blocks on their way up: an entry each from the look-up of its address to the end of its decompression. The entry's
// number is the id of the look-up and of the descriptor; look-ups and decompressions may end in any order.
//
// free -> looking (the translation unit has been asked) -> mapped (waits for a slot of L2 and for budget) -> moving (its
// descriptor is out) -> filled (reported) -> free. Whatever fails, is cancelled or finds no room is undone: out of the
// residency filter, its slot given back. A block that is moving when it is cancelled is undone when the move has ended:
// until then its slot may still be written.
module prefetch_fetches
  import speckv_pkg::*;
#(
    parameter int unsigned Entries = 16,
    parameter int unsigned SlotBits = 16,
    parameter int unsigned SlotBytes = 131072,  // K from the slot's beginning, V from its middle
    parameter int unsigned PatienceCycles = 4096,  // longest wait of mapped blocks for room
    localparam int unsigned IndexBits = $clog2(Entries)
) (
    input wire clk_i,
    input wire rst_i,

    input  wire      start_i,            // only where start_ready_o
    input  address_t start_key_i,
    input  wire      start_cancelled_i,
    output logic     start_ready_o,

    output logic                              lookup_valid_o,
    input  wire                               lookup_ready_i,
    output logic              [IndexBits-1:0] lookup_id_o,
    output address_t                          lookup_address_o,
    input  wire                               translation_valid_i,
    input  wire               [IndexBits-1:0] translation_id_i,
    input  wire               [         15:0] translation_status_i,
    input  page_table_entry_t                 translation_entry_i,

    input wire        cancel_i,
    input wire [31:0] cancel_req_id_i,

    input  wire                 slot_valid_i,
    output logic                slot_ready_o,
    input  wire  [SlotBits-1:0] slot_i,
    output logic                returned_valid_o,  // a slot that holds nothing
    input  wire                 returned_ready_i,
    output logic [SlotBits-1:0] returned_slot_o,

    input  wire  [IndexBits:0] most_moving_i,  // descriptors out at once
    input  wire  [       63:0] slot_base_i,    // offset of slot 0 in the blocks buffer
    input  wire                budget_i,
    output logic               issued_o,
    output logic [       25:0] issued_lines_o,

    output logic                        descriptor_valid_o,
    input  wire                         descriptor_ready_i,
    output logic        [IndexBits-1:0] descriptor_id_o,
    output descriptor_t                 descriptor_o,
    input  wire                         moved_valid_i,
    input  wire         [IndexBits-1:0] moved_id_i,
    input  wire                         moved_ok_i,

    output logic                    filled_valid_o,
    input  wire                     filled_ready_i,
    output logic     [SlotBits-1:0] filled_slot_o,
    output address_t                filled_key_o,

    output logic     remove_valid_o,  // out of the residency filter
    input  wire      remove_ready_i,
    output address_t remove_key_o,

    output logic fault_o,   // an address is not mapped, or its block does not fit a slot
    output logic failed_o,  // a move ended badly
    output logic busy_o,    // entries are looking or mapped
    output logic no_room_o  // mapped blocks have waited too long and are undone
);
  typedef enum logic [2:0] {
    Free,
    Looking,
    Mapped,
    Moving,
    Filled,
    Undoing
  } state_e;
  state_e [Entries-1:0] state_q;
  logic [Entries-1:0] cancelled_q, has_slot_q;
  address_t [Entries-1:0] key_q;
  logic [Entries-1:0][SlotBits-1:0] slot_q;
  (* ram_style = "distributed" *) page_table_entry_t entry_q[Entries];

  logic [Entries-1:0] free, mapped, filled, undoing, cancels;
  logic [IndexBits-1:0] start_index;
  logic [  IndexBits:0] moving_q;
  always_comb begin
    busy_o = 1'b0;
    start_index = '0;
    for (int unsigned i = 0; i < Entries; i++) begin
      free[i] = state_q[i] == Free;
      mapped[i] = state_q[i] == Mapped;
      filled[i] = state_q[i] == Filled;
      undoing[i] = state_q[i] == Undoing;
      cancels[i] = cancel_i && key_q[i].req_id == cancel_req_id_i;
      if (state_q[i] == Looking || state_q[i] == Mapped) busy_o = 1'b1;
    end
    for (int unsigned i = Entries; i > 0; i--) if (free[i-1]) start_index = IndexBits'(i - 1);
  end

  logic lookup_register_ready;
  axis_register #(
      .Width(IndexBits + AddressBits)
  ) lookup_register (
      .clk_i,
      .rst_i,
      .data_i ({start_index, start_key_i}),
      .valid_i(start_i),
      .ready_o(lookup_register_ready),
      .data_o ({lookup_id_o, lookup_address_o}),
      .valid_o(lookup_valid_o),
      .ready_i(lookup_ready_i)
  );
  assign start_ready_o = lookup_register_ready && |free;

  // Bytes of a kind, in three cycles; whether they fit half a slot. Every answer has its place, so none waits.
  logic [3:0] answer_valid_q;
  logic [3:0][IndexBits-1:0] answer_id_q;
  logic [3:0] answer_ok_q;
  page_table_entry_t answer_q;
  logic [15:0] area_q, heads_q;
  logic [31:0] values_q;
  logic [1:0][1:0] size_q;
  always_ff @(posedge clk_i) begin
    answer_valid_q <= {answer_valid_q[2:0], translation_valid_i};
    answer_id_q <= {answer_id_q[2:0], translation_id_i};
    answer_q <= translation_entry_i;
    // Shapes that kernels refuse are refused here, so the product stays within 32 bits.
    answer_ok_q[0] <= translation_status_i == TranslationOk;
    answer_ok_q[1] <= answer_ok_q[0] && answer_q.tokens <= 16'd64 && answer_q.head_dim <= 16'd256 &&
        answer_q.dtype <= DTypeFp32 && answer_q.kinds != '0 && answer_q.kinds <= KindBoth &&
        answer_q.record_bytes != '0;
    area_q <= 16'(answer_q.tokens[6:0] * answer_q.head_dim[8:0]);
    heads_q <= answer_q.heads;
    size_q <= {size_q[0], answer_q.dtype == DTypeFp32 ? 2'd2 : 2'd1};
    values_q <= area_q * heads_q;
    answer_ok_q[2] <= answer_ok_q[1];
    answer_ok_q[3] <= answer_ok_q[2] && (35'(values_q) << size_q[1]) <= 35'(SlotBytes / 2);
    if (answer_valid_q[0]) entry_q[answer_id_q[0]] <= answer_q;
    if (rst_i) answer_valid_q <= '0;
  end
  logic judge;
  logic [IndexBits-1:0] judged;
  assign judge   = answer_valid_q[3];
  assign judged  = answer_id_q[3];
  assign fault_o = judge && !answer_ok_q[3] && !cancelled_q[judged] && !cancels[judged];

  // The next descriptor.
  logic pick_valid, issue, descriptor_register_ready;
  logic [IndexBits-1:0] pick;
  page_table_entry_t entry;
  descriptor_t descriptor;
  logic [63:0] slot_offset;
  round_robin #(
      .Requests(Entries)
  ) pick_mapped (
      .clk_i,
      .rst_i,
      .request_i(mapped & ~cancels),
      .taken_i  (issue),
      .valid_o  (pick_valid),
      .index_o  (pick)
  );
  assign issue = pick_valid && slot_valid_i && budget_i && moving_q < most_moving_i && descriptor_register_ready &&
      !no_room_o;
  assign slot_ready_o = issue;
  assign entry = entry_q[pick];
  assign slot_offset = slot_base_i + 64'(slot_i) * 64'(SlotBytes);
  assign issued_o = issue;
  assign issued_lines_o = entry.record_bytes[31:6];
  always_comb begin
    descriptor = '0;
    descriptor.record_offset = entry.record_offset;
    if ((entry.kinds & KindKey) != '0) descriptor.key_offset = slot_offset;
    if ((entry.kinds & KindValue) != '0) descriptor.value_offset = slot_offset + 64'(SlotBytes / 2);
    descriptor.record_capacity = entry.record_bytes;
    descriptor.first_position = entry.first_position;
    descriptor.layout_fingerprint = entry.layout_fingerprint;
    descriptor.codebook_fingerprint = entry.codebook_fingerprint;
    descriptor.tokens = entry.tokens;
    descriptor.heads = entry.heads;
    descriptor.head_dim = entry.head_dim;
    descriptor.first_layer = entry.first_layer;
    descriptor.first_head = entry.first_head;
    descriptor.dtype = entry.dtype;
    descriptor.kinds = entry.kinds;
    descriptor.layer_count = entry.layer_count;
    descriptor.codebook_slot = entry.codebook_slot;
  end
  axis_register #(
      .Width(IndexBits + $bits(descriptor_t))
  ) descriptor_register (
      .clk_i,
      .rst_i,
      .data_i ({pick, descriptor}),
      .valid_i(issue),
      .ready_o(descriptor_register_ready),
      .data_o ({descriptor_id_o, descriptor_o}),
      .valid_o(descriptor_valid_o),
      .ready_i(descriptor_ready_i)
  );

  // Reports of filled slots.
  logic report_valid, report_ready;
  logic [IndexBits-1:0] report;
  round_robin #(
      .Requests(Entries)
  ) pick_filled (
      .clk_i,
      .rst_i,
      .request_i(filled),
      .taken_i  (report_valid && report_ready),
      .valid_o  (report_valid),
      .index_o  (report)
  );
  axis_register #(
      .Width(SlotBits + AddressBits)
  ) filled_register (
      .clk_i,
      .rst_i,
      .data_i ({slot_q[report], key_q[report]}),
      .valid_i(report_valid),
      .ready_o(report_ready),
      .data_o ({filled_slot_o, filled_key_o}),
      .valid_o(filled_valid_o),
      .ready_i(filled_ready_i)
  );

  // What is undone: out of the filter first; the slot goes back in the same cycle.
  logic undo_valid, undo, return_ready;
  logic [IndexBits-1:0] undo_index;
  round_robin #(
      .Requests(Entries)
  ) pick_undoing (
      .clk_i,
      .rst_i,
      .request_i(undoing),
      .taken_i  (undo),
      .valid_o  (undo_valid),
      .index_o  (undo_index)
  );
  assign remove_valid_o = undo_valid && return_ready;
  assign remove_key_o = key_q[undo_index];
  assign undo = remove_valid_o && remove_ready_i;
  axis_register #(
      .Width(SlotBits)
  ) returned_register (
      .clk_i,
      .rst_i,
      .data_i (slot_q[undo_index]),
      .valid_i(undo && has_slot_q[undo_index]),
      .ready_o(return_ready),
      .data_o (returned_slot_o),
      .valid_o(returned_valid_o),
      .ready_i(returned_ready_i)
  );

  localparam int unsigned TimerBits = $clog2(PatienceCycles + 1);
  logic [TimerBits-1:0] patience_q;
  assign no_room_o = patience_q == TimerBits'(PatienceCycles);
  logic moved_badly;
  assign moved_badly = !moved_ok_i || cancelled_q[moved_id_i] || cancels[moved_id_i];
  assign failed_o = moved_valid_i && !moved_ok_i;

  always_ff @(posedge clk_i) begin
    patience_q <= issue || !pick_valid || no_room_o ? '0 : patience_q + 1'b1;
    moving_q   <= moving_q + (IndexBits + 1)'(issue) - (IndexBits + 1)'(moved_valid_i);
    for (int unsigned i = 0; i < Entries; i++) begin
      if (cancels[i]) cancelled_q[i] <= 1'b1;
      if (state_q[i] == Mapped && (cancels[i] || no_room_o)) state_q[i] <= Undoing;
    end
    if (start_i) begin
      state_q[start_index] <= Looking;
      key_q[start_index] <= start_key_i;
      cancelled_q[start_index] <= start_cancelled_i || (cancel_i && cancel_req_id_i == start_key_i.req_id);
      has_slot_q[start_index] <= 1'b0;
    end
    if (judge) begin
      state_q[judged] <= answer_ok_q[3] && !cancelled_q[judged] && !cancels[judged] ? Mapped : Undoing;
    end
    if (issue) begin
      state_q[pick] <= Moving;
      slot_q[pick] <= slot_i;
      has_slot_q[pick] <= 1'b1;
    end
    if (moved_valid_i) state_q[moved_id_i] <= moved_badly ? Undoing : Filled;
    if (report_valid && report_ready) state_q[report] <= Free;
    if (undo) state_q[undo_index] <= Free;
    if (rst_i) begin
      state_q <= '0;
      moving_q <= '0;
      patience_q <= '0;
    end
  end

  logic unused;
  assign unused = &{1'b0, entry};

`ifndef SYNTHESIS
  assert property (@(posedge clk_i) disable iff (rst_i) translation_valid_i |-> state_q[translation_id_i] == Looking)
  else $error("a translation that was not asked for");
  assert property (@(posedge clk_i) disable iff (rst_i) moved_valid_i |-> state_q[moved_id_i] == Moving)
  else $error("the end of a move that was not asked for");
  assert property (@(posedge clk_i) disable iff (rst_i) start_i |-> start_ready_o)
  else $error("a look-up without a free entry");
`endif
endmodule

`default_nettype wire
