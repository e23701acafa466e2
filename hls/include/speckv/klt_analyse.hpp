// klt, coding: fixed point, keys un-rotated, transform, quantiser.
#pragma once
#include "speckv/klt.hpp"

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
#pragma HLS PIPELINE II = BEAT_CYCLES
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
        for (uint32_t h = 0; h < s.heads; ++h) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
          rotate_head<1>(u, w.angles, line + h * u.head_dim);
        }
      }
      int16_t* x = w.x + t * stride + s.column;
    INPUTS:
      for (uint32_t c = 0; c < n; ++c) {
#pragma HLS LOOP_TRIPCOUNT min = 64 max = 1024
#pragma HLS PIPELINE II = BEAT_CYCLES
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
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 64
  TRANSFORMS:
    for (uint32_t j = 0; j < u.transforms; ++j) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
    COLUMNS:
      for (uint32_t c = u.each; c < u.row; ++c) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = COLUMN_PAD
        w.x[t * stride + j * u.row + c] = 0;
      }
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
    const int32_t magnitude = a == 0 ? 0 : m;  // a rounding may be a whole step
    excess = magnitude - limit > excess ? magnitude - limit : excess;
    q[t] = int16_t(a < 0 ? -magnitude : magnitude);
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

}  // namespace SPECKV_VARIANT
}  // namespace speckv
