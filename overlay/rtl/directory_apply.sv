`default_nettype none

// One event on one block of the directory: a cell of the coherence table (hls/spec.toml), without a register. Given
// is the event without "_last"; whether others hold the block is found here.
//
// An eviction is the home itself waiting for a write lease, which it gives up as soon as it is served: then nobody
// holds the block and its entry is free.
module directory_apply
  import speckv_pkg::*;
#(
    parameter  int unsigned Agents    = MaxAgents,
    localparam int unsigned AgentBits = Agents > 1 ? $clog2(Agents) : 1
) (
    input  directory_event_e                   event_i,
    input  wire                [AgentBits-1:0] agent_i,
    input  wire                                home_i,      // the home asks, not agent_i
    input  directory_state_e                   state_i,
    input  wire                [   Agents-1:0] holders_i,
    input  wire                                waits_i,
    input  wire                                evicts_i,    // the home waits, not waiter_i
    input  wire                [AgentBits-1:0] waiter_i,
    output logic                               legal_o,
    output directory_actions_t                 actions_o,
    output directory_state_e                   state_o,
    output logic               [   Agents-1:0] holders_o,
    output logic                               waits_o,
    output logic                               evicts_o,
    output logic               [AgentBits-1:0] waiter_o,
    output logic               [   Agents-1:0] recalled_o,
    output logic                               serve_o      // an agent is served, not the home
);
  logic [Agents-1:0] asking;
  logic [Agents-1:0] waiting;
  logic last;
  directory_event_e exact;
  directory_transition_t cell_;

  assign asking = home_i ? '0 : Agents'(1) << agent_i;
  assign waiting = waits_i && !evicts_i ? Agents'(1) << waiter_i : '0;
  assign last = (holders_i & ~asking & ~waiting) == '0;

  always_comb begin
    exact = event_i;
    if (last) begin
      case (event_i)
        DirectoryEventUpgrade: exact = DirectoryEventUpgradeLast;
        DirectoryEventPutClean: exact = DirectoryEventPutCleanLast;
        DirectoryEventAck: exact = DirectoryEventAckLast;
        DirectoryEventFence: exact = DirectoryEventFenceLast;
        default: ;
      endcase
    end
  end

  assign cell_ = DirectoryTable[state_i][exact];
  assign legal_o = cell_.legal;
  assign actions_o = cell_.legal ? cell_.actions : '0;
  assign recalled_o = holders_i & ~asking;
  assign serve_o = actions_o.serve && !evicts_i;

  always_comb begin
    state_o   = cell_.legal ? cell_.next : state_i;
    holders_o = holders_i;
    waits_o   = waits_i;
    evicts_o  = evicts_i;
    waiter_o  = waiter_i;
    if (actions_o.grant) holders_o |= asking;
    if (actions_o.drop) holders_o &= ~asking;
    if (actions_o.serve) begin
      if (evicts_i) state_o = DirectoryStateInvalid;
      else holders_o |= waiting;
    end
    if (actions_o.serve || actions_o.forget) begin
      waits_o  = 1'b0;
      evicts_o = 1'b0;
    end
    if (actions_o.recall) begin
      waits_o  = 1'b1;
      evicts_o = home_i;
      waiter_o = agent_i;
    end
  end
endmodule

`default_nettype wire
