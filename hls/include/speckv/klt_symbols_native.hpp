// klt's symbols for hosts, 16 tokens of a component at a time: their cost under a class, their codes, and
// rANS of 8 lanes at a time. Chosen at run time where there is AVX2. Never seen by HLS; tests compare both
// with the reference.
#pragma once
#include "speckv/rans_native.hpp"

#ifdef SPECKV_RANS_NATIVE
namespace speckv {
inline namespace SPECKV_VARIANT {

// Symbols of 16 values: the high bits within half, else the escape, 2 * half + 1.
__attribute__((target("avx2"))) static inline __m128i symbols_of_16(const int16_t* q, uint32_t raw_bits,
                                                                    int32_t half) {
  __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
  v = _mm256_sra_epi16(v, _mm_cvtsi32_si128(int32_t(raw_bits)));
  v = _mm256_adds_epi16(v, _mm256_set1_epi16(int16_t(half)));
  v = _mm256_min_epu16(v, _mm256_set1_epi16(int16_t(2 * half + 1)));  // what is negative is large unsigned
  return _mm_packus_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

// A byte of each of 32 table entries; looked up by 16 symbols below 32.
struct ByteTable {
  __m128i low, high;
};

__attribute__((target("avx2"))) static inline __m128i look_up(const ByteTable& t, __m128i symbols) {
  const __m128i bit4 = _mm_slli_epi16(symbols, 3);  // to each byte's sign; bits of a neighbour land below it
  return _mm_blendv_epi8(_mm_shuffle_epi8(t.low, symbols), _mm_shuffle_epi8(t.high, symbols), bit4);
}

// Sum of the costs of a component's symbols under one class. cost: of 32 symbols.
__attribute__((target("avx2"))) static uint32_t cost_native(const int16_t* q, uint32_t tokens,
                                                            uint32_t raw_bits, int32_t half,
                                                            const uint16_t* cost) {
  __m128i c[4];
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 4; ++i) c[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(cost) + i);
  const __m128i byte = _mm_set1_epi16(255);
  const ByteTable small = {_mm_packus_epi16(_mm_and_si128(c[0], byte), _mm_and_si128(c[1], byte)),
                           _mm_packus_epi16(_mm_and_si128(c[2], byte), _mm_and_si128(c[3], byte))};
  const ByteTable large = {_mm_packus_epi16(_mm_srli_epi16(c[0], 8), _mm_srli_epi16(c[1], 8)),
                           _mm_packus_epi16(_mm_srli_epi16(c[2], 8), _mm_srli_epi16(c[3], 8))};
  const __m128i zero = _mm_setzero_si128();
  __m128i sum = zero;
  for (uint32_t t = 0; t < tokens; t += 16) {
    const __m128i symbols = symbols_of_16(q + t, raw_bits, half);
    sum = _mm_add_epi64(sum, _mm_sad_epu8(look_up(small, symbols), zero));
    sum = _mm_add_epi64(sum, _mm_slli_epi64(_mm_sad_epu8(look_up(large, symbols), zero), 8));
  }
  return uint32_t(_mm_cvtsi128_si32(sum)) + uint32_t(_mm_extract_epi32(sum, 2));
}

// Codes of a component's symbols, none with frequency zero. Returns whether a symbol is the escape.
__attribute__((target("avx2"))) static bool codes_native(const int16_t* q, uint32_t tokens, uint32_t raw_bits,
                                                         int32_t half, const uint32_t* codes, uint32_t* to) {
  LoadedCodes table;
  load_codes(codes, table);
  const __m256i zero = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (uint32_t i = 0; i < 4; ++i) {
    const __m256i none = _mm256_cmpeq_epi32(_mm256_slli_epi32(table[i], 16), zero);
    table[i] = _mm256_or_si256(table[i], _mm256_srli_epi32(none, 31));
  }
  const __m128i escape = _mm_set1_epi8(int8_t(2 * half + 1));
  __m128i escaped = _mm_setzero_si128();
  for (uint32_t t = 0; t < tokens; t += 16) {
    const __m128i symbols = symbols_of_16(q + t, raw_bits, half);
    auto* out = reinterpret_cast<__m256i*>(to + t);
    _mm256_storeu_si256(out, codes_of(table, _mm256_cvtepu8_epi32(symbols)));
    _mm256_storeu_si256(out + 1, codes_of(table, _mm256_cvtepu8_epi32(_mm_srli_si128(symbols, 8))));
    escaped = _mm_or_si128(escaped, _mm_cmpeq_epi8(symbols, escape));
  }
  return _mm_movemask_epi8(escaped) != 0;
}

// A component's values from its symbols and low bits, where none is escaped, beyond `limit` or in need of
// more than 16 bits; false: what is written does not count.
__attribute__((target("avx2"))) static bool values_native(const uint8_t* symbols, const uint8_t* raw,
                                                          uint32_t tokens, uint32_t raw_bits, int32_t half,
                                                          int32_t limit, int16_t* q) {
  if ((half + 1) << raw_bits > INT16_MAX || limit < 0) return false;
  const __m256i lane =
      _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, INT16_MIN);
  const __m256i escape = _mm256_set1_epi16(int16_t(2 * half)), most = _mm256_set1_epi16(int16_t(limit));
  const __m128i shift = _mm_cvtsi32_si128(int32_t(raw_bits));
  __m256i beyond = _mm256_setzero_si256();
  for (uint32_t t = 0; t < tokens; t += 16) {
    const __m256i s = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols + t)));
    __m256i v = _mm256_sll_epi16(_mm256_sub_epi16(s, _mm256_set1_epi16(int16_t(half))), shift);
    for (uint32_t bit = 0; bit < raw_bits; ++bit) {
      int16_t plane;
      __builtin_memcpy(&plane, raw + bit * (tokens / 8) + t / 8, 2);
      const __m256i set = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(plane), lane), lane);
      v = _mm256_add_epi16(v, _mm256_and_si256(set, _mm256_set1_epi16(int16_t(1 << bit))));
    }
    beyond = _mm256_or_si256(beyond, _mm256_cmpgt_epi16(s, escape));
    beyond = _mm256_or_si256(beyond, _mm256_cmpgt_epi16(_mm256_abs_epi16(v), most));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + t), v);
  }
  return _mm256_testz_si256(beyond, beyond) != 0;
}

// x / f, the float quotient corrected by one at most; x < f * 2^20 or f >= 4096, f below 2^16 and not zero.
__attribute__((target("avx2"))) static inline __m256i divide_8(__m256i x, __m256i f, __m256i& remainder) {
  const __m256i one = _mm256_set1_epi32(1), low_half = _mm256_set1_epi32(0xFFFF);
  const __m256 high = _mm256_cvtepi32_ps(_mm256_srli_epi32(x, 16));
  const __m256 low = _mm256_cvtepi32_ps(_mm256_and_si256(x, low_half));
  const __m256 real = _mm256_add_ps(_mm256_mul_ps(high, _mm256_set1_ps(65536.0f)), low);
  __m256i q = _mm256_cvttps_epi32(_mm256_div_ps(real, _mm256_cvtepi32_ps(f)));
  __m256i r = _mm256_sub_epi32(x, _mm256_mullo_epi32(q, f));
  const __m256i below = _mm256_srai_epi32(r, 31);  // the quotient is one too large
  q = _mm256_add_epi32(q, below);
  r = _mm256_add_epi32(r, _mm256_and_si256(below, f));
  const __m256i above = _mm256_cmpgt_epi32(r, _mm256_sub_epi32(f, one));  // one too small
  remainder = _mm256_sub_epi32(r, _mm256_and_si256(above, f));
  return _mm256_sub_epi32(q, above);
}

// rans_encode, for a count that is a multiple of 8; 8 words below the last one may be written.
__attribute__((target("avx2,popcnt"))) static uint32_t rans_encode_native(const uint32_t* codes,
                                                                          uint32_t count,
                                                                          uint32_t state[ENTROPY_LANES],
                                                                          uint16_t* words_end) {
  const __m256i low_half = _mm256_set1_epi32(0xFFFF);
  uint16_t* to = words_end;
  for (uint32_t i = count; i > 0;) {
    i -= 8;
    auto* at = reinterpret_cast<__m256i*>(state + i % ENTROPY_LANES);
    const __m256i code = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + i));
    const __m256i f = _mm256_and_si256(code, low_half);
    __m256i x = _mm256_loadu_si256(at);
    const __m256i keep = _mm256_cmpgt_epi32(f, _mm256_srli_epi32(x, 32 - ENTROPY_BITS));
    const uint32_t mask = ~uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(keep))) & 255;
    const __m256i halves = _mm256_and_si256(x, low_half);
    const __m128i eight =
        _mm_packus_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
    const __m128i order = _mm_loadu_si128(reinterpret_cast<const __m128i*>(WORD_SHUFFLES.gather[mask]));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to - 8), _mm_shuffle_epi8(eight, order));
    to -= __builtin_popcount(mask);
    x = _mm256_srlv_epi32(x, _mm256_andnot_si256(keep, _mm256_set1_epi32(16)));
    __m256i remainder;
    const __m256i quotient = divide_8(x, f, remainder);
    const __m256i next = _mm256_add_epi32(_mm256_slli_epi32(quotient, ENTROPY_BITS), remainder);
    _mm256_storeu_si256(at, _mm256_add_epi32(next, _mm256_srli_epi32(code, 16)));
  }
  return uint32_t(words_end - to);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
#endif
