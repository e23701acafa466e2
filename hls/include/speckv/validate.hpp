// Everything that a kernel checks before it touches a block, in the order in which the first fault is
// reported. `value` is what was found, `limit` what it should have been or its bound.
#pragma once
#include "speckv/record.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint8_t LAST_SCHEME = has_scheme(SPECKV_SCHEME_LOSSLESS)         ? SPECKV_SCHEME_LOSSLESS
                                : has_scheme(SPECKV_SCHEME_KLT)            ? SPECKV_SCHEME_KLT
                                : has_scheme(SPECKV_SCHEME_INT4)           ? SPECKV_SCHEME_INT4
                                : has_scheme(SPECKV_SCHEME_INT8_DELTA_RLE) ? SPECKV_SCHEME_INT8_DELTA_RLE
                                                                           : SPECKV_SCHEME_RAW;

SPECKV_INLINE bool head_dim_allowed(uint16_t d) {
  return d == 64 || d == 80 || d == 96 || d == 128 || d == 256;
}

SPECKV_INLINE bool tokens_allowed(uint16_t t) { return t == 16 || t == 32 || t == 64; }

// Scheme and element type: fp32 blocks can only be kept exactly.
SPECKV_INLINE Verdict check_scheme(uint8_t scheme, uint8_t dtype) {
  const bool exact = scheme == SPECKV_SCHEME_RAW || scheme == SPECKV_SCHEME_LOSSLESS;
  const uint8_t last_dtype = exact ? SPECKV_DTYPE_FP32 : SPECKV_DTYPE_BF16;
  return !has_scheme(scheme)  ? wrong(SPECKV_STATUS_BAD_SCHEME, scheme, LAST_SCHEME)
         : dtype > last_dtype ? wrong(SPECKV_STATUS_BAD_DTYPE, dtype, last_dtype)
                              : fine();
}

SPECKV_INLINE Verdict check_shape(const speckv_descriptor& d) {
  return d.dtype > SPECKV_DTYPE_FP32 ? wrong(SPECKV_STATUS_BAD_DTYPE, d.dtype, SPECKV_DTYPE_FP32)
         : d.kinds == 0 || d.kinds > SPECKV_KIND_BOTH
             ? wrong(SPECKV_STATUS_BAD_SHAPE, d.kinds, SPECKV_KIND_BOTH)
         : !tokens_allowed(d.tokens)     ? wrong(SPECKV_STATUS_BAD_SHAPE, d.tokens, 64)
         : !head_dim_allowed(d.head_dim) ? wrong(SPECKV_STATUS_BAD_SHAPE, d.head_dim, 256)
         : d.heads == 0                  ? wrong(SPECKV_STATUS_BAD_SHAPE, d.heads, 1)
         : block_bytes(d) > SPECKV_MAX_BLOCK_BYTES
             ? wrong(SPECKV_STATUS_BLOCK_TOO_LARGE, block_bytes(d), SPECKV_MAX_BLOCK_BYTES)
             : fine();
}

// Offsets and capacity. The offset of a kind that is not there must be 0: out_of_range else.
SPECKV_INLINE Verdict check_placement(const speckv_descriptor& d) {
  return d.record_offset % BEAT_BYTES     ? wrong(SPECKV_STATUS_MISALIGNED, d.record_offset, BEAT_BYTES)
         : d.key_offset % BEAT_BYTES      ? wrong(SPECKV_STATUS_MISALIGNED, d.key_offset, BEAT_BYTES)
         : d.value_offset % BEAT_BYTES    ? wrong(SPECKV_STATUS_MISALIGNED, d.value_offset, BEAT_BYTES)
         : d.record_capacity % BEAT_BYTES ? wrong(SPECKV_STATUS_MISALIGNED, d.record_capacity, BEAT_BYTES)
         : !(d.kinds & SPECKV_KIND_KEY) && d.key_offset ? wrong(SPECKV_STATUS_OUT_OF_RANGE, d.key_offset, 0)
         : !(d.kinds & SPECKV_KIND_VALUE) && d.value_offset
             ? wrong(SPECKV_STATUS_OUT_OF_RANGE, d.value_offset, 0)
             : fine();
}

SPECKV_INLINE Verdict check_capacity(const speckv_descriptor& d, uint32_t needed) {
  return d.record_capacity < needed ? wrong(SPECKV_STATUS_RECORD_TOO_SMALL, d.record_capacity, needed)
                                    : fine();
}

// A slot holds the worst case, so that a record never has to be cut short.
SPECKV_INLINE Verdict check_compress(const speckv_descriptor& d) {
  Verdict v = check_scheme(d.scheme, d.dtype);
  v = v.status ? v : check_shape(d);
  v = v.status ? v : check_placement(d);
  return v.status ? v : check_capacity(d, uint32_t(block_bytes(d)) + SPECKV_MIN_SLOT_BYTES);
}

// Enough to read the header; the rest waits for check_header.
SPECKV_INLINE Verdict check_decompress(const speckv_descriptor& d) {
  Verdict v = check_shape(d);
  v = v.status ? v : check_placement(d);
  return v.status ? v : check_capacity(d, BEAT_BYTES);
}

// What makes these bytes a record that this kernel can read at all.
SPECKV_INLINE Verdict check_format(const speckv_record_header& h) {
  return h.magic != SPECKV_MAGIC ? wrong(SPECKV_STATUS_BAD_MAGIC, h.magic, SPECKV_MAGIC)
         : h.format_version != SPECKV_FORMAT_VERSION
             ? wrong(SPECKV_STATUS_BAD_VERSION, h.format_version, SPECKV_FORMAT_VERSION)
         : h.flags & ~uint32_t(SPECKV_FLAG_RAW) ? wrong(SPECKV_STATUS_BAD_FLAGS, h.flags, SPECKV_FLAG_RAW)
         : h.reserved0                          ? wrong(SPECKV_STATUS_BAD_FLAGS, h.reserved0, 0)
         : h.reserved1                          ? wrong(SPECKV_STATUS_BAD_FLAGS, h.reserved1, 0)
         : !has_scheme(h.scheme)                ? wrong(SPECKV_STATUS_BAD_SCHEME, h.scheme, LAST_SCHEME)
                                                : fine();
}

// What makes it the record that the descriptor asks for.
SPECKV_INLINE Verdict check_identity(const speckv_record_header& h, const speckv_descriptor& d) {
  return h.dtype != d.dtype         ? wrong(SPECKV_STATUS_SHAPE_MISMATCH, h.dtype, d.dtype)
         : h.kinds != d.kinds       ? wrong(SPECKV_STATUS_SHAPE_MISMATCH, h.kinds, d.kinds)
         : h.tokens != d.tokens     ? wrong(SPECKV_STATUS_SHAPE_MISMATCH, h.tokens, d.tokens)
         : h.heads != d.heads       ? wrong(SPECKV_STATUS_SHAPE_MISMATCH, h.heads, d.heads)
         : h.head_dim != d.head_dim ? wrong(SPECKV_STATUS_SHAPE_MISMATCH, h.head_dim, d.head_dim)
         : h.first_position != d.first_position
             ? wrong(SPECKV_STATUS_IDENTITY_MISMATCH, h.first_position, d.first_position)
         : h.first_layer != d.first_layer
             ? wrong(SPECKV_STATUS_IDENTITY_MISMATCH, h.first_layer, d.first_layer)
         : h.layer_count != d.layer_count
             ? wrong(SPECKV_STATUS_IDENTITY_MISMATCH, h.layer_count, d.layer_count)
         : h.first_head != d.first_head ? wrong(SPECKV_STATUS_IDENTITY_MISMATCH, h.first_head, d.first_head)
         : h.layout_fingerprint != d.layout_fingerprint
             ? wrong(SPECKV_STATUS_LAYOUT_MISMATCH, h.layout_fingerprint, d.layout_fingerprint)
         : h.codebook_fingerprint != d.codebook_fingerprint
             ? wrong(SPECKV_STATUS_CODEBOOK_MISMATCH, h.codebook_fingerprint, d.codebook_fingerprint)
             : fine();
}

SPECKV_INLINE uint64_t params_word(const speckv_record_header& h) {
  return get_field<uint64_t>(h.scheme_params, 0);
}

// Scheme, flags and parameters against each other.
SPECKV_INLINE Verdict check_scheme_use(const speckv_record_header& h) {
  const bool raw = h.flags & SPECKV_FLAG_RAW;
  const Verdict scheme = check_scheme(h.scheme, h.dtype);
  return scheme.status                           ? scheme
         : raw && params_word(h) != 0            ? wrong(SPECKV_STATUS_BAD_FLAGS, params_word(h), 0)
         : !raw && h.scheme == SPECKV_SCHEME_RAW ? wrong(SPECKV_STATUS_BAD_FLAGS, h.flags, SPECKV_FLAG_RAW)
                                                 : fine();
}

SPECKV_INLINE Verdict check_range(uint16_t status, uint32_t value, uint32_t low, uint32_t high) {
  return value < low ? wrong(status, value, low) : value > high ? wrong(status, value, high) : fine();
}

// A call as a whole: host and kernel must mean the same structures, and the table has a bound.
SPECKV_INLINE Verdict check_batch(uint32_t count, uint64_t abi_id) {
  return abi_id != SPECKV_ABI_ID    ? wrong(SPECKV_STATUS_ABI_MISMATCH, abi_id, SPECKV_ABI_ID)
         : count > SPECKV_MAX_BATCH ? wrong(SPECKV_STATUS_OUT_OF_RANGE, count, SPECKV_MAX_BATCH)
                                    : fine();
}

// Tells a batch that cannot run so in every completion (of those that a table may have). True if refused.
static inline bool refuse_batch(ap_uint<128>* completions, uint32_t count, uint64_t abi_id) {
  const Verdict v = check_batch(count, abi_id);
  if (!v.status) return false;
  const speckv_completion refused = {v.status, 0, 0, v.value, v.limit};
REFUSE:
  for (uint32_t i = 0; i < count && i < SPECKV_MAX_BATCH; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MAX_BATCH
    store_completion(completions, i, refused);
  }
  return true;
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
