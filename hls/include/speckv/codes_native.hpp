// Logits of rows of codes for hosts, 64 products in two instructions. Exact whatever the bytes: 8 sums of two
// products of 0..15 and -127..127 fit 16 bits. Never seen by HLS; tests compare both with the reference.
#pragma once
#include "speckv/mac_native.hpp"

#ifdef SPECKV_MAC_NATIVE
namespace speckv {
inline namespace SPECKV_VARIANT {

__attribute__((target("avx2"))) static inline __m256i load_bytes(const uint8_t* eight, bool is_signed) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(eight));
  return is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
}

// COUNT blocks side by side share the loads of u. offset: what all rows' sums have too much of, negated.
template <uint32_t INPUTS, uint32_t COUNT>
__attribute__((target("avx2"))) static inline void code_native_blocks(const uint8_t* codes,
                                                                      const uint8_t* scales,
                                                                      const uint8_t* biases, const int8_t* u,
                                                                      int32_t offset, int32_t* logits) {
  static_assert(INPUTS / 8 <= 8, "sums of 16 bits");
  constexpr uint32_t BLOCK_BYTES = INPUTS / 2 * SPECKV_PREDICTOR_BLOCK;
  const __m256i low_half = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256i low[COUNT], high[COUNT];
#pragma GCC unroll 8
  for (uint32_t b = 0; b < COUNT; ++b) low[b] = high[b] = _mm256_setzero_si256();
#pragma GCC unroll 8
  for (uint32_t g = 0; g < INPUTS / 8; ++g) {
    const auto* eight = reinterpret_cast<const uint8_t*>(u + 8 * g);
    const __m256i first = mac_broadcast(eight), second = mac_broadcast(eight + 4);
#pragma GCC unroll 8
    for (uint32_t b = 0; b < COUNT; ++b) {
      const __m256i v = _mm256_load_si256(reinterpret_cast<const __m256i*>(codes + b * BLOCK_BYTES + 32 * g));
      const __m256i lows = _mm256_and_si256(v, low_half);
      const __m256i highs = _mm256_and_si256(_mm256_srli_epi16(v, 4), low_half);
      low[b] = _mm256_add_epi16(low[b], _mm256_maddubs_epi16(lows, first));
      high[b] = _mm256_add_epi16(high[b], _mm256_maddubs_epi16(highs, second));
    }
  }
#pragma GCC unroll 8
  for (uint32_t b = 0; b < COUNT; ++b) {
    const uint32_t row = b * SPECKV_PREDICTOR_BLOCK;
    __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(low[b], ones), _mm256_madd_epi16(high[b], ones));
    sum = _mm256_add_epi32(sum, _mm256_set1_epi32(offset));
    sum = _mm256_mullo_epi32(sum, load_bytes(scales + row, false));
    sum = _mm256_add_epi32(sum, _mm256_slli_epi32(load_bytes(biases + row, true), 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(logits + row), sum);
  }
}

template <uint32_t INPUTS>
__attribute__((target("avx2"))) static void code_logits_native(const uint8_t* codes, const uint8_t* scales,
                                                               const uint8_t* biases, uint32_t blocks,
                                                               const int8_t* u, int32_t* logits) {
  constexpr uint32_t BLOCK_BYTES = INPUTS / 2 * SPECKV_PREDICTOR_BLOCK, WIDE = 4;
  int32_t offset = 0;
  for (uint32_t i = 0; i < INPUTS; ++i) offset -= 8 * u[i];
  uint32_t b = 0;
  for (; b + WIDE <= blocks; b += WIDE) {
    const uint32_t row = b * SPECKV_PREDICTOR_BLOCK;
    code_native_blocks<INPUTS, WIDE>(codes + uint64_t(b) * BLOCK_BYTES, scales + row, biases + row, u, offset,
                                     logits + row);
  }
  const uint32_t row = b * SPECKV_PREDICTOR_BLOCK;
  codes += uint64_t(b) * BLOCK_BYTES, scales += row, biases += row, logits += row;
  if (blocks - b == 3) code_native_blocks<INPUTS, 3>(codes, scales, biases, u, offset, logits);
  if (blocks - b == 2) code_native_blocks<INPUTS, 2>(codes, scales, biases, u, offset, logits);
  if (blocks - b == 1) code_native_blocks<INPUTS, 1>(codes, scales, biases, u, offset, logits);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
#endif
