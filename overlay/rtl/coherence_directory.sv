`default_nettype none

// Home of the blocks that several agents hold copies of: who holds what, by the table in hls/spec.toml `[coherence]`,
// with the answers of the runtime's directory (docs/coherence.md). One request at a time: its answer is offered in
// the fifth cycle after it was taken; a fence takes two cycles a set and four more a block that the agent
// held or waited for. Time is the owner's: it fences agents whose deadline is over.
//
// A set that is full is made room in: the holders of one of its blocks are recalled as for a writer, and the block is
// dropped when the last of them has given up (what is modified has been written back by then). Until then a request
// for a further block of the set is answered `evicting`, to be asked again.
//
// Notices: holders to recall, an agent that waited and is served, modifications that may be lost; one notice may
// say all of it about one block. After reset the directory is empty and takes requests after Entries / Ways cycles.
module coherence_directory
  import speckv_pkg::*;
#(
    parameter  int unsigned Entries   = 4096,
    parameter  int unsigned Ways      = 8,
    parameter  int unsigned Agents    = MaxAgents,
    localparam int unsigned AgentBits = Agents > 1 ? $clog2(Agents) : 1
) (
    input  wire                    clk_i,
    input  wire                    rst_i,
    input  wire                    request_valid_i,
    output logic                   request_ready_o,
    input  wire  [            2:0] request_op_i,        // HomeRequest*
    input  wire  [  AgentBits-1:0] request_agent_i,
    input  wire  [AddressBits-1:0] request_key_i,
    output logic                   answer_valid_o,
    input  wire                    answer_ready_i,
    output logic [            2:0] answer_o,            // HomeAnswer*
    output logic [  AgentBits-1:0] answer_agent_o,
    output logic                   notice_valid_o,
    input  wire                    notice_ready_i,
    output logic [AddressBits-1:0] notice_key_o,
    output logic                   notice_recall_o,     // notice_recalled_o must give up ...
    output logic                   notice_downgrade_o,  // ... or write back and read on
    output logic                   notice_evict_o,      // the recall makes room
    output logic [     Agents-1:0] notice_recalled_o,
    output logic                   notice_serve_o,      // notice_served_o, which waited, holds the block ...
    output logic                   notice_write_o,      // ... for writing
    output logic [  AgentBits-1:0] notice_served_o,
    output logic                   notice_lost_o,       // what the fenced writer wrote since its last write-back
    output logic [           31:0] grants_o,
    output logic [           31:0] recalls_o,
    output logic [           31:0] write_backs_o,
    output logic [           31:0] losses_o,
    output logic [           31:0] evictions_o
);
  localparam int unsigned Sets = Entries / Ways;
  localparam int unsigned SetBits = Sets > 1 ? $clog2(Sets) : 1;
  localparam int unsigned WayBits = Ways > 1 ? $clog2(Ways) : 1;

  typedef struct packed {
    logic [AddressBits-1:0] key;
    directory_state_e state;
    logic evicts;
    logic waits;
    logic [AgentBits-1:0] waiter;
    logic [Agents-1:0] holders;
  } entry_t;

  if (Agents < 1 || Agents > MaxAgents) begin : g_bad_agents
    $error("Agents %0d is outside 1..%0d", Agents, MaxAgents);
  end
  if (Sets * Ways != Entries || Sets != 1 << $clog2(Sets) || Ways != 1 << $clog2(Ways)) begin : g_bad_size
    $error("Entries %0d and Ways %0d must be powers of two", Entries, Ways);
  end

  localparam logic [(1<<AgentBits)-1:0] Possible = (1 << AgentBits)'({Agents{1'b1}});

  typedef enum logic [2:0] {
    PhaseClear,
    PhaseIdle,
    PhaseRead,
    PhaseMatch,
    PhaseFirst,  // the agent no longer waits, where it gives up
    PhaseApply   // its event; entry, answer and notice are written
  } phase_e;

  phase_e phase_q;
  logic [2:0] op_q;
  logic [AgentBits-1:0] agent_q;
  logic [AddressBits-1:0] key_q;
  logic [SetBits-1:0] set_q;
  logic [WayBits-1:0] way_q;
  logic [WayBits-1:0] start_q;
  logic [(1<<AgentBits)-1:0] agents_q;  // those that have joined
  logic known_q;  // the request's agent has joined
  entry_t entry_q;
  logic found_q;
  logic room_q;  // found, or a free entry
  logic victim_q;
  logic evicting_q;
  logic allowed_q;  // the agent holds the block so, or waits for it
  logic cancelled_q;

  // ---- Requests ----
  logic [31:0] hash;
  logic sweeps;
  logic asks;
  logic writes;

  key_hash hash_of (
      .key_i (request_key_i),
      .hash_o(hash)
  );
  if (SetBits < 32) begin : g_spare
    logic unused;
    assign unused = ^hash[31:SetBits];
  end
  assign request_ready_o = phase_q == PhaseIdle;
  assign sweeps = op_q == 3'(HomeRequestFence);
  assign asks = op_q == 3'(HomeRequestGetShared) || op_q == 3'(HomeRequestGetModified);
  assign writes = op_q == 3'(HomeRequestPutDirty) || op_q == 3'(HomeRequestWriteBack);

  // ---- Entries ----
  logic [Ways-1:0][$bits(entry_t)-1:0] entries;
  entry_t written;
  logic write;

  for (genvar i = 0; i < int'(Ways); i++) begin : g_way
    ram_1r1w #(
        .Width($bits(entry_t)),
        .Depth(Sets)
    ) ram (
        .clk_i,
        .write_i(phase_q == PhaseClear || (write && way_q == WayBits'(i))),
        .write_index_i(set_q),
        .data_i(written),
        .read_i(phase_q == PhaseRead),
        .read_index_i(set_q),
        .data_o(entries[i])
    );
  end

  logic match_found, match_free, match_victim, match_evicting;
  logic [WayBits-1:0] match_way;

  directory_set #(
      .Ways  (Ways),
      .Agents(Agents)
  ) set (
      .entries_i (entries),
      .key_i     (key_q),
      .agent_i   (agent_q),
      .sweep_i   (sweeps),
      .start_i   (start_q),
      .found_o   (match_found),
      .free_o    (match_free),
      .victim_o  (match_victim),
      .evicting_o(match_evicting),
      .way_o     (match_way)
  );

  // ---- What the request means to the entry ----
  logic holds;
  logic waits;
  logic writer;
  logic has_lease;  // asked for what it holds already
  logic allowed;
  logic applies;
  directory_event_e event_;

  assign holds = entry_q.holders[agent_q];
  assign waits = entry_q.waits && !entry_q.evicts && entry_q.waiter == agent_q;
  assign writer = DirectoryTable[entry_q.state][DirectoryEventPutDirty].legal;
  assign has_lease = holds && (op_q == 3'(HomeRequestGetShared) || writer);
  assign allowed = known_q && found_q && !asks && op_q != 3'(HomeRequestJoin) &&
      ((holds && (!writes || writer)) || (waits && (sweeps || op_q == 3'(HomeRequestPutClean))));

  always_comb begin
    event_ = DirectoryEventCancel;
    if (phase_q == PhaseApply) begin
      if (victim_q) event_ = DirectoryEventGetModified;
      else
        case (op_q)
          3'(HomeRequestGetShared):   event_ = DirectoryEventGetShared;
          3'(HomeRequestGetModified): event_ = holds ? DirectoryEventUpgrade : DirectoryEventGetModified;
          3'(HomeRequestPutClean):    event_ = DirectoryEventPutClean;
          3'(HomeRequestAck):         event_ = DirectoryEventAck;
          3'(HomeRequestPutDirty):    event_ = DirectoryEventPutDirty;
          3'(HomeRequestWriteBack):   event_ = DirectoryEventWriteBack;
          default:                    event_ = DirectoryEventFence;
        endcase
    end
    if (phase_q == PhaseFirst) applies = allowed && waits;
    else if (asks) applies = victim_q || (room_q && !has_lease && !waits);
    else applies = allowed_q && holds;
  end

  logic legal;
  directory_actions_t actions;
  directory_actions_t done;
  directory_state_e next;
  logic [Agents-1:0] recalled;
  logic served;
  entry_t changed;

  directory_apply #(
      .Agents(Agents)
  ) apply (
      .event_i   (event_),
      .agent_i   (agent_q),
      .home_i    (victim_q),
      .state_i   (entry_q.state),
      .holders_i (entry_q.holders),
      .waits_i   (entry_q.waits),
      .evicts_i  (entry_q.evicts),
      .waiter_i  (entry_q.waiter),
      .legal_o   (legal),
      .actions_o (actions),
      .state_o   (next),
      .holders_o (changed.holders),
      .waits_o   (changed.waits),
      .evicts_o  (changed.evicts),
      .waiter_o  (changed.waiter),
      .recalled_o(recalled),
      .serve_o   (served)
  );
  assign changed.key = entry_q.key;
  assign changed.state = next;
  assign done = applies ? actions : '0;

  // ---- The answer ----
  logic [2:0] answer;
  logic notice;
  logic answers;
  logic finish;

  always_comb begin
    answer = 3'(HomeAnswerDone);
    if (!known_q) answer = 3'(HomeAnswerRefused);
    else if (asks) begin
      if (victim_q || (!room_q && evicting_q)) answer = 3'(HomeAnswerEvicting);
      else if (!room_q) answer = 3'(HomeAnswerBusy);
      else if (!applies) answer = has_lease ? 3'(HomeAnswerGranted) : 3'(HomeAnswerWaiting);
      else if (!legal) answer = 3'(HomeAnswerRefused);
      else if (actions.grant) answer = 3'(HomeAnswerGranted);
      else answer = actions.recall ? 3'(HomeAnswerWaiting) : 3'(HomeAnswerBusy);
    end else if (!sweeps && op_q != 3'(HomeRequestJoin) && !allowed_q) answer = 3'(HomeAnswerRefused);
  end

  assign notice  = done.recall || done.lost || (done.serve && served);
  assign answers = !sweeps || !known_q;
  // Both outputs are free, or are being freed: what is written here is then offered.
  assign finish  = phase_q == PhaseApply && (!answer_valid_o || answer_ready_i) && (!notice_valid_o || notice_ready_i);
  assign write   = finish && known_q && (done != '0 || cancelled_q);
  assign written = phase_q == PhaseClear ? '0 : (applies ? changed : entry_q);

  logic sweep_done;
  assign sweep_done = phase_q == PhaseMatch && sweeps && known_q && !match_found && set_q == SetBits'(Sets - 1) &&
                      (!answer_valid_o || answer_ready_i);

  always_ff @(posedge clk_i) begin
    if (answer_ready_i) answer_valid_o <= 1'b0;
    if (notice_ready_i) notice_valid_o <= 1'b0;

    case (phase_q)
      PhaseClear: begin
        set_q <= set_q + 1'b1;
        if (set_q == SetBits'(Sets - 1)) phase_q <= PhaseIdle;
      end
      PhaseIdle:
      if (request_valid_i) begin
        phase_q <= PhaseRead;
        op_q <= request_op_i;
        agent_q <= request_agent_i;
        key_q <= request_key_i;
        known_q <= agents_q[request_agent_i];
        set_q <= Sets > 1 ? SetBits'(hash) : '0;
        if (request_op_i == 3'(HomeRequestFence)) begin
          set_q <= '0;
          agents_q[request_agent_i] <= 1'b0;
        end
        if (request_op_i == 3'(HomeRequestJoin)) begin
          known_q <= !agents_q[request_agent_i] && Possible[request_agent_i];
          agents_q[request_agent_i] <= Possible[request_agent_i];
        end
      end
      PhaseRead: phase_q <= PhaseMatch;
      PhaseMatch: begin
        way_q <= match_way;
        found_q <= match_found;
        room_q <= match_found || match_free;
        evicting_q <= match_evicting;
        victim_q <= match_victim && asks && known_q;
        entry_q <= entries[match_way];
        if (match_free) entry_q <= {key_q, {($bits(entry_t) - AddressBits) {1'b0}}};
        phase_q <= PhaseFirst;
        if (sweeps && known_q && !match_found) begin
          phase_q <= PhaseMatch;
          if (set_q != SetBits'(Sets - 1)) begin
            set_q   <= set_q + 1'b1;
            phase_q <= PhaseRead;
          end
        end
        if (sweep_done) phase_q <= PhaseIdle;
      end
      PhaseFirst: begin
        allowed_q   <= allowed;
        cancelled_q <= applies;
        if (applies) entry_q <= changed;
        phase_q <= PhaseApply;
      end
      PhaseApply:
      if (finish) begin
        phase_q <= answers ? PhaseIdle : PhaseRead;
        if (victim_q) start_q <= start_q + 1'b1;
      end
      default:   phase_q <= PhaseClear;
    endcase

    if ((finish && answers) || sweep_done) begin
      answer_valid_o <= 1'b1;
      answer_o <= sweep_done ? 3'(HomeAnswerDone) : answer;
      answer_agent_o <= agent_q;
    end
    if (finish && known_q && notice) begin
      notice_valid_o <= 1'b1;
      notice_key_o <= entry_q.key;
      notice_recall_o <= done.recall;
      notice_downgrade_o <= next == DirectoryStateDowngradePending;
      notice_evict_o <= victim_q;
      notice_recalled_o <= recalled;
      notice_serve_o <= done.serve && served;
      notice_write_o <= next == DirectoryStateModified;
      notice_served_o <= entry_q.waiter;
      notice_lost_o <= done.lost;
    end
    if (finish && known_q) begin
      grants_o <= grants_o + 32'(done.grant || (done.serve && served));
      recalls_o <= recalls_o + 32'(done.recall);
      write_backs_o <= write_backs_o + 32'(done.store);
      losses_o <= losses_o + 32'(done.lost);
      evictions_o <= evictions_o + 32'(victim_q);
    end

`ifndef SYNTHESIS
    if (finish && known_q && applies && !legal) $fatal(1, "event %0d in state %0d", event_, entry_q.state);
`endif

    if (rst_i) begin
      phase_q <= PhaseClear;
      set_q <= '0;
      start_q <= '0;
      agents_q <= '0;
      answer_valid_o <= 1'b0;
      notice_valid_o <= 1'b0;
      grants_o <= '0;
      recalls_o <= '0;
      write_backs_o <= '0;
      losses_o <= '0;
      evictions_o <= '0;
    end
  end
endmodule

`default_nettype wire
