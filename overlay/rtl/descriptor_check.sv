`default_nettype none

// What can be told of a block from its descriptor alone: the first fault in the order of the HLS kernels
// (hls/include/speckv/validate.hpp), or StatusOk and the beats of K and of V. A descriptor a cycle goes in, its
// result comes out Latency = 2 cycles later, with valid_o, and stands until the next one.
//
// compress_i = 0: what a decompressor can check before it has the header. LastScheme: schemes above it are not
// this engine's: bad_scheme with LastScheme as limit. MaxBlockBytes: what its buffers hold.
// No multiplier: head_dim is 16 * (4, 5, 6, 8, 16) and tokens a power of two, or the shape is refused anyway.
module descriptor_check
  import speckv_pkg::*;
#(
    parameter int unsigned MaxBlockBytes = 131072,
    parameter logic [7:0] LastScheme = SchemeInt4
) (
    input  wire                     clk_i,
    input  wire                     rst_i,
    input  wire descriptor_t        descriptor_i,
    input  wire                     compress_i,
    input  wire                     valid_i,
    output logic                    valid_o,
    output logic             [15:0] status_o,
    output logic             [31:0] value_o,
    output logic             [31:0] limit_o,
    output logic             [19:0] key_beats_o,
    output logic             [19:0] value_beats_o
);
  // The checks in their order; the lowest that fails is reported.
  typedef enum logic [3:0] {
    Scheme,
    SchemeDType,
    DType,
    Kinds,
    Tokens,
    HeadDim,
    Heads,
    BlockBytes,
    RecordAligned,
    KeyAligned,
    ValueAligned,
    CapacityAligned,
    KeyAbsent,
    ValueAbsent,
    Capacity
  } check_e;
  localparam int unsigned Checks = 15;

  descriptor_t d;
  assign d = descriptor_i;

  logic [19:0] sixteens;  // 16 values of every head, of one token
  logic [ 2:0] token_shift;
  logic tokens_allowed, head_dim_allowed;
  always_comb begin
    tokens_allowed = 1'b1;
    case (d.tokens)
      16'd16:  token_shift = 3'd4;
      16'd32:  token_shift = 3'd5;
      16'd64:  token_shift = 3'd6;
      default: {tokens_allowed, token_shift} = '0;
    endcase
    head_dim_allowed = 1'b1;
    case (d.head_dim)
      16'd64:  sixteens = 20'(d.heads) << 2;
      16'd80:  sixteens = (20'(d.heads) << 2) + 20'(d.heads);
      16'd96:  sixteens = (20'(d.heads) << 2) + (20'(d.heads) << 1);
      16'd128: sixteens = 20'(d.heads) << 3;
      16'd256: sixteens = 20'(d.heads) << 4;
      default: {head_dim_allowed, sixteens} = '0;
    endcase
  end

  logic exact;
  assign exact = d.scheme == SchemeRaw || d.scheme == SchemeLossless;

  logic has_key, has_value;
  assign has_key   = |(d.kinds & KindKey);
  assign has_value = |(d.kinds & KindValue);

  // First stage: sizes, and every check that needs none.
  // verilator lint_off UNUSEDSIGNAL
  descriptor_t d_q;
  // verilator lint_on UNUSEDSIGNAL
  logic [Checks-1:0] fault_q;
  logic compress_q, valid_q, exact_q;
  logic [32:0] kind_bytes_q;

  always_ff @(posedge clk_i) begin
    valid_q <= valid_i && !rst_i;
    if (valid_i) begin
      d_q <= d;
      compress_q <= compress_i;
      exact_q <= exact;
      kind_bytes_q <= (33'(sixteens) << 5) << token_shift << (d.dtype == DTypeFp32);
      fault_q <= '0;
      fault_q[Scheme] <= compress_i && d.scheme > LastScheme;
      fault_q[SchemeDType] <= compress_i && d.dtype > (exact ? DTypeFp32 : DTypeBf16);
      fault_q[DType] <= d.dtype > DTypeFp32;
      fault_q[Kinds] <= d.kinds == 8'd0 || d.kinds > KindBoth;
      fault_q[Tokens] <= !tokens_allowed;
      fault_q[HeadDim] <= !head_dim_allowed;
      fault_q[Heads] <= d.heads == 16'd0;
      fault_q[RecordAligned] <= |d.record_offset[5:0];
      fault_q[KeyAligned] <= |d.key_offset[5:0];
      fault_q[ValueAligned] <= |d.value_offset[5:0];
      fault_q[CapacityAligned] <= |d.record_capacity[5:0];
      fault_q[KeyAbsent] <= !has_key && |d.key_offset;
      fault_q[ValueAbsent] <= !has_value && |d.value_offset;
    end
  end

  // Second stage: the two checks of size, and the first fault.
  logic [33:0] block_bytes;
  logic [31:0] needed;
  logic [Checks-1:0] fault;
  assign block_bytes = 34'(kind_bytes_q) << (d_q.kinds == KindBoth);
  assign needed = compress_q ? block_bytes[31:0] + MinSlotBytes : LineBytes;
  always_comb begin
    fault = fault_q;
    fault[BlockBytes] = block_bytes > 34'(MaxBlockBytes);
    fault[Capacity] = d_q.record_capacity < needed;
  end

  logic [15:0] status;
  logic [31:0] value, limit;
  always_comb begin
    {status, value, limit} = {StatusOk, 64'd0};
    if (fault[Scheme]) {status, value, limit} = {StatusBadScheme, 32'(d_q.scheme), 32'(LastScheme)};
    else if (fault[SchemeDType])
      {status, value, limit} = {StatusBadDtype, 32'(d_q.dtype), 32'(exact_q ? DTypeFp32 : DTypeBf16)};
    else if (fault[DType]) {status, value, limit} = {StatusBadDtype, 32'(d_q.dtype), 32'(DTypeFp32)};
    else if (fault[Kinds]) {status, value, limit} = {StatusBadShape, 32'(d_q.kinds), 32'(KindBoth)};
    else if (fault[Tokens]) {status, value, limit} = {StatusBadShape, 32'(d_q.tokens), 32'd64};
    else if (fault[HeadDim]) {status, value, limit} = {StatusBadShape, 32'(d_q.head_dim), 32'd256};
    else if (fault[Heads]) {status, value, limit} = {StatusBadShape, 32'(d_q.heads), 32'd1};
    else if (fault[BlockBytes]) {status, value, limit} = {StatusBlockTooLarge, block_bytes[31:0], MaxBlockBytes};
    else if (fault[RecordAligned]) {status, value, limit} = {StatusMisaligned, d_q.record_offset[31:0], LineBytes};
    else if (fault[KeyAligned]) {status, value, limit} = {StatusMisaligned, d_q.key_offset[31:0], LineBytes};
    else if (fault[ValueAligned]) {status, value, limit} = {StatusMisaligned, d_q.value_offset[31:0], LineBytes};
    else if (fault[CapacityAligned]) {status, value, limit} = {StatusMisaligned, d_q.record_capacity, LineBytes};
    else if (fault[KeyAbsent]) {status, value, limit} = {StatusOutOfRange, d_q.key_offset[31:0], 32'd0};
    else if (fault[ValueAbsent]) {status, value, limit} = {StatusOutOfRange, d_q.value_offset[31:0], 32'd0};
    else if (fault[Capacity]) {status, value, limit} = {StatusRecordTooSmall, d_q.record_capacity, needed};
  end

  always_ff @(posedge clk_i) begin
    valid_o <= valid_q && !rst_i;
    if (valid_q) begin
      {status_o, value_o, limit_o} <= {status, value, limit};
      key_beats_o <= |(d_q.kinds & KindKey) ? kind_bytes_q[25:6] : '0;
      value_beats_o <= |(d_q.kinds & KindValue) ? kind_bytes_q[25:6] : '0;
    end
  end
endmodule

`default_nettype wire
