// klt, decoding: inverse transform, keys rotated, one rounding to the element type.
#pragma once
#include "speckv/klt_values.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

#ifdef SPECKV_KLT_NATIVE
SPECKV_INLINE void klt_synthesise_native(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                         KltDecodeWork& w) {
  const auto* rows = reinterpret_cast<const int16_t*>(image + u.synthesis);
  lay_out_tiles(g.tokens, u.each / 2, w.pairs);
  for (uint32_t j = 0, k = 0; j < u.transforms; ++j) {
    const uint32_t rank = w.tables.ranks.data[j];
    for (uint32_t t = 0; t < g.tokens / TILE_TOKENS; ++t) {
      pairs_of_components(w.q + k * g.tokens + t * TILE_TOKENS, g.tokens, rank, w.pairs.tiles[t]);
    }
    mac_pairs(rows + uint64_t(j) * u.each * u.width, u.width, u.each, w.pairs.tiles, g.tokens, w.pairs.sums);
    for (uint32_t i = 0; i < u.each; i += 8) {
      const uint32_t c = j * u.each + i;
      ChannelRounding rounding[8];
      for (uint32_t r = 0; r < 8; ++r) {
        const uint32_t shift = bounded_shift(w.out_shift.data[c + r]);
        rounding[r] = ChannelRounding{int32_t((1u << shift) >> 1), w.tables.mean.data[c + r], shift};
      }
      finish_channels(w.pairs.sums + i * g.tokens, g.tokens, rounding, FIXED_MAX, w.values + c, u.inputs);
    }
    k += rank;
  }
}
#endif

// Fixed-point values of all channels; products with trailing zero components are left out.
SPECKV_INLINE void klt_synthesise(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                  KltDecodeWork& w) {
#ifdef SPECKV_KLT_NATIVE
  if (mac_has_native()) return klt_synthesise_native(g, image, u, w);
#endif
  const uint32_t stride = u.transforms * u.width;
  int32_t out[MAC_ROWS * TILE];
TRANSFORMS:
  for (uint32_t j = 0; j < u.transforms; ++j) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
  CHANNELS:
    for (uint32_t c = j * u.each; c < (j + 1) * u.each; c += MAC_ROWS) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = 2048
      load_rows(image, u.synthesis, u.width, c, (j + 1) * u.each, w.rows);
      uint32_t shift[MAC_ROWS];
      int32_t mean[MAC_ROWS];
    ROWS:
      for (uint32_t r = 0; r < MAC_ROWS; ++r) {  // a transform's channels are a multiple of 16
        shift[r] = bounded_shift(w.out_shift.data[c + r]);
        mean[r] = w.tables.mean.data[c + r];
      }
    TOKENS:
      for (uint32_t t = 0; t < g.tokens; t += TILE) {
#pragma HLS LOOP_TRIPCOUNT min = 4 max = 16
        const uint32_t n = (w.used[j][t / TILE] + 15) / 16 * 16;
        dot_tile(w.rows, w.q + t * stride + j * u.width, stride, n, out);
      ROUND:
        for (uint32_t i = 0; i < MAC_ROWS * TILE; ++i) {
#pragma HLS UNROLL  // one adder and shifter a sum
          const uint32_t r = i / TILE;
          int32_t y = ((out[i] + int32_t((1u << shift[r]) >> 1)) >> shift[r]) + mean[r];
          y = y > FIXED_MAX ? FIXED_MAX : y < -FIXED_MAX ? -FIXED_MAX : y;
          w.values[(t + i % TILE) * u.inputs + c + r] = y;
        }
      }
    }
  }
}

// Rotates keys and rounds everything to the element type.
template <class F>
SPECKV_INLINE void klt_round(const Geometry& g, const Unit& u, uint32_t first_position, KltDecodeWork& w,
                             uint16_t block[][LANES]) {
  uint16_t* values = &block[0][0];
#ifndef __SYNTHESIS__
SCALES:
  for (uint32_t c = 0; c < u.inputs; ++c) w.scale[c] = real_scale<F>(-int32_t(w.tables.exponent.data[c]));
#endif
TOKENS:
  for (uint32_t t = 0; t < g.tokens; ++t) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 64
    if (u.pairs && g.has_key) angles_of(u, w.tables, first_position + t, w.angles);
  SEGMENTS:
    for (uint32_t i = 0; i < segment_count(u); ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
      const Segment s = segment_of(u, i);
      const uint32_t n = s.heads * u.head_dim;
      int32_t* from = w.values + t * u.inputs + s.channel;
      uint16_t* to = values + segment_at(g, s, t);
#ifndef __SYNTHESIS__
      const float* scale = w.scale + s.channel;
#endif
      if (u.pairs && g.has_key && s.kind == 0) {
      HEADS:
        for (uint32_t h = 0; h < s.heads; ++h) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
          rotate_head<-1>(u, w.angles, from + h * u.head_dim);
        }
      }
    ROUND:
      for (uint32_t c = 0; c < n; ++c) {
#pragma HLS LOOP_TRIPCOUNT min = 64 max = 1024
#pragma HLS PIPELINE II = BEAT_CYCLES
#pragma HLS UNROLL factor = 32  // one beat a cycle
#ifdef __SYNTHESIS__
        // rounding_of counts in eighths.
        to[c] = round_to<F>(from[c], rounding_of<F>(3 - int32_t(w.tables.exponent.data[s.channel + c])));
#else
        to[c] = round_real<F>(from[c], scale[c]);
#endif
      }
    }
  }
}

template <class F>
SPECKV_INLINE Verdict klt_decode(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                 uint32_t first_position, uint64_t params, uint32_t bytes,
                                 const uint8_t payload[][BEAT_BYTES], KltDecodeWork& w,
                                 uint16_t block[][LANES]) {
  const uint32_t words = uint32_t(params), escapes = uint32_t(params >> 32 & 0xFFFF);
  const uint32_t table_set = uint32_t(params >> 48);
  if (table_set >= TABLE_SETS) return wrong(SPECKV_STATUS_BAD_PAYLOAD, table_set, TABLE_SETS - 1);
  load_decode_tables(image, u, table_set, w);
  const uint32_t raw_bytes = raw_bytes_of(g, u, w), side_bytes = raw_bytes + 2 * escapes;
  const uint32_t rest = side_bytes > SEED_BYTES ? side_bytes - SEED_BYTES : 0;
  const uint64_t expected = uint64_t(STATE_BYTES) + 2 * uint64_t(words) + rest;
  if (expected != bytes) return wrong(SPECKV_STATUS_BAD_PAYLOAD, bytes, expected);
  const Verdict stream = klt_symbols(g, u, words, payload, w);
  if (stream.status) return stream;
  copy_out(payload, STATE_BYTES + 2 * words, w.side + SEED_BYTES, rest);
  uint32_t spare = 0;
SPARE:
  for (uint32_t i = side_bytes; i < SEED_BYTES; ++i) spare |= w.side[i];
  if (spare) return wrong(SPECKV_STATUS_BAD_PAYLOAD, 1, 0);
  const KltFaults f = klt_values(g, u, raw_bytes, escapes, w);
  if (f.escapes != escapes) return wrong(SPECKV_STATUS_BAD_PAYLOAD, escapes, f.escapes);
  if (f.beyond) return wrong(SPECKV_STATUS_BAD_PAYLOAD, uint32_t(f.value), uint32_t(f.limit));
  klt_synthesise(g, image, u, w);
  klt_round<F>(g, u, first_position, w, block);
  return fine();
}

SPECKV_WIDE_CLONES static Verdict klt_decode_fp16(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                                  uint32_t first_position, uint64_t params, uint32_t bytes,
                                                  const uint8_t payload[][BEAT_BYTES], KltDecodeWork& w,
                                                  uint16_t block[][LANES]) {
  return klt_decode<Fp16>(g, image, u, first_position, params, bytes, payload, w, block);
}
SPECKV_WIDE_CLONES static Verdict klt_decode_bf16(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                                  uint32_t first_position, uint64_t params, uint32_t bytes,
                                                  const uint8_t payload[][BEAT_BYTES], KltDecodeWork& w,
                                                  uint16_t block[][LANES]) {
  return klt_decode<Bf16>(g, image, u, first_position, params, bytes, payload, w, block);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
