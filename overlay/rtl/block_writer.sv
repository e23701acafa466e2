`default_nettype none

// Puts what the decoders make in the order of the records: for each, the beats of its block from the decoder that it
// needs, then its completion. A record that failed gives a completion only.
module block_writer
  import speckv_pkg::*;
(
    input  wire                             clk_i,
    input  wire                             rst_i,
    input  wire                             order_valid_i,
    output logic                            order_ready_o,
    input  wire                             order_good_i,
    input  wire              [  1:0]        order_decoder_i,
    input  wire              [ 19:0]        order_beats_i,
    input  wire completion_t                order_completion_i,
    input  wire              [  2:0][511:0] beat_tdata_i,         // by decoder
    input  wire              [  2:0]        beat_tvalid_i,
    output logic             [  2:0]        beat_tready_o,
    output logic             [511:0]        block_tdata_o,
    output logic                            block_tlast_o,
    output logic                            block_tvalid_o,
    input  wire                             block_tready_i,
    output logic             [127:0]        completion_tdata_o,
    output logic                            completion_tvalid_o,
    input  wire                             completion_tready_i
);
  typedef struct packed {
    logic good;
    logic [1:0] decoder;
    logic [19:0] beats;
    completion_t completion;
  } order_t;
  order_t order_in, order;
  logic order_valid, order_done;
  assign order_in = '{order_good_i, order_decoder_i, order_beats_i, order_completion_i};

  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width($bits(order_t)),
      .Depth(4)
  ) i_order (
      .clk_i,
      .rst_i,
      .data_i (order_in),
      .valid_i(order_valid_i),
      .ready_o(order_ready_o),
      .data_o (order),
      .valid_o(order_valid),
      .ready_i(order_done),
      .count_o()
  );

  // A beat leaves its decoder only when the record's completion will find room.
  logic room, beat_ready, beat_fire, last, finished;
  logic [19:0] beat_q;
  assign last = beat_q == order.beats - 20'd1;
  assign beat_fire = order_valid && order.good && room && beat_ready && beat_tvalid_i[order.decoder];
  assign order_done = order.good ? beat_fire && last : room;
  always_comb begin
    beat_tready_o = '0;
    beat_tready_o[order.decoder] = order_valid && order.good && room && beat_ready;
  end
  always_ff @(posedge clk_i) begin
    if (beat_fire) beat_q <= last ? '0 : beat_q + 20'd1;
    if (rst_i) beat_q <= '0;
  end

  axis_register #(
      .Width(513)
  ) i_block (
      .clk_i,
      .rst_i,
      .data_i ({last, beat_tdata_i[order.decoder]}),
      .valid_i(beat_fire),
      .ready_o(beat_ready),
      .data_o ({block_tlast_o, block_tdata_o}),
      .valid_o(block_tvalid_o),
      .ready_i(block_tready_i)
  );

  // A completion waits until the last beat of its block has been taken: those that wait are counted.
  logic completion_valid;
  logic [2:0] taken_q;  // blocks taken whose completions are not out
  logic next_good, taken;
  assign taken = block_tvalid_o && block_tready_i && block_tlast_o;
  fifo #(
      .Width(129),
      .Depth(4)
  ) i_completion (
      .clk_i,
      .rst_i,
      .data_i ({order.good, order.completion}),
      .valid_i(order_valid && order_done),
      .ready_o(room),
      .data_o ({next_good, completion_tdata_o}),
      .valid_o(completion_valid),
      .ready_i(finished),
      .count_o()
  );
  assign completion_tvalid_o = completion_valid && (!next_good || taken_q != '0);
  assign finished = completion_tvalid_o && completion_tready_i;
  always_ff @(posedge clk_i) begin
    taken_q <= taken_q + 3'(taken) - 3'(finished && next_good);
    if (rst_i) taken_q <= '0;
  end
endmodule

`default_nettype wire
