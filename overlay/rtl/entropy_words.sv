`default_nettype none

// The words of all contexts, four beats of each, and their distribution: the lanes that need a word take the next
// ones in the order of lanes. A column of the memory holds every 32nd word and is addressed by itself, so any 32
// words in a row come out in one read.
module entropy_words
  import speckv_pkg::*;
#(
    parameter int unsigned Contexts = 16,
    localparam int unsigned ContextBits = $clog2(Contexts),
    localparam int unsigned LaneBits = $clog2(EntropyLanes)
) (
    input  wire                           clk_i,
    input  wire                           write_i,
    input  wire  [ ContextBits-1:0]       write_context_i,
    input  wire  [             1:0]       write_beat_i,
    input  wire  [     AxiBits-1:0]       write_data_i,
    // A round: its lanes before renormalisation, where its next word is, and how many there are (32: or more).
    input  wire  [ ContextBits-1:0]       context_i,
    input  wire  [    LaneBits+1:0]       position_i,
    input  wire  [      LaneBits:0]       remaining_i,
    input  wire                           half_i,           // lanes of the first half alone
    input  wire  [EntropyLanes-1:0][31:0] state_i,
    output logic [      LaneBits:0]       needed_o,         // a cycle later, not registered
    output logic [EntropyLanes-1:0][31:0] state_o           // three cycles later
);
  localparam int unsigned Fours = EntropyLanes / 8;

  // 1: who needs a word, counted within eights.
  logic [EntropyLanes-1:0] low, low_q;
  logic [EntropyLanes-1:0][2:0] ahead, ahead_q;
  logic [Fours-1:0][3:0] count, count_q;
  logic [EntropyLanes-1:0][31:0] state1_q, state2_q;
  logic [LaneBits-1:0] position_q;
  logic [  LaneBits:0] remaining_q;

  always_comb begin
    for (int l = 0; l < EntropyLanes; ++l) begin
      low[l] = (state_i[l][31:16] == '0) && !(half_i && l >= EntropyLanes / 2);
    end
    for (int e = 0; e < Fours; ++e) begin
      count[e] = '0;
      for (int l = 0; l < 8; ++l) begin
        ahead[8*e+l] = count[e][2:0];
        count[e] = count[e] + 4'(low[8*e+l]);
      end
    end
  end

  // 2: how many words go before each lane's; the columns, read meanwhile, are turned so that the next word comes first.
  logic [Fours-1:0][LaneBits:0] eights_before;
  logic [EntropyLanes-1:0][LaneBits:0] words_before;
  logic [EntropyLanes-1:0] there, there_q, low2_q;
  logic [1:0] beat, next_beat;
  logic [EntropyLanes-1:0] wrapped;  // columns whose word is in the next beat
  logic [EntropyLanes-1:0][15:0] window_q, turned, turned_q;

  assign beat = position_i[LaneBits+:2];
  assign next_beat = beat + 1'b1;
  assign wrapped = ~('1 << position_i[LaneBits-1:0]);

  always_comb begin
    needed_o = '0;
    for (int e = 0; e < Fours; ++e) begin
      eights_before[e] = needed_o;
      needed_o = needed_o + (LaneBits + 1)'(count_q[e]);
    end
    for (int l = 0; l < EntropyLanes; ++l) begin
      words_before[l] = eights_before[l/8] + (LaneBits + 1)'(ahead_q[l]);
      there[l] = words_before[l] < remaining_q;
    end
    turned = window_q;
    for (int b = 0; b < LaneBits; ++b) begin
      if (position_q[b]) turned = AxiBits'({turned, turned} >> (16 << b));
    end
  end

  for (genvar c = 0; c < EntropyLanes; ++c) begin : g_column
    (* ram_style = "distributed" *) logic [15:0] memory_q[4*Contexts];
    always_ff @(posedge clk_i) begin
      if (write_i) memory_q[{write_context_i, write_beat_i}] <= write_data_i[16*c+:16];
      window_q[c] <= memory_q[{context_i, wrapped[c]?next_beat : beat}];
    end
  end

  // 3: the word; beyond the last one zeros are read.
  always_ff @(posedge clk_i) begin
    low_q <= low;
    ahead_q <= ahead;
    count_q <= count;
    state1_q <= state_i;
    position_q <= position_i[LaneBits-1:0];
    remaining_q <= remaining_i;

    low2_q <= low_q;
    there_q <= there;
    turned_q <= turned;
    state2_q <= state1_q;
  end

  // At most as many words go before a lane's as lanes do.
  for (genvar l = 0; l < EntropyLanes; ++l) begin : g_lane
    logic [15:0] word;
    if (l == 0) begin : g_first
      assign word = turned_q[0];
    end else begin : g_choose
      logic [l:0][15:0] words;
      assign words = turned_q[l:0];
      logic [$clog2(l+1)-1:0] which_q;
      assign word = words[which_q];
      always_ff @(posedge clk_i) which_q <= words_before[l][$clog2(l+1)-1:0];
    end
    always_ff @(posedge clk_i) begin
      state_o[l] <= state2_q[l];
      if (low2_q[l]) state_o[l] <= {state2_q[l][15:0], there_q[l] ? word : 16'd0};
    end
  end
endmodule

`default_nettype wire
