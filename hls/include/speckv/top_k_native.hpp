// The search for scores that count, for hosts: eight comparisons an instruction where there is AVX2. Never seen by
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
#endif

}  // namespace SPECKV_VARIANT
}  // namespace speckv
