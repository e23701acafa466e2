`default_nettype none

// What becomes of a record: joins what its header's check, its payload's end and its CRC say, in this order, and hands
// a job on: whose lines these are, how to decode them, and the completion to give. `slots`: records between begin_i
// and their job, at most Slots.
module record_verdict
  import speckv_pkg::*;
#(
    parameter int unsigned MaxBlockBytes = 131072,
    localparam int unsigned LineBits = $clog2(MaxBlockBytes / 64)
) (
    input  wire                              clk_i,
    input  wire                              rst_i,
    input  wire                              begin_i,
    output logic                             slot_free_o,
    // The header's check.
    // verilator lint_off UNUSEDSIGNAL
    input  wire                              checked_valid_i,
    input  wire                              no_record_i,
    input  wire record_header_t              header_i,
    input  wire descriptor_t                 descriptor_i,
    // verilator lint_on UNUSEDSIGNAL
    input  wire                 [      19:0] key_beats_i,
    input  wire                 [      19:0] value_beats_i,
    input  wire                 [      15:0] status_i,
    input  wire                 [      31:0] value_i,
    input  wire                 [      31:0] limit_i,
    // The payload's end: lines that were stored, whether beats are missing, and what is wrong with runs.
    input  wire                              ended_valid_i,
    input  wire                 [LineBits:0] ended_lines_i,
    input  wire                              ended_short_i,
    input  wire                 [      25:0] ended_beats_i,
    input  wire                              runs_bad_i,
    input  wire                 [      31:0] runs_value_i,
    input  wire                 [      31:0] runs_limit_i,
    input  wire                              crc_valid_i,
    input  wire                 [      31:0] crc_i,
    // The job.
    output logic                             job_valid_o,
    input  wire                              job_ready_i,
    output logic                             good_o,
    output logic                [LineBits:0] lines_o,
    output logic                [       1:0] decoder_o,        // 0 none (raw), 1 runs, 2 int4
    output logic                             bf16_o,
    output logic                [       1:0] kinds_o,
    output logic                [      15:0] tokens_o,
    output logic                [      15:0] heads_o,
    output logic                [      15:0] head_dim_o,
    output logic                [      31:0] params_o,
    output logic                [      19:0] beats_o,          // of the block
    output logic                [      19:0] key_beats_o,
    output completion_t                      completion_o
);
  localparam int unsigned Slots = 4;

  typedef struct packed {
    logic no_record;
    logic raw;
    logic bf16;
    logic [1:0] kinds;
    logic is_runs;
    logic is_int4;
    logic [15:0] tokens;
    logic [15:0] heads;
    logic [15:0] head_dim;
    logic [63:0] params;
    logic [31:0] payload_bytes;
    logic [31:0] crc;
    logic [19:0] key_beats;
    logic [19:0] value_beats;
    logic [15:0] status;
    logic [31:0] value;
    logic [31:0] limit;
  } checked_t;
  typedef struct packed {
    logic [LineBits:0] lines;
    logic short_beats;
    logic [25:0] beats;
    logic runs_bad;
    logic [31:0] value;
    logic [31:0] limit;
  } ended_t;

  checked_t checked_in, checked;
  ended_t ended_in, ended;
  logic checked_valid, ended_valid, crc_valid, take;
  logic [31:0] crc;

  assign checked_in = '{
          no_record: no_record_i,
          raw: header_i.flags[0],
          bf16: descriptor_i.dtype[0],
          kinds: descriptor_i.kinds[1:0],
          is_runs: header_i.scheme == SchemeInt8DeltaRle && !header_i.flags[0] && !no_record_i,
          is_int4: header_i.scheme == SchemeInt4 && !header_i.flags[0],
          tokens: descriptor_i.tokens,
          heads: descriptor_i.heads,
          head_dim: descriptor_i.head_dim,
          params: header_i.scheme_params,
          payload_bytes: header_i.payload_bytes,
          crc: header_i.crc32c,
          key_beats: key_beats_i,
          value_beats: value_beats_i,
          status: status_i,
          value: value_i,
          limit: limit_i
      };
  assign ended_in = '{ended_lines_i, ended_short_i, ended_beats_i, runs_bad_i, runs_value_i, runs_limit_i};

  // verilator lint_off PINCONNECTEMPTY
  fifo #(
      .Width($bits(checked_t)),
      .Depth(Slots)
  ) i_checked (
      .clk_i,
      .rst_i,
      .data_i (checked_in),
      .valid_i(checked_valid_i),
      .ready_o(),
      .data_o (checked),
      .valid_o(checked_valid),
      .ready_i(take),
      .count_o()
  );
  fifo #(
      .Width($bits(ended_t)),
      .Depth(Slots)
  ) i_ended (
      .clk_i,
      .rst_i,
      .data_i (ended_in),
      .valid_i(ended_valid_i),
      .ready_o(),
      .data_o (ended),
      .valid_o(ended_valid),
      .ready_i(take && !checked.no_record),
      .count_o()
  );
  fifo #(
      .Width(32),
      .Depth(Slots)
  ) i_crc (
      .clk_i,
      .rst_i,
      .data_i (crc_i),
      .valid_i(crc_valid_i),
      .ready_o(),
      .data_o (crc),
      .valid_o(crc_valid),
      .ready_i(take && !checked.no_record),
      .count_o()
  );
  // verilator lint_on PINCONNECTEMPTY

  logic [2:0] slots_q;
  assign slot_free_o = slots_q != 3'(Slots);
  assign take = checked_valid && (checked.no_record || (ended_valid && crc_valid)) && (!job_valid_o || job_ready_i);

  // int4: parameters of kinds that are not there.
  logic [15:0] absent;
  assign absent = (checked.kinds[0] ? '0 : checked.params[15:0]) | (checked.kinds[1] ? '0 : checked.params[31:16]);

  logic [15:0] status;
  logic [31:0] value, limit, line_bytes;
  assign line_bytes = {checked.payload_bytes[31:6] + 26'(checked.payload_bytes[5:0] != '0), 6'd0};
  always_comb begin
    {status, value, limit} = {StatusOk, 64'd0};
    if (checked.status != StatusOk) {status, value, limit} = {checked.status, checked.value, checked.limit};
    else if (ended.short_beats)
      {status, value, limit} = {StatusRecordTooSmall, ended.beats, 6'd0, checked.payload_bytes + LineBytes};
    else if (crc != checked.crc) {status, value, limit} = {StatusBadCrc, crc, checked.crc};
    else if (checked.is_int4 && absent != '0) {status, value, limit} = {StatusBadPayload, 32'(absent), 32'd0};
    else if (checked.is_int4 && checked.params[63:32] != '0)
      {status, value, limit} = {StatusBadPayload, checked.params[63:32], 32'd0};
    else if (checked.is_runs && ended.runs_bad) {status, value, limit} = {StatusBadPayload, ended.value, ended.limit};
  end

  always_ff @(posedge clk_i) begin
    slots_q <= slots_q + 3'(begin_i) - 3'(take);
    if (job_ready_i) job_valid_o <= 1'b0;
    if (take) begin
      job_valid_o <= 1'b1;
      good_o <= status == StatusOk;
      lines_o <= checked.no_record ? '0 : ended.lines;
      decoder_o <= checked.is_int4 ? 2'd2 : checked.is_runs ? 2'd1 : 2'd0;
      {bf16_o, kinds_o, params_o} <= {checked.bf16, checked.kinds, checked.params[31:0]};
      {tokens_o, heads_o, head_dim_o} <= {checked.tokens, checked.heads, checked.head_dim};
      key_beats_o <= checked.key_beats;
      beats_o <= checked.key_beats + checked.value_beats;
      completion_o <= '{
          status: status,
          flags: status == StatusOk ? 16'(checked.raw) : '0,
          record_bytes: status == StatusOk ? line_bytes + LineBytes : '0,
          value: value,
          limit: limit
      };
    end
    if (rst_i) begin
      slots_q <= '0;
      job_valid_o <= 1'b0;
    end
  end
endmodule

`default_nettype wire
