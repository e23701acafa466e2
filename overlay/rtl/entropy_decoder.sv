`default_nettype none

// Decodes the 32 interleaved rANS lanes of `klt` records (speckv_pynq/reference/rans.py is the definition), 32
// symbols a cycle. A lane's state goes round in 13 cycles: search, multiply, renormalise with words that its
// neighbours compete for. So rounds of several records (contexts) run in turn: with n of them at work min(1, n / 13)
// rounds start in a cycle.
//
// A job names a free context. Its payload's beats then come with that context's number: two of states, then those
// with words (what follows them in the last one is ignored); no more. A damaged record ends like any other, with
// what the reference would say of it; its symbols mean nothing then. A context is free again once its result has
// been taken.
module entropy_decoder
  import speckv_pkg::*;
#(
    parameter int unsigned Contexts = 16,
    parameter int unsigned MaxValues = 65536,  // of a record
    parameter int unsigned ClassMapBeats = 256,
    localparam int unsigned ContextBits = $clog2(Contexts),
    localparam int unsigned SymbolBits = $clog2(EntropySymbols),
    localparam int unsigned RoundBits = $clog2(MaxValues / 16),
    localparam int unsigned WordBits = $clog2(MaxValues) + 1,
    localparam int unsigned MapBits = $clog2(ClassMapBeats),
    localparam int unsigned StreamBits = SymbolBits * EntropyLanes
) (
    input  wire                    clk_i,
    input  wire                    rst_i,
    // Codebook: see entropy_tables. Not to be changed under a job that uses it.
    input  wire                    table_valid_i,
    input  wire                    table_map_i,
    input  wire  [    MapBits-1:0] table_address_i,
    input  wire  [    AxiBits-1:0] table_data_i,
    // One job a record: components and tokens (16, 32 or 64) that its symbols are of, words, and where the classes
    // of its components begin in the class map, in 32s.
    input  wire                    job_valid_i,
    output logic                   job_ready_o,
    input  wire  [ContextBits-1:0] job_context_i,
    input  wire  [    RoundBits:0] job_components_i,
    input  wire  [            6:0] job_tokens_i,
    input  wire  [   WordBits-1:0] job_words_i,
    input  wire  [      MapBits:0] job_classes_i,
    output logic [   Contexts-1:0] free_o,
    // Payloads; room_o: contexts whose next beat is taken at once. Beats for others make all wait.
    input  wire  [    AxiBits-1:0] payload_tdata_i,
    input  wire  [ContextBits-1:0] payload_tdest_i,
    input  wire                    payload_tvalid_i,
    output logic                   payload_tready_o,
    output logic [   Contexts-1:0] room_o,
    // Symbols, lane 0 lowest; of a half round the first 16 lanes alone. tlast: of the record.
    output logic [ StreamBits-1:0] symbols_tdata_o,
    output logic [ContextBits-1:0] symbols_tdest_o,
    output logic                   symbols_half_o,
    output logic                   symbols_tlast_o,
    output logic                   symbols_tvalid_o,
    input  wire                    symbols_tready_i,
    // One result a record, after its last symbols: status, value and limit, and what travelled in the states.
    output logic [ContextBits-1:0] result_context_o,
    output logic [           15:0] result_status_o,
    output logic [           31:0] result_value_o,
    output logic [           31:0] result_limit_o,
    output logic [    AxiBits-1:0] result_seeds_o,
    output logic                   result_valid_o,
    input  wire                    result_ready_i
);
  localparam int unsigned Half = EntropyLanes / 2;
  localparam int unsigned RowBits = EntropySymbols * EntropyBits;
  localparam int unsigned SymbolRounds = 32;  // that may wait for symbols_tready_i
  // Cycles after the grant in which: the states are read, the lanes have found their symbols, the states are
  // multiplied, the words counted, the states written.
  localparam int unsigned Read = 5, Found = 8, Multiplied = 11, Counted = 12, Write = 14;

  typedef struct packed {
    logic valid;
    logic ends;
    logic [ContextBits-1:0] context_id;
    logic half;
    logic last;
    logic [6:0] position;
    logic [5:0] remaining;
  } round_t;

  // ---- payload beats: states to the loader, words to their buffer

  logic beat_taken;
  logic [Contexts-1:0] room, wants_states, wants_second, keeps_words;
  logic [Contexts-1:0][1:0] buffer_beat;
  logic load_ready;

  assign room_o = room & (load_ready ? '1 : ~wants_states);
  assign payload_tready_o = room_o[payload_tdest_i];
  assign beat_taken = payload_tvalid_i && payload_tready_o;

  logic hold_round, load_write, load_written, load_second, load_unusable;
  logic [ContextBits-1:0] load_context;
  logic [AxiBits-1:0] load_data;
  logic [Contexts-1:0] loaded;
  logic [ContextBits-1:0] end_context;
  logic [15:0] least;

  entropy_load #(
      .Contexts(Contexts)
  ) load (
      .clk_i,
      .rst_i,
      .context_i(payload_tdest_i),
      .second_i(wants_second[payload_tdest_i]),
      .data_i(payload_tdata_i),
      .valid_i(beat_taken && wants_states[payload_tdest_i]),
      .ready_o(load_ready),
      .hold_round_o(hold_round),
      .write_o(load_write),
      .written_i(load_written),
      .context_o(load_context),
      .second_o(load_second),
      .data_o(load_data),
      .loaded_o(loaded),
      .unusable_o(load_unusable),
      .least_context_i(end_context),
      .least_o(least)
  );

  // ---- contexts, and which one's round starts

  logic [Contexts-1:0] wants_round, wants_end, grant, counted, pairs, half, last, unusable;
  logic [Contexts-1:0][MapBits+5:0] component;
  logic [Contexts-1:0][6:0] position;
  logic [Contexts-1:0][5:0] remaining;
  logic [Contexts-1:0][WordBits-1:0] words, used;
  logic [5:0] needed;
  logic end_ready, ending_q, symbols_room;
  logic [Contexts-1:0] request;

  for (genvar c = 0; c < Contexts; ++c) begin : g_context
    entropy_context #(
        .RoundBits(RoundBits + 1),
        .WordBits (WordBits),
        .ClassBits(MapBits + 1)
    ) books (
        .clk_i,
        .rst_i,
        .job_i(job_valid_i && job_ready_o && job_context_i == ContextBits'(c)),
        .job_components_i,
        .job_tokens_i(job_tokens_i[6:4]),
        .job_words_i,
        .job_classes_i,
        .free_o(free_o[c]),
        .room_o(room[c]),
        .wants_states_o(wants_states[c]),
        .wants_second_o(wants_second[c]),
        .beat_o(buffer_beat[c]),
        .keeps_words_o(keeps_words[c]),
        .beat_i(beat_taken && payload_tdest_i == ContextBits'(c)),
        .loaded_i(loaded[c]),
        .unusable_i(load_unusable),
        .wants_round_o(wants_round[c]),
        .wants_end_o(wants_end[c]),
        .granted_i(grant[c]),
        .component_o(component[c]),
        .pairs_o(pairs[c]),
        .half_o(half[c]),
        .last_o(last[c]),
        .position_o(position[c]),
        .remaining_o(remaining[c]),
        .counted_i(counted[c]),
        .needed_i(needed),
        .words_o(words[c]),
        .used_o(used[c]),
        .unusable_o(unusable[c]),
        .release_i(result_valid_o && result_ready_i && result_context_o == ContextBits'(c))
    );
  end

  assign job_ready_o = free_o[job_context_i];
  assign request = (symbols_room ? wants_round : '0) | ((end_ready && !ending_q) ? wants_end : '0);

  logic requested, grants;
  logic [ContextBits-1:0] granted;
  round_robin #(
      .Requests(Contexts)
  ) turns (
      .clk_i,
      .rst_i,
      .request_i(request),
      .taken_i  (grants),
      .valid_o  (requested),
      .index_o  (granted)
  );
  assign grants = requested && !hold_round;
  assign grant  = Contexts'(grants) << granted;

  round_t pipe_q[1:Write];
  round_t chosen;
  logic [MapBits+4:0] pair_q;
  logic [1:0] odd_q;
  logic start_end;
  logic start_round;

  assign start_round = (grant & wants_round) != '0;
  assign start_end   = (grant & wants_end) != '0;

  always_comb begin
    chosen = pipe_q[1];
    chosen.half = half[pipe_q[1].context_id];
    chosen.last = last[pipe_q[1].context_id];
    chosen.position = position[pipe_q[1].context_id];
    chosen.remaining = remaining[pipe_q[1].context_id];
    counted = '0;
    counted[pipe_q[Counted].context_id] = pipe_q[Counted].valid && !pipe_q[Counted].ends;
  end

  always_ff @(posedge clk_i) begin
    pipe_q[1] <= '0;
    pipe_q[1].valid <= start_round || start_end;
    pipe_q[1].ends <= start_end;
    pipe_q[1].context_id <= granted;
    pipe_q[2] <= chosen;
    for (int s = 3; s <= Write; ++s) pipe_q[s] <= pipe_q[s-1];
    pair_q <= component[pipe_q[1].context_id][MapBits+5:1];
    odd_q <= {pairs[pipe_q[1].context_id] || component[pipe_q[1].context_id][0], component[pipe_q[1].context_id][0]};
    ending_q <= start_end;
    if (rst_i) begin
      ending_q <= 1'b0;
      for (int s = 1; s <= Write; ++s) pipe_q[s].valid <= 1'b0;
    end
  end

  // ---- the way of a round

  logic [RowBits-1:0] row[2];

  entropy_tables #(
      .ClassMapBeats(ClassMapBeats)
  ) tables (
      .clk_i,
      .write_i(table_valid_i),
      .write_map_i(table_map_i),
      .write_address_i(table_address_i),
      .write_data_i(table_data_i),
      .pair_i(pair_q),
      .odd_i(odd_q),
      .row_o(row)
  );

  (* ram_style = "distributed" *)logic [Half*32-1:0] first_q [Contexts];
  (* ram_style = "distributed" *)logic [Half*32-1:0] second_q[Contexts];
  logic [EntropyLanes-1:0][31:0] state_q, multiplied, renewed;
  logic [EntropyLanes-1:0][SymbolBits-1:0] symbol;
  logic back;

  assign back = pipe_q[Write].valid && !pipe_q[Write].ends;
  assign load_written = load_write && !back;

  always_ff @(posedge clk_i) begin
    state_q <= {second_q[pipe_q[Read-1].context_id], first_q[pipe_q[Read-1].context_id]};
    if (back || (load_written && !load_second)) begin
      first_q[back?pipe_q[Write].context_id : load_context] <= back ? renewed[Half-1:0] : load_data;
    end
    if ((back && !pipe_q[Write].half) || (load_written && load_second)) begin
      second_q[back?pipe_q[Write].context_id : load_context] <= back ? renewed[EntropyLanes-1:Half] : load_data;
    end
  end

  for (genvar l = 0; l < EntropyLanes; ++l) begin : g_lane
    entropy_lane lane (
        .clk_i,
        .state_i (state_q[l]),
        .row_i   (row[l/Half]),
        .symbol_o(symbol[l]),
        .state_o (multiplied[l])
    );
  end

  entropy_words #(
      .Contexts(Contexts)
  ) distribution (
      .clk_i,
      .write_i(beat_taken && !wants_states[payload_tdest_i] && keeps_words[payload_tdest_i]),
      .write_context_i(payload_tdest_i),
      .write_beat_i(buffer_beat[payload_tdest_i]),
      .write_data_i(payload_tdata_i),
      .context_i(pipe_q[Multiplied].context_id),
      .position_i(pipe_q[Multiplied].position),
      .remaining_i(pipe_q[Multiplied].remaining),
      .half_i(pipe_q[Multiplied].half),
      .state_i(multiplied),
      .needed_o(needed),
      .state_o(renewed)
  );

  // ---- symbols: only rounds that find room in the queue start

  logic found, symbols_ready, symbols_taken;
  logic [$clog2(SymbolRounds):0] waiting_q;
  logic [$clog2(SymbolRounds):0] queued;

  assign found = pipe_q[Found].valid && !pipe_q[Found].ends;
  assign symbols_taken = symbols_tvalid_o && symbols_tready_i;
  assign symbols_room = !waiting_q[$clog2(SymbolRounds)];

  fifo #(
      .Width(StreamBits + ContextBits + 2),
      .Depth(SymbolRounds)
  ) queue (
      .clk_i,
      .rst_i,
      .data_i ({pipe_q[Found].last, pipe_q[Found].half, pipe_q[Found].context_id, symbol}),
      .valid_i(found),
      .ready_o(symbols_ready),
      .data_o ({symbols_tlast_o, symbols_half_o, symbols_tdest_o, symbols_tdata_o}),
      .valid_o(symbols_tvalid_o),
      .ready_i(symbols_tready_i),
      .count_o(queued)
  );

  always_ff @(posedge clk_i) begin
    waiting_q <= waiting_q + ($clog2(SymbolRounds) + 1)'(start_round) - ($clog2(SymbolRounds) + 1)'(symbols_taken);
    if (rst_i) waiting_q <= '0;
  end

  entropy_end #(
      .Contexts(Contexts),
      .WordBits(WordBits)
  ) judge (
      .clk_i,
      .rst_i,
      .ready_o(end_ready),
      .start_i(pipe_q[1].valid && pipe_q[1].ends),
      .context_i(pipe_q[1].context_id),
      .unusable_i(unusable[pipe_q[1].context_id]),
      .words_i(words[pipe_q[1].context_id]),
      .used_i(used[pipe_q[1].context_id]),
      .context_o(end_context),
      .least_i(least),
      .states_i(pipe_q[Read].valid && pipe_q[Read].ends),
      .state_i(state_q),
      .symbols_waiting_i(waiting_q),
      .symbols_taken_i(symbols_taken),
      .result_valid_o,
      .result_ready_i,
      .result_status_o,
      .result_value_o,
      .result_limit_o,
      .result_seeds_o
  );

  assign result_context_o = end_context;

`ifndef SYNTHESIS
  always_ff @(posedge clk_i) begin
    if (!rst_i && found && !symbols_ready) $fatal(1, "%0d rounds of symbols wait: no room for more", queued);
    if (!rst_i && job_valid_i && job_ready_o && !(job_tokens_i inside {7'd16, 7'd32, 7'd64})) begin
      $fatal(1, "job of %0d tokens", job_tokens_i);
    end
  end
`endif
endmodule

`default_nettype wire
