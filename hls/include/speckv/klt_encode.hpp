// klt, coding: table set, symbols, rANS.
#pragma once
#include "speckv/klt_analyse.hpp"
#include "speckv/rans.hpp"
#ifndef __SYNTHESIS__
#include "speckv/klt_symbols_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

SPECKV_INLINE int32_t symbol_of(int32_t q, const Class& c) {
  const int32_t high = q >> c.raw_bits, symbol = high + c.half, escape = 2 * c.half + 1;
  return high < -c.half || high > c.half ? escape : symbol;
}

// Of one component under one class. cost: the class's.
SPECKV_INLINE uint32_t cost_of(const int16_t* q, uint32_t tokens, const Class& c, const uint16_t* cost) {
#ifdef SPECKV_RANS_NATIVE
  if (rans_has_native()) return cost_native(q, tokens, c.raw_bits, c.half, cost);
#endif
  uint32_t sum = 0;
TOKENS:
  for (uint32_t t = 0; t < tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
    sum += cost[symbol_of(q[t], c)];
  }
  return sum;
}

// Step 5. A class that several sets give a component is added up once.
SPECKV_INLINE uint32_t choose_set(const Geometry& g, const Unit& u, const KltEncodeWork& w) {
  uint64_t total[TABLE_SETS] = {};
COMPONENTS:
  for (uint32_t k = 0; k < u.rank; ++k) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 4096
    const int16_t* q = w.q + k * g.tokens;
    uint32_t last = MAX_CLASSES, sum = 0;
  SETS:
    for (uint32_t s = 0; s < TABLE_SETS; ++s) {
      const uint32_t id = class_id(u, w.class_of.data[s * u.slots + k]);
      if (id != last) {
        const Class c = class_of(w.tables, id);
        sum = cost_of(q, g.tokens, c, w.cost.data + id * SYMBOLS);
        last = id;
      }
      total[s] += sum;
    }
  }
  uint32_t best = 0;
BEST:
  for (uint32_t s = 1; s < TABLE_SETS; ++s) best = total[s] < total[best] ? s : best;
  return best;
}

// Low bits of one component: for each, from bit 0 up, a bit a token.
SPECKV_INLINE uint32_t put_raw(const int16_t* q, uint32_t tokens, uint32_t raw_bits, uint8_t* to) {
  uint32_t at = 0;
BITS:
  for (uint32_t bit = 0; bit < raw_bits; ++bit) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 4
    uint64_t plane = 0;
  TOKENS:
    for (uint32_t t = 0; t < tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
      plane |= uint64_t(uint32_t(q[t]) >> bit & 1) << t;
    }
  BYTES:
    for (uint32_t b = 0; b < tokens / 8; ++b) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
      to[at++] = uint8_t(plane >> (8 * b));
    }
  }
  return at;
}

// What becomes of the quantised values: codes of all symbols, side information.
struct KltSymbols {
  uint32_t side_bytes, escapes;
};

SPECKV_INLINE KltSymbols klt_symbols(const Geometry& g, const Unit& u, uint32_t table_set, KltEncodeWork& w) {
  KltSymbols out = {0, 0};
COMPONENTS:
  for (uint32_t k = 0; k < u.rank && out.escapes <= MAX_ESCAPES; ++k) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 4096
    const uint32_t id = class_id(u, w.class_of.data[table_set * u.slots + k]);
    const Class c = class_of(w.tables, id);
    const int16_t* q = w.q + k * g.tokens;
    const uint32_t *codes = w.tables.codes.data + id * SYMBOLS, escape = uint32_t(2 * c.half + 1);
    uint32_t first = 0;
#ifdef SPECKV_RANS_NATIVE
    uint32_t* to = w.codes + k * g.tokens;
    if (rans_has_native() && !codes_native(q, g.tokens, c.raw_bits, c.half, codes, to)) first = g.tokens;
#endif
  TOKENS:
    for (uint32_t t = first; t < g.tokens; ++t) {  // natively only where there is an escape
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
      const uint32_t symbol = uint32_t(symbol_of(q[t], c));
      const uint32_t code = codes[symbol];
      w.codes[k * g.tokens + t] = frequency_of(code) ? code : code | 1;  // of an unchecked codebook: no zero
      w.escaped[out.escapes] = q[t];                                     // kept only where it counts
      out.escapes += symbol == escape ? 1 : 0;
    }
    out.side_bytes += put_raw(q, g.tokens, c.raw_bits, w.side + out.side_bytes);
  }
  return out;
}

SPECKV_INLINE uint32_t encode_words(const uint32_t* codes, uint32_t count, uint32_t state[ENTROPY_LANES],
                                    uint16_t* words_end) {
#ifdef SPECKV_RANS_NATIVE
  if (rans_has_native()) return rans_encode_native(codes, count, state, words_end);
#endif
  return rans_encode(codes, count, state, words_end);
}

// States, words, and what of the side information has no room in the states.
SPECKV_INLINE Coded klt_payload(const Geometry& g, const Unit& u, uint32_t table_set, uint32_t limit_bytes,
                                KltEncodeWork& w, uint8_t payload[][BEAT_BYTES]) {
  KltSymbols s = klt_symbols(g, u, table_set, w);
  if (s.escapes > MAX_ESCAPES) return Coded{false, 0, 0};
ESCAPES:
  for (uint32_t i = 0; i < s.escapes; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 64
    put_field(w.side, s.side_bytes, uint16_t(w.escaped[i]));
    s.side_bytes += 2;
  }
ZEROS:
  for (uint32_t i = s.side_bytes; i < SEED_BYTES; ++i) w.side[i] = 0;
  uint32_t state[ENTROPY_LANES];
SEEDS:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) state[l] = STATE_LOW + get_field<uint16_t>(w.side, 2 * l);
  uint16_t* end = w.words + MAX_VALUES + 8;
  const uint32_t words = encode_words(w.codes, u.rank * g.tokens, state, end);
  const uint32_t rest = s.side_bytes > SEED_BYTES ? s.side_bytes - SEED_BYTES : 0;
  const uint32_t bytes = STATE_BYTES + 2 * words + rest;
  if (bytes >= limit_bytes) return Coded{false, 0, 0};
  uint8_t head[STATE_BYTES];
STATES:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) put_field(head, 4 * l, state[l]);
  copy_in(payload, 0, head, STATE_BYTES);
#ifdef __SYNTHESIS__
WORDS:
  for (uint32_t i = 0; i < words; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = MAX_VALUES
    const uint16_t word = end[int32_t(i) - int32_t(words)];
    const uint8_t two[2] = {uint8_t(word), uint8_t(word >> 8)};
    copy_in(payload, STATE_BYTES + 2 * i, two, 2);
  }
#else
  std::memcpy(payload[0] + STATE_BYTES, end - words, 2 * words);
#endif
  copy_in(payload, STATE_BYTES + 2 * words, w.side + SEED_BYTES, rest);
  return Coded{true, bytes, pack_params(KltParams{words, s.escapes, table_set})};
}

// Not coded where a value is out of range, or the payload would not be smaller than limit_bytes.
template <class F>
SPECKV_INLINE Coded klt_encode(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                               uint32_t first_position, uint32_t limit_bytes, const uint16_t block[][LANES],
                               KltEncodeWork& w, uint8_t payload[][BEAT_BYTES]) {
  load_encode_tables(image, u, w);
  if (!klt_inputs<F>(g, u, first_position, block, w) || !klt_analyse(g, image, u, w))
    return Coded{false, 0, 0};
  return klt_payload(g, u, choose_set(g, u, w), limit_bytes, w, payload);
}

SPECKV_WIDE_CLONES static Coded klt_encode_fp16(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                                uint32_t first_position, uint32_t limit_bytes,
                                                const uint16_t block[][LANES], KltEncodeWork& w,
                                                uint8_t payload[][BEAT_BYTES]) {
  return klt_encode<Fp16>(g, image, u, first_position, limit_bytes, block, w, payload);
}
SPECKV_WIDE_CLONES static Coded klt_encode_bf16(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                                uint32_t first_position, uint32_t limit_bytes,
                                                const uint16_t block[][LANES], KltEncodeWork& w,
                                                uint8_t payload[][BEAT_BYTES]) {
  return klt_encode<Bf16>(g, image, u, first_position, limit_bytes, block, w, payload);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
