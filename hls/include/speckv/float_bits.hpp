// fp16 and bf16 as integers: |x| = mantissa * 2^(exponent - bias - mantissa bits). The exponent is the stored
// field, 1 for subnormals, so one formula covers both.
#pragma once
#include "speckv/config.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

struct Fp16 {
  static constexpr uint32_t MANTISSA_BITS = 10;
  static constexpr uint32_t EXPONENT_MAX = 31;
  static constexpr int32_t BIAS = 15;
};
struct Bf16 {
  static constexpr uint32_t MANTISSA_BITS = 7;
  static constexpr uint32_t EXPONENT_MAX = 255;
  static constexpr int32_t BIAS = 127;
};

// Magnitude bits of infinity; anything at or above is not finite.
template <class F>
SPECKV_INLINE constexpr uint32_t infinity_bits() {
  return F::EXPONENT_MAX << F::MANTISSA_BITS;
}

template <class F>
SPECKV_INLINE int32_t exponent_of(int32_t magnitude) {
#pragma HLS INLINE  // wires and one compare
  const int32_t e = magnitude >> F::MANTISSA_BITS;
  return e > 1 ? e : 1;
}

template <class F>
SPECKV_INLINE int32_t mantissa_of(int32_t magnitude) {
#pragma HLS INLINE  // wires and one compare
  const int32_t hidden = 1 << F::MANTISSA_BITS;
  return (magnitude & (hidden - 1)) | (magnitude >= hidden ? hidden : 0);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
