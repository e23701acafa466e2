`default_nettype none

// Brings what comes out of a codec (or, for a copy, straight from the reader) together with the plans of
// dma_issue, in their order: the runs of lines go to the writer, the verdict to dma_retire. Of a descriptor whose
// read failed nothing is written; a copy, which is not held back until its last beat, stops writing at the bad one.
module dma_collect
  import speckv_pkg::*;
(
    input  wire                      clk_i,
    input  wire                      rst_i,
    input  wire                      is_copy_i,
    input  wire completion_t         plan_verdict_i,
    input  wire              [ 57:0] plan_first_line_i,
    input  wire              [ 25:0] plan_first_beats_i,
    input  wire              [ 57:0] plan_second_line_i,
    input  wire              [ 19:0] plan_second_beats_i,
    input  wire                      plan_valid_i,
    output logic                     plan_ready_o,
    // How the reads of each descriptor that has passed its checks went: not for copies.
    input  wire              [  1:0] read_response_i,
    input  wire                      read_valid_i,
    output logic                     read_ready_o,
    // What the codec made; a copy's beats come with their response.
    input  wire              [511:0] data_i,
    input  wire              [  1:0] data_response_i,
    input  wire                      data_last_i,
    input  wire                      data_valid_i,
    output logic                     data_ready_o,
    input  wire completion_t         completion_i,
    input  wire                      completion_valid_i,
    output logic                     completion_ready_o,
    // To the writer: runs, and beats of which those without strobe_o change nothing.
    output logic             [ 57:0] run_line_o,
    output logic             [ 25:0] run_beats_o,
    output logic                     run_final_o,
    output logic                     run_valid_o,
    input  wire                      run_ready_i,
    output logic             [511:0] data_o,
    output logic                     data_strobe_o,
    output logic                     data_last_o,
    output logic                     data_valid_o,
    input  wire                      data_ready_i,
    // To dma_retire.
    output completion_t              verdict_o,
    output logic                     verdict_written_o,    // wait for the writer's word on it
    output logic                     verdict_valid_o,
    input  wire                      verdict_ready_i
);
  typedef enum logic [1:0] {
    Head,
    Second,
    Beats,
    Finish
  } state_e;
  state_e state_q;
  logic [1:0] response_q;  // the first bad one of this descriptor
  logic written_q;

  logic refused, codec_silent, begins, has_second;
  assign refused = plan_verdict_i.status != StatusOk;
  assign has_second = plan_second_beats_i != '0;
  // A codec says that it failed without a beat before.
  assign codec_silent = !is_copy_i && completion_valid_i && completion_i.status != StatusOk;
  assign begins = plan_valid_i && !refused && !codec_silent && data_valid_i && (is_copy_i || read_valid_i);

  // A codec's failure also waits for its reads' end, so that each descriptor takes one word of both.
  logic ends_silent;
  assign ends_silent = plan_valid_i && !refused && codec_silent && read_valid_i;

  logic [1:0] response;
  assign response = is_copy_i ? response_q | (response_q == '0 ? data_response_i : '0) : response_q;

  assign run_final_o = state_q == Second || !has_second;
  assign run_line_o = state_q == Second ? plan_second_line_i : plan_first_line_i;
  assign run_beats_o = state_q == Second ? 26'(plan_second_beats_i) : plan_first_beats_i;
  assign run_valid_o = (state_q == Head && begins && (is_copy_i || read_response_i == '0)) || state_q == Second;
  assign read_ready_o = state_q == Head && !is_copy_i && (ends_silent || (begins && run_ready_i));

  assign data_o = data_i;
  assign data_last_o = data_last_i;
  assign data_strobe_o = response == '0;
  assign data_valid_o = state_q == Beats && written_q && data_valid_i;
  assign data_ready_o = state_q == Beats && (!written_q || data_ready_i);

  // Finish gives the verdict; a refused descriptor has nothing else.
  logic finished;
  assign finished = verdict_valid_o && verdict_ready_i;
  assign verdict_valid_o = state_q == Finish && (is_copy_i || refused || completion_valid_i);
  assign plan_ready_o = finished;
  assign completion_ready_o = finished && !is_copy_i && !refused;
  assign verdict_written_o = written_q;
  always_comb begin
    verdict_o = '0;
    if (refused) verdict_o = plan_verdict_i;
    else if (response_q != '0) {verdict_o.status, verdict_o.value} = {StatusBusError, 32'(response_q)};
    else if (is_copy_i) verdict_o.record_bytes = {plan_first_beats_i, 6'd0};
    else verdict_o = completion_i;
  end

  always_ff @(posedge clk_i) begin
    unique case (state_q)
      Head: begin
        written_q  <= 1'b0;
        response_q <= '0;
        if (plan_valid_i && refused) state_q <= Finish;
        else if (ends_silent) begin
          response_q <= read_response_i;
          state_q <= Finish;
        end else if (begins && run_ready_i) begin
          response_q <= is_copy_i ? '0 : read_response_i;
          written_q <= is_copy_i || read_response_i == '0;
          state_q <= has_second && (is_copy_i || read_response_i == '0) ? Second : Beats;
        end
      end
      Second:  if (run_ready_i) state_q <= Beats;
      Beats:
      if (data_valid_i && data_ready_o) begin
        response_q <= response;
        if (data_last_i) state_q <= Finish;
      end
      Finish:  if (finished) state_q <= Head;
      default: ;
    endcase
    if (rst_i) state_q <= Head;
  end
endmodule

`default_nettype wire
