`default_nettype none

// From a hint to addresses of blocks, in the order of their demand: for each layer after the hint's, then those up to
// it (the next step's), the blocks that the hint asks for. Dense: every complete block before its position. Else those
// that hold the predictor's candidates, in their order, each once.
//
// One block at a time: after each the caller says whether it is wanted (`verdict_i`, `wanted_i`: it is being looked up
// and was neither in L2 nor on its way); one that turns out not to be mapped is taken back (`unwanted_i`). The walk
// ends when as many are wanted as the hint's depth and none of them is being looked up any more, or with the last block.
module prefetch_walk
  import speckv_pkg::*;
#(
    parameter int unsigned PredictorCycles = 65536  // longest wait for the predictor
) (
    input wire clk_i,
    input wire rst_i,
    input wire [15:0] layers_i,
    input wire [15:0] layer_step_i,  // layers that a block spans
    input wire [2:0] block_shift_i,  // log2 of a block's tokens

    input  wire         hint_valid_i,
    output logic        hint_take_o,
    input  wire  [15:0] hint_tag_i,
    input  wire  [31:0] hint_req_id_i,
    input  wire  [15:0] hint_layer_i,
    input  wire  [31:0] hint_position_i,
    input  wire  [15:0] hint_depth_i,
    input  wire         hint_dense_i,
    input  wire         cancel_i,
    input  wire  [31:0] cancel_req_id_i,
    input  wire         no_room_i,        // slots do not come: give the rest of this hint up

    output logic        ask_valid_o,
    input  wire         ask_ready_i,
    output logic [ 7:0] ask_id_o,
    output logic [31:0] ask_req_id_o,
    output logic [15:0] ask_layer_o,
    output logic [31:0] ask_position_o,

    input  wire              candidate_valid_i,
    output logic             candidate_ready_o,
    input  wire        [7:0] candidate_id_i,
    input  candidate_t       candidate_i,
    input  wire              candidate_last_i,

    output logic     block_valid_o,
    output address_t block_o,
    input  wire      block_ready_i,
    input  wire      verdict_i,
    input  wire      wanted_i,
    input  wire      unwanted_i,
    input  wire      issued_i,       // one of this hint's blocks has its descriptor
    output logic     given_up_o,     // what was offered last is not wanted any more
    input  wire      busy_i,         // blocks of this hint are being looked up or wait for their descriptor

    output logic        done_valid_o,
    input  wire         done_taken_i,
    output logic [15:0] done_tag_o,
    output logic [15:0] done_issued_o,
    output logic        done_cancelled_o,
    output logic        done_no_prediction_o,
    output logic        done_no_room_o,
    output logic        predicted_o            // a candidate with a position came in
);
  localparam int unsigned Most = PredictorTop;
  localparam int unsigned CountBits = $clog2(Most + 1);
  localparam int unsigned TimerBits = $clog2(PredictorCycles + 1);

  typedef enum logic [2:0] {
    Idle,
    Asking,
    Collecting,
    Walking,
    Judging,
    Draining,
    Ending
  } state_e;
  state_e state_q;
  logic [15:0] tag_q, layer_q, depth_q, wanted_q, issued_q, at_q;
  logic [31:0] req_id_q, position_q, block_q;
  logic dense_q, cancelled_q, no_prediction_q, no_room_q, wrapped_q;
  logic [7:0] id_q;
  logic [Most-1:0][31:0] list_q;
  logic [CountBits-1:0] list_count_q;
  logic [TimerBits-1:0] timer_q;

  logic [31:0] complete;  // blocks
  assign complete = position_q >> block_shift_i;

  // A candidate counts when it has an address of this request, in a complete block that is not on the list.
  address_t place;
  logic [31:0] candidate_block;
  logic fresh, mine;
  assign place = address_t'({candidate_i.address_high[AddressBits-65:0], candidate_i.address_low});
  assign candidate_block = place.pos >> block_shift_i;
  assign mine = candidate_valid_i && candidate_id_i == id_q && state_q == Collecting;
  assign predicted_o = mine && (candidate_i.flags & CandidateFlagKnown) != '0;
  always_comb begin
    fresh = predicted_o && place.req_id == req_id_q && candidate_block < complete && list_count_q != CountBits'(Most);
    for (int unsigned i = 0; i < Most; i++)
    if (CountBits'(i) < list_count_q && list_q[i] == candidate_block) fresh = 1'b0;
  end
  // Answers that come too late are taken and forgotten.
  assign candidate_ready_o = 1'b1;

  logic [31:0] blocks;
  logic layer_due, full, given_up;
  assign blocks = dense_q ? complete : 32'(list_count_q);
  assign layer_due = wrapped_q ? at_q <= layer_q : at_q > layer_q;
  assign full = wanted_q >= depth_q;
  assign given_up = cancelled_q || no_room_q;

  assign hint_take_o = state_q == Idle && hint_valid_i;
  assign ask_valid_o = state_q == Asking;
  assign {ask_id_o, ask_req_id_o, ask_layer_o, ask_position_o} = {id_q, req_id_q, layer_q, position_q};
  assign block_valid_o = state_q == Walking && !given_up && !full && layer_due && block_q < blocks && at_q < layers_i;
  assign block_o = '{
          req_id: req_id_q,
          layer: at_q,
          head: '0,
          pos: (dense_q ? block_q : list_q[block_q[$clog2(Most)-1:0]]) << block_shift_i,
          kind: '0
      };
  assign done_valid_o = state_q == Ending && !busy_i;
  assign done_tag_o = tag_q;
  assign done_issued_o = issued_q;
  assign given_up_o = given_up;
  assign {done_cancelled_o, done_no_prediction_o, done_no_room_o} = {cancelled_q, no_prediction_q, no_room_q};

  always_ff @(posedge clk_i) begin
    if (cancel_i && cancel_req_id_i == req_id_q) cancelled_q <= 1'b1;
    if (no_room_i) no_room_q <= 1'b1;
    wanted_q <= wanted_q + 16'(verdict_i && wanted_i) - 16'(unwanted_i);
    issued_q <= issued_q + 16'(issued_i);
    timer_q  <= timer_q + 1'b1;
    case (state_q)
      Idle: begin
        {tag_q, req_id_q, layer_q, position_q, depth_q, dense_q} <= {
          hint_tag_i, hint_req_id_i, hint_layer_i, hint_position_i, hint_depth_i, hint_dense_i
        };
        cancelled_q <= cancel_i && cancel_req_id_i == hint_req_id_i;
        no_prediction_q <= 1'b0;
        no_room_q <= 1'b0;
        wrapped_q <= 1'b0;
        at_q <= '0;
        block_q <= '0;
        wanted_q <= '0;
        issued_q <= '0;
        list_count_q <= '0;
        timer_q <= '0;
        if (hint_valid_i) begin
          state_q <= hint_dense_i ? Walking : Asking;
          id_q <= id_q + 1'b1;
        end
      end
      Asking: begin
        // The request has left this module once it is ready; a predictor that takes none is as late as one that is slow.
        if (ask_ready_i) begin
          state_q <= Collecting;
        end else if (timer_q == TimerBits'(PredictorCycles)) begin
          no_prediction_q <= 1'b1;
          state_q <= Ending;
        end
      end
      Collecting: begin
        if (fresh) begin
          list_q[list_count_q[$clog2(Most)-1:0]] <= candidate_block;
          list_count_q <= list_count_q + 1'b1;
        end
        if (mine && candidate_last_i) begin
          state_q <= Walking;
        end else if (timer_q == TimerBits'(PredictorCycles)) begin
          no_prediction_q <= 1'b1;
          state_q <= Ending;
        end
      end
      Walking: begin
        if (given_up || blocks == '0 || depth_q == '0) begin
          state_q <= Ending;
        end else if (full) begin
          if (!busy_i) state_q <= Ending;
        end else if (block_valid_o) begin
          if (block_ready_i) state_q <= Judging;
        end else if (at_q >= layers_i || !layer_due || block_q >= blocks) begin
          // The next layer; behind the last one the layers up to the hint's.
          block_q <= '0;
          at_q <= at_q + layer_step_i;
          if (17'(at_q) + 17'(layer_step_i) >= 17'(layers_i)) begin
            at_q <= '0;
            wrapped_q <= 1'b1;
            if (wrapped_q) state_q <= Ending;
          end
        end
      end
      Judging:
      if (verdict_i) begin
        block_q <= block_q + 1'b1;
        state_q <= Walking;
      end
      default: if (done_valid_o && done_taken_i) state_q <= Idle;
    endcase
    if (rst_i) begin
      state_q <= Idle;
      id_q <= '0;
      wanted_q <= '0;
    end
  end

  logic unused;
  assign unused = &{1'b0, candidate_i, place};
endmodule

`default_nettype wire
