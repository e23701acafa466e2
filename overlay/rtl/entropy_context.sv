`default_nettype none

// The books of one record that is being decoded: which beats of its payload are still to come, how many words lie
// in its buffer, which round is next and whether it may start.
module entropy_context
  import speckv_pkg::*;
#(
    parameter int unsigned RoundBits = 12,
    parameter int unsigned WordBits  = 17,
    parameter int unsigned ClassBits = 9
) (
    input  wire                  clk_i,
    input  wire                  rst_i,
    input  wire                  job_i,
    input  wire  [RoundBits-1:0] job_components_i,
    input  wire  [          2:0] job_tokens_i,      // in 16s
    input  wire  [ WordBits-1:0] job_words_i,
    input  wire  [ClassBits-1:0] job_classes_i,
    output logic                 free_o,
    // Beats of the payload: the first two are states, the next ones words.
    output logic                 room_o,
    output logic                 wants_states_o,
    output logic                 wants_second_o,    // of the states
    output logic [          1:0] beat_o,            // of the buffer, that comes next
    output logic                 keeps_words_o,
    input  wire                  beat_i,
    input  wire                  loaded_i,          // the states are in place,
    input  wire                  unusable_i,        // but wrong
    // Its next round, or its end.
    output logic                 wants_round_o,
    output logic                 wants_end_o,
    input  wire                  granted_i,
    output logic [ClassBits+4:0] component_o,       // of the round's first lane
    output logic                 pairs_o,           // the second half round is of the next component
    output logic                 half_o,
    output logic                 last_o,
    output logic [          6:0] position_o,
    output logic [          5:0] remaining_o,
    input  wire                  counted_i,         // the round has come so far that the next one may follow
    input  wire  [          5:0] needed_i,
    output logic [ WordBits-1:0] words_o,
    output logic [ WordBits-1:0] used_o,
    output logic                 unusable_o,
    input  wire                  release_i
);
  typedef enum logic [1:0] {
    Free,
    States,
    Rounds,
    Ending
  } phase_t;
  phase_t phase_q;

  logic in_flight_q, unusable_q, second_q, states_in_q, odd_q;
  logic [1:0] shift_q;  // tokens = 16 << shift
  logic [RoundBits:0] round_q, rounds_q;
  logic [WordBits-1:0] words_q, used_q;
  logic [WordBits-5:0] beats_left_q;
  logic [ClassBits-1:0] classes_q;
  logic [7:0] position_q;
  logic [2:0] write_q;
  logic [7:0] available_q;  // words in the buffer

  logic rounds_done, last_beat, word_beat;
  logic [2:0] held;
  logic [5:0] beat_words;
  logic [7:0] available;
  logic [RoundBits:0] component;

  assign rounds_done = round_q == rounds_q;
  assign free_o = phase_q == Free;
  assign wants_states_o = !states_in_q;
  assign wants_second_o = second_q;
  assign beat_o = write_q[1:0];
  assign held = write_q - position_q[7:5];
  // What is left of the words of a record that is done, or cannot be decoded, passes by.
  assign keeps_words_o = !unusable_q && !rounds_done;
  assign room_o = (phase_q != Free) && (!states_in_q || (beats_left_q != '0 && (!keeps_words_o || held < 3'd4)));
  assign word_beat = beat_i && states_in_q;
  assign last_beat = beats_left_q == (WordBits - 4)'(1);
  assign beat_words = (last_beat && words_q[4:0] != '0) ? {1'b0, words_q[4:0]} : 6'd32;

  assign wants_round_o = (phase_q == Rounds) && !unusable_q && !in_flight_q && !rounds_done
      && (available_q[7:5] != '0 || beats_left_q == '0);
  assign wants_end_o = (phase_q == Rounds) && !in_flight_q && (unusable_q || rounds_done) && beats_left_q == '0;

  assign component = (shift_q == 2'd0) ? round_q << 1 : (shift_q == 2'd1) ? round_q : round_q >> 1;
  assign component_o = {classes_q, 5'd0} + (ClassBits + 5)'(component);
  assign pairs_o = shift_q == 2'd0;
  assign last_o = round_q + 1'b1 == rounds_q;
  assign half_o = last_o && odd_q;
  assign position_o = position_q[6:0];
  assign remaining_o = (available_q[7:5] != '0) ? 6'd32 : {1'b0, available_q[4:0]};
  assign words_o = words_q;
  assign used_o = used_q;
  assign unusable_o = unusable_q;

  always_comb begin
    available = available_q;
    if (counted_i) available = (available > 8'(needed_i)) ? available - 8'(needed_i) : 8'd0;
    if (word_beat && keeps_words_o) available = available + 8'(beat_words);
  end

  always_ff @(posedge clk_i) begin
    available_q <= available;
    if (beat_i && !states_in_q) begin
      second_q <= 1'b1;
      states_in_q <= second_q;
    end
    if (word_beat) begin
      beats_left_q <= beats_left_q - 1'b1;
      write_q <= write_q + 1'b1;
    end
    if (loaded_i) begin
      phase_q <= Rounds;
      unusable_q <= unusable_i;
    end
    if (granted_i) begin
      in_flight_q <= 1'b1;
      if (wants_end_o) phase_q <= Ending;
    end
    if (counted_i) begin
      in_flight_q <= 1'b0;
      round_q <= round_q + 1'b1;
      used_q <= used_q + WordBits'(needed_i);
      position_q <= position_q + 8'(needed_i);
    end
    if (job_i) begin
      phase_q <= States;
      in_flight_q <= 1'b0;
      unusable_q <= 1'b0;
      second_q <= 1'b0;
      states_in_q <= 1'b0;
      shift_q <= job_tokens_i[2:1];
      odd_q <= job_tokens_i[0] && job_components_i[0];
      round_q <= '0;
      rounds_q <= job_tokens_i[2] ? {job_components_i, 1'b0} :
          job_tokens_i[1] ? {1'b0, job_components_i} :
          {1'b0, job_components_i + 1'b1} >> 1;
      words_q <= job_words_i;
      beats_left_q <= (WordBits - 4)'(((WordBits + 1)'(job_words_i) + (WordBits + 1)'(31)) >> 5);
      classes_q <= job_classes_i;
      used_q <= '0;
      position_q <= '0;
      write_q <= '0;
      available_q <= '0;
    end
    if (rst_i || release_i) phase_q <= Free;
  end
endmodule

`default_nettype wire
