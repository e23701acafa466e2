`default_nettype none

// Two users of the one DMA engine, a run at a time each: the first goes before the second when both wait. An end
// goes to whose run it was.
module job_share
  import speckv_pkg::*;
(
    input  wire                                         clk_i,
    input  wire                                         rst_i,
    input  wire  [              1:0][8*DmaJobBytes-1:0] user_job_i,
    input  wire  [              1:0]                    user_job_valid_i,
    output logic [              1:0]                    user_job_ready_o,
    output logic [              1:0]                    user_done_valid_o,
    input  wire  [              1:0]                    user_done_ready_i,
    output logic [8*DmaJobBytes-1:0]                    job_o,
    output logic                                        job_valid_o,
    input  wire                                         job_ready_i,
    input  wire                                         done_valid_i,
    output logic                                        done_ready_o,
    output logic                                        second_o            // the run is the second one's
);
  typedef enum logic [1:0] {
    Free,
    Offered,
    Runs
  } state_e;
  state_e state_q;

  assign job_o = user_job_i[second_o];
  assign job_valid_o = state_q == Offered;
  always_comb begin
    user_job_ready_o = '0;
    user_job_ready_o[second_o] = state_q == Offered && job_ready_i;
    user_done_valid_o = '0;
    user_done_valid_o[second_o] = state_q == Runs && done_valid_i;
    done_ready_o = state_q == Runs && user_done_ready_i[second_o];
  end

  always_ff @(posedge clk_i) begin
    unique case (state_q)
      Free:
      if (|user_job_valid_i) begin
        second_o <= ~user_job_valid_i[0];
        state_q  <= Offered;
      end
      Offered: if (job_ready_i) state_q <= Runs;
      default: if (done_valid_i && done_ready_o) state_q <= Free;
    endcase
    if (rst_i) state_q <= Free;
  end
endmodule

`default_nettype wire
