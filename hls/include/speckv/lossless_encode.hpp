// lossless, coding: tops to symbols in the order of the values, rANS from the last to the first.
#pragma once
#include "speckv/klt.hpp"
#include "speckv/lossless.hpp"
#include "speckv/rans.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

struct LosslessEncodeWork {
  LosslessHistory history;
  uint32_t codes[LOSSLESS_MAX_VALUES];  // of symbols, in their order
  uint16_t words[LOSSLESS_MAX_VALUES + 1];
  uint8_t side[SPECKV_MAX_BLOCK_BYTES];  // the rest of all values: less than the block
  uint16_t escaped[LOSSLESS_MAX_ESCAPES + HALF];
};

SPECKV_INLINE void copy_in_words(uint8_t payload[][BEAT_BYTES], uint32_t at, const uint16_t* from,
                                 uint32_t words) {
#ifdef __SYNTHESIS__
WORDS:
  for (uint32_t i = 0; i < words; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = LOSSLESS_MAX_VALUES
    const uint8_t two[2] = {uint8_t(from[i]), uint8_t(from[i] >> 8)};
    copy_in(payload, at + 2 * i, two, 2);
  }
#else
  std::memcpy(payload[0] + at, from, 2 * words);
#endif
}

// Tops of 16 values.
template <class L>
SPECKV_INLINE void lossless_tops(const uint16_t block[][LANES], uint32_t value, uint16_t top[HALF]) {
  const uint16_t* lanes = &block[0][0] + (L::WIDE ? 2 : 1) * value;
LANE:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // wires only
    top[l] = uint16_t(L::WIDE ? lanes[2 * l + 1] >> (L::REST_BITS - 16) : lanes[l] >> L::REST_BITS);
  }
}

// Mean exponent of a kind's first token, halves up.
template <class L>
SPECKV_INLINE uint32_t lossless_base(const uint16_t block[][LANES], uint32_t first, uint32_t channels) {
  uint32_t sum = 0;
CHANNELS:
  for (uint32_t c = 0; c < channels; c += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 4 max = 2048
    uint16_t top[HALF];
    lossless_tops<L>(block, first + c, top);
  LANE:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // an adder tree
      sum += top[l] >> 1 & ((1u << L::EXPONENT_BITS) - 1);
    }
  }
  return (sum + channels / 2) / channels;
}

// 16 values of one token: their codes, their escapes (what is written beyond `escapes` does not count).
template <class L>
SPECKV_INLINE uint32_t lossless_half_round(LosslessEncodeWork& w, const uint16_t block[][LANES],
                                           uint32_t value, uint32_t channel, uint32_t token,
                                           uint32_t escapes) {
  uint16_t top[HALF], context[HALF], sign[HALF], symbol[HALF];
  int16_t average[HALF], exponent[HALF];
  lossless_tops<L>(block, value, top);
  const uint16_t* last_sign = w.history.sign + channel;
  lossless_contexts(w.history, channel, token == 0, context, average);
  uint16_t most = 0;
LANE:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 values side by side
    exponent[l] = int16_t(top[l] >> 1 & ((1u << L::EXPONENT_BITS) - 1));
    sign[l] = uint16_t(top[l] >> (L::EXPONENT_BITS + 1));
    const int16_t step = int16_t(exponent[l] - average[l] - LEAST_STEP);
    const uint16_t s = uint16_t((step * 2 + (sign[l] ^ last_sign[l])) * 2 + (top[l] & 1));
    symbol[l] = step < 0 || step > MOST_STEP - LEAST_STEP ? ESCAPE : s;
    most = symbol[l] > most ? symbol[l] : most;
  }
  lossless_update(w.history, channel, token, exponent, sign);
CODES:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // a table port a lane
    const uint16_t* start = SPECKV_LOSSLESS_START[context[l]] + symbol[l];
    w.codes[value + l] = uint32_t(start[1] - start[0]) | uint32_t(start[0]) << 16;
  }
  if (most < ESCAPE) return escapes;
ESCAPES:
  for (uint32_t l = 0; l < HALF; ++l) {
    w.escaped[escapes] = top[l];
    escapes += symbol[l] == ESCAPE && escapes <= LOSSLESS_MAX_ESCAPES ? 1 : 0;
  }
  return escapes;
}

// Below the tops, a round at a time, as the side information has it.
template <class L>
SPECKV_INLINE void lossless_rest(const uint16_t block[][LANES], uint32_t values, uint8_t* side) {
ROUNDS:
  for (uint32_t i = 0; i < values; i += LANES) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 16384
#pragma HLS PIPELINE II = BEAT_CYCLES
    uint8_t* out = side + i / 8 * L::REST_BITS;
    if (L::WIDE) {
      uint16_t high[LANES];
      const uint16_t* lanes = &block[0][0] + 2 * i;
    SPLIT:
      for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // wires only
        put_field(out, 2 * l, lanes[2 * l]);
        high[l] = lanes[2 * l + 1];
      }
      pack_field<4>(high, 0, out + 64);
      pack_field<2>(high, 4, out + 80);
    } else if (L::REST_BITS == 9) {
      pack_field<8>(block[i / LANES], 0, out);
      pack_field<1>(block[i / LANES], 8, out + 32);
    } else {
      pack_field<4>(block[i / LANES], 0, out);
      pack_field<2>(block[i / LANES], 4, out + 16);
    }
  }
}

// States, words, the rest from its byte SEED_BYTES on, escapes; not coded where that is no smaller than the
// block.
SPECKV_INLINE Coded lossless_payload(const Geometry& g, uint32_t values, uint32_t rest, LosslessParams p,
                                     LosslessEncodeWork& w, uint8_t payload[][BEAT_BYTES]) {
  uint32_t state[ENTROPY_LANES];
SEEDS:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) state[l] = STATE_LOW + get_field<uint16_t>(w.side, 2 * l);
  uint16_t* end = w.words + LOSSLESS_MAX_VALUES + 1;
  p.words = rans_encode(w.codes, values, state, end);
  const uint32_t stream = STATE_BYTES + 2 * p.words, low = rest - SEED_BYTES;
  const uint32_t bytes = stream + low + 2 * p.escapes;
  if (bytes >= g.raw_bytes) return Coded{false, 0, 0};
  uint8_t head[STATE_BYTES];
STATES:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) put_field(head, 4 * l, state[l]);
  copy_in(payload, 0, head, STATE_BYTES);
  copy_in_words(payload, STATE_BYTES, end - p.words, p.words);
  copy_in(payload, stream, w.side + SEED_BYTES, low);
  copy_in_words(payload, stream + low, w.escaped, p.escapes);
  return Coded{true, bytes, pack_params(p)};
}

template <class L>
SPECKV_INLINE Coded lossless_encode(const Geometry& g, const uint16_t block[][LANES], LosslessEncodeWork& w,
                                    uint8_t payload[][BEAT_BYTES]) {
  const LosslessShape s = lossless_shape<L>(g);
  LosslessParams p = {0, 0, {0, 0}};
  uint32_t value = 0;
KINDS:
  for (uint32_t k = 0; k < s.kinds; ++k) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 2
    const uint32_t base = lossless_base<L>(block, value, s.channels);
    p.base[g.has_key ? k : 1] = base;
    lossless_begin(w.history, s.channels, base);
  TOKENS:
    for (uint32_t token = 0; token < g.tokens; ++token) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
    CHANNELS:
      for (uint32_t channel = 0; channel < s.channels; channel += HALF, value += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 4 max = 2048
#pragma HLS PIPELINE II = BEAT_CYCLES  // half a round a cycle; histories lie four half rounds back or more
        p.escapes = lossless_half_round<L>(w, block, value, channel, token, p.escapes);
      }
    }
  }
  if (p.escapes > LOSSLESS_MAX_ESCAPES) return Coded{false, 0, 0};
  lossless_rest<L>(block, s.values, w.side);
  return lossless_payload(g, s.values, rest_bytes(s.values, L::REST_BITS), p, w, payload);
}

SPECKV_CLONES static Coded lossless_encode_fp16(const Geometry& g, const uint16_t block[][LANES],
                                                LosslessEncodeWork& w, uint8_t payload[][BEAT_BYTES]) {
  return lossless_encode<LosslessFp16>(g, block, w, payload);
}
SPECKV_CLONES static Coded lossless_encode_bf16(const Geometry& g, const uint16_t block[][LANES],
                                                LosslessEncodeWork& w, uint8_t payload[][BEAT_BYTES]) {
  return lossless_encode<LosslessBf16>(g, block, w, payload);
}
SPECKV_CLONES static Coded lossless_encode_fp32(const Geometry& g, const uint16_t block[][LANES],
                                                LosslessEncodeWork& w, uint8_t payload[][BEAT_BYTES]) {
  return lossless_encode<LosslessFp32>(g, block, w, payload);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
