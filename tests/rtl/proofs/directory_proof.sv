`default_nettype none

// directory_apply keeps a block in order, for any number of agents up to 64: from every state that is in order, every
// event that the directory gives it is in the table and leads to a state in order. An empty block is in order; so by
// induction every block always is, and with it holds what docs/coherence.md claims of leases.
module directory_proof
  import speckv_pkg::*;
#(
    parameter int unsigned Agents = 64,
    localparam int unsigned AgentBits = $clog2(Agents)
) (
    input directory_event_e event_i,
    input wire [AgentBits-1:0] agent_i,
    input wire home_i,
    input directory_state_e state_i,
    input wire [Agents-1:0] holders_i,
    input wire waits_i,
    input wire evicts_i,
    input wire [AgentBits-1:0] waiter_i
);
  logic legal, waits, evicts, serve;
  directory_actions_t actions;
  directory_state_e state;
  logic [Agents-1:0] holders, recalled, asking;
  logic [AgentBits-1:0] waiter;

  directory_apply #(
      .Agents(Agents)
  ) dut (
      .*,
      .legal_o(legal),
      .actions_o(actions),
      .state_o(state),
      .holders_o(holders),
      .waits_o(waits),
      .evicts_o(evicts),
      .waiter_o(waiter),
      .recalled_o(recalled),
      .serve_o(serve)
  );

  function automatic logic one(input logic [Agents-1:0] set);
    return set != '0 && (set & (set - 1'b1)) == '0;
  endfunction

  function automatic logic writes(input directory_state_e of);
    return of == DirectoryStateModified || of == DirectoryStateDowngradePending || of == DirectoryStateHandoverPending;
  endfunction

  function automatic logic in_order(input directory_state_e of, input logic [Agents-1:0] held, input logic pending,
                                    input logic evicting, input logic [AgentBits-1:0] waiting);
    logic [Agents-1:0] others;
    others = evicting ? held : held & ~(Agents'(1) << waiting);
    case (of)
      DirectoryStateInvalid: return held == '0 && !pending && !evicting;
      DirectoryStateShared: return held != '0 && !pending && !evicting;
      DirectoryStateExclusive, DirectoryStateModified: return one(held) && !pending && !evicting;
      DirectoryStateAcksPending: return others != '0 && pending;
      DirectoryStateDowngradePending: return one(held) && others == held && pending && !evicting;
      DirectoryStateHandoverPending: return one(held) && others == held && pending;
      default: return 1'b0;
    endcase
  endfunction

  logic holds, waits_itself, writer, given;
  assign asking = Agents'(1) << agent_i;
  assign holds = holders_i[agent_i];
  assign waits_itself = waits_i && !evicts_i && waiter_i == agent_i;
  assign writer = writes(state_i);

  // What coherence_directory asks for.
  always_comb begin
    case (event_i)
      DirectoryEventGetShared: given = !home_i && !holds && !waits_itself;
      DirectoryEventGetModified:
      given = home_i ? !waits_i && state_i != DirectoryStateInvalid : !holds && !waits_itself;
      DirectoryEventUpgrade: given = !home_i && holds && !writer && !waits_itself;
      DirectoryEventPutClean, DirectoryEventAck, DirectoryEventFence: given = !home_i && holds && !waits_itself;
      DirectoryEventPutDirty, DirectoryEventWriteBack: given = !home_i && holds && writer && !waits_itself;
      DirectoryEventCancel: given = !home_i && waits_itself;
      default: given = 1'b0;
    endcase
  end

  always_comb begin
    assume (32'(agent_i) < Agents && 32'(waiter_i) < Agents);
    assume (given && in_order(state_i, holders_i, waits_i, evicts_i, waiter_i));
    assert (legal);
    assert (in_order(state, holders, waits, evicts, waiter));
    // A lease ends by its holder's own hand alone, and starts by grant or serve alone.
    assert ((holders_i & ~asking & ~holders) == '0);
    assert (holders[agent_i] == (actions.grant || (holds && !actions.drop)));
    if (serve) assert (holders[waiter_i]);
    else assert ((holders & ~holders_i & ~asking) == '0);
    // A writer is alone; who is served or granted for writing is the one.
    if (writes(state)) assert (one(holders));
    if (state == DirectoryStateModified && serve) assert (holders == Agents'(1) << waiter_i);
    if (state == DirectoryStateModified && actions.grant) assert (holders == asking);
    // No write is lost in silence: a writer's lease ends written back, clean by its own word, or reported.
    if (writer && !writes(state))
      assert (actions.store || actions.lost || event_i == DirectoryEventPutClean || event_i == DirectoryEventAck);
    if (actions.lost) assert (writer && event_i == DirectoryEventFence);
    // Who waits has somebody recalled to wait for; a recall goes to every holder but the one who asks.
    if (actions.recall) assert (recalled != '0 && recalled == (home_i ? holders_i : holders_i & ~asking));
    if (waits) assert (holders != '0);
    // An eviction ends with the block forgotten.
    if (evicts_i && actions.serve) assert (state == DirectoryStateInvalid && holders == '0);
  end
endmodule

`default_nettype wire
