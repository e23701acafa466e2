// int4, coding: extremes of every group, steps and offsets from them, then the nibbles.
#pragma once
#include "speckv/int4.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

// Working memory of one kind, by group.
struct Int4Groups {
  int16_t low[MAX_GROUPS], high[MAX_GROUPS];  // extremes as sortable keys
  int32_t step[MAX_GROUPS];                   // T: a fifteenth of the range, in units of the kind
  int32_t shift[MAX_GROUPS];                  // exponent field at which nothing is shifted, see scaled()
  int32_t recip[MAX_GROUPS];
  int32_t offset[MAX_GROUPS];  // 2^20 - (z << 18)
};

// Integers in the order of the values; -0 stands below +0. Its own inverse.
SPECKV_INLINE int16_t sortable(uint16_t bits) {
#pragma HLS INLINE  // one XOR
  const int16_t b = int16_t(bits);
  return int16_t(b ^ ((b >> 15) & 0x7FFF));
}

// Bits that scaled() keeps below the point; enough that its shift goes right only. In the range of a group
// |y| < 2^17, and a normal value has MANTISSA_BITS of its own.
template <class F>
constexpr int32_t POINT = F::MANTISSA_BITS == 10 ? 8 : 11;

// round(|x| * 2^(field - base)), halves away from zero, then the sign. shift = POINT + base.
template <class F>
SPECKV_INLINE int32_t scaled(uint16_t bits, int32_t shift) {
#pragma HLS INLINE  // one shifter
  const int32_t magnitude = bits & 0x7FFF;
  const int32_t field = exponent_of<F>(magnitude);
  const int32_t mantissa = magnitude - ((field - 1) << F::MANTISSA_BITS);
  int32_t r = shift - field;
  r = r < 1 ? 1 : r;
  r = r > 24 ? 24 : r;
  const int32_t y = (((mantissa << POINT<F>) >> (r - 1)) + 1) >> 1;
  const int32_t sign = -int32_t(bits >> 15);
  return (y ^ sign) - sign;
}

// The same where the value may also be larger than its mantissa: units of the kind, 24 bits below its top.
template <class F>
SPECKV_INLINE int32_t scaled_wide(uint16_t bits, int32_t base) {
#pragma HLS INLINE  // two shifters
  const int32_t magnitude = bits & 0x7FFF;
  const int32_t d = exponent_of<F>(magnitude) - base;
  int32_t r = 8 - d;
  r = r < 1 ? 1 : r;
  r = r > 24 ? 24 : r;
  const int32_t up = d > 7 ? d - 7 : 0;
  const int32_t y = ((((mantissa_of<F>(magnitude) << 8) >> (r - 1)) + 1) >> 1) << up;
  const int32_t sign = -int32_t(bits >> 15);
  return (y ^ sign) - sign;
}

// Keys: a channel's tokens come one a cycle, its extremes stay in registers.
SPECKV_INLINE void key_extremes(const Geometry& g, const uint16_t block[][LANES], uint32_t first,
                                Int4Groups& w) {
  const uint32_t row = g.heads * g.head_dim;
  const uint32_t group_tokens = g.tokens < GROUP ? g.tokens : GROUP;
TOKEN_GROUPS:
  for (uint32_t t0 = 0; t0 < g.tokens; t0 += group_tokens) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 2
  HEADS:
    for (uint32_t head = 0; head < row; head += g.head_dim) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
    SEGMENTS:
      for (uint32_t dim = 0; dim < g.head_dim; dim += LANES) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
        const uint32_t width = segment_width(g.head_dim, dim);
        int16_t low[LANES], high[LANES];
#pragma HLS ARRAY_PARTITION variable = low complete   // one compare a lane a cycle
#pragma HLS ARRAY_PARTITION variable = high complete  // one compare a lane a cycle
      CLEAR:
        for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // registers
          low[l] = INT16_MAX;
          high[l] = INT16_MIN;
        }
      TOKENS:
        for (uint32_t t = 0; t < group_tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 32
#pragma HLS PIPELINE II = 1  // one segment a cycle; a compare is all that feeds back
          uint16_t x[LANES];
          load_segment(block, first + (t0 + t) * row + head + dim, width, x);
        LANE:
          for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // 32 lanes side by side
            const int16_t k = sortable(x[l]);
            low[l] = k < low[l] ? k : low[l];
            high[l] = k > high[l] ? k : high[l];
          }
        }
        const uint32_t group = t0 / group_tokens * row + head + dim;
      KEEP:
        for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // lanes are banks
          w.low[group + l] = low[l];
          w.high[group + l] = high[l];
          w.low[group + width - HALF + l] = low[HALF + l];
          w.high[group + width - HALF + l] = high[HALF + l];
        }
      }
    }
  }
}

// Values: a segment is a group.
SPECKV_INLINE void value_extremes(const Geometry& g, const uint16_t block[][LANES], uint32_t first,
                                  Int4Groups& w) {
  const uint32_t end = g.tokens * g.heads * g.head_dim;
  uint32_t group = 0;
HEADS:
  for (uint32_t head = 0; head < end; head += g.head_dim) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 1024
  SEGMENTS:
    for (uint32_t dim = 0; dim < g.head_dim; dim += LANES) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
#pragma HLS PIPELINE II = 1  // one segment a cycle into a compare tree
      uint16_t x[LANES];
      load_segment(block, first + head + dim, segment_width(g.head_dim, dim), x);
      int16_t low = INT16_MAX, high = INT16_MIN;
    LANE:
      for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // two compare trees
        const int16_t k = sortable(x[l]);
        low = k < low ? k : low;
        high = k > high ? k : high;
      }
      w.low[group] = low;
      w.high[group] = high;
      ++group;
    }
  }
}

// Largest magnitude among the extremes, hence of the kind.
SPECKV_INLINE int32_t largest_magnitude(uint32_t groups, const Int4Groups& w) {
  int16_t top = 0;
GROUPS:
  for (uint32_t i = 0; i < groups; i += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 256
#pragma HLS PIPELINE II = 1
  LANE:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // a compare tree
      const int16_t a = int16_t(sortable(uint16_t(w.low[i + l])) & 0x7FFF);
      const int16_t b = int16_t(sortable(uint16_t(w.high[i + l])) & 0x7FFF);
      const int16_t c = a > b ? a : b;
      top = c > top ? c : top;
    }
  }
  return top;
}

// Steps T of all groups in the kind's units; returns the largest.
template <class F>
SPECKV_INLINE int32_t find_steps(uint32_t groups, int32_t top_field, Int4Groups& w) {
  const int32_t base = top_field - (23 - int32_t(F::MANTISSA_BITS));
  int32_t top = 0;
GROUPS:
  for (uint32_t i = 0; i < groups; i += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 256
#pragma HLS PIPELINE II = 1
  LANE:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 groups side by side
      const int32_t low = scaled_wide<F>(uint16_t(sortable(uint16_t(w.low[i + l]))), base);
      const int32_t high = scaled_wide<F>(uint16_t(sortable(uint16_t(w.high[i + l]))), base);
      const int32_t a = low < 0 ? -low : low, b = high < 0 ? -high : high;
      const int32_t reach = ((a > b ? a : b) + 15) >> 4;  // z has a range too
      const int32_t range = high - low > reach ? high - low : reach;
      // range / 15, as a series of shifts
      const int32_t step = (range + (range >> 4) + (range >> 8) + (range >> 12) + (range >> 16) + 8) >> 4;
      w.step[i + l] = step;
      top = step > top ? step : top;
    }
  }
  return top;
}

SPECKV_INLINE int32_t bit_length(int32_t v) {
  int32_t n = 0;
BITS:
  for (int32_t i = 0; i < 31; ++i) {
#pragma HLS UNROLL  // a priority encoder
    n += v >> i ? 1 : 0;
  }
  return n;
}

// The kind's exponent U: as small as the largest step's code allows.
template <class F>
SPECKV_INLINE int32_t find_unit(int32_t top_step, int32_t unit) {
  constexpr int32_t least = 1 - F::BIAS - int32_t(F::MANTISSA_BITS);
  const int32_t n = bit_length(top_step);
  const int32_t k = top_step < (63 << (n > 6 ? n - 6 : 0)) ? n - 12 : n - 11;
  return unit + k > least ? unit + k : least;
}

// Steps to codes, and offsets z; both go to the payload.
template <class F>
SPECKV_INLINE void code_groups(const Int4Plan& p, int32_t exponent, int32_t k, Int4Groups& w,
                               uint8_t payload[][BEAT_BYTES]) {
  const int32_t base = exponent - 3 + F::BIAS + int32_t(F::MANTISSA_BITS) + POINT<F>;
GROUPS:
  for (uint32_t i = 0; i < p.groups; i += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 256
#pragma HLS PIPELINE II = 1
    uint8_t codes[HALF], z_low[HALF], z_top[HALF], z_high[HALF / 2];
    int32_t mantissa[HALF], recip[HALF];
  CODE:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 groups side by side
      int32_t v = (w.step[i + l] + (1 << (k - 1))) >> k;
      v = v < 1 ? 1 : v;
      const int32_t e = (v >= 64) + (v >= 128) + (v >= 256) + (v >= 512) + (v >= 1024) + (v >= 2048);
      const int32_t code = (e << 5) + ((v + ((1 << e) >> 1)) >> e);
      codes[l] = uint8_t(code);
      mantissa[l] = code_mantissa(code);
      w.shift[i + l] = base + code_shift(code);
    }
  RECIPROCAL:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 small ROMs
      recip[l] = RECIP.of[mantissa[l]];
    }
  OFFSET:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 groups side by side
      const int32_t y = scaled<F>(uint16_t(sortable(uint16_t(w.low[i + l]))), w.shift[i + l]);
      int32_t z = (y * recip[l] + (1 << (RECIP_BITS - 1))) >> RECIP_BITS;
      z = z < Z_MIN ? Z_MIN : z;
      z = z > Z_MAX ? Z_MAX : z;
      w.recip[i + l] = recip[l];
      w.offset[i + l] = (1 << 20) - z * (1 << RECIP_BITS);
      z_low[l] = uint8_t(z);
      z_top[l] = uint8_t(z >> 8 & 15);
    }
  PAIRS:
    for (uint32_t l = 0; l < HALF / 2; ++l) {
#pragma HLS UNROLL  // wires only
      z_high[l] = uint8_t(z_top[2 * l] | z_top[2 * l + 1] << 4);
    }
    put_bytes(payload, p.codes + i, codes, HALF);
    put_bytes(payload, p.z_low + i, z_low, HALF);
    put_bytes(payload, p.z_high + i / 2, z_high, HALF / 2);
  }
}

// q of a segment. STRIDE 1: a group a lane (keys); 0: one group (values).
template <class F, uint32_t STRIDE>
SPECKV_INLINE void quantise_segment(const uint16_t x[LANES], const int32_t* shift, const int32_t* recip,
                                    const int32_t* offset, uint32_t w, uint8_t packed[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
  uint8_t q[LANES];
LANE:
  for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // 32 lanes side by side
    int32_t n =
        (scaled<F>(x[l], shift[STRIDE * l]) * recip[STRIDE * l] + offset[STRIDE * l]) >> (RECIP_BITS + 3);
    n = n < 0 ? 0 : n;
    q[l] = uint8_t(n > 15 ? 15 : n);
  }
  const uint32_t partner = w / 2;
PACK:
  for (uint32_t j = 0; j < HALF; ++j) {
#pragma HLS UNROLL  // wires and a 2:1 multiplexer
    packed[j] = uint8_t(q[j] | q[partner == HALF ? j + HALF : (j + HALF / 2) % HALF] << 4);
  }
}

template <class F>
SPECKV_INLINE void quantise_keys(const Geometry& g, const Int4Plan& p, const uint16_t block[][LANES],
                                 uint32_t first, const Int4Groups& w, uint8_t payload[][BEAT_BYTES]) {
  const uint32_t group_tokens = g.tokens < GROUP ? g.tokens : GROUP;
TOKEN_GROUPS:
  for (uint32_t t0 = 0; t0 < g.tokens; t0 += group_tokens) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 2
  HEADS:
    for (uint32_t head = 0; head < p.row; head += g.head_dim) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
    SEGMENTS:
      for (uint32_t dim = 0; dim < g.head_dim; dim += LANES) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
        const uint32_t width = segment_width(g.head_dim, dim);
        const uint32_t group = t0 / group_tokens * p.row + head + dim;
        int32_t shift[LANES], recip[LANES], offset[LANES];
#pragma HLS ARRAY_PARTITION variable = shift complete   // a channel's parameters stay in its lane
#pragma HLS ARRAY_PARTITION variable = recip complete   // a channel's parameters stay in its lane
#pragma HLS ARRAY_PARTITION variable = offset complete  // a channel's parameters stay in its lane
      PARAMETERS:
        for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // lanes are banks
          const uint32_t from = group + (l < HALF ? l : l - HALF + width - HALF);
          shift[l] = w.shift[from];
          recip[l] = w.recip[from];
          offset[l] = w.offset[from];
        }
      TOKENS:
        for (uint32_t t = t0; t < t0 + group_tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 32
#pragma HLS PIPELINE II = 1  // one segment a cycle
          uint16_t x[LANES];
          uint8_t packed[HALF];
          const uint32_t at = t * p.row + head + dim;
          load_segment(block, first + at, width, x);
          quantise_segment<F, 1>(x, shift, recip, offset, width, packed);
          put_bytes(payload, p.data + at / 2, packed, width / 2);
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
#pragma HLS PIPELINE II = 1  // one segment a cycle
      const uint32_t width = segment_width(g.head_dim, dim);
      uint16_t x[LANES];
      uint8_t packed[HALF];
      load_segment(block, first + head + dim, width, x);
      quantise_segment<F, 0>(x, &w.shift[group], &w.recip[group], &w.offset[group], width, packed);
      put_bytes(payload, p.data + (head + dim) / 2, packed, width / 2);
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
SPECKV_INLINE Coded int4_encode(const Geometry& g, const uint16_t block[][LANES],
                                uint8_t payload[][BEAT_BYTES]) {
  SPECKV_ONCHIP Int4Groups work;
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
                                            uint8_t payload[][BEAT_BYTES]) {
  return int4_encode<Fp16>(g, block, payload);
}
SPECKV_CLONES static Coded int4_encode_bf16(const Geometry& g, const uint16_t block[][LANES],
                                            uint8_t payload[][BEAT_BYTES]) {
  return int4_encode<Bf16>(g, block, payload);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
