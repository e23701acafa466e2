// rANS for hosts, half a round of 16 lanes at a time: AVX2, or AVX-512 in one vector, chosen at run time.
// Never seen by HLS; tests compare both with the reference. A damaged stream reads what a scalar decoder
// would: zeros beyond the last word.
#pragma once
#include "speckv/mac_native.hpp"
#include "speckv/rans.hpp"

#ifdef SPECKV_MAC_NATIVE
#define SPECKV_RANS_NATIVE
namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t HALF_LANES = ENTROPY_LANES / 2;
static_assert(SPECKV_ENTROPY_SYMBOLS == 32 && ENTROPY_LANES == 32,
              "tables of 4 vectors, rounds of 4 vectors");

// By a mask of 8 lanes, bytes of 8 words: which go to the lanes of the mask (`spread`), or which of them are
// gathered at the end (`gather`).
struct WordShuffles {
  uint8_t spread[256][16], gather[256][16];
};

constexpr WordShuffles word_shuffles() {
  WordShuffles s{};
  for (uint32_t mask = 0; mask < 256; ++mask) {
    uint32_t count = 0, at = 0;
    for (uint32_t l = 0; l < 8; ++l) count += mask >> l & 1;
    for (uint32_t i = 0; i < 16; ++i) s.spread[mask][i] = s.gather[mask][i] = 0x80;
    for (uint32_t l = 0; l < 8; ++l) {
      if (!(mask >> l & 1)) continue;
      for (uint32_t b = 0; b < 2; ++b) {
        s.spread[mask][2 * l + b] = uint8_t(2 * at + b);
        s.gather[mask][2 * (8 - count + at) + b] = uint8_t(2 * l + b);
      }
      ++at;
    }
  }
  return s;
}

static constexpr WordShuffles WORD_SHUFFLES = word_shuffles();

// A record's words; the last ones again with zeros behind them, so that 16 can be read anywhere.
struct WordStream {
  const uint16_t* words;
  uint32_t count, tail_at;
  uint16_t tail[2 * HALF_LANES];
};

SPECKV_INLINE void open_stream(const uint16_t* words, uint32_t count, WordStream& s) {
  s.words = words;
  s.count = count;
  s.tail_at = count > HALF_LANES ? count - HALF_LANES : 0;
  for (uint32_t i = 0; i < 2 * HALF_LANES; ++i) s.tail[i] = s.tail_at + i < count ? words[s.tail_at + i] : 0;
}

SPECKV_INLINE const uint16_t* next_words(const WordStream& s, uint32_t used) {
  if (used + HALF_LANES <= s.count) return s.words + used;
  return s.tail + ((used < s.count ? used : s.count) - s.tail_at);
}

// What decodes the symbols of one component.
struct SymbolTables {
  const uint8_t* symbol_at;  // inside the codebook image, and not its first bytes
  const uint32_t* codes;
};

using LoadedCodes = __m256i[4];

__attribute__((target("avx2"))) static inline void load_codes(const uint32_t* codes, LoadedCodes& table) {
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 4; ++i) table[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes) + i);
}

// The codes of 8 symbols below 32.
__attribute__((target("avx2"))) static inline __m256i codes_of(const LoadedCodes& table, __m256i symbols) {
  const __m256 bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(symbols, 28));
  const __m256 bit4 = _mm256_castsi256_ps(_mm256_slli_epi32(symbols, 27));
  __m256 part[4];
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 4; ++i) {
    part[i] = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(table[i], symbols));
  }
  const __m256 low = _mm256_blendv_ps(part[0], part[1], bit3);
  const __m256 high = _mm256_blendv_ps(part[2], part[3], bit3);
  return _mm256_castps_si256(_mm256_blendv_ps(low, high, bit4));
}

// 8 lanes up to the words they want: symbols, states, and the mask of lanes that want one.
struct EightLanes {
  __m256i symbols, state;
  uint32_t mask;
};

__attribute__((target("avx2"))) static inline void decode_8(const SymbolTables& t, const LoadedCodes& table,
                                                            const uint32_t* state, EightLanes& out) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state));
  const __m256i slot = _mm256_and_si256(x, _mm256_set1_epi32((1 << ENTROPY_BITS) - 1));
  // The byte that is wanted is the highest of four: what lies before the table is the image's too.
  const __m256i four = _mm256_i32gather_epi32(reinterpret_cast<const int*>(t.symbol_at - 3), slot, 1);
  out.symbols = _mm256_and_si256(_mm256_srli_epi32(four, 24), _mm256_set1_epi32(31));
  const __m256i code = codes_of(table, out.symbols);
  const __m256i frequency = _mm256_and_si256(code, _mm256_set1_epi32(0xFFFF));
  const __m256i rest = _mm256_sub_epi32(slot, _mm256_srli_epi32(code, 16));
  const __m256i y = _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(x, ENTROPY_BITS)), rest);
  const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(y, 16), _mm256_setzero_si256());
  out.state = _mm256_sllv_epi32(y, _mm256_and_si256(low, _mm256_set1_epi32(16)));
  out.mask = uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(low)));
}

__attribute__((target("avx2"))) static inline void take_words(const uint16_t* words, const EightLanes& v,
                                                              uint32_t* state) {
  const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
  const __m128i order = _mm_loadu_si128(reinterpret_cast<const __m128i*>(WORD_SHUFFLES.spread[v.mask]));
  const __m256i next = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(eight, order));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(state), _mm256_or_si256(v.state, next));
}

// 16 symbols of lanes first .. first + 15; `state` those lanes'. Returns the words used.
__attribute__((target("avx2,popcnt"))) static inline uint32_t half_round(const SymbolTables& t,
                                                                         const LoadedCodes& table,
                                                                         const uint16_t* words,
                                                                         uint32_t* state, uint8_t* symbols) {
  EightLanes a, b;
  decode_8(t, table, state, a);
  decode_8(t, table, state + 8, b);
  const uint32_t first = uint32_t(__builtin_popcount(a.mask));
  take_words(words, a, state);
  take_words(words + first, b, state + 8);
  const __m256i words_16 = _mm256_packus_epi32(a.symbols, b.symbols);  // in the order 0 2 1 3 of fours
  const __m256i ordered = _mm256_permute4x64_epi64(words_16, 0xD8);
  const __m128i bytes =
      _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(symbols), bytes);
  return first + uint32_t(__builtin_popcount(b.mask));
}

// One component: `tokens` symbols, 16 at a time, from lane `lane` (0 or 16) on.
__attribute__((target("avx2,popcnt"))) static void decode_component_avx2(RansDecoder& r, const WordStream& s,
                                                                         const SymbolTables& t, uint32_t lane,
                                                                         uint32_t tokens, uint8_t* symbols) {
  LoadedCodes table;
  load_codes(t.codes, table);
  for (uint32_t i = 0; i < tokens; i += HALF_LANES, lane ^= HALF_LANES) {
    r.used += half_round(t, table, next_words(s, r.used), r.state + lane, symbols + i);
  }
}

__attribute__((target("avx512f,popcnt"))) static void decode_component_avx512(RansDecoder& r,
                                                                              const WordStream& s,
                                                                              const SymbolTables& t,
                                                                              uint32_t lane, uint32_t tokens,
                                                                              uint8_t* symbols) {
  const __m512i low_codes = _mm512_loadu_si512(t.codes), high_codes = _mm512_loadu_si512(t.codes + 16);
  for (uint32_t i = 0; i < tokens; i += HALF_LANES, lane ^= HALF_LANES) {
    const __m512i x = _mm512_loadu_si512(r.state + lane);
    const __m512i slot = _mm512_and_si512(x, _mm512_set1_epi32((1 << ENTROPY_BITS) - 1));
    const __m512i four = _mm512_i32gather_epi32(slot, t.symbol_at - 3, 1);  // as above
    const __m512i symbol = _mm512_and_si512(_mm512_srli_epi32(four, 24), _mm512_set1_epi32(31));
    const __m512i code = _mm512_permutex2var_epi32(low_codes, symbol, high_codes);
    const __m512i frequency = _mm512_and_si512(code, _mm512_set1_epi32(0xFFFF));
    const __m512i rest = _mm512_sub_epi32(slot, _mm512_srli_epi32(code, 16));
    const __m512i y =
        _mm512_add_epi32(_mm512_mullo_epi32(frequency, _mm512_srli_epi32(x, ENTROPY_BITS)), rest);
    const __mmask16 low = _mm512_cmplt_epu32_mask(y, _mm512_set1_epi32(int32_t(STATE_LOW)));
    const auto* words = reinterpret_cast<const __m256i*>(next_words(s, r.used));
    const __m512i next = _mm512_maskz_expand_epi32(low, _mm512_cvtepu16_epi32(_mm256_loadu_si256(words)));
    _mm512_storeu_si512(r.state + lane, _mm512_or_si512(_mm512_mask_slli_epi32(y, low, y, 16), next));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(symbols + i), _mm512_cvtepi32_epi8(symbol));
    r.used += uint32_t(__builtin_popcount(low));
  }
}

static inline bool rans_has_avx512() {
  static const bool has = __builtin_cpu_supports("avx512f");
  return has;
}

static inline bool rans_has_native() {
  static const bool has = mac_has_native() && __builtin_cpu_supports("popcnt");
  return has;
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
#endif
