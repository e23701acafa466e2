`default_nettype none

// Records to blocks: schemes raw (and what fell back to it, every dtype), int8_delta_rle and int4. klt and lossless
// payloads are refused: bad_scheme, with int4 as limit. Completions and bytes are those of the HLS kernel of this name.
//
// In: a descriptor a record (descriptor_t), and the record's beats, all that were read, with tlast; a descriptor that
// fails the checks takes none. Out: K then V, tlast with the last beat, then the completion (completion_t); for a record
// that fails any check a completion only. A block begins to leave when all of its record has been checked.
module kv_decompress
  import speckv_pkg::*;
#(
    parameter int unsigned MaxBlockBytes = 131072
) (
    input  wire          clk_i,
    input  wire          rst_i,
    input  wire  [511:0] descriptor_tdata_i,
    input  wire          descriptor_tvalid_i,
    output logic         descriptor_tready_o,
    input  wire  [511:0] record_tdata_i,
    input  wire          record_tlast_i,
    input  wire          record_tvalid_i,
    output logic         record_tready_o,
    output logic [511:0] block_tdata_o,
    output logic         block_tlast_o,
    output logic         block_tvalid_o,
    input  wire          block_tready_i,
    output logic [127:0] completion_tdata_o,
    output logic         completion_tvalid_o,
    input  wire          completion_tready_i
);
  localparam int unsigned LineBits = $clog2(MaxBlockBytes / 64);
  localparam logic [1:0] DecoderRaw = 2'd0;
  localparam logic [1:0] DecoderRuns = 2'd1;
  localparam logic [1:0] DecoderInt4 = 2'd2;

  logic [511:0] record_tdata;
  logic record_tlast, record_tvalid, record_tready;
  axis_register #(
      .Width(513)
  ) i_record (
      .clk_i,
      .rst_i,
      .data_i ({record_tlast_i, record_tdata_i}),
      .valid_i(record_tvalid_i),
      .ready_o(record_tready_o),
      .data_o ({record_tlast, record_tdata}),
      .valid_o(record_tvalid),
      .ready_i(record_tready)
  );

  record_header_t header;
  descriptor_t descriptor;
  logic slot_free, tables_room, store_busy, record_begin, checked_valid, no_record, crc_valid;
  logic store_begin, store_runs, line_valid, line_empty, line_last, line_short, line_ready;
  logic [19:0] key_beats, value_beats, store_beats;
  logic [15:0] status;
  logic [31:0] value, limit, crc;
  logic [ 25:0] line_beats;
  logic [511:0] line;
  record_receiver #(
      .MaxBlockBytes(MaxBlockBytes)
  ) i_receiver (
      .clk_i,
      .rst_i,
      .descriptor_tdata_i,
      .descriptor_tvalid_i,
      .descriptor_tready_o,
      .record_tdata_i(record_tdata),
      .record_tlast_i(record_tlast),
      .record_tvalid_i(record_tvalid),
      .record_tready_o(record_tready),
      .slot_free_i(slot_free && tables_room),
      .store_busy_i(store_busy),
      .begin_o(record_begin),
      .checked_valid_o(checked_valid),
      .no_record_o(no_record),
      .header_o(header),
      .descriptor_o(descriptor),
      .key_beats_o(key_beats),
      .value_beats_o(value_beats),
      .status_o(status),
      .value_o(value),
      .limit_o(limit),
      .store_begin_o(store_begin),
      .store_beats_o(store_beats),
      .store_runs_o(store_runs),
      .line_valid_o(line_valid),
      .line_empty_o(line_empty),
      .line_last_o(line_last),
      .line_short_o(line_short),
      .line_beats_o(line_beats),
      .line_o(line),
      .line_ready_i(line_ready),
      .crc_valid_o(crc_valid),
      .crc_o(crc)
  );

  logic ring_room, ring_write, ended_valid, ended_short;
  logic [511:0] ring_line;
  logic [25:0] ended_beats;
  logic [LineBits:0] ended_lines;
  logic runs_bad;
  logic [31:0] runs_value, runs_limit;
  payload_store #(
      .LineBits(LineBits)
  ) i_store (
      .clk_i,
      .rst_i,
      .begin_i(store_begin),
      .beats_i(store_beats),
      .runs_i(store_runs),
      .busy_o(store_busy),
      .header_i(header),
      .key_beats_i(key_beats),
      .value_beats_i(value_beats),
      .line_valid_i(line_valid),
      .line_empty_i(line_empty),
      .line_last_i(line_last),
      .line_short_i(line_short),
      .line_beats_i(line_beats),
      .line_i(line),
      .line_ready_o(line_ready),
      .room_i(ring_room),
      .write_o(ring_write),
      .line_o(ring_line),
      .ended_valid_o(ended_valid),
      .ended_lines_o(ended_lines),
      .ended_short_o(ended_short),
      .ended_beats_o(ended_beats),
      .runs_bad_o(runs_bad),
      .runs_value_o(runs_value),
      .runs_limit_o(runs_limit)
  );

  logic job_valid, job_ready, job_good, job_bf16;
  logic [1:0] job_decoder, job_kinds;
  logic [15:0] job_tokens, job_heads, job_head_dim;
  logic [31:0] job_params;
  logic [19:0] job_beats, job_key_beats;
  logic [LineBits:0] job_lines;
  completion_t job_completion;
  record_verdict #(
      .MaxBlockBytes(MaxBlockBytes)
  ) i_verdict (
      .clk_i,
      .rst_i,
      .begin_i(record_begin),
      .slot_free_o(slot_free),
      .checked_valid_i(checked_valid),
      .no_record_i(no_record),
      .header_i(header),
      .descriptor_i(descriptor),
      .key_beats_i(key_beats),
      .value_beats_i(value_beats),
      .status_i(status),
      .value_i(value),
      .limit_i(limit),
      .ended_valid_i(ended_valid),
      .ended_lines_i(ended_lines),
      .ended_short_i(ended_short),
      .ended_beats_i(ended_beats),
      .runs_bad_i(runs_bad),
      .runs_value_i(runs_value),
      .runs_limit_i(runs_limit),
      .crc_valid_i(crc_valid),
      .crc_i(crc),
      .job_valid_o(job_valid),
      .job_ready_i(job_ready),
      .good_o(job_good),
      .lines_o(job_lines),
      .decoder_o(job_decoder),
      .bf16_o(job_bf16),
      .kinds_o(job_kinds),
      .tokens_o(job_tokens),
      .heads_o(job_heads),
      .head_dim_o(job_head_dim),
      .params_o(job_params),
      .beats_o(job_beats),
      .key_beats_o(job_key_beats),
      .completion_o(job_completion)
  );

  // A job goes to all that it concerns at once.
  logic ring_ready, order_ready, int4_ready, for_int4, runs_ready, for_runs;
  assign for_runs  = job_decoder == DecoderRuns;
  assign for_int4  = job_good && job_decoder == DecoderInt4;
  assign job_ready = ring_ready && order_ready && (int4_ready || !for_int4) && (runs_ready || !for_runs);

  logic [511:0] stored;
  logic [  1:0] stored_decoder;
  logic stored_valid, stored_ready, int4_line_ready, runs_line_ready;
  line_ring #(
      .Lines (2 << LineBits),
      .Margin(24)
  ) i_ring (
      .clk_i,
      .rst_i,
      .write_i(ring_write),
      .line_i(ring_line),
      .room_o(ring_room),
      .job_valid_i(job_valid && job_ready),
      .job_ready_o(ring_ready),
      .job_drop_i(!job_good),
      .job_lines_i({1'b0, job_lines}),
      .job_tag_i(job_decoder),
      .line_o(stored),
      .tag_o(stored_decoder),
      .valid_o(stored_valid),
      .ready_i(stored_ready)
  );

  logic [2:0][511:0] beat_tdata;
  logic [2:0] beat_tvalid, beat_tready;
  always_comb
    case (stored_decoder)
      DecoderRuns: stored_ready = runs_line_ready;
      DecoderInt4: stored_ready = int4_line_ready;
      default: stored_ready = beat_tready[DecoderRaw];
    endcase
  assign beat_tdata[0]  = stored;
  assign beat_tvalid[0] = stored_valid && stored_decoder == DecoderRaw;

  // Tables are begun with a record's header, whatever becomes of it.
  logic tell_q;
  always_ff @(posedge clk_i) tell_q <= store_begin && store_runs && !rst_i;
  int8_dequantiser i_int8 (
      .clk_i,
      .rst_i,
      .tell_valid_i(tell_q),
      .tell_bf16_i(header.dtype[0]),
      .tell_largest_i(header.scheme_params[31:0]),
      .tell_room_o(tables_room),
      .job_valid_i(job_valid && job_ready && for_runs),
      .job_ready_o(runs_ready),
      .job_drop_i(!job_good),
      .job_key_beats_i(job_key_beats),
      .job_beats_i(job_beats),
      .values_tdata_i(stored[255:0]),
      .values_tvalid_i(stored_valid && stored_decoder == DecoderRuns),
      .values_tready_o(runs_line_ready),
      .block_tdata_o(beat_tdata[1]),
      .block_tvalid_o(beat_tvalid[1]),
      .block_tready_i(beat_tready[1])
  );

  int4_decoder #(
      .MaxBlockBytes(MaxBlockBytes)
  ) i_int4 (
      .clk_i,
      .rst_i,
      .job_valid_i(job_valid && job_ready && for_int4),
      .job_ready_o(int4_ready),
      .has_key_i(job_kinds[0]),
      .has_value_i(job_kinds[1]),
      .bf16_i(job_bf16),
      .tokens_i(job_tokens),
      .heads_i(job_heads),
      .head_dim_i(job_head_dim),
      .exponents_i(job_params),
      .payload_tdata_i(stored),
      .payload_tvalid_i(stored_valid && stored_decoder == DecoderInt4),
      .payload_tready_o(int4_line_ready),
      .block_tdata_o(beat_tdata[2]),
      // verilator lint_off PINCONNECTEMPTY
      .block_tlast_o(),
      // verilator lint_on PINCONNECTEMPTY
      .block_tvalid_o(beat_tvalid[2]),
      .block_tready_i(beat_tready[2])
  );

  block_writer i_writer (
      .clk_i,
      .rst_i,
      .order_valid_i(job_valid && job_ready),
      .order_ready_o(order_ready),
      .order_good_i(job_good),
      .order_decoder_i(job_decoder),
      .order_beats_i(job_beats),
      .order_completion_i(job_completion),
      .beat_tdata_i(beat_tdata),
      .beat_tvalid_i(beat_tvalid),
      .beat_tready_o(beat_tready),
      .block_tdata_o,
      .block_tlast_o,
      .block_tvalid_o,
      .block_tready_i,
      .completion_tdata_o,
      .completion_tvalid_o,
      .completion_tready_i
  );
endmodule

`default_nettype wire
