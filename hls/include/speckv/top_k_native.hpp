// The search for scores that count, for hosts: eight comparisons an instruction where there is AVX2. Never
// seen by
// HLS.
#pragma once
#include "speckv/mac_native.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t SCAN_AHEAD = 8;  // scores behind the last one that may be read

#ifdef SPECKV_MAC_NATIVE
#define SPECKV_SCAN_NATIVE
static inline bool scan_has_native() { return mac_has_native(); }

// The first of scores i .. n - 1 that is at least `worst`; n or more: none.
__attribute__((target("avx2"))) static uint32_t scan_native(const int32_t* scores, uint32_t i, uint32_t n,
                                                            int32_t worst) {
  const __m256i limit = _mm256_set1_epi32(worst);
  for (; i < n; i += 8) {
    const __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores + i));
    const __m256i below = _mm256_cmpgt_epi32(limit, eight);
    const uint32_t found = ~uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(below))) & 255;
    if (found) return i + uint32_t(__builtin_ctz(found));
  }
  return n;
}

// What the `keep` best of n scores are not below: the keep-th best of the maxima of 16 groups.
__attribute__((target("avx2"))) static int32_t floor_native(const int32_t* scores, uint32_t n,
                                                            uint32_t keep) {
  const __m256i never = _mm256_set1_epi32(INT32_MIN);
  __m256i low = never, high = never;
  for (uint32_t i = 0; i + 16 <= n; i += 16) {
    const auto* at = reinterpret_cast<const __m256i*>(scores + i);
    low = _mm256_max_epi32(low, _mm256_loadu_si256(at));
    high = _mm256_max_epi32(high, _mm256_loadu_si256(at + 1));
  }
  alignas(32) int32_t maxima[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(maxima), low);
  _mm256_store_si256(reinterpret_cast<__m256i*>(maxima) + 1, high);
  __m256i above_low = _mm256_setzero_si256(), above_high = above_low;  // how many are larger, negated
#pragma GCC unroll 16
  for (uint32_t i = 0; i < 16; ++i) {
    const __m256i one = _mm256_set1_epi32(maxima[i]);
    above_low = _mm256_add_epi32(above_low, _mm256_cmpgt_epi32(one, low));
    above_high = _mm256_add_epi32(above_high, _mm256_cmpgt_epi32(one, high));
  }
  const __m256i few = _mm256_set1_epi32(1 - int32_t(keep));  // above > few: among the keep - 1 best
  low = _mm256_blendv_epi8(low, never, _mm256_cmpgt_epi32(above_low, few));
  high = _mm256_blendv_epi8(high, never, _mm256_cmpgt_epi32(above_high, few));
  _mm256_store_si256(reinterpret_cast<__m256i*>(maxima), _mm256_max_epi32(low, high));
  int32_t most = maxima[0];
  for (uint32_t i = 1; i < 8; ++i) most = maxima[i] > most ? maxima[i] : most;
  return most;
}
#endif

}  // namespace SPECKV_VARIANT
}  // namespace speckv
