`default_nettype none

// Which way of a set an operation of the directory is about: the one that holds the key, else a free one, else one
// to evict (the first from start_i on whose block nobody waits for). In a sweep: the first that the agent holds or
// waits for. Ways hold {key, state, evicts, waits, waiter, holders}.
module directory_set
  import speckv_pkg::*;
#(
    parameter  int unsigned Ways      = 8,
    parameter  int unsigned Agents    = MaxAgents,
    localparam int unsigned AgentBits = Agents > 1 ? $clog2(Agents) : 1,
    localparam int unsigned WayBits   = Ways > 1 ? $clog2(Ways) : 1,
    localparam int unsigned EntryBits = AddressBits + 3 + 2 + AgentBits + Agents
) (
    input  wire  [       Ways-1:0][EntryBits-1:0] entries_i,
    input  wire  [AddressBits-1:0]                key_i,
    input  wire  [  AgentBits-1:0]                agent_i,
    input  wire                                   sweep_i,
    input  wire  [    WayBits-1:0]                start_i,
    output logic                                  found_o,     // key_i stands here; sweep: a block of the agent
    output logic                                  free_o,      // not found, and way_o is free
    output logic                                  victim_o,    // neither, and way_o can be evicted
    output logic                                  evicting_o,  // a block of this set is being evicted
    output logic [    WayBits-1:0]                way_o
);
  typedef struct packed {
    logic [AddressBits-1:0] key;
    directory_state_e state;
    logic evicts;
    logic waits;
    logic [AgentBits-1:0] waiter;
    logic [Agents-1:0] holders;
  } entry_t;

  entry_t [Ways-1:0] entries;
  logic   [Ways-1:0] held;
  logic   [Ways-1:0] found;
  logic   [Ways-1:0] steady;
  logic   [Ways-1:0] evicting;

  function automatic logic [WayBits-1:0] turned(input logic [WayBits-1:0] i);
    return (i + start_i) & WayBits'(Ways - 1);
  endfunction

  assign entries = entries_i;

  always_comb begin
    for (int i = 0; i < int'(Ways); i++) begin
      held[i] = entries[i].state != DirectoryStateInvalid;
      steady[i] = held[i] && !entries[i].waits;
      evicting[i] = held[i] && entries[i].waits && entries[i].evicts;
      if (sweep_i)
        found[i] = held[i] && (entries[i].holders[agent_i] ||
                               (entries[i].waits && !entries[i].evicts && entries[i].waiter == agent_i));
      else found[i] = held[i] && entries[i].key == key_i;
    end
    found_o = |found;
    free_o = !found_o && !(&held);
    victim_o = !found_o && (&held) && |steady && !(|evicting);
    evicting_o = |evicting;
    way_o = '0;
    if (found_o) begin
      for (int i = int'(Ways) - 1; i >= 0; i--) if (found[i]) way_o = WayBits'(i);
    end else if (free_o) begin
      for (int i = int'(Ways) - 1; i >= 0; i--) if (!held[i]) way_o = WayBits'(i);
    end else begin
      for (int i = int'(Ways) - 1; i >= 0; i--) if (steady[turned(WayBits'(i))]) way_o = turned(WayBits'(i));
    end
  end
endmodule

`default_nettype wire
