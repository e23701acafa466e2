`default_nettype none

// Third part of kv_compress: the record's header, its CRC included, about 32 cycles a block. The CRC of a payload is
// known by then; since CRC is linear, the header's is shifted past it and added.
module compress_header
  import speckv_pkg::*;
#(
    parameter int unsigned RingBits = 12
) (
    input  wire                           clk_i,
    input  wire                           rst_i,
    // The oldest job, and what came of it. All are taken together, with job_ready_o.
    input  wire descriptor_t              job_descriptor_i,
    input  wire              [      15:0] job_status_i,
    input  wire              [      31:0] job_value_i,
    input  wire              [      31:0] job_limit_i,
    input  wire              [RingBits:0] job_beats_i,
    input  wire                           job_valid_i,
    output logic                          job_ready_o,
    input  wire                           result_coded_i,
    input  wire                           result_packed_i,
    input  wire              [      31:0] result_bytes_i,
    input  wire              [      63:0] result_params_i,
    input  wire                           result_valid_i,
    output logic                          result_ready_o,
    input  wire              [      31:0] block_state_i,       // CRC state over the block, begun at 0
    input  wire                           block_valid_i,
    input  wire              [      31:0] payload_state_i,
    input  wire                           payload_valid_i,
    output logic                          payload_ready_o,
    // A record that can go out, or a descriptor that was refused.
    output logic                          record_valid_o,
    input  wire                           record_ready_i,
    output logic                          record_coded_o,
    output logic             [RingBits:0] record_beats_o,      // of the payload; 0: no record
    output logic             [RingBits:0] record_block_o,      // beats of the block
    output record_header_t                record_header_o,
    output completion_t                   record_completion_o
);
  // Four zero bytes lead from here to the state of all ones: 60 bytes of header end the beat.
  localparam logic [31:0] HeaderSeed = 32'h641F6454;
  localparam int unsigned BytesBits = RingBits + 7;

  typedef enum logic [1:0] {
    Idle,
    Crc,
    Done
  } state_e;
  state_e state_q;
  record_header_t header;
  descriptor_t d;
  logic bad, ready, begin_crc, crc_valid, shift_valid;
  logic [31:0] crc_state, shift_state, payload_state_q;

  assign d = job_descriptor_i;
  assign bad = job_status_i != StatusOk;
  assign ready = state_q == Idle && job_valid_i &&
      (bad || (result_valid_i && block_valid_i && (!result_packed_i || payload_valid_i)));
  assign job_ready_o = ready;
  assign result_ready_o = ready && !bad;
  assign payload_ready_o = ready && !bad && result_packed_i;
  assign begin_crc = ready && !bad;
  assign record_valid_o = state_q == Done;

  always_comb begin
    header = '0;
    header.magic = Magic;
    header.format_version = 16'(FormatVersion);
    header.flags = result_coded_i ? '0 : FlagRaw;
    header.scheme = d.scheme;
    header.dtype = d.dtype;
    header.kinds = d.kinds;
    header.layer_count = d.layer_count;
    header.first_layer = d.first_layer;
    header.heads = d.heads;
    header.first_head = d.first_head;
    header.head_dim = d.head_dim;
    header.tokens = d.tokens;
    header.first_position = d.first_position;
    header.payload_bytes = result_bytes_i;
    header.layout_fingerprint = d.layout_fingerprint;
    header.codebook_fingerprint = d.codebook_fingerprint;
    header.scheme_params = result_params_i;
  end

  crc32c i_crc (
      .clk_i,
      .rst_i,
      .valid_i(begin_crc),
      .first_i(1'b1),
      .last_i (1'b1),
      .bytes_i(7'd64),
      .seed_i (HeaderSeed),
      .data_i ({header[479:0], 32'h0}),
      .valid_o(crc_valid),
      .state_o(crc_state)
  );
  crc32c_shift #(
      .Bits(BytesBits)
  ) i_shift (
      .clk_i,
      .rst_i,
      .valid_i(crc_valid),
      .state_i(crc_state),
      .bytes_i(record_header_o.payload_bytes[BytesBits-1:0]),
      .valid_o(shift_valid),
      .state_o(shift_state)
  );

  logic [RingBits:0] beats;
  assign beats = (RingBits + 1)'((result_bytes_i + 32'd63) >> 6);

  always_ff @(posedge clk_i) begin
    if (ready) begin
      state_q <= bad ? Done : Crc;
      record_header_o <= header;
      record_coded_o <= result_coded_i;
      record_beats_o <= bad ? '0 : beats;
      record_block_o <= job_beats_i;
      record_completion_o <= '{
          status: job_status_i,
          flags: bad ? '0 : header.flags,
          record_bytes: bad ? '0 : (32'(beats) + 32'd1) << 6,
          value: job_value_i,
          limit: job_limit_i
      };
      payload_state_q <= result_coded_i ? payload_state_i : block_state_i;
    end
    if (shift_valid) begin
      record_header_o.crc32c <= ~(shift_state ^ payload_state_q);
      state_q <= Done;
    end
    if (state_q == Done && record_ready_i) state_q <= Idle;
    if (rst_i) state_q <= Idle;
  end

  logic unused;
  assign unused = &{1'b0, d.codebook_slot, d.record_capacity, d.value_offset, d.key_offset, d.record_offset};
endmodule

`default_nettype wire
