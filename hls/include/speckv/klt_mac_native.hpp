// klt's products for hosts: pairs of values of 16 tokens against one factor pair of each of several rows,
// sums kept in registers. Chosen at run time: AVX2, or AVX-512 that multiplies and adds in one instruction.
// Never seen by HLS; tests compare both with the reference.
#pragma once
#include "speckv/mac_native.hpp"

#ifdef SPECKV_MAC_NATIVE
#define SPECKV_KLT_NATIVE
namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t TILE_TOKENS = 16;

// Pairs of values of 16 tokens. values: (count, 16) of two int16 each; which: the pairs' places in a row.
struct PairTile {
  int32_t* values;
  uint16_t* which;
  uint32_t count;
};

// 8 rows of 8 become columns.
__attribute__((target("avx2"))) static inline void transpose_8(__m256i v[8]) {
  __m256i a[8], b[8];
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
    a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (uint32_t i = 0; i < 8; i += 4) {
    b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
    v[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
  }
}

// A tile of inputs that lie (tokens, columns): columns, a multiple of 16, of which none is left out.
__attribute__((target("avx2"))) static void pairs_of_inputs(const int16_t* x, uint32_t stride,
                                                            uint32_t columns, PairTile& tile) {
  for (uint32_t p = 0; p < columns / 2; p += 8) {
    for (uint32_t t = 0; t < TILE_TOKENS; t += 8) {
      __m256i v[8];
#pragma GCC unroll 8
      for (uint32_t i = 0; i < 8; ++i) {
        v[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + (t + i) * stride + 2 * p));
      }
      transpose_8(v);
#pragma GCC unroll 8
      for (uint32_t i = 0; i < 8; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile.values + (p + i) * TILE_TOKENS + t), v[i]);
      }
    }
  }
  tile.count = columns / 2;
  for (uint32_t p = 0; p < tile.count; ++p) tile.which[p] = uint16_t(p);
}

// A tile of components that lie (components, tokens), without the pairs that are zero for all its tokens.
__attribute__((target("avx2"))) static void pairs_of_components(const int16_t* q, uint32_t tokens,
                                                                uint32_t components, PairTile& tile) {
  uint32_t count = 0;
  for (uint32_t k = 0; k < components; k += 2) {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + k * tokens));
    const __m256i b = k + 1 < components
                          ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + (k + 1) * tokens))
                          : _mm256_setzero_si256();
    const __m256i low = _mm256_unpacklo_epi16(a, b), high = _mm256_unpackhi_epi16(a, b);
    auto* to = reinterpret_cast<__m256i*>(tile.values + count * TILE_TOKENS);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
    tile.which[count] = uint16_t(k / 2);  // kept only where it counts
    const __m256i any = _mm256_or_si256(a, b);
    count += _mm256_testz_si256(any, any) ? 0 : 1;
  }
  tile.count = count;
}

// sums[row * tokens + token] of one tile, rows `columns` apart.
template <uint32_t ROWS>
__attribute__((target("avx2"))) static inline void mac_tile_avx2(const int16_t* rows, uint32_t columns,
                                                                 const PairTile& tile, uint32_t tokens,
                                                                 int32_t* sums) {
  __m256i low[ROWS], high[ROWS];
  const int16_t* row[ROWS];
#pragma GCC unroll 8
  for (uint32_t r = 0; r < ROWS; ++r) {
    low[r] = high[r] = _mm256_setzero_si256();
    row[r] = rows + uint64_t(r) * columns;
  }
  const auto* values = reinterpret_cast<const __m256i*>(tile.values);
  for (uint32_t i = 0; i < tile.count; ++i) {
    const __m256i x = _mm256_loadu_si256(values + 2 * i), y = _mm256_loadu_si256(values + 2 * i + 1);
    const uint64_t at = 2 * uint64_t(tile.which[i]);
#pragma GCC unroll 8
    for (uint32_t r = 0; r < ROWS; ++r) {
      const __m256i factors = mac_broadcast(reinterpret_cast<const uint8_t*>(row[r] + at));
      low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(factors, x));
      high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(factors, y));
    }
  }
#pragma GCC unroll 8
  for (uint32_t r = 0; r < ROWS; ++r) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * tokens), low[r]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + r * tokens + 8), high[r]);
  }
}

template <uint32_t ROWS>
__attribute__((target("avx512f,avx512bw,avx512vnni"))) static inline void mac_tile_avx512(
    const int16_t* rows, uint32_t columns, const PairTile& tile, uint32_t tokens, int32_t* sums) {
  __m512i sum[ROWS];
#pragma GCC unroll 16
  for (uint32_t r = 0; r < ROWS; ++r) sum[r] = _mm512_setzero_si512();
  for (uint32_t i = 0; i < tile.count; ++i) {
    const __m512i x = _mm512_loadu_si512(tile.values + i * TILE_TOKENS);
    const int16_t* at = rows + 2 * tile.which[i];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < ROWS; ++r) {
      int32_t factors;
      __builtin_memcpy(&factors, at + r * columns, 4);
      sum[r] = _mm512_dpwssd_epi32(sum[r], _mm512_set1_epi32(factors), x);
    }
  }
#pragma GCC unroll 16
  for (uint32_t r = 0; r < ROWS; ++r) _mm512_storeu_si512(sums + r * tokens, sum[r]);
}

// All rows against all tiles: sums (rows, tokens). The last group of rows begins early: some sums are made
// twice.
#define SPECKV_MAC_PAIRS(name, isa, tile_of, GROUP)                                                      \
  __attribute__((target(isa))) static void name(const int16_t* rows, uint32_t columns, uint32_t count,   \
                                                const PairTile* tiles, uint32_t tokens, int32_t* sums) { \
    const uint32_t group = count < GROUP ? 1 : GROUP;                                                    \
    for (uint32_t k = 0; k < count; k += group) {                                                        \
      const uint32_t r = k + group > count ? count - group : k;                                          \
      for (uint32_t t = 0; t < tokens / TILE_TOKENS; ++t) {                                              \
        const int16_t* from = rows + r * columns;                                                        \
        int32_t* to = sums + r * tokens + t * TILE_TOKENS;                                               \
        if (group == 1) {                                                                                \
          tile_of<1>(from, columns, tiles[t], tokens, to);                                               \
        } else {                                                                                         \
          tile_of<GROUP>(from, columns, tiles[t], tokens, to);                                           \
        }                                                                                                \
      }                                                                                                  \
    }                                                                                                    \
  }
SPECKV_MAC_PAIRS(mac_pairs_avx2, "avx2", mac_tile_avx2, 6)
SPECKV_MAC_PAIRS(mac_pairs_avx512, "avx512f,avx512bw,avx512vnni", mac_tile_avx512, 16)
#undef SPECKV_MAC_PAIRS

static inline bool mac_has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vnni");
  return has;
}

static inline void mac_pairs(const int16_t* rows, uint32_t columns, uint32_t count, const PairTile* tiles,
                             uint32_t tokens, int32_t* sums) {
  (mac_has_avx512() ? mac_pairs_avx512 : mac_pairs_avx2)(rows, columns, count, tiles, tokens, sums);
}

// What of a channel's sum becomes its fixed-point value.
struct ChannelRounding {
  int32_t half, mean;
  uint32_t shift;
};

// 8 channels of sums (channels, tokens) to values (tokens, channels).
__attribute__((target("avx2"))) static void finish_channels(const int32_t* sums, uint32_t tokens,
                                                            const ChannelRounding rounding[8], int32_t most,
                                                            int32_t* values, uint32_t stride) {
  const __m256i top = _mm256_set1_epi32(most), bottom = _mm256_set1_epi32(-most);
  for (uint32_t t = 0; t < tokens; t += 8) {
    __m256i v[8];
#pragma GCC unroll 8
    for (uint32_t c = 0; c < 8; ++c) {
      const ChannelRounding& r = rounding[c];
      v[c] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + c * tokens + t));
      v[c] = _mm256_add_epi32(v[c], _mm256_set1_epi32(r.half));
      v[c] = _mm256_sra_epi32(v[c], _mm_cvtsi32_si128(int32_t(r.shift)));
      v[c] = _mm256_add_epi32(v[c], _mm256_set1_epi32(r.mean));
      v[c] = _mm256_max_epi32(_mm256_min_epi32(v[c], top), bottom);
    }
    transpose_8(v);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < 8; ++i) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(values + (t + i) * stride), v[i]);
    }
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
#endif
