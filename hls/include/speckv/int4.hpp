// Scheme int4: 4-bit steps in groups of up to 32 values, what encoder and decoder share.
// Keys are grouped along tokens of one channel, order [token group][head][dim]; values along dims of one
// token and head, order [token][head][group]; head_dim 80 is 32 + 32 + 16.
//   x = s * (8 q + z) / 8, s = (S << sh) * 2^U: q 4 bits, z signed 12 bits, code 8 bits (a float of S and sh)
// Payload of each kind, K first: codes u8[groups]; low bytes of z u8[groups]; high nibbles of z, even group
// low; data nibbles [token][head][dim], of each segment of w lanes byte j = lane j | lane (j + w/2) << 4.
// scheme_params: U of K, U of V (i16 each), zeros.
//
// Rate: every loop over the block moves one segment a cycle, a beat of 32 values but for the tail of head_dim
// 80. Lanes are independent; what feeds back is a minimum and a maximum. Coding passes over the on-chip block
// twice (extremes, quantise), decoding once. Planes start at multiples of 8 bytes (groups are multiples of
// 16).
#pragma once
#include "speckv/float_bits.hpp"
#include "speckv/nibbles.hpp"
#include "speckv/record.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t GROUP = SPECKV_GROUP;
// Of one kind: 64 Ki values in groups of 16 tokens.
constexpr uint32_t MAX_GROUPS = SPECKV_MAX_BLOCK_BYTES / 2 / 16;
constexpr uint32_t GROUP_SLOTS = MAX_GROUPS + LANES;  // a window may look past the last
constexpr int32_t RECIP_BITS = 18;
constexpr int32_t Z_MIN = -2048, Z_MAX = 2047;

// RECIP[S] = round(2^18 / S); S is 0 for no code the encoder makes.
struct RecipTable {
  int32_t of[64];
  constexpr RecipTable() : of() {
    for (int32_t s = 1; s < 64; ++s) of[s] = ((1 << RECIP_BITS) + s / 2) / s;
  }
};
constexpr RecipTable RECIP{};

// Where the groups and planes of one kind lie.
struct Int4Plan {
  uint32_t row;  // values of one token
  uint32_t groups;
  uint32_t codes, z_low, z_high, data;  // byte offsets in the payload
  uint32_t end;
};

SPECKV_INLINE uint32_t int4_groups(const Geometry& g, bool key) {
  const uint32_t per_channel = g.tokens > GROUP ? g.tokens / GROUP : 1;
  const uint32_t per_head = (g.head_dim + GROUP - 1) / GROUP;
  return key ? per_channel * g.heads * g.head_dim : g.tokens * g.heads * per_head;
}

SPECKV_INLINE Int4Plan int4_plan(const Geometry& g, bool key, uint32_t begin) {
  Int4Plan p;
  p.row = g.heads * g.head_dim;
  p.groups = int4_groups(g, key);
  p.codes = begin;
  p.z_low = p.codes + p.groups;
  p.z_high = p.z_low + p.groups;
  p.data = p.z_high + p.groups / 2;
  p.end = p.data + g.tokens * p.row / 2;
  return p;
}

SPECKV_INLINE uint32_t int4_bytes(const Geometry& g) {
  const uint32_t key_end = g.has_key ? int4_plan(g, true, 0).end : 0;
  return g.has_value ? int4_plan(g, false, key_end).end : key_end;
}

// A segment: 32 values of one token and head, or the 16 that are left of head_dim 80.
SPECKV_INLINE uint32_t segment_width(uint32_t head_dim, uint32_t dim) {
  return head_dim - dim < LANES ? HALF : LANES;
}

// Lanes are handled in two windows of 16. What a window reads past a short segment is never kept.
// at: a multiple of 8 values from the block's begin. In hardware a copy in registers (lanes are banks, a
// window has two addresses at most); natively a name for the place, because a copy costs more than the
// arithmetic.
#ifdef __SYNTHESIS__
SPECKV_INLINE void read_window(const uint16_t block[][LANES], uint32_t at, uint16_t x[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
READ:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 lanes side by side
    x[l] = block[(at + l) / LANES][(at + l) % LANES];
  }
}
#define SPECKV_WINDOW(x, block, at) \
  uint16_t x[HALF];                 \
  read_window(block, at, x)
#else
#define SPECKV_WINDOW(x, block, at) const uint16_t* const x = &(block)[0][0] + (at)
#endif

template <uint32_t COUNT>
SPECKV_INLINE void write_window(uint16_t block[][LANES], uint32_t at, const uint16_t x[HALF]) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
WRITE:
  for (uint32_t l = 0; l < COUNT; ++l) {
#pragma HLS UNROLL  // all lanes side by side
    block[(at + l) / LANES][(at + l) % LANES] = x[l];
  }
#else
  std::memcpy(&block[0][0] + at, x, 2 * COUNT);
#endif
}

// COUNT bytes at a payload offset that is a multiple of 8. Bytes of a beat are banks.
template <uint32_t COUNT>
SPECKV_INLINE void put_bytes(uint8_t payload[][BEAT_BYTES], uint32_t at, const uint8_t* bytes) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
PUT:
  for (uint32_t i = 0; i < COUNT; ++i) {
#pragma HLS UNROLL  // all bytes side by side
    payload[(at + i) / BEAT_BYTES][(at + i) % BEAT_BYTES] = bytes[i];
  }
#else
  std::memcpy(&payload[0][0] + at, bytes, COUNT);
#endif
}

template <uint32_t COUNT>
SPECKV_INLINE void get_bytes(const uint8_t payload[][BEAT_BYTES], uint32_t at, uint8_t* bytes) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
GET:
  for (uint32_t i = 0; i < COUNT; ++i) {
#pragma HLS UNROLL  // all bytes side by side
    bytes[i] = payload[(at + i) / BEAT_BYTES][(at + i) % BEAT_BYTES];
  }
#else
  std::memcpy(bytes, &payload[0][0] + at, COUNT);
#endif
}

// code to S and sh.
SPECKV_INLINE int32_t code_mantissa(int32_t code) { return code >> 5 ? 32 + (code & 31) : code; }
SPECKV_INLINE int32_t code_shift(int32_t code) { return (code >> 5) > 1 ? (code >> 5) - 1 : 0; }

}  // namespace SPECKV_VARIANT
}  // namespace speckv
