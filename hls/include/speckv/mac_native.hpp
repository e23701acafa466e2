// The predictor's products for hosts: 32 of them an instruction where there is AVX2, chosen at run time.
// Exact: products of two values of -127..127 fit 16 bits in pairs. Never seen by HLS; tests compare both with
// the reference.
#pragma once
#include <cstdint>

#include "speckv/config.hpp"

#if defined(__x86_64__)
#define SPECKV_MAC_NATIVE
#include <immintrin.h>

namespace speckv {
inline namespace SPECKV_VARIANT {

static inline bool mac_has_native() {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}

// A vector as the products want it: magnitudes, and a mask of ones where it is negative. With the mask a
// weight w becomes -w - 1, so that sums lack the magnitudes of what is negative: `lacking`, the same for
// every row.
template <uint32_t INPUTS>
struct MacVector {
  alignas(32) uint8_t magnitudes[INPUTS];
  alignas(32) uint8_t mask[INPUTS];
  int32_t lacking;
};

template <uint32_t INPUTS>
__attribute__((target("avx2"))) static inline void mac_vector(const int8_t* x, MacVector<INPUTS>& v) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i lacking = zero;
  for (uint32_t i = 0; i < INPUTS; i += 32) {
    const __m256i value = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    const __m256i magnitude = _mm256_abs_epi8(value), mask = _mm256_cmpgt_epi8(zero, value);
    _mm256_store_si256(reinterpret_cast<__m256i*>(v.magnitudes + i), magnitude);
    _mm256_store_si256(reinterpret_cast<__m256i*>(v.mask + i), mask);
    lacking = _mm256_add_epi64(lacking, _mm256_sad_epu8(_mm256_and_si256(magnitude, mask), zero));
  }
  alignas(32) int64_t four[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(four), lacking);
  v.lacking = int32_t(four[0] + four[1] + four[2] + four[3]);
}

__attribute__((target("avx2"))) static inline __m256i mac_broadcast(const uint8_t* four) {
  int32_t word;
  __builtin_memcpy(&word, four, 4);
  return _mm256_set1_epi32(word);
}

// COUNT blocks side by side share the loads of the vector. sums[row] += row . x.
template <uint32_t INPUTS, uint32_t COUNT>
__attribute__((target("avx2"))) static inline void mac_native_blocks(const uint8_t* weights,
                                                                     const MacVector<INPUTS>& v,
                                                                     int32_t* sums) {
  constexpr uint32_t BLOCK_BYTES = INPUTS * SPECKV_PREDICTOR_BLOCK;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[COUNT];
#pragma GCC unroll 8
  for (uint32_t b = 0; b < COUNT; ++b) acc[b] = _mm256_set1_epi32(v.lacking);
  for (uint32_t k = 0; k < INPUTS / 4; ++k) {
    const __m256i factors = mac_broadcast(v.magnitudes + 4 * k), mask = mac_broadcast(v.mask + 4 * k);
#pragma GCC unroll 8
    for (uint32_t b = 0; b < COUNT; ++b) {
      const __m256i w =
          _mm256_load_si256(reinterpret_cast<const __m256i*>(weights + b * BLOCK_BYTES + 32 * k));
      const __m256i pairs = _mm256_maddubs_epi16(factors, _mm256_xor_si256(w, mask));
      acc[b] = _mm256_add_epi32(acc[b], _mm256_madd_epi16(pairs, ones));
    }
  }
#pragma GCC unroll 8
  for (uint32_t b = 0; b < COUNT; ++b) {
    __m256i* to = reinterpret_cast<__m256i*>(sums + b * SPECKV_PREDICTOR_BLOCK);
    _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), acc[b]));
  }
}

template <uint32_t INPUTS, uint32_t WIDE = 4>
__attribute__((target("avx2"))) static void mac_native(const uint8_t* weights, uint32_t blocks,
                                                       const int8_t* x, int32_t* sums) {
  constexpr uint32_t BLOCK_BYTES = INPUTS * SPECKV_PREDICTOR_BLOCK;
  MacVector<INPUTS> v;
  mac_vector(x, v);
  uint32_t b = 0;
  for (; b + WIDE <= blocks; b += WIDE)
    mac_native_blocks<INPUTS, WIDE>(weights + uint64_t(b) * BLOCK_BYTES, v,
                                    sums + b * SPECKV_PREDICTOR_BLOCK);
  for (; b < blocks; ++b)
    mac_native_blocks<INPUTS, 1>(weights + uint64_t(b) * BLOCK_BYTES, v, sums + b * SPECKV_PREDICTOR_BLOCK);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
#endif
