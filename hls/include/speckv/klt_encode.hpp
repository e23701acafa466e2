// klt, coding: fixed point, keys un-rotated, transform, quantiser, table set, rANS.
#pragma once
#include "speckv/klt.hpp"
#include "speckv/rans.hpp"
#ifndef __SYNTHESIS__
#include "speckv/klt_symbols_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t MAX_ESCAPES = 0xFFFF;

struct KltEncodeWork {
  KltTables tables;
  Section<uint8_t, MAX_INPUTS> in_shift;
  Section<int32_t, MAX_INPUTS> rounding;
  Section<uint8_t, MAX_INPUTS> shift;
  Section<uint8_t, TABLE_SETS * MAX_INPUTS> class_of;
  Section<uint16_t, MAX_CLASSES * SYMBOLS> cost;
  Rows rows;
  Angles angles;
  int32_t line[MAX_INPUTS];        // fixed-point values of a segment of one token
  int16_t x[MAX_PADDED];           // inputs, (tokens, columns)
  int16_t q[MAX_VALUES];           // (components, tokens)
  uint32_t codes[MAX_VALUES];      // of symbols, in their order
  uint16_t words[MAX_VALUES + 8];  // natively 8 are written at a time
  uint8_t side[MAX_VALUES / 8 * MAX_RAW_BITS + 2 * (MAX_ESCAPES + MAX_TOKENS)];
  int16_t escaped[MAX_ESCAPES + MAX_TOKENS];
#ifdef SPECKV_KLT_NATIVE
  PairWork pairs;
#endif
};

SPECKV_INLINE void load_encode_tables(const ap_uint<512>* image, const Unit& u, KltEncodeWork& w) {
  load_tables(image, u, w.tables);
  load_section(image, u.in_shift, u.inputs, w.in_shift);
  load_section(image, u.rounding, u.rank, w.rounding);
  load_section(image, u.shift, u.rank, w.shift);
  load_section(image, u.class_of, TABLE_SETS * u.slots, w.class_of);
  load_section(image, u.cost, u.classes * SYMBOLS, w.cost);
}

// x * 2^exponent, halves away from zero; far beyond FIXED_MAX it is only known to be beyond.
template <class F>
SPECKV_INLINE int32_t fixed_point(uint16_t bits, int32_t exponent) {
#pragma HLS INLINE  // one shifter
  const int32_t magnitude = bits & 0x7FFF;
  const int32_t up = exponent_of<F>(magnitude) - F::BIAS - int32_t(F::MANTISSA_BITS) + exponent;
  const int32_t left = up < 0 ? 0 : up > 19 ? 19 : up, right = up > 0 ? 0 : up < -24 ? 24 : -up;
  const int32_t v = ((mantissa_of<F>(magnitude) << left) + ((1 << right) >> 1)) >> right;
  return bits >> 15 ? -v : v;
}

// Steps 1 to 3. False: a value is not finite, or beyond what the unit has room for.
template <class F>
SPECKV_INLINE bool klt_inputs(const Geometry& g, const Unit& u, uint32_t first_position,
                              const uint16_t block[][LANES], KltEncodeWork& w) {
  const uint32_t stride = u.transforms * u.row;
  const uint16_t* values = &block[0][0];
  int32_t *line = w.line, most_fixed = 0, most_input = 0, most_bits = 0;
TOKENS:
  for (uint32_t t = 0; t < g.tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
    if (u.pairs && g.has_key) angles_of(u, w.tables, first_position + t, w.angles);
  SEGMENTS:
    for (uint32_t i = 0; i < segment_count(u); ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
      const Segment s = segment_of(u, i);
      const uint32_t n = s.heads * u.head_dim;
      const uint16_t* bits = values + segment_at(g, s, t);
      const int8_t* exponents = w.tables.exponent.data + s.channel;
      const int32_t* means = w.tables.mean.data + s.channel;
      const uint8_t* shifts = w.in_shift.data + s.channel;
    FIXED:
      for (uint32_t c = 0; c < n; ++c) {
#pragma HLS LOOP_TRIPCOUNT min = 64 max = 1024
#pragma HLS PIPELINE II = 1
#pragma HLS UNROLL factor = 32  // one beat a cycle
        const int32_t v = fixed_point<F>(bits[c], exponents[c]), a = v < 0 ? -v : v;
        const int32_t magnitude = bits[c] & 0x7FFF;
        most_fixed = a > most_fixed ? a : most_fixed;
        most_bits = magnitude > most_bits ? magnitude : most_bits;
        line[c] = v;
      }
      if (most_fixed > FIXED_MAX || most_bits >= int32_t(infinity_bits<F>())) return false;
      if (u.pairs && g.has_key && s.kind == 0) {
      HEADS:
        for (uint32_t h = 0; h < s.heads; ++h) rotate_head<1>(u, w.angles, line + h * u.head_dim);
      }
      int16_t* x = w.x + t * stride + s.column;
    INPUTS:
      for (uint32_t c = 0; c < n; ++c) {
#pragma HLS LOOP_TRIPCOUNT min = 64 max = 1024
#pragma HLS PIPELINE II = 1
#pragma HLS UNROLL factor = 32  // one beat a cycle
        const uint32_t shift = bounded_shift(shifts[c]);
        const int32_t v = (line[c] - means[c] + int32_t((1u << shift) >> 1)) >> shift;
        const int32_t a = v < 0 ? -v : v;
        most_input = a > most_input ? a : most_input;
        x[c] = int16_t(v);
      }
    }
  }
PADDING:
  for (uint32_t t = 0; t < g.tokens && u.row != u.each; ++t) {
    for (uint32_t j = 0; j < u.transforms; ++j) {
      for (uint32_t c = u.each; c < u.row; ++c) w.x[t * stride + j * u.row + c] = 0;
    }
  }
  return most_input <= INPUT_MAX;
}

// Step 4, one component of all tokens. Returns the largest excess over its limit.
SPECKV_INLINE int32_t quantise_component(const KltEncodeWork& w, uint32_t k, uint32_t tokens,
                                         const int32_t* sums, int16_t* q) {
  const int32_t rounding = w.rounding.data[k], limit = w.tables.limit.data[k];
  const uint32_t shift = bounded_shift(w.shift.data[k]);
  int32_t excess = 0;
TOKENS:
  for (uint32_t t = 0; t < tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
#pragma HLS UNROLL factor = 8  // as many as the array makes sums
    const int32_t a = sums[t], m = int32_t((uint32_t(a < 0 ? -a : a) + uint32_t(rounding)) >> shift);
    excess = m - limit > excess ? m - limit : excess;
    q[t] = int16_t(a < 0 ? -m : m);
  }
  return excess;
}

#ifdef SPECKV_KLT_NATIVE
SPECKV_INLINE bool klt_analyse_native(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                      KltEncodeWork& w) {
  const uint32_t stride = u.transforms * u.row;
  const auto* rows = reinterpret_cast<const int16_t*>(image + u.analysis);
  int32_t excess = 0;
  lay_out_tiles(g.tokens, u.each / 2, w.pairs);
  for (uint32_t j = 0, k = 0; j < u.transforms; ++j) {
    const uint32_t rank = w.tables.ranks.data[j];
    for (uint32_t t = 0; t < g.tokens / TILE_TOKENS; ++t) {
      pairs_of_inputs(w.x + t * TILE_TOKENS * stride + j * u.row, stride, u.each, w.pairs.tiles[t]);
    }
    mac_pairs(rows + uint64_t(k) * u.row, u.row, rank, w.pairs.tiles, g.tokens, w.pairs.sums);
    for (uint32_t r = 0; r < rank; ++r, ++k) {
      const int32_t* sums = w.pairs.sums + r * g.tokens;
      const int32_t over = quantise_component(w, k, g.tokens, sums, w.q + k * g.tokens);
      excess = over > excess ? over : excess;
    }
  }
  return excess == 0;
}
#endif

SPECKV_INLINE bool klt_analyse(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                               KltEncodeWork& w) {
#ifdef SPECKV_KLT_NATIVE
  if (mac_has_native()) return klt_analyse_native(g, image, u, w);
#endif
  const uint32_t stride = u.transforms * u.row;
  int32_t sums[MAC_ROWS][MAX_TOKENS], out[MAC_ROWS * TILE], excess = 0;
  uint32_t k = 0;
TRANSFORMS:
  for (uint32_t j = 0; j < u.transforms; ++j) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
    const uint32_t end = k + w.tables.ranks.data[j];
    const int16_t* x = w.x + j * u.row;
  COMPONENTS:
    for (; k < end; k += MAC_ROWS) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 2048
      load_rows(image, u.analysis, u.row, k, end, w.rows);
    TOKENS:
      for (uint32_t t = 0; t < g.tokens; t += TILE) {
#pragma HLS LOOP_TRIPCOUNT min = 4 max = 16
        dot_tile(w.rows, x + t * stride, stride, u.row, out);
      SUMS:
        for (uint32_t i = 0; i < MAC_ROWS * TILE; ++i) sums[i / TILE][t + i % TILE] = out[i];
      }
    ROWS:
      for (uint32_t r = 0; r < MAC_ROWS && k + r < end; ++r) {
        const int32_t over = quantise_component(w, k + r, g.tokens, sums[r], w.q + (k + r) * g.tokens);
        excess = over > excess ? over : excess;
      }
    }
    k = end;
  }
  return excess == 0;
}

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
  for (uint32_t t = 0; t < tokens; ++t) sum += cost[symbol_of(q[t], c)];
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
    for (uint32_t t = 0; t < tokens; ++t) plane |= uint64_t(uint32_t(q[t]) >> bit & 1) << t;
  BYTES:
    for (uint32_t b = 0; b < tokens / 8; ++b) to[at++] = uint8_t(plane >> (8 * b));
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
