`default_nettype none

// Brings blocks up before they are read: hints say which request stands where; the predictor's candidates, or the order
// of dense attention, say which blocks come next (prefetch_walk); those in L2 or on their way are passed over
// (residency_filter); the others are looked up and given a slot of L2 and a descriptor for kv_decompress
// (prefetch_fetches). Every hint gets one result, at the latest after PredictorCycles, the look-ups' own deadlines and
// twice PatienceCycles for every Fetches blocks.
//
// Owner of L2 is whoever reads it: it gives free slots out, is told of each slot that was filled, and reports with
// `note_*` what leaves L2 (and what came there by other ways). A slot that is given back holds nothing. A cancellation
// counts from the cycle in which it is given: no descriptor of its request leaves later except one already on offer,
// and moves that end later are undone instead of reported.
module prefetch_core
  import speckv_pkg::*;
#(
    parameter int unsigned Hints = 8,  // that wait; a power of two
    parameter int unsigned Fetches = 16,  // blocks looked up or on their way; a power of two
    parameter int unsigned OwnerBits = 8,
    parameter int unsigned SlotBits = 16,
    parameter int unsigned SlotBytes = 131072,
    parameter int unsigned FilterSets = 256,
    parameter int unsigned FilterWays = 4,
    parameter int unsigned PredictorCycles = 65536,
    parameter int unsigned PatienceCycles = 4096,
    localparam int unsigned IdBits = $clog2(Fetches)
) (
    input wire clk_i,
    input wire rst_i,

    // Configuration. Depth, budget and moves may change at any time, the rest while nothing is asked.
    input wire [15:0] prefetch_depth_i,  // spec parameter prefetch_depth: hints of an owner that may wait
    input wire [IdBits:0] most_moving_i,  // descriptors out at once
    input wire [15:0] rate_i,  // lines in 256 cycles; 0: no limit
    input wire [25:0] burst_lines_i,
    input wire [15:0] layers_i,
    input wire [15:0] layer_step_i,  // layers that a block spans
    input wire [2:0] block_shift_i,  // log2 of a block's tokens
    input wire [AddressBits-1:0] key_mask_i,  // of an address: what names its block
    input wire [63:0] slot_base_i,  // offset of slot 0 in the blocks buffer

    input  wire                  hint_valid_i,
    output logic                 hint_ready_o,
    input  wire  [         15:0] hint_tag_i,       // comes back in the result
    input  wire  [         31:0] hint_req_id_i,
    input  wire  [         15:0] hint_layer_i,     // has been read: what follows is wanted
    input  wire  [         31:0] hint_position_i,  // tokens that the sequence has
    input  wire  [         15:0] hint_depth_i,     // blocks wanted, at most
    input  wire  [OwnerBits-1:0] hint_owner_i,
    input  wire  [          1:0] hint_priority_i,  // the highest first
    input  wire                  hint_dense_i,     // the order of dense attention; else the predictor is asked
    input  wire                  cancel_i,         // everything of a request, at once
    input  wire  [         31:0] cancel_req_id_i,
    output logic                 result_valid_o,
    input  wire                  result_ready_i,
    output logic [         15:0] result_tag_o,
    output logic [          2:0] result_status_o,  // ok, pushed out, cancelled, no prediction, no room: 0 to 4
    output logic [         15:0] result_issued_o,  // descriptors

    output logic              predict_valid_o,
    input  wire               predict_ready_i,
    output logic       [ 7:0] predict_id_o,
    output logic       [31:0] predict_req_id_o,
    output logic       [15:0] predict_layer_o,
    output logic       [31:0] predict_position_o,
    input  wire               candidate_valid_i,
    output logic              candidate_ready_o,
    input  wire        [ 7:0] candidate_id_i,      // of the question; an old one is taken and forgotten
    input  candidate_t        candidate_i,         // one without flag known counts for nothing
    input  wire               candidate_last_i,

    output logic                           lookup_valid_o,
    input  wire                            lookup_ready_i,
    output logic              [IdBits-1:0] lookup_id_o,
    output address_t                       lookup_address_o,
    input  wire                            translation_valid_i,
    output logic                           translation_ready_o,
    input  wire               [IdBits-1:0] translation_id_i,
    input  wire               [      15:0] translation_status_i,
    input  page_table_entry_t              translation_entry_i,

    output logic                       descriptor_valid_o,
    input  wire                        descriptor_ready_i,
    output logic        [  IdBits-1:0] descriptor_id_o,
    output descriptor_t                descriptor_o,
    input  wire                        moved_valid_i,       // a descriptor has ended
    output logic                       moved_ready_o,
    input  wire         [  IdBits-1:0] moved_id_i,
    input  wire                        moved_ok_i,
    input  wire                        slot_valid_i,        // free slots of L2
    output logic                       slot_ready_o,
    input  wire         [SlotBits-1:0] slot_i,
    output logic                       returned_valid_o,
    input  wire                        returned_ready_i,
    output logic        [SlotBits-1:0] returned_slot_o,
    output logic                       filled_valid_o,
    input  wire                        filled_ready_i,
    output logic        [SlotBits-1:0] filled_slot_o,
    output address_t                   filled_key_o,

    input  wire                    note_valid_i,
    output logic                   note_ready_o,
    input  wire                    note_resident_i,  // is in L2 from now on, or leaves it
    input  wire  [AddressBits-1:0] note_address_i,
    input  wire                    note_used_i,      // it leaves and has been read

    output logic [31:0] asked_o,      // counters since reset: hints
    output logic [31:0] dropped_o,    // hints pushed out
    output logic [31:0] cancelled_o,  // hints
    output logic [31:0] predicted_o,  // candidates with a position
    output logic [31:0] resident_o,   // blocks passed over: in L2 or on their way
    output logic [31:0] faults_o,     // not mapped, or too large for a slot
    output logic [31:0] issued_o,     // descriptors
    output logic [31:0] failed_o,     // moves that ended badly
    output logic [31:0] useful_o,     // blocks that left L2 and had been read
    output logic [31:0] wasted_o      // and had not
);
  localparam logic [2:0] ResultOk = 3'd0;
  localparam logic [2:0] ResultPushedOut = 3'd1;
  localparam logic [2:0] ResultCancelled = 3'd2;
  localparam logic [2:0] ResultNoPrediction = 3'd3;
  localparam logic [2:0] ResultNoRoom = 3'd4;
  localparam int unsigned SetBits = $clog2(FilterSets);

  logic next_valid, take, next_dense, gone_valid, gone_taken, gone_cancelled;
  logic [15:0] next_tag, next_layer, next_depth, gone_tag;
  logic [31:0] next_req_id, next_position;
  hint_queue #(
      .Entries  (Hints),
      .OwnerBits(OwnerBits)
  ) hints (
      .clk_i,
      .rst_i,
      .depth_i(prefetch_depth_i),
      .valid_i(hint_valid_i),
      .ready_o(hint_ready_o),
      .tag_i(hint_tag_i),
      .req_id_i(hint_req_id_i),
      .layer_i(hint_layer_i),
      .position_i(hint_position_i),
      .depth_blocks_i(hint_depth_i),
      .owner_i(hint_owner_i),
      .priority_i(hint_priority_i),
      .dense_i(hint_dense_i),
      .cancel_i,
      .cancel_req_id_i,
      .next_valid_o(next_valid),
      .take_i(take),
      .tag_o(next_tag),
      .req_id_o(next_req_id),
      .layer_o(next_layer),
      .position_o(next_position),
      .depth_blocks_o(next_depth),
      .dense_o(next_dense),
      .gone_valid_o(gone_valid),
      .gone_taken_i(gone_taken),
      .gone_tag_o(gone_tag),
      .gone_cancelled_o(gone_cancelled)
  );

  logic ask_valid, ask_ready, block_valid, block_ready, verdict, found, fault, failed, issued, busy, no_room;
  logic given_up, done_valid, done_taken, done_cancelled, done_no_prediction, done_no_room, predicted;
  logic [7:0] ask_id;
  logic [31:0] ask_req_id, ask_position;
  logic [15:0] ask_layer, done_tag, done_issued;
  address_t block;
  prefetch_walk #(
      .PredictorCycles(PredictorCycles)
  ) walk (
      .clk_i,
      .rst_i,
      .layers_i,
      .layer_step_i,
      .block_shift_i,
      .hint_valid_i(next_valid),
      .hint_take_o(take),
      .hint_tag_i(next_tag),
      .hint_req_id_i(next_req_id),
      .hint_layer_i(next_layer),
      .hint_position_i(next_position),
      .hint_depth_i(next_depth),
      .hint_dense_i(next_dense),
      .cancel_i,
      .cancel_req_id_i,
      .no_room_i(no_room),
      .ask_valid_o(ask_valid),
      .ask_ready_i(ask_ready),
      .ask_id_o(ask_id),
      .ask_req_id_o(ask_req_id),
      .ask_layer_o(ask_layer),
      .ask_position_o(ask_position),
      .candidate_valid_i,
      .candidate_ready_o,
      .candidate_id_i,
      .candidate_i,
      .candidate_last_i,
      .block_valid_o(block_valid),
      .block_o(block),
      .block_ready_i(block_ready),
      .verdict_i(verdict),
      .wanted_i(!found),
      .unwanted_i(fault),
      .issued_i(issued),
      .given_up_o(given_up),
      .busy_i(busy),
      .done_valid_o(done_valid),
      .done_taken_i(done_taken),
      .done_tag_o(done_tag),
      .done_issued_o(done_issued),
      .done_cancelled_o(done_cancelled),
      .done_no_prediction_o(done_no_prediction),
      .done_no_room_o(done_no_room),
      .predicted_o(predicted)
  );
  axis_register #(
      .Width(88)
  ) ask_register (
      .clk_i,
      .rst_i,
      .data_i ({ask_id, ask_req_id, ask_layer, ask_position}),
      .valid_i(ask_valid),
      .ready_o(ask_ready),
      .data_o ({predict_id_o, predict_req_id_o, predict_layer_o, predict_position_o}),
      .valid_o(predict_valid_o),
      .ready_i(predict_ready_i)
  );

  // The filter's operations: what is undone first; then notes and the walk's blocks in turn.
  logic op_valid, op_ready, op_insert, op_done, op_walk_q, note_last_q;
  logic remove_valid, remove_ready, walk_turn, start_ready;
  address_t op_key, remove_key, key_q;
  logic [31:0] hash;
  assign walk_turn = block_valid && start_ready && !(note_valid_i && !note_last_q);
  assign op_valid = remove_valid || walk_turn || note_valid_i;
  assign op_insert = !remove_valid && (walk_turn || note_resident_i);
  assign op_key = address_t'((remove_valid ? remove_key : walk_turn ? block : note_address_i) & key_mask_i);
  assign remove_ready = op_ready;
  assign block_ready = op_ready && !remove_valid && walk_turn;
  assign note_ready_o = op_ready && !remove_valid && !walk_turn;
  key_hash set_of_key (
      .key_i (op_key),
      .hash_o(hash)
  );
  residency_filter #(
      .KeyBits(AddressBits),
      .Sets(FilterSets),
      .Ways(FilterWays)
  ) filter (
      .clk_i,
      .rst_i,
      .valid_i(op_valid),
      .ready_o(op_ready),
      .insert_i(op_insert),
      .key_i(op_key),
      .set_i(hash[SetBits-1:0]),
      .done_o(op_done),
      .found_o(found)
  );
  assign verdict = op_done && op_walk_q;
  always_ff @(posedge clk_i) begin
    if (op_valid && op_ready) begin
      op_walk_q <= block_ready;
      key_q <= op_key;
      if (!remove_valid) note_last_q <= !walk_turn;
    end
    if (rst_i) begin
      op_walk_q   <= 1'b0;
      note_last_q <= 1'b0;
    end
  end

  logic budget;
  logic [25:0] issued_lines;
  line_budget #(
      .LineBits(26)
  ) lines (
      .clk_i,
      .rst_i,
      .rate_i,
      .burst_lines_i,
      .take_i(issued),
      .lines_i(issued_lines),
      .may_take_o(budget)
  );
  prefetch_fetches #(
      .Entries(Fetches),
      .SlotBits(SlotBits),
      .SlotBytes(SlotBytes),
      .PatienceCycles(PatienceCycles)
  ) fetches (
      .clk_i,
      .rst_i,
      .start_i(verdict && !found),
      .start_key_i(key_q),
      .start_cancelled_i(given_up),
      .start_ready_o(start_ready),
      .lookup_valid_o,
      .lookup_ready_i,
      .lookup_id_o,
      .lookup_address_o,
      .translation_valid_i,
      .translation_id_i,
      .translation_status_i,
      .translation_entry_i,
      .cancel_i,
      .cancel_req_id_i,
      .slot_valid_i,
      .slot_ready_o,
      .slot_i,
      .returned_valid_o,
      .returned_ready_i,
      .returned_slot_o,
      .most_moving_i,
      .slot_base_i,
      .budget_i(budget),
      .issued_o(issued),
      .issued_lines_o(issued_lines),
      .descriptor_valid_o,
      .descriptor_ready_i,
      .descriptor_id_o,
      .descriptor_o,
      .moved_valid_i,
      .moved_id_i,
      .moved_ok_i,
      .filled_valid_o,
      .filled_ready_i,
      .filled_slot_o,
      .filled_key_o,
      .remove_valid_o(remove_valid),
      .remove_ready_i(remove_ready),
      .remove_key_o(remove_key),
      .fault_o(fault),
      .failed_o(failed),
      .busy_o(busy),
      .no_room_o(no_room)
  );
  logic unused;
  assign unused = &{1'b0, hash};

  // Every answer has its place in the entry that asked.
  assign translation_ready_o = 1'b1;
  assign moved_ready_o = 1'b1;

  logic result_ready;
  logic [2:0] done_status;
  always_comb begin
    done_status = ResultOk;
    if (done_no_room) done_status = ResultNoRoom;
    if (done_no_prediction) done_status = ResultNoPrediction;
    if (done_cancelled) done_status = ResultCancelled;
  end
  assign done_taken = done_valid && result_ready;
  assign gone_taken = gone_valid && result_ready && !done_valid;
  axis_register #(
      .Width(35)
  ) result_register (
      .clk_i,
      .rst_i,
      .data_i(done_valid ? {done_tag, done_status, done_issued} :
              {gone_tag, gone_cancelled ? ResultCancelled : ResultPushedOut, 16'd0}),
      .valid_i(done_valid || gone_taken),
      .ready_o(result_ready),
      .data_o({result_tag_o, result_status_o, result_issued_o}),
      .valid_o(result_valid_o),
      .ready_i(result_ready_i)
  );

  always_ff @(posedge clk_i) begin
    asked_o <= asked_o + 32'(hint_valid_i && hint_ready_o);
    dropped_o <= dropped_o + 32'(gone_taken && !gone_cancelled);
    cancelled_o <= cancelled_o + 32'((gone_taken && gone_cancelled) || (done_taken && done_cancelled));
    predicted_o <= predicted_o + 32'(predicted);
    resident_o <= resident_o + 32'(verdict && found);
    faults_o <= faults_o + 32'(fault);
    issued_o <= issued_o + 32'(issued);
    failed_o <= failed_o + 32'(failed);
    useful_o <= useful_o + 32'(note_valid_i && note_ready_o && !note_resident_i && note_used_i);
    wasted_o <= wasted_o + 32'(note_valid_i && note_ready_o && !note_resident_i && !note_used_i);
    if (rst_i) begin
      {asked_o, dropped_o, cancelled_o, predicted_o, resident_o} <= '0;
      {faults_o, issued_o, failed_o, useful_o, wasted_o} <= '0;
    end
  end
endmodule

`default_nettype wire
