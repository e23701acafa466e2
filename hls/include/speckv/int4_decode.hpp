// int4, decoding: parameters of all groups, then every nibble to a float: one multiply-add and one rounding.
#pragma once
#include "speckv/int4.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

// p = step * q + zero, in units of 2^(U - 3); |p| < 2^24.
struct Int4Scales {
  int32_t step[MAX_GROUPS];  // 8 * (S << sh)
  int32_t zero[MAX_GROUPS];  // z * (S << sh)
};

// What rounding p to the type needs, the same for all values of a kind.
struct Rounding {
  int32_t rebias;        // added to rounded float32-like bits, in the type's least bits
  int32_t least_normal;  // float32-like bits from which the result is normal
  int32_t left, right;   // p to units of the smallest subnormal
  int32_t half;          // 2^(right - 1) - 1, and what makes ties even
  int32_t even;
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
  return r;
}

// a < 2^24 as float32 bits (exact): exponent and mantissa of an integer.
SPECKV_INLINE int32_t normalise(int32_t a) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // priority encoder and shifter
  int32_t top = 0;
BITS:
  for (int32_t i = 1; i < 24; ++i) {
#pragma HLS UNROLL  // a priority encoder
    top += a >> i ? 1 : 0;
  }
  return a == 0 ? 0 : ((127 + top) << 23) + ((a << (23 - top)) & 0x7FFFFF);
#else
  const float f = float(a);  // an exact conversion, and vectors have an instruction for it
  int32_t bits;
  std::memcpy(&bits, &f, sizeof(bits));
  return bits;
#endif
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
  const int32_t small = ((a << r.left) + r.half + (a >> r.right & r.even)) >> r.right;
  const int32_t magnitude = bits < r.least_normal ? small : normal;
  return uint16_t(magnitude | (p < 0 ? 0x8000 : 0));
}

SPECKV_INLINE void read_scales(const Int4Plan& p, const uint8_t payload[][BEAT_BYTES], Int4Scales& s) {
GROUPS:
  for (uint32_t i = 0; i < p.groups; i += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 256
#pragma HLS PIPELINE II = 1
    uint8_t codes[HALF], z_low[HALF], z_high[HALF / 2], z_top[HALF];
    get_bytes(payload, p.codes + i, codes, HALF);
    get_bytes(payload, p.z_low + i, z_low, HALF);
    get_bytes(payload, p.z_high + i / 2, z_high, HALF / 2);
  PAIRS:
    for (uint32_t l = 0; l < HALF / 2; ++l) {
#pragma HLS UNROLL  // wires only
      z_top[2 * l] = z_high[l] & 15;
      z_top[2 * l + 1] = z_high[l] >> 4;
    }
  LANE:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 groups side by side
      const int32_t z = ((z_low[l] | z_top[l] << 8) ^ 0x800) - 0x800;
      const int32_t scale = code_mantissa(codes[l]) << code_shift(codes[l]);
      s.step[i + l] = 8 * scale;
      s.zero[i + l] = z * scale;
    }
  }
}

// STRIDE as in quantise_segment.
template <class F, uint32_t STRIDE>
SPECKV_INLINE void dequantise_segment(const uint8_t packed[HALF], uint32_t w, const int32_t* step,
                                      const int32_t* zero, const Rounding& r, uint16_t x[LANES]) {
#pragma HLS INLINE  // part of its caller's pipeline
  uint8_t q[LANES];
UNPACK:
  for (uint32_t j = 0; j < HALF; ++j) {
#pragma HLS UNROLL  // wires only
    q[j] = packed[j] & 15;
    q[HALF + j] = packed[j] >> 4;
  }
  if (w == HALF) {
  TAIL:
    for (uint32_t j = 0; j < HALF / 2; ++j) {
#pragma HLS UNROLL  // a 2:1 multiplexer
      q[HALF / 2 + j] = q[HALF + j];
    }
  REPEAT:
    for (uint32_t j = 0; j < HALF; ++j) {
#pragma HLS UNROLL  // a 2:1 multiplexer
      q[HALF + j] = q[j];
    }
  }
LANE:
  for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // 32 lanes side by side
    x[l] = round_to<F>(step[STRIDE * l] * q[l] + zero[STRIDE * l], r);
  }
}

template <class F>
SPECKV_INLINE void dequantise_keys(const Geometry& g, const Int4Plan& p, const Rounding& r,
                                   const Int4Scales& s, const uint8_t payload[][BEAT_BYTES],
                                   uint16_t block[][LANES], uint32_t first) {
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
        int32_t step[LANES], zero[LANES];
#pragma HLS ARRAY_PARTITION variable = step complete  // a channel's parameters stay in its lane
#pragma HLS ARRAY_PARTITION variable = zero complete  // a channel's parameters stay in its lane
      PARAMETERS:
        for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // lanes are banks
          const uint32_t from = group + (l < HALF ? l : l - HALF + width - HALF);
          step[l] = s.step[from];
          zero[l] = s.zero[from];
        }
      TOKENS:
        for (uint32_t t = t0; t < t0 + group_tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 32
#pragma HLS PIPELINE II = 1  // one segment a cycle
          const uint32_t at = t * p.row + head + dim;
          uint8_t packed[HALF] = {};
          uint16_t x[LANES];
          get_bytes(payload, p.data + at / 2, packed, width / 2);
          dequantise_segment<F, 1>(packed, width, step, zero, r, x);
          store_segment(block, first + at, width, x);
        }
      }
    }
  }
}

template <class F>
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
#pragma HLS PIPELINE II = 1  // one segment a cycle
      const uint32_t width = segment_width(g.head_dim, dim);
      uint8_t packed[HALF] = {};
      uint16_t x[LANES];
      get_bytes(payload, p.data + (head + dim) / 2, packed, width / 2);
      dequantise_segment<F, 0>(packed, width, &s.step[group], &s.zero[group], r, x);
      store_segment(block, first + head + dim, width, x);
      ++group;
    }
  }
}

// Every payload of the right length is a block; what can be wrong is scheme_params.
template <class F>
SPECKV_INLINE Verdict int4_decode(const Geometry& g, uint64_t params, const uint8_t payload[][BEAT_BYTES],
                                  uint16_t block[][LANES]) {
  const uint16_t absent = uint16_t(g.has_key ? 0 : params) | uint16_t(g.has_value ? 0 : params >> 16);
  if (absent) return wrong(SPECKV_STATUS_BAD_PAYLOAD, absent, 0);
  if (params >> 32) return wrong(SPECKV_STATUS_BAD_PAYLOAD, params >> 32, 0);
  SPECKV_ONCHIP Int4Scales scales;
  uint32_t first = 0, begin = 0;
KINDS:
  for (uint32_t k = 0; k < 2; ++k) {
    if (k == 0 ? g.has_key : g.has_value) {
      const Int4Plan p = int4_plan(g, k == 0, begin);
      const Rounding r = rounding_of<F>(int16_t(params >> (16 * k)));
      read_scales(p, payload, scales);
      if (k == 0) {
        dequantise_keys<F>(g, p, r, scales, payload, block, first);
      } else {
        dequantise_values<F>(g, p, r, scales, payload, block, first);
      }
      first += g.kind_beats * LANES;
      begin = p.end;
    }
  }
  return fine();
}

SPECKV_CLONES static Verdict int4_decode_fp16(const Geometry& g, uint64_t params,
                                              const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
  return int4_decode<Fp16>(g, params, payload, block);
}
SPECKV_CLONES static Verdict int4_decode_bf16(const Geometry& g, uint64_t params,
                                              const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
  return int4_decode<Bf16>(g, params, payload, block);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
