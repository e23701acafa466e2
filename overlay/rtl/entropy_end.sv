`default_nettype none

// Judges a record after its last symbol: its states usable, no word missing or left over, every state back in the
// range that it began in. Gives the 16 bits that travelled in each state. A result waits until the record's last
// symbols have been taken.
module entropy_end
  import speckv_pkg::*;
#(
    parameter int unsigned Contexts = 16,
    parameter int unsigned WordBits = 17,
    localparam int unsigned ContextBits = $clog2(Contexts)
) (
    input  wire                           clk_i,
    input  wire                           rst_i,
    output logic                          ready_o,
    input  wire                           start_i,
    input  wire  [ ContextBits-1:0]       context_i,
    input  wire                           unusable_i,
    input  wire  [    WordBits-1:0]       words_i,
    input  wire  [    WordBits-1:0]       used_i,
    output logic [ ContextBits-1:0]       context_o,          // from the next cycle on
    input  wire  [            15:0]       least_i,
    input  wire                           states_i,           // later: its states are there
    input  wire  [EntropyLanes-1:0][31:0] state_i,
    input  wire  [             5:0]       symbols_waiting_i,
    input  wire                           symbols_taken_i,
    output logic                          result_valid_o,
    input  wire                           result_ready_i,
    output logic [            15:0]       result_status_o,
    output logic [            31:0]       result_value_o,
    output logic [            31:0]       result_limit_o,
    output logic [     AxiBits-1:0]       result_seeds_o
);
  localparam int unsigned Step = 4;  // states looked at in a cycle
  localparam int unsigned Steps = EntropyLanes / Step;
  localparam logic [31:0] Low = 32'h10000;

  logic busy_q, scans_q, judged_q, unusable_q;
  logic [5:0] ahead_q;  // rounds of symbols to be taken before
  logic [$clog2(Steps)-1:0] step_q;
  logic [WordBits-1:0] words_q, used_q;
  logic [EntropyLanes-1:0][31:0] state_q;
  logic [31:0] most_q, most;

  assign ready_o = !busy_q;
  assign result_valid_o = judged_q && ahead_q == '0;

  always_comb begin
    most = most_q;
    for (int l = 0; l < Step; ++l) begin
      logic [31:0] one;
      one = state_q[{step_q, 2'(l)}];
      if (one > most) most = one;
    end
    for (int l = 0; l < EntropyLanes; ++l) result_seeds_o[16*l+:16] = state_q[l][15:0];
    result_status_o = StatusBadPayload;
    if (unusable_q) begin
      result_value_o = 32'(least_i);
      result_limit_o = Low;
    end else if (used_q != words_q) begin
      result_value_o = 32'(words_q);
      result_limit_o = 32'(used_q);
    end else if (most_q >= 2 * Low) begin
      result_value_o = most_q;
      result_limit_o = 2 * Low - 1;
    end else begin
      result_status_o = StatusOk;
      result_value_o  = '0;
      result_limit_o  = '0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (start_i) ahead_q <= symbols_waiting_i - 6'(symbols_taken_i);
    else if (symbols_taken_i && ahead_q != '0) ahead_q <= ahead_q - 1'b1;
    if (start_i) begin
      busy_q <= 1'b1;
      context_o <= context_i;
      unusable_q <= unusable_i;
      words_q <= words_i;
      used_q <= used_i;
    end
    if (states_i) begin
      state_q <= state_i;
      scans_q <= 1'b1;
      step_q  <= '0;
      most_q  <= '0;
    end
    if (scans_q) begin
      most_q <= most;
      step_q <= step_q + 1'b1;
      if (step_q == '1) begin
        scans_q  <= 1'b0;
        judged_q <= 1'b1;
      end
    end
    if (result_valid_o && result_ready_i) begin
      judged_q <= 1'b0;
      busy_q   <= 1'b0;
    end
    if (rst_i) begin
      busy_q   <= 1'b0;
      scans_q  <= 1'b0;
      judged_q <= 1'b0;
    end
  end
endmodule

`default_nettype wire
