`default_nettype none

// Takes descriptors and their records in, a beat a cycle: the header to the checks, the payload to the store, both to
// the CRC. A descriptor that fails the checks takes no beats; of any other, the record's beats are taken to the last,
// whatever is wrong with it.
//
// For each descriptor, in order: `checked_*` once header and descriptor are compared; and, unless no_record_o, payload
// lines of which the last says so (an empty one where there is no payload), and `crc_*`. begin_o tells of a descriptor
// that begins, which slot_free_i allows.
module record_receiver
  import speckv_pkg::*;
#(
    parameter int unsigned MaxBlockBytes = 131072
) (
    input  wire                    clk_i,
    input  wire                    rst_i,
    input  wire            [511:0] descriptor_tdata_i,
    input  wire                    descriptor_tvalid_i,
    output logic                   descriptor_tready_o,
    input  wire            [511:0] record_tdata_i,
    input  wire                    record_tlast_i,
    input  wire                    record_tvalid_i,
    output logic                   record_tready_o,
    input  wire                    slot_free_i,
    input  wire                    store_busy_i,         // with a record's runs
    output logic                   begin_o,
    output logic                   checked_valid_o,
    output logic                   no_record_o,
    output record_header_t         header_o,
    output descriptor_t            descriptor_o,
    output logic           [ 19:0] key_beats_o,
    output logic           [ 19:0] value_beats_o,
    output logic           [ 15:0] status_o,
    output logic           [ 31:0] value_o,
    output logic           [ 31:0] limit_o,
    // Payload lines. store_begin_o goes before a record's first: beats of its block, and whether they are runs.
    output logic                   store_begin_o,
    output logic           [ 19:0] store_beats_o,
    output logic                   store_runs_o,
    output logic                   line_valid_o,
    output logic                   line_empty_o,
    output logic                   line_last_o,          // of the payload, or of the beats where these are fewer
    output logic                   line_short_o,         // with the last: beats are missing
    output logic           [ 25:0] line_beats_o,         // with the last: beats that came, header included
    output logic           [511:0] line_o,
    input  wire                    line_ready_i,
    output logic                   crc_valid_o,
    output logic           [ 31:0] crc_o
);
  // Four zero bytes lead from here to all ones: the header's 60 bytes then end with a beat.
  localparam logic [31:0] SeedOfHeader = 32'h641F6454;
  // A header stands as long as its check needs it.
  localparam int unsigned HeaderCycles = 6;

  typedef enum logic [1:0] {
    Header,
    Empty,
    Body
  } state_e;
  state_e state_q;

  // The next descriptor, and what can be told of it.
  descriptor_t next_q;
  logic next_valid_q, next_checked_q, check_next_q, result_valid, take_next;
  logic [15:0] next_status;
  logic [31:0] next_value, next_limit;
  logic [19:0] next_key_beats, next_value_beats;

  assign descriptor_tready_o = !next_valid_q;
  always_ff @(posedge clk_i) begin
    check_next_q <= descriptor_tvalid_i && descriptor_tready_o;
    if (descriptor_tvalid_i && descriptor_tready_o) begin
      next_q <= descriptor_tdata_i;
      next_valid_q <= 1'b1;
    end
    if (result_valid) next_checked_q <= 1'b1;
    if (take_next) {next_valid_q, next_checked_q} <= '0;
    if (rst_i) {next_valid_q, next_checked_q, check_next_q} <= '0;
  end

  descriptor_check #(
      .MaxBlockBytes(MaxBlockBytes)
  ) i_descriptor_check (
      .clk_i,
      .rst_i,
      .descriptor_i(next_q),
      .compress_i(1'b0),
      .valid_i(check_next_q),
      .valid_o(result_valid),
      .status_o(next_status),
      .value_o(next_value),
      .limit_o(next_limit),
      .key_beats_o(next_key_beats),
      .value_beats_o(next_value_beats)
  );

  // Beats.
  logic next_bad, may_begin, header_fire, body_fire, start_check_q, ended_q, payload_q;
  logic [2:0] hold_q;
  logic [25:0] left_q, beats_q;  // payload lines to come; beats that came
  logic [15:0] status_q;
  logic [31:0] value_q, limit_q;
  record_header_t header;
  assign header = record_tdata_i;

  assign next_bad = next_status != StatusOk;
  assign may_begin = state_q == Header && next_checked_q && hold_q == '0 && slot_free_i && !store_busy_i;
  assign header_fire = may_begin && !next_bad && record_tvalid_i;
  assign take_next = may_begin && (next_bad || record_tvalid_i);
  assign begin_o = take_next;
  assign store_begin_o = header_fire;
  assign store_beats_o = next_key_beats + next_value_beats;
  assign store_runs_o = header.scheme == SchemeInt8DeltaRle && !header.flags[0];
  assign record_tready_o = state_q == Body ? line_ready_i || !payload_q : may_begin && !next_bad;
  assign body_fire = state_q == Body && record_tvalid_i && record_tready_o;

  logic last_line, no_payload;
  assign last_line = left_q == 26'd1;
  assign no_payload = header.payload_bytes == '0;

  assign line_o = record_tdata_i;
  assign line_valid_o = state_q == Empty || (state_q == Body && record_tvalid_i && payload_q);
  assign line_empty_o = state_q == Empty;
  assign line_last_o = state_q == Empty || last_line || record_tlast_i;
  assign line_short_o = state_q == Empty ? payload_q : !last_line;
  assign line_beats_o = state_q == Empty ? beats_q : beats_q + 26'd1;

  always_ff @(posedge clk_i) begin
    start_check_q <= take_next;
    if (hold_q != '0) hold_q <= hold_q - 1'b1;
    if (take_next) begin
      hold_q <= 3'(HeaderCycles);
      header_o <= header;
      descriptor_o <= next_q;
      {status_q, value_q, limit_q} <= {next_status, next_value, next_limit};
      {key_beats_o, value_beats_o} <= {next_key_beats, next_value_beats};
      no_record_o <= next_bad;
    end
    if (header_fire) begin
      left_q <= header.payload_bytes[31:6] + 26'(header.payload_bytes[5:0] != '0);
      payload_q <= !no_payload;
      beats_q <= 26'd1;
      ended_q <= record_tlast_i;
      state_q <= no_payload || record_tlast_i ? Empty : Body;
    end
    if (state_q == Empty && line_ready_i) begin
      payload_q <= 1'b0;
      state_q   <= ended_q ? Header : Body;
    end
    if (body_fire) begin
      beats_q <= beats_q + 26'd1;
      left_q  <= left_q - 26'd1;
      if (last_line) payload_q <= 1'b0;
      if (record_tlast_i) state_q <= Header;
    end
    if (rst_i) begin
      state_q <= Header;
      hold_q <= '0;
      start_check_q <= 1'b0;
    end
  end

  record_check i_record_check (
      .clk_i,
      .rst_i,
      .start_i(start_check_q),
      .header_i(header_o),
      .descriptor_i(descriptor_o),
      .status_i(status_q),
      .value_i(value_q),
      .limit_i(limit_q),
      .key_beats_i(key_beats_o),
      .value_beats_i(value_beats_o),
      .valid_o(checked_valid_o),
      .status_o,
      .value_o,
      .limit_o
  );

  // The header's own CRC field is not in the CRC. A last line of n bytes: 1 to 64.
  logic [31:0] state;
  crc32c i_crc (
      .clk_i,
      .rst_i,
      .valid_i(header_fire || (body_fire && payload_q)),
      .first_i(state_q == Header),
      .last_i (record_tlast_i || (state_q == Header ? no_payload : last_line)),
      .bytes_i(state_q == Body && last_line ? 7'({1'b0, header_o.payload_bytes[5:0] - 6'd1}) + 7'd1 : 7'd64),
      .seed_i (SeedOfHeader),
      .data_i (state_q == Header ? {record_tdata_i[479:0], 32'd0} : record_tdata_i),
      .valid_o(crc_valid_o),
      .state_o(state)
  );
  assign crc_o = ~state;
endmodule

`default_nettype wire
