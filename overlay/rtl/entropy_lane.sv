`default_nettype none

// One lane of a round: the symbol of a state, and the state behind it before renormalisation. A new round every
// cycle; the symbol after three, the state after six. The search goes in two steps, seven comparisons side by
// side, then three: ten comparators and a multiplexer of eight, not 31 and one of 32.
module entropy_lane
  import speckv_pkg::*;
#(
    localparam int unsigned SymbolBits = $clog2(EntropySymbols)
) (
    input  wire                                   clk_i,
    input  wire  [                          31:0] state_i,
    input  wire  [EntropySymbols*EntropyBits-1:0] row_i,     // last slot of each symbol
    output logic [                SymbolBits-1:0] symbol_o,
    output logic [                          31:0] state_o
);
  typedef logic [EntropyBits-1:0] slot_t;
  localparam int unsigned HighBits = 32 - EntropyBits;
  localparam int unsigned Groups = EntropySymbols / 4;

  // 1: the group of four symbols.
  logic [$clog2(Groups)-1:0] group, group_q;
  logic [EntropySymbols*EntropyBits-1:0] row_q;
  logic [31:0] state1_q, state2_q, state3_q;

  always_comb begin
    group = '0;
    for (int g = 0; g < Groups - 1; ++g) begin
      if (slot_t'(state_i) > row_i[(4*g+3)*EntropyBits+:EntropyBits]) group = ($clog2(Groups))'(g + 1);
    end
  end

  // 2: its last slots, and the last one before it; modulo 2 ** EntropyBits there is a slot -1.
  logic [$clog2(Groups)-1:0] group2_q;
  slot_t before_q;
  slot_t [3:0] last_q;
  logic [EntropySymbols*EntropyBits+EntropyBits-1:0] extended;
  assign extended = {row_q, slot_t'('1)};

  // 3: the symbol in the group.
  logic [1:0] digit;
  slot_t first, last;

  always_comb begin
    digit = 2'd0;
    first = before_q;
    for (int s = 0; s < 3; ++s) begin
      if (slot_t'(state2_q) > last_q[s]) begin
        digit = 2'(s + 1);
        first = last_q[s];
      end
    end
    last = last_q[digit];
  end

  // 4: frequency (never all slots: a table has two symbols at least) and place within the symbol.
  // 5, 6: x = f * high + place.
  slot_t lower_q, upper_q, frequency_q, place_q, place5_q;
  logic [HighBits-1:0] high_q;
  logic [31:0] product_q;

  always_ff @(posedge clk_i) begin
    group_q <= group;
    row_q <= row_i;
    state1_q <= state_i;

    group2_q <= group_q;
    for (int g = 0; g < Groups; ++g) begin
      if (group_q == ($clog2(Groups))'(g)) {last_q, before_q} <= extended[g*4*EntropyBits+:5*EntropyBits];
    end
    state2_q <= state1_q;

    symbol_o <= {group2_q, digit};
    lower_q <= first;
    upper_q <= last;
    state3_q <= state2_q;

    frequency_q <= upper_q - lower_q;
    place_q <= slot_t'(state3_q) - lower_q - 1'b1;
    high_q <= state3_q[31:EntropyBits];

    product_q <= frequency_q * high_q;
    place5_q <= place_q;

    state_o <= product_q + 32'(place5_q);
  end
endmodule

`default_nettype wire
