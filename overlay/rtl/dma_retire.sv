`default_nettype none

// Ends descriptors in their order, once memory has answered what was written for them: counts them for the run's
// record and puts their completions, four to a line, where the job wants them. end_i: no more will come;
// complete_o: all have ended and their completions are in memory.
module dma_retire
  import speckv_pkg::*;
(
    input  wire                      clk_i,
    input  wire                      rst_i,
    input  wire                      start_i,             // a run begins: counts are zero
    input  wire              [ 63:0] tag_i,
    input  wire              [ 57:0] results_line_i,      // 0: nowhere
    input  wire                      end_i,
    input  wire              [ 31:0] issued_i,
    output logic                     complete_o,
    output dma_done_t                done_o,              // status: ok, failed_blocks or device_error
    input  wire completion_t         verdict_i,
    input  wire                      verdict_written_i,
    input  wire                      verdict_valid_i,
    output logic                     verdict_ready_o,
    input  wire              [  1:0] written_response_i,
    input  wire                      written_valid_i,
    output logic                     written_ready_o,
    output logic             [ 57:0] note_line_o,
    output logic             [511:0] note_data_o,
    output logic             [ 63:0] note_strobe_o,
    output logic                     note_valid_o,
    input  wire                      note_ready_i,
    input  wire                      notes_idle_i,
    input  wire                      notes_failed_i
);
  localparam int unsigned Depth = 16;

  completion_t verdict, completion;
  logic written, verdict_valid, retires;
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width($bits(completion_t) + 1),
      .Depth(Depth)
  ) u_verdicts (
      .clk_i,
      .rst_i,
      .data_i ({verdict_written_i, verdict_i}),
      .valid_i(verdict_valid_i),
      .ready_o(verdict_ready_o),
      .data_o ({written, verdict}),
      .valid_o(verdict_valid),
      .ready_i(retires),
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  // The line that fills up, and the full one on its way.
  logic [3:0][127:0] line_q;
  logic [3:0] held_q;
  logic [57:0] at_q;
  logic has_results, note_free, sends;
  assign has_results = results_line_i != '0;
  assign note_free = !note_valid_o || note_ready_i;

  assign retires = verdict_valid && (!written || written_valid_i) && !held_q[3];
  assign written_ready_o = retires && written;
  always_comb begin
    completion = verdict;
    if (written && written_response_i != '0 && verdict.status == StatusOk) begin
      completion = '0;
      {completion.status, completion.value} = {StatusBusError, 32'(written_response_i)};
    end
  end

  logic all_retired;
  assign all_retired = end_i && done_o.blocks == issued_i;
  assign sends = note_free && (held_q[3] || (all_retired && held_q != '0));
  assign complete_o = all_retired && held_q == '0 && !note_valid_o && notes_idle_i;

  always_ff @(posedge clk_i) begin
    if (note_ready_i) note_valid_o <= 1'b0;
    if (sends) begin
      note_valid_o <= 1'b1;
      note_line_o  <= at_q;
      note_data_o  <= line_q;
      for (int unsigned i = 0; i < 4; ++i) note_strobe_o[16*i+:16] <= {16{held_q[i]}};
      at_q   <= at_q + 1'b1;
      held_q <= '0;
    end
    if (retires) begin
      if (has_results) begin
        line_q[done_o.blocks[1:0]] <= completion;
        held_q[done_o.blocks[1:0]] <= 1'b1;
      end
      done_o.blocks <= done_o.blocks + 1'b1;
      done_o.bytes  <= done_o.bytes + 64'(completion.record_bytes);
      if (completion.status != StatusOk) begin
        done_o.failed <= done_o.failed + 1'b1;
        if (done_o.failed == '0) begin
          done_o.first_failed <= done_o.blocks;
          done_o.block_status <= completion.status;
          done_o.value <= completion.value;
          done_o.limit <= completion.limit;
        end
        done_o.status <= CommandStatusFailedBlocks;
      end
    end
    if (notes_failed_i) done_o.status <= CommandStatusDeviceError;
    if (start_i) begin
      done_o <= '0;
      done_o.tag <= tag_i;
      held_q <= '0;
      at_q <= results_line_i;
    end
    if (rst_i) begin
      note_valid_o <= 1'b0;
      held_q <= '0;
    end
  end
endmodule

`default_nettype wire
