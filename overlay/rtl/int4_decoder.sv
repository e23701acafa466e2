`default_nettype none

// Scheme int4: payload lines in, beats of the block out, one a cycle (head_dim 80: five in six cycles, because the last
// 16 channels of a head take a cycle too). Reading ahead by a queue of q hides the planes of scales. Every payload of
// the right length decodes. What it does to a value: int4_value.
//
// A record is a job (its checked shape, and U of K and of V from scheme_params) and its payload lines, in order; jobs may
// follow each other at once. A payload ends in the line that its length says; padding is dropped.
module int4_decoder #(
    parameter int unsigned MaxBlockBytes = 131072
) (
    input  wire          clk_i,
    input  wire          rst_i,
    input  wire          job_valid_i,
    output logic         job_ready_o,
    input  wire          has_key_i,
    input  wire          has_value_i,
    input  wire          bf16_i,
    input  wire  [ 15:0] tokens_i,
    input  wire  [ 15:0] heads_i,
    input  wire  [ 15:0] head_dim_i,
    input  wire  [ 31:0] exponents_i,
    input  wire  [511:0] payload_tdata_i,
    input  wire          payload_tvalid_i,
    output logic         payload_tready_o,
    output logic [511:0] block_tdata_o,
    output logic         block_tlast_o,
    output logic         block_tvalid_o,
    input  wire          block_tready_i
);
  localparam int unsigned WordBits = $clog2(MaxBlockBytes / 1024);
  localparam int unsigned QDepth = MaxBlockBytes < 8192 ? 16 : MaxBlockBytes / 512;
  localparam int unsigned OutDepth = 32;
  localparam int unsigned InFlight = 19;  // segments between the walk and the output queue, at most
  localparam int unsigned ValueCycles = 11;  // of int4_value

  typedef struct packed {
    logic key;
    logic last;
    logic bf16;
    logic signed [9:0] reach;
    logic [15:0] tokens;
    logic [15:0] heads;
    logic [15:0] head_dim;
  } kind_t;
  kind_t kind_in, kind_next;
  // verilator lint_off UNUSEDSIGNAL
  kind_t kind_q;
  // verilator lint_on UNUSEDSIGNAL
  logic kind_in_valid, kind_valid, kind_ready, kind_done;

  logic [2:0] write;
  logic [WordBits:0] write_index;
  logic [255:0] plane, q_in, q_chunk;
  logic q_in_valid, q_in_ready, q_chunk_valid, q_chunk_ready;

  int4_planes #(
      .MaxBlockBytes(MaxBlockBytes)
  ) i_planes (
      .clk_i,
      .rst_i,
      .job_valid_i,
      .job_ready_o,
      .has_key_i,
      .has_value_i,
      .bf16_i,
      .tokens_i,
      .heads_i,
      .head_dim_i,
      .exponents_i,
      .payload_tdata_i,
      .payload_tvalid_i,
      .payload_tready_o,
      .write_o(write),
      .write_index_o(write_index),
      .plane_o(plane),
      .q_tdata_o(q_in),
      .q_tvalid_o(q_in_valid),
      .q_tready_i(q_in_ready),
      .kind_valid_o(kind_in_valid),
      .key_o(kind_in.key),
      .last_o(kind_in.last),
      .bf16_o(kind_in.bf16),
      .reach_o(kind_in.reach),
      .tokens_o(kind_in.tokens),
      .heads_o(kind_in.heads),
      .head_dim_o(kind_in.head_dim),
      .kind_done_i(kind_done)
  );

  // verilator lint_off PINCONNECTEMPTY
  // Never full: two kinds at most have their scales stored.
  fifo #(
      .Width($bits(kind_t)),
      .Depth(2)
  ) i_kinds (
      .clk_i,
      .rst_i,
      .data_i (kind_in),
      .valid_i(kind_in_valid),
      .ready_o(),
      .data_o (kind_next),
      .valid_o(kind_valid),
      .ready_i(kind_ready),
      .count_o()
  );

  fifo #(
      .Width(256),
      .Depth(QDepth),
      .Style("block")
  ) i_q_ahead (
      .clk_i,
      .rst_i,
      .data_i (q_in),
      .valid_i(q_in_valid),
      .ready_o(q_in_ready),
      .data_o (q_chunk),
      .valid_o(q_chunk_valid),
      .ready_i(q_chunk_ready),
      .count_o()
  );

  // The walk: a segment of up to 32 channels of one token and head a cycle.
  logic bank, short_segment, issue, room_q, q_valid;
  logic [WordBits:0] half;
  logic [3:0] group;
  logic [127:0] q_bytes;

  word_gearbox #(
      .InWords (4),
      .OutWords(2)
  ) i_q (
      .clk_i,
      .rst_i,
      .data_i (q_chunk),
      .valid_i(q_chunk_valid),
      .ready_o(q_chunk_ready),
      .data_o (q_bytes),
      .valid_o(q_valid),
      .take_i (short_segment ? 2'd1 : 2'd2),
      .skip_i (1'b0),
      .ready_i(issue)
  );

  logic walk_valid;
  assign issue = walk_valid && q_valid && room_q;
  int4_walk #(
      .HalfBits(WordBits + 1)
  ) i_walk (
      .clk_i,
      .rst_i,
      .kind_valid_i(kind_valid),
      .kind_ready_o(kind_ready),
      .key_i(kind_next.key),
      .tokens_i(kind_next.tokens),
      .heads_i(kind_next.heads),
      .head_dim_i(kind_next.head_dim),
      .kind_done_o(kind_done),
      .valid_o(walk_valid),
      .ready_i(issue),
      .bank_o(bank),
      .half_o(half),
      .group_o(group),
      .short_o(short_segment)
  );

  // Three cycles until the scales are there.
  logic [31:0][ 7:0] code;
  logic [31:0][11:0] z;
  int4_scales #(
      .MaxBlockBytes(MaxBlockBytes)
  ) i_scales (
      .clk_i,
      .write_i(write),
      .write_index_i(write_index),
      .plane_i(plane),
      .bank_i(bank),
      .half_i(half),
      .group_i(group),
      .key_i(kind_q.key),
      .code_o(code),
      .z_o(z)
  );

  typedef struct packed {
    logic valid;
    logic last;
    logic short_segment;
  } tag_t;
  tag_t [ValueCycles+2:0] tag_q;
  logic [2:0][127:0] q_q;
  logic [2:0] bf16_q;
  logic signed [2:0][9:0] reach_q;
  always_ff @(posedge clk_i) begin
    if (kind_valid && kind_ready) kind_q <= kind_next;
    tag_q <= {tag_q[ValueCycles+1:0], tag_t'{issue, kind_q.last && kind_done, short_segment}};
    q_q <= {q_q[1:0], q_bytes};
    bf16_q <= {bf16_q[1:0], kind_q.bf16};
    reach_q <= {reach_q[1:0], kind_q.reach};
    if (rst_i) for (int i = 0; i < ValueCycles + 3; ++i) tag_q[i].valid <= 1'b0;
  end

  // Byte j of a segment holds lane j, and lane j + 16, or j + 8 of a short one.
  logic [31:0][15:0] values;
  for (genvar l = 0; l < 32; ++l) begin : g_lane
    logic [3:0] nibble;
    if (l >= 16) begin : g_high
      assign nibble = q_q[2][8*(l-16)+4+:4];
    end else if (l >= 8) begin : g_either
      assign nibble = tag_q[2].short_segment ? q_q[2][8*(l-8)+4+:4] : q_q[2][8*l+:4];
    end else begin : g_low
      assign nibble = q_q[2][8*l+:4];
    end
    int4_value i_value (
        .clk_i,
        .bf16_i (bf16_q[2]),
        .reach_i(signed'(reach_q[2])),
        .code_i (code[l]),
        .z_i    (z[l]),
        .q_i    (nibble),
        .value_o(values[l])
    );
  end

  // Short segments leave half a beat, which waits for the next segment.
  tag_t tag;
  logic [255:0] held_q;
  logic held_valid_q, beat_valid_q, beat_last_q;
  logic [511:0] beat_q;
  assign tag = tag_q[ValueCycles+2];
  always_ff @(posedge clk_i) begin
    beat_valid_q <= tag.valid && (held_valid_q || !tag.short_segment);
    beat_last_q <= tag.last;
    beat_q <= held_valid_q ? {values[15:0], held_q} : values;
    if (tag.valid) begin
      held_q <= held_valid_q ? values[31:16] : values[15:0];
      if (tag.short_segment) held_valid_q <= !held_valid_q;
    end
    if (rst_i) {held_valid_q, beat_valid_q} <= '0;
  end

  logic [$clog2(OutDepth):0] waiting;
  fifo #(
      .Width(513),
      .Depth(OutDepth)
  ) i_out (
      .clk_i,
      .rst_i,
      .data_i ({beat_last_q, beat_q}),
      .valid_i(beat_valid_q),
      .ready_o(),
      .data_o ({block_tlast_o, block_tdata_o}),
      .valid_o(block_tvalid_o),
      .ready_i(block_tready_i),
      .count_o(waiting)
  );
  always_ff @(posedge clk_i) room_q <= waiting <= ($clog2(OutDepth) + 1)'(OutDepth - InFlight);
endmodule

`default_nettype wire
