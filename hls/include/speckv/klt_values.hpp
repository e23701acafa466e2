// klt, decoding: rANS, and quantised values from symbols and side information.
#pragma once
#include "speckv/int4_decode.hpp"
#include "speckv/klt.hpp"
#include "speckv/rans.hpp"
#ifndef __SYNTHESIS__
#include "speckv/klt_symbols_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

struct KltDecodeWork {
  KltTables tables;
  Section<uint8_t, MAX_INPUTS> out_shift;
  Section<uint8_t, MAX_INPUTS> class_of;  // of the record's table set
  Section<uint8_t, MAX_CLASSES * SLOT_COUNT> symbol_at;
  Rows rows;
  Angles angles;
  uint16_t words[MAX_VALUES];
  uint8_t symbols[MAX_VALUES];  // (components, tokens)
  uint8_t side[SEED_BYTES + SPECKV_MAX_BLOCK_BYTES];
  // (tokens, components of all transforms, each padded to the unit's width); for products of pairs
  // (components, tokens)
  int16_t q[MAX_PADDED];
  int32_t values[MAX_VALUES];                // fixed point, (tokens, channels)
  uint32_t used[MAX_TRANSFORMS][MAX_TILES];  // components up to the last that is not zero
#ifndef __SYNTHESIS__
  float scale[MAX_INPUTS];
#endif
#ifdef SPECKV_KLT_NATIVE
  PairWork pairs;
#endif
};

SPECKV_INLINE void load_decode_tables(const ap_uint<512>* image, const Unit& u, uint32_t table_set,
                                      KltDecodeWork& w) {
  load_tables(image, u, w.tables);
  load_section(image, u.out_shift, u.inputs, w.out_shift);
  load_section(image, u.symbol_at, u.classes * SLOT_COUNT, w.symbol_at);
#ifdef __SYNTHESIS__
CLASSES:
  for (uint32_t i = 0; i < u.rank; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 4096
    const uint32_t at = table_set * u.slots + i;
    uint8_t beat[BEAT_BYTES];
    load_beat(image, u.class_of + at / BEAT_BYTES, beat);
    w.class_of.data[i] = beat[at % BEAT_BYTES];
  }
#else
  w.class_of.data = reinterpret_cast<const uint8_t*>(image + u.class_of) + table_set * u.slots;
#endif
}

// Bytes of the low bits of all values.
SPECKV_INLINE uint32_t raw_bytes_of(const Geometry& g, const Unit& u, const KltDecodeWork& w) {
  uint32_t bits = 0;
COMPONENTS:
  for (uint32_t k = 0; k < u.rank; ++k) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 4096
    bits += class_of(w.tables, class_id(u, w.class_of.data[k])).raw_bits;
  }
  return bits * (g.tokens / 8);
}

// All symbols, in their order: half rounds of 16 lanes, which one component's tokens always fill.
SPECKV_INLINE Verdict klt_symbols(const Geometry& g, const Unit& u, uint32_t words,
                                  const uint8_t payload[][BEAT_BYTES], KltDecodeWork& w) {
  constexpr uint32_t HALF_ROUND = ENTROPY_LANES / 2;
  RansDecoder r;
  r.words = words;
  r.used = 0;
  uint8_t head[STATE_BYTES];
  copy_out(payload, 0, head, STATE_BYTES);
STATES:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) r.state[l] = get_field<uint32_t>(head, 4 * l);
  const Verdict states = rans_check_states(r);
  if (states.status) return states;
  const uint16_t* stream = w.words;
#ifdef __SYNTHESIS__
WORDS:
  for (uint32_t i = 0; i < words; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = MAX_VALUES
    uint8_t two[2];
    copy_out(payload, STATE_BYTES + 2 * i, two, 2);
    w.words[i] = uint16_t(two[0] | two[1] << 8);
  }
#else
  stream = reinterpret_cast<const uint16_t*>(payload[STATE_BYTES / BEAT_BYTES]);
#endif
#ifdef SPECKV_RANS_NATIVE
  const bool native = rans_has_native();
  const auto decode_component = rans_has_avx512() ? decode_component_avx512 : decode_component_avx2;
  WordStream words_of;
  open_stream(stream, words, words_of);
#endif
COMPONENTS:
  for (uint32_t k = 0, lane = 0; k < u.rank; ++k) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 4096
    const uint32_t id = class_id(u, w.class_of.data[k]);
    const uint8_t* symbol_at = w.symbol_at.data + id * SLOT_COUNT;
    const uint32_t* codes = w.tables.codes.data + id * SYMBOLS;
    uint8_t* symbols = w.symbols + k * g.tokens;
#ifdef SPECKV_RANS_NATIVE
    if (native) {
      decode_component(r, words_of, SymbolTables{symbol_at, codes}, lane, g.tokens, symbols);
      lane = (lane + g.tokens) % ENTROPY_LANES;
      continue;
    }
#endif
  TOKENS:
    for (uint32_t t = 0; t < g.tokens; t += HALF_ROUND) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 4
      rans_symbols(r, lane, HALF_ROUND, symbol_at, codes, stream, symbols + t);
      lane = (lane + HALF_ROUND) % ENTROPY_LANES;
    }
  }
SEEDS:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) put_field(w.side, 2 * l, uint16_t(r.state[l]));
  return rans_finish(r);
}

// Low bits of one component, added to its values.
SPECKV_INLINE void add_raw(const uint8_t* from, uint32_t tokens, uint32_t raw_bits, int32_t* v) {
BITS:
  for (uint32_t bit = 0; bit < raw_bits; ++bit) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 4
    uint64_t plane = 0;
  BYTES:
    for (uint32_t b = 0; b < tokens / 8; ++b) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 8
      plane |= uint64_t(from[bit * (tokens / 8) + b]) << (8 * b);
    }
  TOKENS:
    for (uint32_t t = 0; t < tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
      v[t] += int32_t(plane >> t & 1) << bit;
    }
  }
}

// What is wrong with the values of all components, found in their order.
struct KltFaults {
  uint32_t escapes;
  bool beyond;
  int32_t value, limit;
};

// Whether products are those of klt_mac_native.hpp.
SPECKV_INLINE bool multiplies_pairs() {
#ifdef SPECKV_KLT_NATIVE
  return mac_has_native();
#else
  return false;
#endif
}

// Symbols and side information to values, where the inverse transform reads them.
SPECKV_INLINE KltFaults klt_values(const Geometry& g, const Unit& u, uint32_t raw_bytes, uint32_t escapes,
                                   KltDecodeWork& w) {
  const bool pairs = multiplies_pairs();
  const uint32_t stride = pairs ? 1 : u.transforms * u.width;
  KltFaults f = {0, false, 0, 0};
  uint32_t k = 0, side = 0;
TRANSFORMS:
  for (uint32_t j = 0; j < u.transforms; ++j) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
    const uint32_t first = k, end = k + w.tables.ranks.data[j];
  CLEAR:
    for (uint32_t i = 0; i < MAX_TILES; ++i) w.used[j][i] = 0;
  COMPONENTS:
    for (; k < end; ++k) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 4096
      const Class c = class_of(w.tables, class_id(u, w.class_of.data[k]));
      const uint8_t* symbols = w.symbols + k * g.tokens;
#ifdef SPECKV_RANS_NATIVE
      if (pairs && values_native(symbols, w.side + side, g.tokens, c.raw_bits, c.half, w.tables.limit.data[k],
                                 w.q + k * g.tokens)) {
        side += c.raw_bits * (g.tokens / 8);
        continue;
      }
#endif
      int32_t v[MAX_TOKENS], most = 0, most_symbol = 0;
    HIGH:
      for (uint32_t t = 0; t < g.tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
        v[t] = (int32_t(symbols[t]) - c.half) * (1 << c.raw_bits);
        most_symbol = symbols[t] > most_symbol ? symbols[t] : most_symbol;
      }
      add_raw(w.side + side, g.tokens, c.raw_bits, v);
      side += c.raw_bits * (g.tokens / 8);
      if (most_symbol > 2 * c.half) {
      ESCAPES:
        for (uint32_t t = 0; t < g.tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
          if (symbols[t] <= 2 * c.half) continue;
          const uint32_t at = f.escapes < escapes ? raw_bytes + 2 * f.escapes : 0;
          v[t] = int16_t(get_field<uint16_t>(w.side, at));
          ++f.escapes;
        }
      }
      int16_t* q = pairs ? w.q + k * g.tokens : w.q + j * u.width + (k - first);
      const int32_t limit = w.tables.limit.data[k];
    STORE:
      for (uint32_t t = 0; t < g.tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
        const int32_t a = v[t] < 0 ? -v[t] : v[t];
        most = a > most ? a : most;
        q[t * stride] = int16_t(v[t]);
      }
      if (most > limit && !f.beyond) {
      FIND:
        for (uint32_t t = g.tokens; t-- > 0;) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
          if (v[t] <= limit && -v[t] <= limit) continue;
          f.value = v[t];
        }
        f.limit = limit;
        f.beyond = true;
      }
      if (most == 0 || pairs) continue;
    USED:
      for (uint32_t t = 0; t < g.tokens; t += TILE) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MAX_TILES
        int32_t any = 0;
      ANY:
        for (uint32_t i = 0; i < TILE; ++i) any |= v[t + i];
        if (any) w.used[j][t / TILE] = k - first + 1;
      }
    }
  PADDING:
    for (uint32_t t = 0; t < g.tokens && !pairs; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
    COLUMNS:
      for (uint32_t i = end - first; i < u.width; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = MAX_INPUTS
        w.q[t * stride + j * u.width + i] = 0;
      }
    }
  }
  return f;
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
