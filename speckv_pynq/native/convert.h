// Element conversions, portable and AVX2 + F16C: the same bits from both (the policy stands in
// speckv_core.h).
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define SPECKV_HAS_AVX2 1
#include <immintrin.h>
#define SPECKV_AVX2 __attribute__((target("avx2,f16c"), always_inline)) inline
#endif

namespace speckv {

struct Fp16 {
  using Word = uint16_t;
};
struct Bf16 {
  using Word = uint16_t;
};
struct Fp32 {
  using Word = uint32_t;
};

constexpr uint32_t kInfinity = 0x7F800000u;
constexpr uint32_t kFp16Overflow =
    0x477FF000u;  // 65520: half way between the largest fp16 and the next power of two
constexpr uint32_t kBf16Overflow = 0x7F7F8000u;

inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Loads give the bits of an fp32. Selects instead of branches, so that compilers vectorise the loops around
// them.
inline uint32_t load(Fp32, uint32_t word) { return word; }

inline uint32_t load(Bf16, uint16_t word) { return static_cast<uint32_t>(word) << 16; }

inline uint32_t load(Fp16, uint16_t word) {
  const uint32_t magnitude = word & 0x7FFFu;
  const uint32_t sign = static_cast<uint32_t>(word & 0x8000u) << 16;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  // 0.5 + m * 2^-24 has m as its low mantissa bits, so the difference is exactly the subnormal's value.
  const uint32_t subnormal = as_bits(as_float(0x3F000000u + magnitude) - 0.5f);
  const uint32_t special = kInfinity | (magnitude << 13 & 0x7FFFFFu) | (magnitude > 0x7C00u ? 0x400000u : 0u);
  const uint32_t finite = magnitude < 0x0400u ? subnormal : normal;
  return sign | (magnitude >= 0x7C00u ? special : finite);
}

// Stores return the word and add 1 to overflows when a finite value became infinite.
inline uint32_t store(Fp32, uint32_t bits, uint32_t&) { return bits; }

inline uint16_t store(Bf16, uint32_t bits, uint32_t& overflows) {
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  overflows += magnitude >= kBf16Overflow && magnitude < kInfinity ? 1u : 0u;
  const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  return static_cast<uint16_t>(magnitude > kInfinity ? (bits >> 16 | 0x40u) : rounded);
}

inline uint16_t store(Fp16, uint32_t bits, uint32_t& overflows) {
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  overflows += magnitude >= kFp16Overflow && magnitude < kInfinity ? 1u : 0u;
  const uint32_t normal = (magnitude - (112u << 23) + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  // Below 2^-14, adding 0.5 leaves units of 2^-24 in the mantissa, rounded to nearest even.
  const uint32_t subnormal = as_bits(as_float(magnitude) + 0.5f) - 0x3F000000u;
  const uint32_t nan = 0x7E00u | (magnitude >> 13 & 0x3FFu);
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t special = magnitude > kInfinity ? nan : 0x7C00u;
  return static_cast<uint16_t>((bits >> 16 & 0x8000u) | (magnitude >= kFp16Overflow ? special : finite));
}

template <class From, class To>
inline void convert_row(const typename From::Word* from, typename To::Word* to, uint32_t count,
                        uint32_t& overflows) {
  for (uint32_t i = 0; i < count; ++i) to[i] = store(To{}, load(From{}, from[i]), overflows);
}

#ifdef SPECKV_HAS_AVX2
SPECKV_AVX2 __m256i load8(Fp32, const uint32_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

SPECKV_AVX2 __m256i load8(Bf16, const uint16_t* from) {
  return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))),
                           16);
}

SPECKV_AVX2 __m256i load8(Fp16, const uint16_t* from) {
  return _mm256_castps_si256(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

// overflows counts down (compares give -1), eight counters.
SPECKV_AVX2 __m256i count_overflows(__m256i magnitude, uint32_t first, __m256i overflows) {
  const __m256i big = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(static_cast<int>(first - 1)));
  const __m256i finite = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(kInfinity)), magnitude);
  return _mm256_add_epi32(overflows, _mm256_and_si256(big, finite));
}

SPECKV_AVX2 void store8(Fp32, __m256i bits, uint32_t* to, __m256i&) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bits);
}

SPECKV_AVX2 void store8(Fp16, __m256i bits, uint16_t* to, __m256i& overflows) {
  const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
  overflows = count_overflows(magnitude, kFp16Overflow, overflows);
  const __m128i words =
      _mm256_cvtps_ph(_mm256_castsi256_ps(bits), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), words);
}

SPECKV_AVX2 void store8(Bf16, __m256i bits, uint16_t* to, __m256i& overflows) {
  const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
  overflows = count_overflows(magnitude, kBf16Overflow, overflows);
  const __m256i high = _mm256_srli_epi32(bits, 16);
  const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  const __m256i is_nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(static_cast<int>(kInfinity)));
  const __m256i nan = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  const __m256i words = _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), nan, is_nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}

template <class From, class To>
SPECKV_AVX2 void convert_row_avx2(const typename From::Word* from, typename To::Word* to, uint32_t count,
                                  __m256i& overflows) {
  for (uint32_t i = 0; i < count; i += 8) store8(To{}, load8(From{}, from + i), to + i, overflows);
}
#endif

}  // namespace speckv
