// Scheme lossless: what coding and decoding share (speckv_pynq/reference/lossless.py is the definition). A
// value is its top (sign, exponent, first bit of the mantissa), range coded given the past of its channel,
// and the rest, stored as it is.
//
// Work goes by half rounds of HALF = 16 values: every shape has a multiple of 16 channels, so that a half
// round is 16 neighbouring channels of one token. A channel's value before this one lies at least two rounds
// back, which is what hides the loop from history over context to symbol.
#pragma once
#include "lossless_tables.h"
#include "speckv/nibbles.hpp"
#include "speckv/rans.hpp"
#include "speckv/record.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t LOSSLESS_MAX_VALUES = SPECKV_MAX_BLOCK_BYTES / 2;
constexpr uint32_t LOSSLESS_MAX_CHANNELS = LOSSLESS_MAX_VALUES / 16;  // 16 tokens are the fewest
constexpr uint32_t LOSSLESS_MAX_ESCAPES = 0xFFFF;
constexpr int32_t LEAST_STEP = -9, MOST_STEP = 5;  // of the exponent, from its channel's average
constexpr uint16_t ESCAPE = 4 * (MOST_STEP - LEAST_STEP + 1);
constexpr uint16_t FIRST_CONTEXT = 160;
constexpr uint32_t START_ENTRIES = sizeof(SPECKV_LOSSLESS_START[0]) / sizeof(uint16_t);
static_assert(sizeof(SPECKV_LOSSLESS_START) / sizeof(SPECKV_LOSSLESS_START[0]) == FIRST_CONTEXT + 1,
              "one table a context");

// How a value is taken apart. REST_BITS: below the top; WIDE: the lowest 16 of them are a lane of the block.
struct LosslessFp16 {
  static constexpr uint32_t EXPONENT_BITS = 5, REST_BITS = 9;
  static constexpr bool WIDE = false;
};
struct LosslessBf16 {
  static constexpr uint32_t EXPONENT_BITS = 8, REST_BITS = 6;
  static constexpr bool WIDE = false;
};
struct LosslessFp32 {
  static constexpr uint32_t EXPONENT_BITS = 8, REST_BITS = 22;
  static constexpr bool WIDE = true;
};

// Values of a kind and of the block; channels of a kind.
struct LosslessShape {
  uint32_t kinds, kind_values, values, channels;
};

template <class L>
SPECKV_INLINE LosslessShape lossless_shape(const Geometry& g) {
  const uint32_t kinds = (g.has_key ? 1 : 0) + (g.has_value ? 1 : 0);
  const uint32_t kind_values = g.kind_beats * LANES / (L::WIDE ? 2 : 1);
  return LosslessShape{kinds, kind_values, kinds * kind_values, g.heads * g.head_dim};
}

SPECKV_INLINE uint32_t rest_bytes(uint32_t values, uint32_t rest_bits) { return values / 8 * rest_bits; }

// The shortest payload: no words, no escapes; the first of the rest travels in the states.
SPECKV_INLINE uint32_t lossless_least_bytes(uint8_t dtype, const Geometry& g) {
  const uint32_t rest_bits = dtype == SPECKV_DTYPE_FP16   ? LosslessFp16::REST_BITS
                             : dtype == SPECKV_DTYPE_BF16 ? LosslessBf16::REST_BITS
                                                          : LosslessFp32::REST_BITS;
  return STATE_BYTES - SEED_BYTES + rest_bytes(g.raw_bytes / dtype_bytes(dtype), rest_bits);
}

// What is known of each channel of a kind, from the tokens before.
struct LosslessHistory {
  uint16_t average[LOSSLESS_MAX_CHANNELS];  // exponent, in eighths
  uint16_t exponent[LOSSLESS_MAX_CHANNELS];
  uint16_t sign[LOSSLESS_MAX_CHANNELS];
  uint16_t turns[LOSSLESS_MAX_CHANNELS];   // of the sign, of 16
  uint16_t spread[LOSSLESS_MAX_CHANNELS];  // of the exponent, in eighths
};

SPECKV_INLINE void lossless_begin(LosslessHistory& h, uint32_t channels, uint32_t base) {
CHANNELS:
  for (uint32_t c = 0; c < channels; ++c) {
#pragma HLS LOOP_TRIPCOUNT min = 64 max = LOSSLESS_MAX_CHANNELS
#pragma HLS UNROLL factor = 16  // a half round's channels
    h.average[c] = uint16_t(8 * base);
    h.exponent[c] = uint16_t(base);
    h.sign[c] = 0;
    h.turns[c] = 8;
    h.spread[c] = 8;
  }
}

SPECKV_INLINE uint16_t level(uint16_t x, uint16_t a, uint16_t b, uint16_t c) {
#pragma HLS INLINE  // three compares
  return uint16_t((x >= a) + (x >= b) + (x >= c));
}

// Contexts and average exponents of the channels first .. first + 15.
SPECKV_INLINE void lossless_contexts(const LosslessHistory& h, uint32_t first, bool first_token,
                                     uint16_t context[HALF], int16_t average[HALF]) {
  const uint16_t *averages = h.average + first, *exponents = h.exponent + first;
  const uint16_t *turns = h.turns + first, *spreads = h.spread + first;
LANE:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 channels side by side
    const uint16_t rounded = uint16_t(averages[l] + 4);
    const int16_t f = int16_t(rounded >> 3);
    const int16_t d = int16_t(exponents[l] - f);
    const int16_t least = d < -2 ? int16_t(-2) : d;
    const int16_t near = least > 2 ? int16_t(2) : least;
    uint16_t v = uint16_t((near + 2) * 4 + level(turns[l], 2, 5, 9));
    v = uint16_t(v * 4 + level(spreads[l], 5, 8, 12));
    v = uint16_t(v * 2 + (rounded >> 2 & 1));
    context[l] = first_token ? FIRST_CONTEXT : v;
    average[l] = f;
  }
}

// After any token but the first: the average moves by 1 / 2^N.
template <uint32_t N>
SPECKV_INLINE void lossless_move(LosslessHistory& h, uint32_t first, const int16_t exponent[HALF],
                                 const uint16_t sign[HALF]) {
  uint16_t *averages = h.average + first, *exponents = h.exponent + first, *signs = h.sign + first;
  uint16_t *turns = h.turns + first, *spreads = h.spread + first;
LANE:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 channels side by side
    const int16_t e = exponent[l], average = int16_t(averages[l]), last = int16_t(exponents[l]);
    const int16_t away = int16_t(8 * e - average + (1 << (N - 1)));
    const int16_t apart = e > last ? int16_t(e - last) : int16_t(last - e);
    const int16_t moved = apart > 3 ? int16_t(3) : apart;
    const int16_t turned = sign[l] != signs[l] ? int16_t(16) : int16_t(0);
    const int16_t turn = int16_t(turned - int16_t(turns[l]) + 2);
    const int16_t spread = int16_t(8 * moved - int16_t(spreads[l]) + 4);
    averages[l] = uint16_t(average + int16_t(away >> N));
    turns[l] = uint16_t(turns[l] + int16_t(turn >> 2));
    spreads[l] = uint16_t(spreads[l] + int16_t(spread >> 3));
    exponents[l] = uint16_t(e);
    signs[l] = sign[l];
  }
}

// Takes the exponents and signs that these channels have at this token into their history.
SPECKV_INLINE void lossless_update(LosslessHistory& h, uint32_t first, uint32_t token,
                                   const int16_t exponent[HALF], const uint16_t sign[HALF]) {
  if (token == 1) {
    lossless_move<1>(h, first, exponent, sign);
  } else if (token > 1 && token < 6) {
    lossless_move<2>(h, first, exponent, sign);
  } else if (token > 1) {
    lossless_move<3>(h, first, exponent, sign);
  } else {
  LANE:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 channels side by side
      h.average[first + l] = uint16_t(8 * exponent[l]);
      h.exponent[first + l] = uint16_t(exponent[l]);
      h.sign[first + l] = sign[l];
    }
  }
}

// A field of W bits (1, 2, 4, 8) of a round's rest: byte j of 4 W holds lanes j, j + 4 W, ... from bit 0 up.
template <uint32_t W>
SPECKV_INLINE void pack_field(const uint16_t rest[LANES], uint32_t shift, uint8_t* out) {
BYTE:
  for (uint32_t j = 0; j < 4 * W; ++j) {
#pragma HLS UNROLL  // wires only
    uint32_t byte = 0;
  PART:
    for (uint32_t k = 0; k < 8 / W; ++k) byte |= (rest[k * 4 * W + j] >> shift & ((1u << W) - 1)) << (k * W);
    out[j] = uint8_t(byte);
  }
}

template <uint32_t W>
SPECKV_INLINE void unpack_field(const uint8_t* in, uint32_t shift, uint16_t rest[LANES]) {
PART:
  for (uint32_t k = 0; k < 8 / W; ++k) {
#pragma HLS UNROLL  // wires only
  BYTE:
    for (uint32_t j = 0; j < 4 * W; ++j)
      rest[k * 4 * W + j] |= uint16_t((in[j] >> (k * W) & ((1u << W) - 1)) << shift);
  }
}

struct LosslessParams {
  uint32_t words, escapes, base[2];  // of K, of V
};

SPECKV_INLINE uint64_t pack_params(const LosslessParams& p) {
  return p.words | uint64_t(p.escapes) << 32 | uint64_t(p.base[0]) << 48 | uint64_t(p.base[1]) << 56;
}

SPECKV_INLINE LosslessParams lossless_params(uint64_t params) {
  return LosslessParams{uint32_t(params),
                        uint32_t(params >> 32 & 0xFFFF),
                        {uint32_t(params >> 48 & 0xFF), uint32_t(params >> 56)}};
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
