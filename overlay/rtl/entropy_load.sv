`default_nettype none

// Puts the states that a payload begins with in place, half of them a beat, and looks for one that is too small.
module entropy_load
  import speckv_pkg::*;
#(
    parameter int unsigned Contexts = 16,
    localparam int unsigned ContextBits = $clog2(Contexts)
) (
    input  wire                    clk_i,
    input  wire                    rst_i,
    input  wire  [ContextBits-1:0] context_i,
    input  wire                    second_i,
    input  wire  [    AxiBits-1:0] data_i,
    input  wire                    valid_i,
    output logic                   ready_o,
    // To the file of states, where no round comes back. One round is held back for it.
    output logic                   hold_round_o,
    output logic                   write_o,
    input  wire                    written_i,
    output logic [ContextBits-1:0] context_o,
    output logic                   second_o,
    output logic [    AxiBits-1:0] data_o,
    // When all of a record's states are there.
    output logic [   Contexts-1:0] loaded_o,
    output logic                   unusable_o,
    // The least of a context's states, where one is below 2 ** 16.
    input  wire  [ContextBits-1:0] least_context_i,
    output logic [           15:0] least_o
);
  localparam int unsigned Steps = 4;
  localparam int unsigned StepBits = AxiBits / Steps;

  logic busy_q, held_q, written_q;
  logic [$clog2(Steps):0] step_q;
  logic [16:0] least_q, least;  // its highest bit: none below 2 ** 16
  logic [16:0] known_q[Contexts];
  logic [16:0] known, both;
  logic [StepBits-1:0] part;
  logic scanned, done;

  assign ready_o = !busy_q;
  assign hold_round_o = busy_q && !held_q;
  assign write_o = busy_q && !written_q;
  assign scanned = step_q == ($clog2(Steps) + 1)'(Steps);
  assign done = busy_q && written_q && scanned;
  assign part = data_o[step_q[$clog2(Steps)-1:0]*StepBits+:StepBits];
  assign known = known_q[context_o];
  assign both = (second_o && known < least_q) ? known : least_q;
  assign unusable_o = !both[16];
  assign least_o = known_q[least_context_i][15:0];

  always_comb begin
    least = least_q;
    for (int l = 0; l < StepBits / 32; ++l) begin
      logic [16:0] one;
      one = {part[32*l+16+:16] != '0, part[32*l+:16]};
      if (one < least) least = one;
    end
    loaded_o = '0;
    loaded_o[context_o] = done && second_o;
  end

  always_ff @(posedge clk_i) begin
    if (busy_q) begin
      held_q <= 1'b1;
      if (written_i) written_q <= 1'b1;
      if (!scanned) begin
        least_q <= least;
        step_q  <= step_q + 1'b1;
      end
      if (done) begin
        known_q[context_o] <= both;
        busy_q <= 1'b0;
      end
    end else if (valid_i) begin
      busy_q <= 1'b1;
      held_q <= 1'b0;
      written_q <= 1'b0;
      step_q <= '0;
      least_q <= '1;
      context_o <= context_i;
      second_o <= second_i;
      data_o <= data_i;
    end
    if (rst_i) busy_q <= 1'b0;
  end
endmodule

`default_nettype wire
