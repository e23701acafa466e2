`default_nettype none

// A record's header against the descriptor that asks for it: the first fault, in the order of
// hls/include/speckv/kv_decompress.hpp up to the bytes that may be read. What follows there (CRC, payload) is not known
// yet when the header is. A payload of a scheme above LastScheme that is not raw: bad_scheme with LastScheme as limit,
// before its length is looked at.
//
// status_i is what descriptor_check said, and goes before everything here. The inputs stand from start_i until the
// result, five cycles later.
module record_check
  import speckv_pkg::*;
#(
    parameter logic [7:0] LastScheme = SchemeInt4
) (
    input  wire                        clk_i,
    input  wire                        rst_i,
    input  wire                        start_i,
    input  wire record_header_t        header_i,
    input  wire descriptor_t           descriptor_i,
    input  wire                 [15:0] status_i,
    input  wire                 [31:0] value_i,
    input  wire                 [31:0] limit_i,
    input  wire                 [19:0] key_beats_i,
    input  wire                 [19:0] value_beats_i,
    output logic                       valid_o,
    output logic                [15:0] status_o,
    output logic                [31:0] value_o,
    output logic                [31:0] limit_o
);
  // The checks in their order; the lowest that fails is reported.
  typedef enum logic [4:0] {
    Descriptor,
    BadMagic,
    Version,
    Flags,
    Reserved0,
    Reserved1,
    Scheme,
    DType,
    Kinds,
    Tokens,
    Heads,
    HeadDim,
    Position,
    Layer,
    LayerCount,
    Head,
    Layout,
    Codebook,
    SchemeDType,
    RawParams,
    RawScheme,
    SchemeHere,
    TooFew,
    TooMany,
    Capacity
  } check_e;
  localparam int unsigned Checks = 25;

  // verilator lint_off UNUSEDSIGNAL
  record_header_t h;
  descriptor_t d;
  // verilator lint_on UNUSEDSIGNAL
  assign h = header_i;
  assign d = descriptor_i;

  logic raw, exact;
  assign raw   = h.flags[0];
  assign exact = h.scheme == SchemeRaw || h.scheme == SchemeLossless;

  // Payload bytes. int4: of each kind 40 a sixteen of groups, and a quarter of the block; int8_delta_rle: one pair at
  // least for 256 values.
  logic [19:0] beats_q;
  logic [15:0] sixteens_q, segments_q, key_groups, value_groups;
  logic [31:0] raw_bytes, key_bytes_q, value_bytes_q, pairs_q, low_q, high_q;
  assign key_groups = d.tokens[6] ? sixteens_q << 1 : sixteens_q;
  assign value_groups = d.tokens[6] ? segments_q << 2 : d.tokens[5] ? segments_q << 1 : segments_q;
  assign raw_bytes = {6'd0, beats_q, 6'd0};

  function automatic logic [31:0] kind_bytes(input logic [15:0] groups, input logic [19:0] beats);
    return beats == '0 ? '0 : (32'(groups) << 5) + (32'(groups) << 3) + {8'd0, beats, 4'd0};
  endfunction
  function automatic logic [17:0] eighth(input logic [19:0] beats);
    return 18'(beats[19:3]) + 18'(beats[2:0] != '0);
  endfunction

  logic [Checks-1:0] fault_q;
  logic [31:0] needed_q;
  always_ff @(posedge clk_i) begin
    case (d.head_dim)
      16'd64:  {sixteens_q, segments_q} <= {d.heads << 2, d.heads << 1};
      16'd80:  {sixteens_q, segments_q} <= {(d.heads << 2) + d.heads, (d.heads << 1) + d.heads};
      16'd96:  {sixteens_q, segments_q} <= {(d.heads << 2) + (d.heads << 1), (d.heads << 1) + d.heads};
      16'd128: {sixteens_q, segments_q} <= {d.heads << 3, d.heads << 2};
      default: {sixteens_q, segments_q} <= {d.heads << 4, d.heads << 3};
    endcase
    beats_q <= key_beats_i + value_beats_i;
    needed_q <= h.payload_bytes + LineBytes;
    pairs_q <= {13'd0, 19'(eighth(key_beats_i)) + 19'(eighth(value_beats_i))} << 1;

    key_bytes_q <= kind_bytes(key_groups, key_beats_i);
    value_bytes_q <= kind_bytes(value_groups, value_beats_i);

    fault_q[Descriptor] <= status_i != StatusOk;
    fault_q[BadMagic] <= h.magic != Magic;
    fault_q[Version] <= h.format_version != 16'(FormatVersion);
    fault_q[Flags] <= (h.flags & ~FlagRaw) != '0;
    fault_q[Reserved0] <= h.reserved0 != '0;
    fault_q[Reserved1] <= h.reserved1 != '0;
    fault_q[Scheme] <= h.scheme > SchemeLossless;
    fault_q[DType] <= h.dtype != d.dtype;
    fault_q[Kinds] <= h.kinds != d.kinds;
    fault_q[Tokens] <= h.tokens != d.tokens;
    fault_q[Heads] <= h.heads != d.heads;
    fault_q[HeadDim] <= h.head_dim != d.head_dim;
    fault_q[Position] <= h.first_position != d.first_position;
    fault_q[Layer] <= h.first_layer != d.first_layer;
    fault_q[LayerCount] <= h.layer_count != d.layer_count;
    fault_q[Head] <= h.first_head != d.first_head;
    fault_q[Layout] <= h.layout_fingerprint != d.layout_fingerprint;
    fault_q[Codebook] <= h.codebook_fingerprint != d.codebook_fingerprint;
    fault_q[SchemeDType] <= !exact && h.dtype > DTypeBf16;
    fault_q[RawParams] <= raw && h.scheme_params != '0;
    fault_q[RawScheme] <= !raw && h.scheme == SchemeRaw;
    fault_q[SchemeHere] <= !raw && h.scheme > LastScheme;
    fault_q[Capacity] <= {1'b0, d.record_capacity} < 33'(h.payload_bytes) + 33'(LineBytes);
    fault_q[TooFew] <= h.payload_bytes < low_q;
    fault_q[TooMany] <= h.payload_bytes > high_q;
    low_q <= raw ? raw_bytes : h.scheme == SchemeInt4 ? key_bytes_q + value_bytes_q : pairs_q;
    high_q <= raw ? raw_bytes : h.scheme == SchemeInt4 ? key_bytes_q + value_bytes_q : raw_bytes - 32'd1;
  end

  logic [ 3:0] stage_q;
  logic [15:0] status;
  logic [31:0] value, limit;
  always_comb begin
    {status, value, limit} = {StatusOk, 64'd0};
    if (fault_q[Descriptor]) {status, value, limit} = {status_i, value_i, limit_i};
    else if (fault_q[BadMagic]) {status, value, limit} = {StatusBadMagic, h.magic, Magic};
    else if (fault_q[Version]) {status, value, limit} = {StatusBadVersion, 32'(h.format_version), 32'(FormatVersion)};
    else if (fault_q[Flags]) {status, value, limit} = {StatusBadFlags, 32'(h.flags), 32'(FlagRaw)};
    else if (fault_q[Reserved0]) {status, value, limit} = {StatusBadFlags, 32'(h.reserved0), 32'd0};
    else if (fault_q[Reserved1]) {status, value, limit} = {StatusBadFlags, h.reserved1, 32'd0};
    else if (fault_q[Scheme]) {status, value, limit} = {StatusBadScheme, 32'(h.scheme), 32'(SchemeLossless)};
    else if (fault_q[DType]) {status, value, limit} = {StatusShapeMismatch, 32'(h.dtype), 32'(d.dtype)};
    else if (fault_q[Kinds]) {status, value, limit} = {StatusShapeMismatch, 32'(h.kinds), 32'(d.kinds)};
    else if (fault_q[Tokens]) {status, value, limit} = {StatusShapeMismatch, 32'(h.tokens), 32'(d.tokens)};
    else if (fault_q[Heads]) {status, value, limit} = {StatusShapeMismatch, 32'(h.heads), 32'(d.heads)};
    else if (fault_q[HeadDim]) {status, value, limit} = {StatusShapeMismatch, 32'(h.head_dim), 32'(d.head_dim)};
    else if (fault_q[Position]) {status, value, limit} = {StatusIdentityMismatch, h.first_position, d.first_position};
    else if (fault_q[Layer]) {status, value, limit} = {StatusIdentityMismatch, 32'(h.first_layer), 32'(d.first_layer)};
    else if (fault_q[LayerCount])
      {status, value, limit} = {StatusIdentityMismatch, 32'(h.layer_count), 32'(d.layer_count)};
    else if (fault_q[Head]) {status, value, limit} = {StatusIdentityMismatch, 32'(h.first_head), 32'(d.first_head)};
    else if (fault_q[Layout])
      {status, value, limit} = {StatusLayoutMismatch, h.layout_fingerprint[31:0], d.layout_fingerprint[31:0]};
    else if (fault_q[Codebook])
      {status, value, limit} = {StatusCodebookMismatch, h.codebook_fingerprint[31:0], d.codebook_fingerprint[31:0]};
    else if (fault_q[SchemeDType]) {status, value, limit} = {StatusBadDtype, 32'(h.dtype), 32'(DTypeBf16)};
    else if (fault_q[RawParams]) {status, value, limit} = {StatusBadFlags, h.scheme_params[31:0], 32'd0};
    else if (fault_q[RawScheme]) {status, value, limit} = {StatusBadFlags, 32'(h.flags), 32'(FlagRaw)};
    else if (fault_q[SchemeHere]) {status, value, limit} = {StatusBadScheme, 32'(h.scheme), 32'(LastScheme)};
    else if (fault_q[TooFew]) {status, value, limit} = {StatusBadPayloadBytes, h.payload_bytes, low_q};
    else if (fault_q[TooMany]) {status, value, limit} = {StatusBadPayloadBytes, h.payload_bytes, high_q};
    else if (fault_q[Capacity]) {status, value, limit} = {StatusRecordTooSmall, d.record_capacity, needed_q};
  end

  always_ff @(posedge clk_i) begin
    stage_q <= {stage_q[2:0], start_i} & {4{~rst_i}};
    valid_o <= stage_q[3] && !rst_i;
    {status_o, value_o, limit_o} <= {status, value, limit};
  end
endmodule

`default_nettype wire
