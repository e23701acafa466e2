`default_nettype none

// A stream to runs of lines. A burst's address goes out when all of its beats are in the buffer, so its data never
// keep the write channel waiting. A run ends with its beats or with data_last_i, whichever is first; after a run
// marked `final` and its last answer the writer gives its word (written_*): the first bad response, or 0.
// Small writes of a line's parts (note_*) go between the bursts, under AXI id 1.
module axi_writer #(
    parameter int unsigned Depth = 512
) (
    input  wire          clk_i,
    input  wire          rst_i,
    input  wire  [ 57:0] run_line_i,
    input  wire  [ 25:0] run_beats_i,
    input  wire          run_final_i,
    input  wire          run_valid_i,
    output logic         run_ready_o,
    input  wire  [511:0] data_i,
    input  wire          data_strobe_i,
    input  wire          data_last_i,
    input  wire          data_valid_i,
    output logic         data_ready_o,
    output logic [  1:0] written_response_o,
    output logic         written_valid_o,
    input  wire          written_ready_i,
    input  wire  [ 57:0] note_line_i,
    input  wire  [511:0] note_data_i,
    input  wire  [ 63:0] note_strobe_i,
    input  wire          note_valid_i,
    output logic         note_ready_o,
    output logic         notes_idle_o,        // all notes have been answered
    output logic         notes_failed_o,      // one of them badly, since rst_i or note_clear_i
    input  wire          note_clear_i,
    output logic         aw_id_o,
    output logic [ 57:0] aw_line_o,
    output logic [  6:0] aw_beats_o,
    output logic         aw_valid_o,
    input  wire          aw_ready_i,
    output logic [511:0] w_data_o,
    output logic [ 63:0] w_strobe_o,
    output logic         w_last_o,
    output logic         w_valid_o,
    input  wire          w_ready_i,
    input  wire          b_id_i,
    input  wire  [  1:0] b_response_i,
    input  wire          b_valid_i
);
  localparam int unsigned Bursts = 32;  // in the buffer, and as many under way

  // One run may wait while another is written.
  logic [57:0] next_line;
  logic [25:0] next_beats;
  logic next_final, next_valid, next_taken;
  axis_register #(
      .Width(85)
  ) u_runs (
      .clk_i,
      .rst_i,
      .data_i ({run_final_i, run_beats_i, run_line_i}),
      .valid_i(run_valid_i),
      .ready_o(run_ready_o),
      .data_o ({next_final, next_beats, next_line}),
      .valid_o(next_valid),
      .ready_i(next_taken)
  );

  // The run that the coming beat belongs to, and the burst that it makes longer.
  logic [57:0] line_q;
  logic [25:0] left_q;
  logic [ 6:0] beats_q;
  logic final_q, run_valid_q;
  logic buffer_ready, burst_ready, taken, run_ends, burst_ends;
  assign data_ready_o = run_valid_q && buffer_ready && burst_ready;
  assign taken = data_valid_i && data_ready_o;
  assign run_ends = data_last_i || left_q == 26'd1;
  assign burst_ends = run_ends || (7'(line_q[5:0]) + beats_q == 7'd63);
  assign next_taken = !run_valid_q || (taken && run_ends);

  always_ff @(posedge clk_i) begin
    if (taken) begin
      left_q  <= left_q - 1'b1;
      beats_q <= burst_ends ? '0 : beats_q + 1'b1;
      if (burst_ends) line_q <= line_q + 58'(beats_q) + 1'b1;
    end
    if (next_taken) begin
      run_valid_q <= next_valid;
      line_q <= next_line;
      left_q <= next_beats;
      final_q <= next_final;
      beats_q <= '0;
    end
    if (rst_i) run_valid_q <= 1'b0;
  end

  logic [57:0] burst_line;
  logic [ 6:0] burst_beats;
  logic burst_final, burst_valid, burst_taken;
  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width(66),
      .Depth(Bursts)
  ) u_bursts (
      .clk_i,
      .rst_i,
      .data_i ({run_ends && (final_q || data_last_i), beats_q + 7'd1, line_q}),
      .valid_i(taken && burst_ends),
      .ready_o(burst_ready),
      .data_o ({burst_final, burst_beats, burst_line}),
      .valid_o(burst_valid),
      .ready_i(burst_taken),
      .count_o()
  );

  logic buffer_strobe, buffer_valid, buffer_taken;
  logic [511:0] buffer_data;
  fifo #(
      .Width(513),
      .Depth(Depth),
      .Style("block")
  ) u_buffer (
      .clk_i,
      .rst_i,
      .data_i ({data_strobe_i, data_i}),
      .valid_i(taken),
      .ready_o(buffer_ready),
      .data_o ({buffer_strobe, buffer_data}),
      .valid_o(buffer_valid),
      .ready_i(buffer_taken),
      .count_o()
  );

  logic [7:0] notes_q;  // under way
  // A burst or a note is begun while the one before sends its last beat.
  logic free, order_ready, address_ready, pick_note, pick_burst;
  logic sending_q, note_q;
  logic [6:0] beats_left_q;
  assign free = (!sending_q || (w_valid_o && w_ready_i && w_last_o)) && address_ready;
  assign pick_note = free && note_valid_i && (!sending_q || !note_q) && notes_q != '1;
  assign pick_burst = free && !pick_note && burst_valid && order_ready;
  assign burst_taken = pick_burst;

  assign w_last_o = beats_left_q == 7'd1;
  assign w_valid_o = sending_q && (note_q || buffer_valid);
  assign w_data_o = note_q ? note_data_i : buffer_data;
  assign w_strobe_o = note_q ? note_strobe_i : {64{buffer_strobe}};
  assign buffer_taken = sending_q && !note_q && w_ready_i;
  assign note_ready_o = sending_q && note_q && w_ready_i;

  always_ff @(posedge clk_i) begin
    if (w_valid_o && w_ready_i) begin
      beats_left_q <= beats_left_q - 1'b1;
      if (w_last_o) sending_q <= 1'b0;
    end
    if (pick_note || pick_burst) begin
      sending_q <= 1'b1;
      note_q <= pick_note;
      beats_left_q <= pick_note ? 7'd1 : burst_beats;
    end
    if (rst_i) sending_q <= 1'b0;
  end

  axis_register #(
      .Width(66)
  ) u_address (
      .clk_i,
      .rst_i,
      .data_i (pick_note ? {1'b1, 7'd1, note_line_i} : {1'b0, burst_beats, burst_line}),
      .valid_i(pick_note || pick_burst),
      .ready_o(address_ready),
      .data_o ({aw_id_o, aw_beats_o, aw_line_o}),
      .valid_o(aw_valid_o),
      .ready_i(aw_ready_i)
  );

  // Answers: a run's bursts are answered in their order, as they have one id.
  logic order_final, order_valid, burst_answer, word_ready;
  logic [1:0] response_q, response;
  assign burst_answer = b_valid_i && !b_id_i;
  assign response = response_q != '0 ? response_q : b_response_i;
  fifo #(
      .Width(1),
      .Depth(Bursts)
  ) u_order (
      .clk_i,
      .rst_i,
      .data_i (burst_final),
      .valid_i(pick_burst),
      .ready_o(order_ready),
      .data_o (order_final),
      .valid_o(order_valid),
      .ready_i(burst_answer),
      .count_o()
  );
  fifo #(
      .Width(2),
      .Depth(Bursts)
  ) u_words (
      .clk_i,
      .rst_i,
      .data_i (response),
      .valid_i(burst_answer && order_final),
      .ready_o(word_ready),
      .data_o (written_response_o),
      .valid_o(written_valid_o),
      .ready_i(written_ready_i),
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  logic note_answer;
  assign note_answer  = b_valid_i && b_id_i;
  assign notes_idle_o = notes_q == '0 && !note_valid_i;
  always_ff @(posedge clk_i) begin
    if (burst_answer) response_q <= order_final ? '0 : response;
    notes_q <= notes_q + 8'(pick_note) - 8'(note_answer);
    if (note_answer && b_response_i != '0) notes_failed_o <= 1'b1;
    if (note_clear_i) notes_failed_o <= 1'b0;
    if (rst_i) begin
      response_q <= '0;
      notes_q <= '0;
      notes_failed_o <= 1'b0;
    end
    if (!rst_i) begin
      assert (!burst_answer || (order_valid && (word_ready || !order_final)))
      else $error("a write answer that was not asked for");
    end
  end
endmodule

`default_nettype wire
