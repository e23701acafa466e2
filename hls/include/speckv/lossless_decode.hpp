// lossless, decoding: tops by rANS in the order of the values, then the rest beneath them.
#pragma once
#include "speckv/klt.hpp"
#include "speckv/lossless.hpp"
#include "speckv/rans.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

struct LosslessDecodeWork {
  LosslessHistory history;
  uint16_t words[LOSSLESS_MAX_VALUES];
  uint16_t tops[LOSSLESS_MAX_VALUES];
  uint8_t side[SEED_BYTES + SPECKV_MAX_BLOCK_BYTES];  // the rest, then the escapes
};

// The stream as far as it is decoded, and the first thing found wrong, looked for once a round.
struct LosslessStream {
  RansDecoder r;
  const uint16_t* words;
  const uint8_t* escapes;  // tops, u16 each
  uint32_t escapes_held, escapes_used;
  uint32_t odd_top;  // the first top of this round that no value has, and 1 << 16; else 0
  Verdict verdict;
};

#ifndef __SYNTHESIS__
// Where a processor begins to look for a symbol: the one that the first slot of a bucket of 32 belongs to.
struct LosslessBuckets {
  static constexpr uint32_t BITS = 5, COUNT = 1u << (ENTROPY_BITS - BITS);
  uint8_t symbol[FIRST_CONTEXT + 1][COUNT];
};

static constexpr LosslessBuckets lossless_buckets() {
  LosslessBuckets out{};
  for (uint32_t c = 0; c <= FIRST_CONTEXT; ++c) {
    uint32_t s = 0;
    for (uint32_t i = 0; i < LosslessBuckets::COUNT; ++i) {
      while (SPECKV_LOSSLESS_START[c][s + 1] <= i << LosslessBuckets::BITS) ++s;
      out.symbol[c][i] = uint8_t(s);
    }
  }
  return out;
}

static constexpr LosslessBuckets LOSSLESS_BUCKETS = lossless_buckets();
#endif

// The symbol that a slot belongs to: the last that starts at or before it.
SPECKV_INLINE uint32_t lossless_symbol(uint32_t context, uint32_t slot) {
#pragma HLS INLINE  // 63 compares and an adder tree a lane
  const uint16_t* start = SPECKV_LOSSLESS_START[context];
#ifdef __SYNTHESIS__
  uint32_t at = 0;
SEARCH:
  for (uint32_t j = 1; j < START_ENTRIES; ++j) at += start[j] <= slot ? 1 : 0;
#else
  uint32_t at = LOSSLESS_BUCKETS.symbol[context][slot >> LosslessBuckets::BITS];
  at += start[at + 1] <= slot ? 1 : 0;
  at += start[at + 1] <= slot ? 1 : 0;
  while (start[at + 1] <= slot) ++at;  // in the tails only
#endif
  return at;
}

// Symbols of 16 lanes from `lane` on: what the states say, then the words that lanes take in order.
SPECKV_INLINE void lossless_symbols(RansDecoder& r, const uint16_t* words, uint32_t lane,
                                    const uint16_t context[HALF], uint16_t symbol[HALF]) {
  uint32_t next[HALF], used = r.used;
LANE:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 lanes side by side
    const uint32_t x = r.state[lane + l], slot = x & ((1u << ENTROPY_BITS) - 1);
    const uint32_t at = lossless_symbol(context[l], slot);
    const uint16_t* start = SPECKV_LOSSLESS_START[context[l]] + at;
    symbol[l] = uint16_t(at);
    next[l] = uint32_t(start[1] - start[0]) * (x >> ENTROPY_BITS) + slot - start[0];
  }
  if (used + HALF <= r.words) {
  WORDS:
    for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // a prefix sum over 16 flags
      const bool low = next[l] < STATE_LOW;
      r.state[lane + l] = low ? next[l] << 16 | words[used] : next[l];
      used += low ? 1 : 0;
    }
  } else {
  LAST:
    for (uint32_t l = 0; l < HALF; ++l) {  // beyond the last word zeros are read, and counted
      const bool low = next[l] < STATE_LOW;
      const uint32_t word = used < r.words ? words[used] : 0;
      r.state[lane + l] = low ? next[l] << 16 | word : next[l];
      used += low ? 1 : 0;
    }
  }
  r.used = used;
}

// Replaces the tops of escaped values.
template <class L>
SPECKV_INLINE void lossless_escapes(LosslessStream& s, const uint16_t symbol[HALF], uint16_t top[HALF]) {
  constexpr uint16_t TOP_MAX = (4u << L::EXPONENT_BITS) - 1;
ESCAPES:
  for (uint32_t l = 0; l < HALF; ++l) {
    if (symbol[l] != ESCAPE) continue;
    const bool held = s.escapes_used < s.escapes_held;
    const uint16_t found = held ? get_field<uint16_t>(s.escapes, 2 * s.escapes_used) : uint16_t(0);
    if (found > TOP_MAX && !s.odd_top) s.odd_top = found | 1u << 16;
    top[l] = found & TOP_MAX;
    ++s.escapes_used;
  }
}

template <class L>
SPECKV_INLINE void lossless_half_round(LosslessStream& s, LosslessHistory& history, uint32_t lane,
                                       uint32_t channel, uint32_t token, uint16_t top[HALF]) {
  constexpr int16_t EXPONENT_MAX = (1 << L::EXPONENT_BITS) - 1;
  uint16_t context[HALF], symbol[HALF], sign[HALF], most = 0;
  int16_t average[HALF], exponent[HALF];
  const uint16_t* last_sign = history.sign + channel;
  lossless_contexts(history, channel, token == 0, context, average);
  lossless_symbols(s.r, s.words, lane, context, symbol);
LANE:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // 16 values side by side
    const int16_t e = int16_t(average[l] + (symbol[l] >> 2) + LEAST_STEP);
    const uint16_t bounded = uint16_t(e < 0 ? 0 : e > EXPONENT_MAX ? EXPONENT_MAX : e);
    const uint16_t turned = uint16_t(last_sign[l] ^ (symbol[l] >> 1 & 1));
    top[l] = uint16_t((turned << L::EXPONENT_BITS | bounded) << 1 | (symbol[l] & 1));
    most = symbol[l] > most ? symbol[l] : most;
  }
  if (most == ESCAPE) lossless_escapes<L>(s, symbol, top);
PARTS:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // wires only
    exponent[l] = int16_t(top[l] >> 1 & EXPONENT_MAX);
    sign[l] = uint16_t(top[l] >> (L::EXPONENT_BITS + 1));
  }
  lossless_update(history, channel, token, exponent, sign);
}

// After a round.
template <class L>
SPECKV_INLINE void lossless_check(LosslessStream& s) {
  if (s.verdict.status) return;
  if (s.escapes_used > s.escapes_held) {
    s.verdict = wrong(SPECKV_STATUS_BAD_PAYLOAD, s.escapes_held, s.escapes_used);
  } else if (s.odd_top) {
    s.verdict = wrong(SPECKV_STATUS_BAD_PAYLOAD, s.odd_top & 0xFFFF, (4u << L::EXPONENT_BITS) - 1);
  }
}

template <class L>
SPECKV_INLINE Verdict lossless_tops(const Geometry& g, const LosslessShape& shape, const LosslessParams& p,
                                    LosslessStream& s, LosslessDecodeWork& w) {
  uint32_t value = 0;
KINDS:
  for (uint32_t k = 0; k < shape.kinds; ++k) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 2
    lossless_begin(w.history, shape.channels, p.base[g.has_key ? k : 1]);
  TOKENS:
    for (uint32_t token = 0; token < g.tokens; ++token) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
    CHANNELS:
      for (uint32_t channel = 0; channel < shape.channels; channel += HALF, value += HALF) {
#pragma HLS LOOP_TRIPCOUNT min = 4 max = 2048
#pragma HLS PIPELINE II = 2  // a lane's state loop: two half rounds lie between its symbols
        const uint32_t lane = value % ENTROPY_LANES;
        lossless_half_round<L>(s, w.history, lane, channel, token, w.tops + value);
        if (lane) lossless_check<L>(s);
      }
      if (s.verdict.status) return s.verdict;
    }
  }
  const Verdict end = rans_finish(s.r);
  return end.status                         ? end
         : s.escapes_used != s.escapes_held ? wrong(SPECKV_STATUS_BAD_PAYLOAD, s.escapes_held, s.escapes_used)
                                            : fine();
}

// Tops and rest to values.
template <class L>
SPECKV_INLINE void lossless_join(uint32_t values, const LosslessDecodeWork& w, uint16_t block[][LANES]) {
ROUNDS:
  for (uint32_t i = 0; i < values; i += LANES) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 16384
#pragma HLS PIPELINE II = BEAT_CYCLES
    const uint8_t* in = w.side + i / 8 * L::REST_BITS;
    uint16_t out[LANES];
  TOP:
    for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // wires only
      out[l] = uint16_t(w.tops[i + l] << (L::WIDE ? L::REST_BITS - 16 : L::REST_BITS));
    }
    if (L::REST_BITS == 9) {
      unpack_field<8>(in, 0, out);
      unpack_field<1>(in + 32, 8, out);
    } else {
      unpack_field<4>(in + (L::WIDE ? 64 : 0), 0, out);
      unpack_field<2>(in + (L::WIDE ? 80 : 16), 4, out);
    }
    uint16_t* lanes = &block[0][0] + (L::WIDE ? 2 : 1) * i;
  STORE:
    for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // one beat, two if wide
      if (L::WIDE) lanes[2 * l] = get_field<uint16_t>(in, 2 * l);
      lanes[L::WIDE ? 2 * l + 1 : l] = out[l];
    }
  }
}

template <class L>
SPECKV_INLINE Verdict lossless_decode(const Geometry& g, uint64_t params, uint32_t bytes,
                                      const uint8_t payload[][BEAT_BYTES], LosslessDecodeWork& w,
                                      uint16_t block[][LANES]) {
  const LosslessShape shape = lossless_shape<L>(g);
  const LosslessParams p = lossless_params(params);
  if (p.base[0] && !g.has_key) return wrong(SPECKV_STATUS_BAD_PAYLOAD, p.base[0], 0);
  if (p.base[1] && !g.has_value) return wrong(SPECKV_STATUS_BAD_PAYLOAD, p.base[1], 0);
  const uint32_t rest = rest_bytes(shape.values, L::REST_BITS);
  const uint64_t stream = STATE_BYTES + 2 * uint64_t(p.words);
  const uint64_t expected = stream + rest - SEED_BYTES + 2 * p.escapes;
  if (expected != bytes) return wrong(SPECKV_STATUS_BAD_PAYLOAD, bytes, expected);
  copy_out(payload, uint32_t(stream), w.side + SEED_BYTES, uint32_t(expected - stream));
  LosslessStream s;
  s.r.words = p.words;
  s.r.used = 0;
  s.escapes = w.side + rest;
  s.escapes_held = p.escapes;
  s.escapes_used = 0;
  s.odd_top = 0;
  s.verdict = fine();
  uint8_t head[STATE_BYTES];
  copy_out(payload, 0, head, STATE_BYTES);
STATES:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) s.r.state[l] = get_field<uint32_t>(head, 4 * l);
  const Verdict states = rans_check_states(s.r);
  if (states.status) return states;
#ifdef __SYNTHESIS__
WORDS:
  for (uint32_t i = 0; i < p.words; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = LOSSLESS_MAX_VALUES
    uint8_t two[2];
    copy_out(payload, STATE_BYTES + 2 * i, two, 2);
    w.words[i] = uint16_t(two[0] | two[1] << 8);
  }
  s.words = w.words;
#else
  s.words = reinterpret_cast<const uint16_t*>(payload[STATE_BYTES / BEAT_BYTES]);
#endif
  const Verdict verdict = lossless_tops<L>(g, shape, p, s, w);
  if (verdict.status) return verdict;
SEEDS:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) put_field(w.side, 2 * l, uint16_t(s.r.state[l]));
  lossless_join<L>(shape.values, w, block);
  return fine();
}

SPECKV_CLONES static Verdict lossless_decode_fp16(const Geometry& g, uint64_t params, uint32_t bytes,
                                                  const uint8_t payload[][BEAT_BYTES], LosslessDecodeWork& w,
                                                  uint16_t block[][LANES]) {
  return lossless_decode<LosslessFp16>(g, params, bytes, payload, w, block);
}
SPECKV_CLONES static Verdict lossless_decode_bf16(const Geometry& g, uint64_t params, uint32_t bytes,
                                                  const uint8_t payload[][BEAT_BYTES], LosslessDecodeWork& w,
                                                  uint16_t block[][LANES]) {
  return lossless_decode<LosslessBf16>(g, params, bytes, payload, w, block);
}
SPECKV_CLONES static Verdict lossless_decode_fp32(const Geometry& g, uint64_t params, uint32_t bytes,
                                                  const uint8_t payload[][BEAT_BYTES], LosslessDecodeWork& w,
                                                  uint16_t block[][LANES]) {
  return lossless_decode<LosslessFp32>(g, params, bytes, payload, w, block);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
