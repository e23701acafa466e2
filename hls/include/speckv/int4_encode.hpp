// int4, coding, second half: every value to a nibble of its group; and the scheme as a whole.
#pragma once
#include "speckv/int4_groups.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

template <class F>
SPECKV_INLINE int32_t level(uint16_t x, int32_t shift, int32_t recip, int32_t offset) {
#pragma HLS INLINE  // one shifter, one DSP
  // Unsigned, because a lane past a short segment may wrap; it is not kept.
  int32_t n = int32_t(uint32_t(scaled<F>(x, shift)) * uint32_t(recip) + uint32_t(offset)) >> (RECIP_BITS + 3);
  n = n < 0 ? 0 : n;
  return n > 15 ? 15 : n;
}

// Lanes j and j + partner of a segment to byte j. STRIDE 1: a group a lane (keys); 0: one group (values).
template <class F, uint32_t STRIDE>
SPECKV_INLINE void quantise_window(const uint16_t x[HALF], const uint16_t y[HALF], const Int4Groups& w,
                                   uint32_t group, uint32_t partner, uint8_t packed[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
  const int32_t *shift = &w.shift[group], *recip = &w.recip[group], *offset = &w.offset[group];
  const int32_t *shift2 = shift + STRIDE * partner, *recip2 = recip + STRIDE * partner;
  const int32_t* offset2 = offset + STRIDE * partner;
  uint16_t both[HALF];
LANE:
  SPECKV_ROLLED
  for (uint32_t j = 0; j < HALF; ++j) {
#pragma HLS UNROLL  // 32 lanes side by side
    const uint32_t i = STRIDE * j;
    const int32_t a = level<F>(x[j], shift[i], recip[i], offset[i]);
    const int32_t b = level<F>(y[j], shift2[i], recip2[i], offset2[i]);
    both[j] = uint16_t(a | b << 4);
  }
  narrow(both, packed);
}

// One segment, width lanes at `at` of the kind.
template <class F, uint32_t STRIDE>
SPECKV_INLINE void quantise_segment(const uint16_t block[][LANES], uint32_t first, uint32_t at,
                                    uint32_t width, const Int4Groups& w, uint32_t group, uint32_t data,
                                    uint8_t payload[][BEAT_BYTES]) {
#pragma HLS INLINE  // part of its caller's pipeline
  uint8_t packed[HALF];
  SPECKV_WINDOW(x, block, first + at);
  SPECKV_WINDOW(y, block, first + at + width / 2);
  quantise_window<F, STRIDE>(x, y, w, group, width / 2, packed);
  if (width == LANES) {
    put_bytes<HALF>(payload, data + at / 2, packed);
  } else {
    put_bytes<HALF / 2>(payload, data + at / 2, packed);
  }
}

// Keys: token after token of one segment, its channels' parameters held in their lanes.
template <class F>
SPECKV_INLINE void quantise_keys(const Geometry& g, const Int4Plan& p, const uint16_t block[][LANES],
                                 uint32_t first, const Int4Groups& w, uint8_t payload[][BEAT_BYTES]) {
  const uint32_t tokens = g.tokens < GROUP ? g.tokens : GROUP;
TOKEN_GROUPS:
  for (uint32_t t0 = 0; t0 < g.tokens; t0 += tokens) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 2
  HEADS:
    for (uint32_t head = 0; head < p.row; head += g.head_dim) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
    SEGMENTS:
      for (uint32_t dim = 0; dim < g.head_dim; dim += LANES) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
        const uint32_t width = segment_width(g.head_dim, dim);
        const uint32_t group = (t0 == 0 ? 0 : p.row) + head + dim;
      TOKENS:
        for (uint32_t t = t0; t < t0 + tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 32
#pragma HLS PIPELINE II = BEAT_CYCLES  // one segment a cycle
          quantise_segment<F, 1>(block, first, t * p.row + head + dim, width, w, group, p.data, payload);
        }
      }
    }
  }
}

template <class F>
SPECKV_INLINE void quantise_values(const Geometry& g, const Int4Plan& p, const uint16_t block[][LANES],
                                   uint32_t first, const Int4Groups& w, uint8_t payload[][BEAT_BYTES]) {
  uint32_t group = 0;
HEADS:
  for (uint32_t head = 0; head < g.tokens * p.row; head += g.head_dim) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 1024
  SEGMENTS:
    for (uint32_t dim = 0; dim < g.head_dim; dim += LANES) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
#pragma HLS PIPELINE II = BEAT_CYCLES  // one segment a cycle
      const uint32_t width = segment_width(g.head_dim, dim);
      quantise_segment<F, 0>(block, first, head + dim, width, w, group, p.data, payload);
      ++group;
    }
  }
}

// One kind into the payload; false where it holds a value that is not finite. exponent: U.
template <class F>
SPECKV_INLINE bool int4_encode_kind(const Geometry& g, const Int4Plan& p, bool key,
                                    const uint16_t block[][LANES], uint32_t first, Int4Groups& w,
                                    uint8_t payload[][BEAT_BYTES], int32_t& exponent) {
  if (key) {
    key_extremes(g, block, first, w);
  } else {
    value_extremes(g, block, first, w);
  }
  const int32_t top = largest_magnitude(p.groups, w);
  if (uint32_t(top) >= infinity_bits<F>()) return false;
  const int32_t top_field = exponent_of<F>(top);
  const int32_t unit = top_field - F::BIAS - 23;
  exponent = find_unit<F>(find_steps<F>(p.groups, top_field, w), unit);
  code_groups<F>(p, exponent, exponent - unit, w, payload);
  if (key) {
    quantise_keys<F>(g, p, block, first, w, payload);
  } else {
    quantise_values<F>(g, p, block, first, w, payload);
  }
  return true;
}

template <class F>
SPECKV_INLINE Coded int4_encode(const Geometry& g, const uint16_t block[][LANES], Int4Groups& work,
                                uint8_t payload[][BEAT_BYTES]) {
  uint32_t first = 0, bytes = 0;
  uint64_t params = 0;
KINDS:
  for (uint32_t k = 0; k < 2; ++k) {
    if (k == 0 ? g.has_key : g.has_value) {
      const Int4Plan p = int4_plan(g, k == 0, bytes);
      int32_t exponent = 0;
      if (!int4_encode_kind<F>(g, p, k == 0, block, first, work, payload, exponent))
        return Coded{false, 0, 0};
      params |= uint64_t(uint16_t(exponent)) << (16 * k);
      first += g.kind_beats * LANES;
      bytes = p.end;
    }
  }
  return Coded{bytes < g.raw_bytes, bytes, params};
}

SPECKV_CLONES static Coded int4_encode_fp16(const Geometry& g, const uint16_t block[][LANES],
                                            Int4Groups& work, uint8_t payload[][BEAT_BYTES]) {
  return int4_encode<Fp16>(g, block, work, payload);
}
SPECKV_CLONES static Coded int4_encode_bf16(const Geometry& g, const uint16_t block[][LANES],
                                            Int4Groups& work, uint8_t payload[][BEAT_BYTES]) {
  return int4_encode<Bf16>(g, block, work, payload);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
