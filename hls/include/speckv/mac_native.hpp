// The predictor's products for hosts: 32 of them an instruction where there is AVX2, chosen at run time. Exact:
// products of two values of -127..127 fit 16 bits in pairs. Never seen by HLS; tests compare both with the
// reference.
#pragma once
#include <cstdint>

#include "speckv/config.hpp"

#if defined(__x86_64__) && !defined(SPECKV_NO_DISPATCH)
#define SPECKV_MAC_NATIVE
#include <immintrin.h>

namespace speckv {
inline namespace SPECKV_VARIANT {

static inline bool mac_has_native() {
  static const bool has = __builtin_cpu_supports("avx2");
  return has;
}

// COUNT blocks side by side share the loads of x. acc[row] += row . x.
template <uint32_t INPUTS, uint32_t COUNT>
__attribute__((target("avx2"))) static inline void mac_native_blocks(const uint8_t* weights, const int8_t* x,
                                                                     const int8_t* magnitudes,
                                                                     int32_t* sums) {
  constexpr uint32_t BLOCK_BYTES = INPUTS * SPECKV_PREDICTOR_BLOCK;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[COUNT];
  for (uint32_t b = 0; b < COUNT; ++b)
    acc[b] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + b * SPECKV_PREDICTOR_BLOCK));
  for (uint32_t k = 0; k < INPUTS / 4; ++k) {
    int32_t four, four_magnitudes;
    __builtin_memcpy(&four, x + 4 * k, 4);
    __builtin_memcpy(&four_magnitudes, magnitudes + 4 * k, 4);
    const __m256i signs = _mm256_set1_epi32(four), factors = _mm256_set1_epi32(four_magnitudes);
    for (uint32_t b = 0; b < COUNT; ++b) {
      const __m256i w =
          _mm256_load_si256(reinterpret_cast<const __m256i*>(weights + b * BLOCK_BYTES + 32 * k));
      const __m256i pairs = _mm256_maddubs_epi16(factors, _mm256_sign_epi8(w, signs));
      acc[b] = _mm256_add_epi32(acc[b], _mm256_madd_epi16(pairs, ones));
    }
  }
  for (uint32_t b = 0; b < COUNT; ++b)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + b * SPECKV_PREDICTOR_BLOCK), acc[b]);
}

template <uint32_t INPUTS>
__attribute__((target("avx2"))) static void mac_native(const uint8_t* weights, uint32_t blocks,
                                                       const int8_t* x, int32_t* sums) {
  constexpr uint32_t BLOCK_BYTES = INPUTS * SPECKV_PREDICTOR_BLOCK, WIDE = 4;
  alignas(32) int8_t magnitudes[INPUTS];
  for (uint32_t i = 0; i < INPUTS; i += 32) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    _mm256_store_si256(reinterpret_cast<__m256i*>(magnitudes + i), _mm256_abs_epi8(v));
  }
  uint32_t b = 0;
  for (; b + WIDE <= blocks; b += WIDE)
    mac_native_blocks<INPUTS, WIDE>(weights + uint64_t(b) * BLOCK_BYTES, x, magnitudes,
                                    sums + b * SPECKV_PREDICTOR_BLOCK);
  for (; b < blocks; ++b)
    mac_native_blocks<INPUTS, 1>(weights + uint64_t(b) * BLOCK_BYTES, x, magnitudes,
                                 sums + b * SPECKV_PREDICTOR_BLOCK);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
#endif
