`default_nettype none

// The life of a run: takes a job, starts it, waits until the last descriptor that began has ended, and hands its
// record over. A cancellation holds until then, however short cancel_i was.
module dma_run
  import speckv_pkg::*;
(
    input  wire                   clk_i,
    input  wire                   rst_i,
    input  wire dma_job_t         job_i,
    input  wire                   job_valid_i,
    output logic                  job_ready_o,
    output dma_done_t             done_o,
    output logic                  done_valid_o,
    input  wire                   done_ready_i,
    input  wire                   cancel_i,
    output dma_job_t              job_o,
    output logic                  start_o,
    output logic                  stop_o,
    input  wire                   planned_i,
    output logic           [31:0] issued_o,
    input  wire                   complete_i,
    input  wire dma_done_t        counted_i
);
  typedef enum logic [1:0] {
    Idle,
    Start,
    Running,
    Ended
  } state_e;
  state_e state_q;
  assign job_ready_o = state_q == Idle;
  assign start_o = state_q == Start;
  assign done_valid_o = state_q == Ended;

  always_comb begin
    done_o = counted_i;
    if (counted_i.status != CommandStatusDeviceError && counted_i.blocks != job_o.count)
      done_o.status = CommandStatusCancelled;
  end

  always_ff @(posedge clk_i) begin
    issued_o <= issued_o + 32'(planned_i);
    if (cancel_i) stop_o <= 1'b1;
    unique case (state_q)
      Idle: begin
        issued_o <= '0;
        stop_o   <= 1'b0;
        if (job_valid_i) begin
          job_o   <= job_i;
          state_q <= Start;
        end
      end
      Start:   state_q <= Running;
      Running: if (complete_i) state_q <= Ended;
      Ended:   if (done_ready_i) state_q <= Idle;
      default: ;
    endcase
    if (rst_i) state_q <= Idle;
  end
endmodule

`default_nettype wire
