`default_nettype none

// Second part of kv_compress: blocks in the ring to payloads. Three steps, each on a block of its own: prepare (codes
// of int4's groups; reciprocals of int8_delta_rle), quantise (a beat a cycle from the ring), join (the payload's
// bytes in order). A block that has no coding, or a value that is not finite, passes by.
module compress_encode
  import speckv_pkg::*;
#(
    parameter  int unsigned RingBeats = 4096,
    parameter  int unsigned WordBits  = 8,
    localparam int unsigned RingBits  = $clog2(RingBeats)
) (
    input  wire                             clk_i,
    input  wire                             rst_i,
    // A block that is in the ring. There is room for as many jobs as kv_compress lets in.
    input  wire                             job_valid_i,
    input  wire  [         7:0]             scheme_i,
    input  wire                             bf16_i,
    input  wire                             has_key_i,
    input  wire                             has_value_i,
    input  wire                             dim80_i,
    input  wire  [         6:0]             tokens_i,
    input  wire  [WordBits-1:0]             row_segments_i,
    input  wire  [WordBits+1:0]             row_halves_i,
    input  wire  [  RingBits:0]             beats_i,
    input  wire  [         1:0][14:0]       largest_i,
    // The ring.
    output logic                            read_o,
    output logic [RingBits-1:0]             read_index_o,
    input  wire  [       511:0]             read_data_i,
    // Extremes of int4's groups.
    output logic                            extremes_read_o,
    output logic [  WordBits:0]             extremes_word_o,
    output logic [         1:0]             extremes_eight_o,
    input  wire  [         7:0][ 1:0][15:0] extremes_i,
    output logic                            extremes_free_o,   // of one block are needed no longer
    // The payload, beat after beat; room_i: beats that it can take before the next job.
    input  wire  [  RingBits:0]             room_i,
    output logic                            payload_valid_o,
    output logic                            payload_last_o,
    output logic                            payload_drop_o,    // with the last: it does not pay
    output logic [         6:0]             payload_bytes_o,   // of the last beat
    output logic [       511:0]             payload_data_o,
    // What came of each job.
    output logic                            result_valid_o,
    output logic                            result_packed_o,
    output logic                            result_coded_o,
    output logic [        31:0]             result_bytes_o,
    output logic [        63:0]             result_params_o
);
  localparam int unsigned Queue = 8;  // jobs that wait for a step; kv_compress lets fewer in
  localparam int unsigned Pieces = 128;
  localparam int unsigned PieceSlack = 32;  // pieces that may still come when no beat is taken any more

  typedef struct packed {
    logic coded;
    logic int4;
    logic bf16;
    logic has_key;
    logic has_value;
    logic dim80;
    logic [6:0] tokens;
    logic [WordBits-1:0] row_segments;
    logic [WordBits+1:0] row_halves;
    logic [RingBits:0] beats;
    logic [1:0][14:0] largest;
  } job_t;
  typedef struct packed {
    job_t job;
    logic signed [1:0][9:0] base;
    logic [1:0][26:0] reciprocal;
  } quantise_t;
  typedef struct packed {
    job_t job;
    logic [1:0][15:0] params;
  } join_t;

  // Prepare.
  job_t arriving, prepare, prepared;
  logic prepare_valid, prepare_done, finite_key, finite_value;
  logic [14:0] infinity;
  assign infinity = bf16_i ? 15'h7F80 : 15'h7C00;
  assign finite_key = !has_key_i || largest_i[0] < infinity;
  assign finite_value = !has_value_i || largest_i[1] < infinity;
  assign arriving = '{
          coded: scheme_i != SchemeRaw && finite_key && finite_value,
          int4: scheme_i == SchemeInt4,
          bf16: bf16_i,
          has_key: has_key_i,
          has_value: has_value_i,
          dim80: dim80_i,
          tokens: tokens_i,
          row_segments: row_segments_i,
          row_halves: row_halves_i,
          beats: beats_i,
          largest: largest_i
      };

  logic [3:0] unused_ready, unused_count[3];
  fifo #(
      .Width($bits(job_t)),
      .Depth(Queue)
  ) i_prepare (
      .clk_i,
      .rst_i,
      .data_i (arriving),
      .valid_i(job_valid_i),
      .ready_o(unused_ready[0]),
      .data_o (prepare),
      .valid_o(prepare_valid),
      .ready_i(prepare_done),
      .count_o(unused_count[0])
  );

  logic quantise_slot_q, next_slot_q, join_slot_q, groups_slot, slot_free, groups_write;
  logic signed [1:0][9:0] exponent, base;
  logic [1:0][26:0] reciprocal;
  logic [WordBits-1:0] groups_word;
  logic [1:0] groups_eight;
  logic [7:0][19:0] groups_data;

  compress_prepare #(
      .WordBits(WordBits)
  ) i_compress_prepare (
      .clk_i,
      .rst_i,
      .valid_i(prepare_valid),
      .done_o(prepare_done),
      .coded_i(prepare.coded),
      .int4_i(prepare.int4),
      .bf16_i(prepare.bf16),
      .has_key_i(prepare.has_key),
      .has_value_i(prepare.has_value),
      .dim80_i(prepare.dim80),
      .sixteens_i(prepare.tokens[6:5]),
      .row_segments_i(prepare.row_segments),
      .row_halves_i(prepare.row_halves),
      .largest_i(prepare.largest),
      .extremes_read_o,
      .extremes_word_o,
      .extremes_eight_o,
      .extremes_i,
      .extremes_free_o,
      .exponent_o(exponent),
      .base_o(base),
      .reciprocal_o(reciprocal),
      .slot_free_i(slot_free),
      .write_o(groups_write),
      .write_slot_o(groups_slot),
      .write_word_o(groups_word),
      .write_eight_o(groups_eight),
      .write_data_o(groups_data)
  );

  // {z, code} of 32 groups, a copy each for the quantiser and for the payload's planes.
  logic quantise_read, planes_read;
  logic [WordBits-1:0] quantise_word, planes_word;
  logic [31:0][19:0] quantise_groups, planes_groups;
  for (genvar b = 0; b < 4; ++b) begin : g_bank
    logic write;
    assign write = groups_write && groups_eight == 2'(b);
    ram_1r1w #(
        .Width(160),
        .Depth(2 << WordBits)
    ) i_quantise_groups (
        .clk_i,
        .write_i(write),
        .write_index_i({groups_slot, groups_word}),
        .data_i(groups_data),
        .read_i(quantise_read),
        .read_index_i({quantise_slot_q, quantise_word}),
        .data_o(quantise_groups[8*b+:8])
    );
    ram_1r1w #(
        .Width(160),
        .Depth(2 << WordBits)
    ) i_planes_groups (
        .clk_i,
        .write_i(write),
        .write_index_i({groups_slot, groups_word}),
        .data_i(groups_data),
        .read_i(planes_read),
        .read_index_i({join_slot_q, planes_word}),
        .data_o(planes_groups[8*b+:8])
    );
  end

  // Quantise. The head of the queue is read from the ring while the block before it is still in the quantiser.
  quantise_t quantise;
  logic quantise_valid, quantise_pop, reading_q, reader_start, reader_ready, load, int4_q;
  logic [4:0] quiet_q;  // cycles since a beat was taken, for a change of scheme: pieces keep their order
  logic beat_valid, beat_ready, int4_ready, int8_ready, int4_done, int8_done, hold;
  logic [511:0] beat;

  assign prepared = prepare;
  fifo #(
      .Width($bits(quantise_t)),
      .Depth(Queue)
  ) i_quantise (
      .clk_i,
      .rst_i,
      .data_i ({prepared, base, reciprocal}),
      .valid_i(prepare_done),
      .ready_o(unused_ready[1]),
      .data_o (quantise),
      .valid_o(quantise_valid),
      .ready_i(quantise_pop),
      .count_o(unused_count[1])
  );

  assign reader_start = quantise_valid && reader_ready && !reading_q;
  assign load = quantise_valid && quantise.job.coded && (reading_q || reader_start) && int4_done && int8_done &&
      (quantise.job.int4 == int4_q || quiet_q == '1);
  assign quantise_pop = load || (reader_start && !quantise.job.coded);

  ring_reader #(
      .IndexBits(RingBits)
  ) i_reader (
      .clk_i,
      .rst_i,
      .start_i(reader_start),
      .beats_i(quantise.job.beats),
      .skip_i (!quantise.job.coded),
      .ready_o(reader_ready),
      .read_o,
      .index_o(read_index_o),
      .data_i (read_data_i),
      .data_o (beat),
      .valid_o(beat_valid),
      .ready_i(beat_ready)
  );
  assign beat_ready = int4_q ? int4_ready : int8_ready;

  always_ff @(posedge clk_i) begin
    if (reader_start) reading_q <= 1'b1;
    if (quantise_pop) reading_q <= 1'b0;
    if (load) begin
      int4_q <= quantise.job.int4;
      if (quantise.job.int4) begin
        quantise_slot_q <= next_slot_q;
        next_slot_q <= !next_slot_q;
      end
    end
    quiet_q <= (beat_valid && beat_ready) || !(int4_done && int8_done) ? '0 : quiet_q + 5'(quiet_q != '1);
    if (rst_i) begin
      {reading_q, int4_q, quiet_q}   <= '0;
      {quantise_slot_q, next_slot_q} <= '0;
    end
  end

  typedef struct packed {
    logic last;  // of its kind
    logic [6:0] bytes;
    logic [511:0] data;
  } piece_t;
  piece_t int4_piece, int8_piece, piece;
  logic int4_valid, int8_valid, piece_valid, piece_ready;
  logic [$clog2(Pieces):0] pieces;

  int4_quantise #(
      .WordBits(WordBits)
  ) i_int4 (
      .clk_i,
      .rst_i,
      .load_i(load && quantise.job.int4),
      .done_o(int4_done),
      .bf16_i(quantise.job.bf16),
      .has_key_i(quantise.job.has_key),
      .has_value_i(quantise.job.has_value),
      .dim80_i(quantise.job.dim80),
      .tokens_i(quantise.job.tokens),
      .row_segments_i(quantise.job.row_segments),
      .base_i(quantise.base),
      .beat_i(beat),
      .valid_i(beat_valid && int4_q),
      .ready_o(int4_ready),
      .hold_i(hold),
      .read_o(quantise_read),
      .read_word_o(quantise_word),
      .read_i(quantise_groups),
      .valid_o(int4_valid),
      .bytes_o(int4_piece.bytes),
      .kind_last_o(int4_piece.last),
      .data_o(int4_piece.data)
  );
  int8_delta_rle #(
      .BeatBits(RingBits + 1)
  ) i_int8 (
      .clk_i,
      .rst_i,
      .load_i(load && !quantise.job.int4),
      .done_o(int8_done),
      .bf16_i(quantise.job.bf16),
      .has_key_i(quantise.job.has_key),
      .has_value_i(quantise.job.has_value),
      .kind_beats_i(quantise.job.beats >> (quantise.job.has_key && quantise.job.has_value)),
      .largest_i(quantise.job.largest),
      .reciprocal_i(quantise.reciprocal),
      .beat_i(beat),
      .valid_i(beat_valid && !int4_q),
      .ready_o(int8_ready),
      .hold_i(hold),
      .valid_o(int8_valid),
      .kind_last_o(int8_piece.last),
      .bytes_o(int8_piece.bytes),
      .data_o(int8_piece.data)
  );

  // Both never give a piece in the same cycle: see quiet_q.
  fifo #(
      .Width($bits(piece_t)),
      .Depth(Pieces),
      .Style("block")
  ) i_pieces (
      .clk_i,
      .rst_i,
      .data_i (int4_valid ? int4_piece : int8_piece),
      .valid_i(int4_valid || int8_valid),
      .ready_o(unused_ready[3]),
      .data_o (piece),
      .valid_o(piece_valid),
      .ready_i(piece_ready),
      .count_o(pieces)
  );
  always_ff @(posedge clk_i) hold <= pieces > ($clog2(Pieces) + 1)'(Pieces - PieceSlack);

  // Join.
  join_t join_head, join_tail;
  logic join_valid, join_pop, join_packed, join_last, join_drop;
  logic [  6:0] join_bytes;
  logic [511:0] join_data;

  assign join_tail.job = prepare;
  always_comb
    for (int k = 0; k < 2; ++k)
      join_tail.params[k] = prepare.int4 ? 16'($signed(exponent[k])) : 16'(prepare.largest[k]);
  fifo #(
      .Width($bits(join_t)),
      .Depth(Queue)
  ) i_join (
      .clk_i,
      .rst_i,
      .data_i (join_tail),
      .valid_i(prepare_done),
      .ready_o(unused_ready[2]),
      .data_o (join_head),
      .valid_o(join_valid),
      .ready_i(join_pop),
      .count_o(unused_count[2])
  );
  assign slot_free = join_pop && join_head.job.coded && join_head.job.int4;
  always_ff @(posedge clk_i) begin
    if (slot_free) join_slot_q <= !join_slot_q;
    if (rst_i) join_slot_q <= 1'b0;
  end

  payload_join #(
      .WordBits(WordBits),
      .RingBits(RingBits)
  ) i_payload (
      .clk_i,
      .rst_i,
      .job_valid_i(join_valid),
      .job_ready_o(join_pop),
      .coded_i(join_head.job.coded),
      .int4_i(join_head.job.int4),
      .has_key_i(join_head.job.has_key),
      .has_value_i(join_head.job.has_value),
      .dim80_i(join_head.job.dim80),
      .sixteens_i(join_head.job.tokens[6:5]),
      .row_segments_i(join_head.job.row_segments),
      .row_halves_i(join_head.job.row_halves),
      .beats_i(join_head.job.beats),
      .params_i(join_head.params),
      .room_i(room_i >= join_head.job.beats),
      .read_o(planes_read),
      .read_word_o(planes_word),
      .read_i(planes_groups),
      .values_i(piece.data),
      .values_bytes_i(piece.bytes),
      .values_last_i(piece.last),
      .values_valid_i(piece_valid),
      .values_ready_o(piece_ready),
      .valid_o(join_packed),
      .bytes_o(join_bytes),
      .last_o(join_last),
      .drop_o(join_drop),
      .data_o(join_data),
      .result_valid_o,
      .result_packed_o,
      .result_coded_o,
      .result_bytes_o,
      .result_params_o
  );
  byte_packer i_packer (
      .clk_i,
      .rst_i,
      .valid_i(join_packed),
      .bytes_i(join_bytes),
      .last_i (join_last),
      .mark_i (join_drop),
      .data_i (join_data),
      .valid_o(payload_valid_o),
      .last_o (payload_last_o),
      .mark_o (payload_drop_o),
      .bytes_o(payload_bytes_o),
      .data_o (payload_data_o)
  );
  logic unused;
  assign unused = &{1'b0, unused_ready};
endmodule

`default_nettype wire
