`default_nettype none

// Blocks to records: the schemes raw, int8_delta_rle and int4 of the record format, in every byte what the HLS
// kernel kv_compress writes. A descriptor that fails a check gives its completion and takes no beats; klt and
// lossless are not in this engine: bad_scheme, value the scheme, limit SchemeInt4.
//
// A pipeline over blocks, through rings that hold RingBeats beats of blocks and as many of payloads: compress_intake
// takes one in, compress_encode codes the one before it, compress_header and compress_emit write the one before that.
// A beat a cycle in each, with heads of 80 five in six cycles in int4. A raw record is a beat longer than its block
// (its header), so a run of those takes n + 1 cycles for n beats. Rates hold while blocks are half of MaxBlockBytes
// or less; larger ones do not all fit the ring and wait for one another.
module kv_compress
  import speckv_pkg::*;
#(
    parameter int unsigned MaxBlockBytes = 131072,  // K and V together; a power of two
    parameter int unsigned RingBeats = 2 * MaxBlockBytes / LineBytes
) (
    input  wire                      clk_i,
    input  wire                      rst_i,
    input  wire descriptor_t         descriptor_tdata_i,
    input  wire                      descriptor_tvalid_i,
    output logic                     descriptor_tready_o,
    input  wire              [511:0] block_tdata_i,        // K's beats, then V's
    input  wire                      block_tvalid_i,
    output logic                     block_tready_o,
    output logic             [511:0] record_tdata_o,
    output logic                     record_tlast_o,
    output logic                     record_tvalid_o,
    input  wire                      record_tready_i,
    output completion_t              completion_tdata_o,
    output logic                     completion_tvalid_o,
    input  wire                      completion_tready_i
);
  localparam int unsigned RingBits = $clog2(RingBeats);
  localparam int unsigned WordBits = $clog2(MaxBlockBytes / 512);  // of words of 32 int4 groups, more than enough
  localparam int unsigned Jobs = 8;
  if (MaxBlockBytes < 4096 || MaxBlockBytes != 512 << WordBits) begin : g_bad_block
    $error("MaxBlockBytes %0d is not a power of two from 4096 on", MaxBlockBytes);
  end
  if (RingBeats < 2 * MaxBlockBytes / LineBytes || RingBeats != 1 << RingBits) begin : g_bad_ring
    $error("RingBeats %0d is not a power of two, or too small for two blocks", RingBeats);
  end

  // Intake.
  logic write, write_first, write_last, job_valid, job_room;
  logic [RingBits-1:0] write_index;
  logic [511:0] write_data;
  logic [RingBits:0] block_release;
  logic int4_load, int4_valid, int4_ready, int4_done, dim80, has_key, has_value;
  logic [WordBits-1:0] row_segments;
  logic [6:0] tokens;
  typedef struct packed {
    descriptor_t descriptor;
    logic [15:0] status;
    logic [31:0] value;
    logic [31:0] limit;
    logic [RingBits:0] beats;
  } job_t;
  job_t job, oldest;
  logic [1:0][14:0] job_largest;
  logic [WordBits-1:0] job_row_segments;
  logic [WordBits+1:0] job_row_halves;
  logic [1:0] extremes_q;  // blocks whose extremes are held, 2 at most
  logic extremes_free;

  compress_intake #(
      .MaxBlockBytes(MaxBlockBytes),
      .RingBeats(RingBeats),
      .WordBits(WordBits)
  ) i_intake (
      .clk_i,
      .rst_i,
      .descriptor_tdata_i,
      .descriptor_tvalid_i,
      .descriptor_tready_o,
      .block_tdata_i,
      .block_tvalid_i,
      .block_tready_o,
      .write_o(write),
      .write_index_o(write_index),
      .write_data_o(write_data),
      .write_first_o(write_first),
      .write_last_o(write_last),
      .release_i(block_release),
      .int4_load_o(int4_load),
      .int4_valid_o(int4_valid),
      .int4_ready_i(int4_ready),
      .int4_done_i(int4_done),
      .int4_room_i(extremes_q != 2'd2),
      .row_segments_o(row_segments),
      .tokens_o(tokens),
      .dim80_o(dim80),
      .has_key_o(has_key),
      .has_value_o(has_value),
      .job_room_i(job_room),
      .job_valid_o(job_valid),
      .job_descriptor_o(job.descriptor),
      .job_status_o(job.status),
      .job_value_o(job.value),
      .job_limit_o(job.limit),
      .job_beats_o(job.beats),
      .job_largest_o(job_largest),
      .job_row_segments_o(job_row_segments),
      .job_row_halves_o(job_row_halves)
  );

  // int4's extremes, as the block passes.
  logic segment_valid, segment_key, segment_narrow, segment_first, unused_kind_last, extremes_slot_q;
  logic [511:0] segment;
  logic [WordBits-1:0] segment_word;
  logic [4:0] segment_lane;
  logic extremes_read;
  logic [WordBits:0] extremes_word;
  logic [1:0] extremes_eight;
  logic [7:0][1:0][15:0] extremes;

  int4_segments #(
      .WordBits(WordBits)
  ) i_segments (
      .clk_i,
      .rst_i,
      .load_i(int4_load),
      .has_key_i(has_key),
      .has_value_i(has_value),
      .dim80_i(dim80),
      .tokens_i(tokens),
      .row_segments_i(row_segments),
      .beat_i(block_tdata_i),
      .valid_i(int4_valid),
      .ready_o(int4_ready),
      .segment_o(segment),
      .valid_o(segment_valid),
      .ready_i(1'b1),
      .key_o(segment_key),
      .narrow_o(segment_narrow),
      .word_o(segment_word),
      .lane_o(segment_lane),
      .first_token_o(segment_first),
      .kind_last_o(unused_kind_last),
      .done_o(int4_done)
  );
  int4_extremes #(
      .WordBits(WordBits)
  ) i_extremes (
      .clk_i,
      .rst_i,
      .valid_i(segment_valid),
      .segment_i(segment),
      .key_i(segment_key),
      .narrow_i(segment_narrow),
      .first_token_i(segment_first),
      .slot_i(extremes_slot_q),
      .word_i(segment_word),
      .lane_i(segment_lane),
      .read_i(extremes_read),
      .read_word_i(extremes_word),
      .read_eight_i(extremes_eight),
      .read_o(extremes)
  );
  always_ff @(posedge clk_i) begin
    extremes_q <= extremes_q + 2'(int4_load) - 2'(extremes_free);
    if (int4_load) extremes_slot_q <= !extremes_slot_q;
    if (rst_i) begin
      extremes_q <= '0;
      extremes_slot_q <= 1'b1;  // the first load makes it 0
    end
  end

  // The ring of blocks in two copies: one is coded from, one is sent where coding does not pay.
  logic encode_read, emit_read;
  logic [RingBits-1:0] encode_index, emit_index;
  logic [511:0] encode_data, emit_data;
  ram_1r1w #(
      .Depth(RingBeats),
      .Style("ultra")
  ) i_encode_ring (
      .clk_i,
      .write_i(write),
      .write_index_i(write_index),
      .data_i(write_data),
      .read_i(encode_read),
      .read_index_i(encode_index),
      .data_o(encode_data)
  );
  ram_1r1w #(
      .Depth(RingBeats),
      .Style("ultra")
  ) i_emit_ring (
      .clk_i,
      .write_i(write),
      .write_index_i(write_index),
      .data_i(write_data),
      .read_i(emit_read),
      .read_index_i(emit_index),
      .data_o(emit_data)
  );

  // Encode.
  typedef struct packed {
    logic coded;
    logic packed_;
    logic [31:0] bytes;
    logic [63:0] params;
  } result_t;
  result_t result, oldest_result;
  logic result_valid, payload_valid, payload_last, payload_drop;
  logic [6:0] payload_bytes;
  logic [511:0] payload_data;
  logic [RingBits:0] room_q;

  compress_encode #(
      .RingBeats(RingBeats),
      .WordBits (WordBits)
  ) i_encode (
      .clk_i,
      .rst_i,
      .job_valid_i(job_valid && job.status == StatusOk),
      .scheme_i(job.descriptor.scheme),
      .bf16_i(job.descriptor.dtype == DTypeBf16),
      .has_key_i(|(job.descriptor.kinds & KindKey)),
      .has_value_i(|(job.descriptor.kinds & KindValue)),
      .dim80_i(job.descriptor.head_dim == 16'd80),
      .tokens_i(job.descriptor.tokens[6:0]),
      .row_segments_i(job_row_segments),
      .row_halves_i(job_row_halves),
      .beats_i(job.beats),
      .largest_i(job_largest),
      .read_o(encode_read),
      .read_index_o(encode_index),
      .read_data_i(encode_data),
      .extremes_read_o(extremes_read),
      .extremes_word_o(extremes_word),
      .extremes_eight_o(extremes_eight),
      .extremes_i(extremes),
      .extremes_free_o(extremes_free),
      .room_i(room_q),
      .payload_valid_o(payload_valid),
      .payload_last_o(payload_last),
      .payload_drop_o(payload_drop),
      .payload_bytes_o(payload_bytes),
      .payload_data_o(payload_data),
      .result_valid_o(result_valid),
      .result_packed_o(result.packed_),
      .result_coded_o(result.coded),
      .result_bytes_o(result.bytes),
      .result_params_o(result.params)
  );

  // The ring of payloads. One that does not pay is taken back; room leaves what the packer may still hold.
  logic payload_read, payload_first_q;
  logic [RingBits-1:0] payload_index;
  logic [RingBits:0] payload_end_q, payload_start_q, payload_read_q;
  logic [511:0] payload_read_data;
  ram_1r1w #(
      .Depth(RingBeats),
      .Style("ultra")
  ) i_payload_ring (
      .clk_i,
      .write_i(payload_valid),
      .write_index_i(payload_end_q[RingBits-1:0]),
      .data_i(payload_data),
      .read_i(payload_read),
      .read_index_i(payload_index),
      .data_o(payload_read_data)
  );
  always_ff @(posedge clk_i) begin
    if (payload_valid) begin
      payload_end_q   <= payload_end_q + 1'b1;
      payload_first_q <= payload_last;
      if (payload_last && payload_drop) payload_end_q <= payload_start_q;
      if (payload_last && !payload_drop) payload_start_q <= payload_end_q + 1'b1;
    end
    payload_read_q <= payload_read_q + (RingBits + 1)'(payload_read);
    room_q <= (RingBits + 1)'(RingBeats - 4) - (payload_end_q - payload_read_q);
    if (rst_i) begin
      {payload_end_q, payload_start_q, payload_read_q, room_q} <= '0;
      payload_first_q <= 1'b1;
    end
  end

  // CRC of blocks as they come in and of payloads as they are made.
  logic block_crc_valid, payload_crc_valid;
  logic [31:0] block_crc, payload_crc;
  crc32c i_block_crc (
      .clk_i,
      .rst_i,
      .valid_i(write),
      .first_i(write_first),
      .last_i (write_last),
      .bytes_i(7'd64),
      .seed_i (32'h0),
      .data_i (write_data),
      .valid_o(block_crc_valid),
      .state_o(block_crc)
  );
  crc32c i_payload_crc (
      .clk_i,
      .rst_i,
      .valid_i(payload_valid),
      .first_i(payload_first_q),
      .last_i (payload_last),
      .bytes_i(payload_bytes),
      .seed_i (32'h0),
      .data_i (payload_data),
      .valid_o(payload_crc_valid),
      .state_o(payload_crc)
  );

  // What waits for the header. Jobs bound the other queues.
  logic oldest_valid, oldest_ready, oldest_result_valid, oldest_result_ready;
  logic oldest_block_valid, oldest_payload_valid, oldest_payload_ready;
  logic [31:0] oldest_block, oldest_payload;
  logic [3:0] queued, unused_count[3];
  logic [3:0] unused_ready;
  assign job_room = queued <= 4'(Jobs - 4);
  fifo #(
      .Width($bits(job_t)),
      .Depth(Jobs)
  ) i_jobs (
      .clk_i,
      .rst_i,
      .data_i (job),
      .valid_i(job_valid),
      .ready_o(unused_ready[0]),
      .data_o (oldest),
      .valid_o(oldest_valid),
      .ready_i(oldest_ready),
      .count_o(queued)
  );
  fifo #(
      .Width($bits(result_t)),
      .Depth(Jobs)
  ) i_results (
      .clk_i,
      .rst_i,
      .data_i (result),
      .valid_i(result_valid),
      .ready_o(unused_ready[1]),
      .data_o (oldest_result),
      .valid_o(oldest_result_valid),
      .ready_i(oldest_result_ready),
      .count_o(unused_count[0])
  );
  fifo #(
      .Width(32),
      .Depth(Jobs)
  ) i_block_crcs (
      .clk_i,
      .rst_i,
      .data_i (block_crc),
      .valid_i(block_crc_valid),
      .ready_o(unused_ready[2]),
      .data_o (oldest_block),
      .valid_o(oldest_block_valid),
      .ready_i(oldest_result_ready),
      .count_o(unused_count[1])
  );
  fifo #(
      .Width(32),
      .Depth(Jobs)
  ) i_payload_crcs (
      .clk_i,
      .rst_i,
      .data_i (payload_crc),
      .valid_i(payload_crc_valid),
      .ready_o(unused_ready[3]),
      .data_o (oldest_payload),
      .valid_o(oldest_payload_valid),
      .ready_i(oldest_payload_ready),
      .count_o(unused_count[2])
  );

  logic record_valid, record_ready, record_coded;
  logic [RingBits:0] record_beats, record_block;
  record_header_t record_header;
  completion_t record_completion;
  compress_header #(
      .RingBits(RingBits)
  ) i_header (
      .clk_i,
      .rst_i,
      .job_descriptor_i(oldest.descriptor),
      .job_status_i(oldest.status),
      .job_value_i(oldest.value),
      .job_limit_i(oldest.limit),
      .job_beats_i(oldest.beats),
      .job_valid_i(oldest_valid),
      .job_ready_o(oldest_ready),
      .result_coded_i(oldest_result.coded),
      .result_packed_i(oldest_result.packed_),
      .result_bytes_i(oldest_result.bytes),
      .result_params_i(oldest_result.params),
      .result_valid_i(oldest_result_valid),
      .result_ready_o(oldest_result_ready),
      .block_state_i(oldest_block),
      .block_valid_i(oldest_block_valid),
      .payload_state_i(oldest_payload),
      .payload_valid_i(oldest_payload_valid),
      .payload_ready_o(oldest_payload_ready),
      .record_valid_o(record_valid),
      .record_ready_i(record_ready),
      .record_coded_o(record_coded),
      .record_beats_o(record_beats),
      .record_block_o(record_block),
      .record_header_o(record_header),
      .record_completion_o(record_completion)
  );
  compress_emit #(
      .RingBits(RingBits)
  ) i_emit (
      .clk_i,
      .rst_i,
      .record_valid_i(record_valid),
      .record_ready_o(record_ready),
      .record_coded_i(record_coded),
      .record_beats_i(record_beats),
      .record_block_i(record_block),
      .record_header_i(record_header),
      .record_completion_i(record_completion),
      .block_read_o(emit_read),
      .block_index_o(emit_index),
      .block_data_i(emit_data),
      .block_release_o(block_release),
      .payload_read_o(payload_read),
      .payload_index_o(payload_index),
      .payload_data_i(payload_read_data),
      .record_tdata_o,
      .record_tlast_o,
      .record_tvalid_o,
      .record_tready_i,
      .completion_tdata_o,
      .completion_tvalid_o,
      .completion_tready_i
  );

  logic unused;
  assign unused = &{1'b0, unused_kind_last, unused_ready};
endmodule

`default_nettype wire
