// Descriptors and record headers as plain fields, and the geometry of a block.
#pragma once
#include "speckv/beat.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

SPECKV_INLINE speckv_descriptor read_descriptor(const ap_uint<512>* port, uint32_t index) {
  uint8_t b[BEAT_BYTES];
#pragma HLS ARRAY_PARTITION variable = b complete  // all fields in the cycle the beat arrives
  load_beat(port, index, b);
  speckv_descriptor d;
#define SPECKV_GET(field) d.field = get_field<decltype(d.field)>(b, offsetof(speckv_descriptor, field))
  SPECKV_GET(record_offset);
  SPECKV_GET(key_offset);
  SPECKV_GET(value_offset);
  SPECKV_GET(record_capacity);
  SPECKV_GET(first_position);
  SPECKV_GET(layout_fingerprint);
  SPECKV_GET(codebook_fingerprint);
  SPECKV_GET(tokens);
  SPECKV_GET(heads);
  SPECKV_GET(head_dim);
  SPECKV_GET(first_layer);
  SPECKV_GET(first_head);
  SPECKV_GET(scheme);
  SPECKV_GET(dtype);
  SPECKV_GET(kinds);
  SPECKV_GET(layer_count);
  SPECKV_GET(codebook_slot);
#undef SPECKV_GET
  return d;
}

SPECKV_INLINE speckv_record_header parse_header(const uint8_t b[BEAT_BYTES]) {
  speckv_record_header h;
#define SPECKV_GET(field) h.field = get_field<decltype(h.field)>(b, offsetof(speckv_record_header, field))
  SPECKV_GET(magic);
  SPECKV_GET(format_version);
  SPECKV_GET(flags);
  SPECKV_GET(scheme);
  SPECKV_GET(dtype);
  SPECKV_GET(kinds);
  SPECKV_GET(layer_count);
  SPECKV_GET(first_layer);
  SPECKV_GET(heads);
  SPECKV_GET(first_head);
  SPECKV_GET(head_dim);
  SPECKV_GET(tokens);
  SPECKV_GET(reserved0);
  SPECKV_GET(first_position);
  SPECKV_GET(payload_bytes);
  SPECKV_GET(layout_fingerprint);
  SPECKV_GET(codebook_fingerprint);
  SPECKV_GET(reserved1);
  SPECKV_GET(crc32c);
#undef SPECKV_GET
PARAMS:
  for (uint32_t i = 0; i < sizeof(h.scheme_params); ++i) {
#pragma HLS UNROLL  // wires only
    h.scheme_params[i] = b[offsetof(speckv_record_header, scheme_params) + i];
  }
  return h;
}

SPECKV_INLINE void format_header(const speckv_record_header& h, uint8_t b[BEAT_BYTES]) {
#define SPECKV_PUT(field) put_field(b, offsetof(speckv_record_header, field), h.field)
  SPECKV_PUT(magic);
  SPECKV_PUT(format_version);
  SPECKV_PUT(flags);
  SPECKV_PUT(scheme);
  SPECKV_PUT(dtype);
  SPECKV_PUT(kinds);
  SPECKV_PUT(layer_count);
  SPECKV_PUT(first_layer);
  SPECKV_PUT(heads);
  SPECKV_PUT(first_head);
  SPECKV_PUT(head_dim);
  SPECKV_PUT(tokens);
  SPECKV_PUT(reserved0);
  SPECKV_PUT(first_position);
  SPECKV_PUT(payload_bytes);
  SPECKV_PUT(layout_fingerprint);
  SPECKV_PUT(codebook_fingerprint);
  SPECKV_PUT(reserved1);
  SPECKV_PUT(crc32c);
#undef SPECKV_PUT
PARAMS:
  for (uint32_t i = 0; i < sizeof(h.scheme_params); ++i) {
#pragma HLS UNROLL  // wires only
    b[offsetof(speckv_record_header, scheme_params) + i] = h.scheme_params[i];
  }
}

// A block as the kernels walk it. Every allowed shape makes a kind whole beats (512 bytes at least).
struct Geometry {
  uint32_t kind_beats;   // of K, and of V
  uint32_t block_beats;  // of the kinds present, K first
  uint32_t raw_bytes;
  uint32_t tokens, heads, head_dim;
  bool has_key, has_value;
};

// What a scheme made of a block; coded is false where it cannot hold it or does not pay.
struct Coded {
  bool coded;
  uint32_t bytes;
  uint64_t params;  // scheme_params, little-endian
};

SPECKV_INLINE uint32_t dtype_bytes(uint8_t dtype) { return dtype == SPECKV_DTYPE_FP32 ? 4 : 2; }

// Bytes of the kinds present; 64 bits, for a descriptor not checked yet.
SPECKV_INLINE uint64_t block_bytes(const speckv_descriptor& d) {
  const uint64_t kind = uint64_t(d.tokens) * d.heads * d.head_dim * dtype_bytes(d.dtype);
  return d.kinds == SPECKV_KIND_BOTH ? 2 * kind : kind;
}

// d: checked, so that nothing here overflows.
SPECKV_INLINE Geometry geometry_of(const speckv_descriptor& d) {
  Geometry g;
  g.raw_bytes = uint32_t(block_bytes(d));
  g.block_beats = g.raw_bytes / BEAT_BYTES;
  g.kind_beats = d.kinds == SPECKV_KIND_BOTH ? g.block_beats / 2 : g.block_beats;
  g.tokens = d.tokens;
  g.heads = d.heads;
  g.head_dim = d.head_dim;
  g.has_key = d.kinds & SPECKV_KIND_KEY;
  g.has_value = d.kinds & SPECKV_KIND_VALUE;
  return g;
}

SPECKV_INLINE uint32_t whole_lines(uint32_t bytes) {
  return (bytes + BEAT_BYTES - 1) / BEAT_BYTES * BEAT_BYTES;
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
