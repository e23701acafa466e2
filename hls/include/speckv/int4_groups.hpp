// int4, coding, first half: extremes of every group, then its step and offset, which go to the payload.
#pragma once
#include "speckv/int4.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

// Working memory of one kind, by group.
struct Int4Groups {
  int16_t low[GROUP_SLOTS], high[GROUP_SLOTS];  // extremes as sortable keys
  int32_t step[GROUP_SLOTS];                    // T: a fifteenth of the range, in units of the kind
  int32_t shift[GROUP_SLOTS];                   // exponent field at which nothing is shifted, see scaled()
  int32_t recip[GROUP_SLOTS];
  int32_t offset[GROUP_SLOTS];  // 2^20 - (z << 18)
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
  const int32_t field = exponent_of<F>(magnitude);
  const int32_t mantissa = magnitude - ((field - 1) << F::MANTISSA_BITS);
  const int32_t d = field - base;
  int32_t r = 8 - d;
  r = r < 1 ? 1 : r;
  r = r > 24 ? 24 : r;
  const int32_t up = d > 7 ? d - 7 : 0;
  const int32_t y = ((((mantissa << 8) >> (r - 1)) + 1) >> 1) << up;
  const int32_t sign = -int32_t(bits >> 15);
  return (y ^ sign) - sign;
}

// Extremes of 16 lanes, each by itself.
SPECKV_INLINE void widen_range(const uint16_t x[HALF], int16_t low[HALF], int16_t high[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
LANE:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 lanes side by side
    const int16_t k = sortable(x[l]);
    low[l] = k < low[l] ? k : low[l];
    high[l] = k > high[l] ? k : high[l];
  }
}

// One segment of channels over the tokens of a group; at: of its first token.
SPECKV_INLINE void key_segment_extremes(const uint16_t block[][LANES], uint32_t at, uint32_t row,
                                        uint32_t tokens, int16_t low[HALF], int16_t high[HALF]) {
CLEAR:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // registers
    low[l] = INT16_MAX;
    high[l] = INT16_MIN;
  }
TOKENS:
  for (uint32_t t = 0; t < tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 32
#pragma HLS PIPELINE II = BEAT_CYCLES  // a window a cycle; a compare is all that feeds back
    SPECKV_WINDOW(x, block, at + t * row);
    widen_range(x, low, high);
  }
}

// Keys: a channel's tokens come one a cycle, its extremes stay in registers.
SPECKV_INLINE void key_extremes(const Geometry& g, const uint16_t block[][LANES], uint32_t first,
                                Int4Groups& w) {
  const uint32_t row = g.heads * g.head_dim;
  const uint32_t tokens = g.tokens < GROUP ? g.tokens : GROUP;
  uint32_t group = 0;
TOKEN_GROUPS:
  for (uint32_t t0 = 0; t0 < g.tokens; t0 += tokens) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 2
  WINDOWS:
    for (uint32_t channel = 0; channel < row; channel += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 4 max = 256
#pragma HLS UNROLL factor = 2  // two windows are a beat
      key_segment_extremes(block, first + t0 * row + channel, row, tokens, &w.low[group], &w.high[group]);
      group += HALF;
    }
  }
}

// Extremes of a segment that is one group. y: its second window, or the first again.
SPECKV_INLINE void value_range(const uint16_t x[HALF], const uint16_t y[HALF], int16_t& low, int16_t& high) {
#pragma HLS INLINE  // part of its caller's pipeline
  int16_t a = INT16_MAX, b = INT16_MIN;
LANE:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // two compare trees
    const int16_t k = sortable(x[l]), m = sortable(y[l]);
    const int16_t less = k < m ? k : m, more = k < m ? m : k;
    a = less < a ? less : a;
    b = more > b ? more : b;
  }
  low = a;
  high = b;
}

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
#pragma HLS PIPELINE II = BEAT_CYCLES  // one segment a cycle into a compare tree
      const uint32_t at = first + head + dim;
      SPECKV_WINDOW(x, block, at);
      SPECKV_WINDOW(y, block, at + segment_width(g.head_dim, dim) - HALF);
      value_range(x, y, w.low[group], w.high[group]);
      ++group;
    }
  }
}

SPECKV_INLINE int16_t window_magnitude(const int16_t low[HALF], const int16_t high[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
  int16_t top = 0;
LANE:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // a compare tree
    const int16_t a = int16_t(sortable(uint16_t(low[l])) & 0x7FFF);
    const int16_t b = int16_t(sortable(uint16_t(high[l])) & 0x7FFF);
    const int16_t c = a > b ? a : b;
    top = c > top ? c : top;
  }
  return top;
}

// Largest magnitude among the extremes, hence of the kind.
SPECKV_INLINE int32_t largest_magnitude(uint32_t groups, const Int4Groups& w) {
  int16_t top = 0;
GROUPS:
  for (uint32_t i = 0; i < groups; i += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 256
#pragma HLS PIPELINE II = BEAT_CYCLES  // 16 groups a cycle
    const int16_t c = window_magnitude(&w.low[i], &w.high[i]);
    top = c > top ? c : top;
  }
  return top;
}

// Steps T of 16 groups in the kind's units; returns the largest.
template <class F>
SPECKV_INLINE int32_t window_steps(const int16_t low[HALF], const int16_t high[HALF], int32_t base,
                                   int32_t step[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
  int32_t top = 0;
LANE:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 groups side by side
    const int32_t lo = scaled_wide<F>(uint16_t(sortable(uint16_t(low[l]))), base);
    const int32_t hi = scaled_wide<F>(uint16_t(sortable(uint16_t(high[l]))), base);
    // z has a range too: a step reaches a sixteenth of either magnitude.
    const int32_t reach_low = ((lo < 0 ? -lo : lo) + 15) >> 4, reach_high = ((hi < 0 ? -hi : hi) + 15) >> 4;
    int32_t range = hi - lo;
    range = range < reach_low ? reach_low : range;
    range = range < reach_high ? reach_high : range;
    // range / 15, as a series of shifts
    const int32_t t = (range + (range >> 4) + (range >> 8) + (range >> 12) + (range >> 16) + 8) >> 4;
    step[l] = t;
    top = t > top ? t : top;
  }
  return top;
}

template <class F>
SPECKV_INLINE int32_t find_steps(uint32_t groups, int32_t top_field, Int4Groups& w) {
  const int32_t base = top_field - (23 - int32_t(F::MANTISSA_BITS));
  int32_t top = 0;
GROUPS:
  for (uint32_t i = 0; i < groups; i += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 256
#pragma HLS PIPELINE II = BEAT_CYCLES  // 16 groups a cycle
    const int32_t t = window_steps<F>(&w.low[i], &w.high[i], base, &w.step[i]);
    top = t > top ? t : top;
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

// Codes of 16 groups from their steps; shift as scaled() takes it.
SPECKV_INLINE void window_codes(const int32_t step[HALF], int32_t k, int32_t base, uint16_t codes[HALF],
                                int32_t mantissa[HALF], int32_t shift[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
LANE:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 groups side by side
    int32_t v = (step[l] + (1 << (k - 1))) >> k;
    v = v < 1 ? 1 : v;
    const int32_t e = (v >= 64) + (v >= 128) + (v >= 256) + (v >= 512) + (v >= 1024) + (v >= 2048);
    const int32_t code = (e << 5) + ((v + ((1 << e) >> 1)) >> e);
    codes[l] = uint16_t(code);
    mantissa[l] = code_mantissa(code);
    shift[l] = base + code_shift(code);
  }
}

// Offsets z of 16 groups, and what quantising adds for them.
template <class F>
SPECKV_INLINE void window_offsets(const int16_t low[HALF], const int32_t shift[HALF],
                                  const int32_t recip[HALF], int32_t offset[HALF], uint16_t z_low[HALF],
                                  uint16_t z_top[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
LANE:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 groups side by side
    const int32_t y = scaled<F>(uint16_t(sortable(uint16_t(low[l]))), shift[l]);
    int32_t z = (y * recip[l] + (1 << (RECIP_BITS - 1))) >> RECIP_BITS;
    z = z < Z_MIN ? Z_MIN : z;
    z = z > Z_MAX ? Z_MAX : z;
    offset[l] = (1 << (RECIP_BITS + 2)) - z * (1 << RECIP_BITS);
    z_low[l] = uint16_t(z);
    z_top[l] = uint16_t(z >> 8);
  }
}

// Steps to codes, and offsets z; both go to the payload.
template <class F>
SPECKV_INLINE void code_groups(const Int4Plan& p, int32_t exponent, int32_t k, Int4Groups& w,
                               uint8_t payload[][BEAT_BYTES]) {
  const int32_t base = exponent - 3 + F::BIAS + int32_t(F::MANTISSA_BITS) + POINT<F>;
GROUPS:
  for (uint32_t i = 0; i < p.groups; i += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 256
#pragma HLS PIPELINE II = BEAT_CYCLES  // 16 groups a cycle
    uint8_t code_bytes[HALF], z_low[HALF], z_high[HALF / 2], nibbles[HALF];
    uint16_t codes[HALF], z[HALF], z_top[HALF];
    int32_t mantissa[HALF];
    window_codes(&w.step[i], k, base, codes, mantissa, &w.shift[i]);
  RECIPROCAL:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 small ROMs
      w.recip[i + l] = RECIP.of[mantissa[l]];
    }
    window_offsets<F>(&w.low[i], &w.shift[i], &w.recip[i], &w.offset[i], z, z_top);
    narrow(codes, code_bytes);
    narrow(z, z_low);
    narrow(z_top, nibbles);
    join_nibbles(nibbles, z_high);
    put_bytes<HALF>(payload, p.codes + i, code_bytes);
    put_bytes<HALF>(payload, p.z_low + i, z_low);
    put_bytes<HALF / 2>(payload, p.z_high + i / 2, z_high);
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
