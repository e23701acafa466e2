// int4, decoding: parameters of all groups, then every nibble to a float: one multiply-add and one rounding.
#pragma once
#include "speckv/int4.hpp"
#ifndef __SYNTHESIS__
#include "speckv/int4_round_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

// p = step * q + zero, in units of 2^(U - 3); |p| < 2^24.
struct Int4Scales {
  int32_t step[GROUP_SLOTS];  // 8 * (S << sh)
  int32_t zero[GROUP_SLOTS];  // z * (S << sh)
};

// What rounding p to the type needs, the same for all values of a kind.
struct Rounding {
  int32_t rebias;        // added to rounded float32-like bits, in the type's least bits
  int32_t least_normal;  // float32-like bits from which the result is normal
  int32_t left, right;   // p to units of the smallest subnormal
  int32_t half;          // 2^(right - 1) - 1, and what makes ties even
  int32_t even;
#ifndef __SYNTHESIS__
  float scale;  // for round_real
#endif
};

template <class F>
SPECKV_INLINE Rounding rounding_of(int32_t exponent) {
  const int32_t unit = exponent - 3;
  const int32_t field = unit + F::BIAS - 127;  // of 1.0 * 2^unit, less 127
  // p >= 1 is normal, or no |p| < 2^24 is: the bounds keep the compare in range and zero below it.
  int32_t least = 1 - field;
  least = least < 1 ? 1 : least;
  least = least > 254 ? 254 : least;
  int32_t n = 1 - F::BIAS - int32_t(F::MANTISSA_BITS) - unit;
  n = n > 25 ? 25 : n;                                                  // halves vanish
  n = n < -int32_t(F::MANTISSA_BITS) ? -int32_t(F::MANTISSA_BITS) : n;  // larger is normal
  Rounding r;
  r.rebias = field * (1 << F::MANTISSA_BITS);
  r.least_normal = least << 23;
  r.left = n < 0 ? -n : 0;
  r.right = n > 0 ? n : 0;
  r.half = n > 0 ? (1 << (n - 1)) - 1 : 0;
  r.even = n > 0 ? 1 : 0;
#ifndef __SYNTHESIS__
  r.scale = real_scale<F>(unit);
#endif
  return r;
}

// a < 2^24 as float32 has it: exponent and mantissa of an integer.
SPECKV_INLINE int32_t normalise(int32_t a) {
#pragma HLS INLINE  // priority encoder and shifter
  int32_t top = 0;
BITS:
  for (int32_t i = 1; i < 24; ++i) {
#pragma HLS UNROLL  // a priority encoder
    top += a >> i ? 1 : 0;
  }
  return a == 0 ? 0 : ((127 + top) << 23) + ((a << (23 - top)) & 0x7FFFFF);
}

// p * 2^unit to the type: nearest, ties to even, subnormals kept, largest finite at most; zero is +0.
template <class F>
SPECKV_INLINE uint16_t round_to(int32_t p, const Rounding& r) {
#pragma HLS INLINE  // part of its caller's pipeline
  constexpr int32_t drop = 23 - int32_t(F::MANTISSA_BITS);
  constexpr int32_t largest = int32_t(infinity_bits<F>()) - 1;
  const int32_t a = p < 0 ? -p : p;
  const int32_t bits = normalise(a);
  int32_t normal = ((bits + ((1 << (drop - 1)) - 1) + (bits >> drop & 1)) >> drop) + r.rebias;
  normal = normal > largest ? largest : normal;
  // Unsigned, because a large value, which does not take this way, may lose its top.
  const int32_t small =
      int32_t(((uint32_t(a) << r.left) + uint32_t(r.half) + uint32_t(a >> r.right & r.even)) >> r.right);
  const int32_t magnitude = bits < r.least_normal ? small : normal;
  return uint16_t(magnitude | (p < 0 ? 0x8000 : 0));
}

// How a value is rounded: in hardware by round_to; on hosts by round_real (REAL) where exponents allow.
template <class F, bool REAL>
SPECKV_INLINE uint16_t round_value(int32_t p, const Rounding& r) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
  return round_to<F>(p, r);
#else
  return REAL ? round_real<F>(p, r.scale) : round_to<F>(p, r);
#endif
}

// Scales of 16 groups.
SPECKV_INLINE void window_scales(const uint16_t codes[HALF], const uint16_t z_low[HALF],
                                 const uint16_t z_top[HALF], int32_t step[HALF], int32_t zero[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
LANE:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 groups side by side
    const int32_t code = codes[l];
    const int32_t scale = code_mantissa(code) << code_shift(code);
    step[l] = 8 * scale;
    zero[l] = (((z_low[l] | z_top[l] << 8) ^ 0x800) - 0x800) * scale;  // sign of 12 bits
  }
}

SPECKV_INLINE void read_scales(const Int4Plan& p, const uint8_t payload[][BEAT_BYTES], Int4Scales& s) {
GROUPS:
  for (uint32_t i = 0; i < p.groups; i += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 256
#pragma HLS PIPELINE II = BEAT_CYCLES  // 16 groups a cycle
    uint8_t code_bytes[HALF], z_low[HALF], z_high[HALF / 2], nibbles[HALF];
    uint16_t codes[HALF], z[HALF], z_top[HALF];
    get_bytes<HALF>(payload, p.codes + i, code_bytes);
    get_bytes<HALF>(payload, p.z_low + i, z_low);
    get_bytes<HALF / 2>(payload, p.z_high + i / 2, z_high);
    widen(code_bytes, codes);
    widen(z_low, z);
    split_nibbles(z_high, nibbles);
    widen(nibbles, z_top);
    window_scales(codes, z, z_top, &s.step[i], &s.zero[i]);
  }
}

// Byte j to lanes j and j + partner of a segment. STRIDE as in quantise_window.
template <class F, uint32_t STRIDE, bool REAL>
SPECKV_INLINE void dequantise_window(const uint8_t packed[HALF], const Int4Scales& s, uint32_t group,
                                     uint32_t partner, const Rounding& r, uint16_t x[HALF],
                                     uint16_t y[HALF]) {
#pragma HLS INLINE  // part of its caller's pipeline
  const int32_t *step = &s.step[group], *zero = &s.zero[group];
  const int32_t *step2 = step + STRIDE * partner, *zero2 = zero + STRIDE * partner;
  uint16_t q[HALF];
  widen(packed, q);
LANE:
  SPECKV_ROLLED
  for (uint32_t j = 0; j < HALF; ++j) {
#pragma HLS UNROLL  // 32 lanes side by side
    const uint32_t i = STRIDE * j;
    x[j] = round_value<F, REAL>(step[i] * (q[j] & 15) + zero[i], r);
    y[j] = round_value<F, REAL>(step2[i] * (q[j] >> 4) + zero2[i], r);
  }
}

// One segment, width lanes at `at` of the kind.
template <class F, uint32_t STRIDE, bool REAL>
SPECKV_INLINE void dequantise_segment(const uint8_t payload[][BEAT_BYTES], uint32_t data, const Int4Scales& s,
                                      uint32_t group, const Rounding& r, uint16_t block[][LANES],
                                      uint32_t first, uint32_t at, uint32_t width) {
#pragma HLS INLINE  // part of its caller's pipeline
  uint8_t packed[HALF];
  uint16_t x[HALF], y[HALF];
  get_bytes<HALF>(payload, data + at / 2, packed);  // of a short segment, 8 of them count
  dequantise_window<F, STRIDE, REAL>(packed, s, group, width / 2, r, x, y);
  if (width == LANES) {
    write_window<HALF>(block, first + at, x);
    write_window<HALF>(block, first + at + HALF, y);
  } else {
    write_window<HALF / 2>(block, first + at, x);
    write_window<HALF / 2>(block, first + at + HALF / 2, y);
  }
}

// Keys: token after token of one segment, its channels' parameters held in their lanes.
template <class F, bool REAL>
SPECKV_INLINE void dequantise_keys(const Geometry& g, const Int4Plan& p, const Rounding& r,
                                   const Int4Scales& s, const uint8_t payload[][BEAT_BYTES],
                                   uint16_t block[][LANES], uint32_t first) {
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
          dequantise_segment<F, 1, REAL>(payload, p.data, s, group, r, block, first, t * p.row + head + dim,
                                         width);
        }
      }
    }
  }
}

template <class F, bool REAL>
SPECKV_INLINE void dequantise_values(const Geometry& g, const Int4Plan& p, const Rounding& r,
                                     const Int4Scales& s, const uint8_t payload[][BEAT_BYTES],
                                     uint16_t block[][LANES], uint32_t first) {
  uint32_t group = 0;
HEADS:
  for (uint32_t head = 0; head < g.tokens * p.row; head += g.head_dim) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 1024
  SEGMENTS:
    for (uint32_t dim = 0; dim < g.head_dim; dim += LANES) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
#pragma HLS PIPELINE II = BEAT_CYCLES  // one segment a cycle
      const uint32_t width = segment_width(g.head_dim, dim);
      dequantise_segment<F, 0, REAL>(payload, p.data, s, group, r, block, first, head + dim, width);
      ++group;
    }
  }
}

// The nibbles of one kind; scales are read.
template <class F, bool REAL>
SPECKV_INLINE void dequantise_kind(const Geometry& g, const Int4Plan& p, bool key, const Rounding& r,
                                   const Int4Scales& s, const uint8_t payload[][BEAT_BYTES],
                                   uint16_t block[][LANES], uint32_t first) {
  if (key) {
    dequantise_keys<F, REAL>(g, p, r, s, payload, block, first);
  } else {
    dequantise_values<F, REAL>(g, p, r, s, payload, block, first);
  }
}

// Every payload of the right length is a block; what can be wrong is scheme_params.
template <class F>
SPECKV_INLINE Verdict int4_decode(const Geometry& g, uint64_t params, Int4Scales& scales,
                                  const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
  const uint16_t absent = uint16_t(g.has_key ? 0 : params) | uint16_t(g.has_value ? 0 : params >> 16);
  if (absent) return wrong(SPECKV_STATUS_BAD_PAYLOAD, absent, 0);
  if (params >> 32) return wrong(SPECKV_STATUS_BAD_PAYLOAD, params >> 32, 0);
  uint32_t first = 0, begin = 0;
KINDS:
  for (uint32_t k = 0; k < 2; ++k) {
    if (k == 0 ? g.has_key : g.has_value) {
      const Int4Plan p = int4_plan(g, k == 0, begin);
      const int32_t exponent = int16_t(params >> (16 * k));
      const Rounding r = rounding_of<F>(exponent);
      read_scales(p, payload, scales);
#ifdef __SYNTHESIS__
      dequantise_kind<F, false>(g, p, k == 0, r, scales, payload, block, first);
#else
      if (exponent - 3 <= RealRounding<F>::UNIT_MAX) {
        dequantise_kind<F, true>(g, p, k == 0, r, scales, payload, block, first);
      } else {
        dequantise_kind<F, false>(g, p, k == 0, r, scales, payload, block, first);
      }
#endif
      first += g.kind_beats * LANES;
      begin = p.end;
    }
  }
  return fine();
}

SPECKV_CLONES static Verdict int4_decode_fp16(const Geometry& g, uint64_t params, Int4Scales& scales,
                                              const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
  return int4_decode<Fp16>(g, params, scales, payload, block);
}
SPECKV_CLONES static Verdict int4_decode_bf16(const Geometry& g, uint64_t params, Int4Scales& scales,
                                              const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
  return int4_decode<Bf16>(g, params, scales, payload, block);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
