// Rounding of int4's decoded values for hosts: what round_to does, by float32 arithmetic that is exact but
// for one addition, which rounds as wanted (to nearest, ties to even: every thread's default mode). No
// subnormal float occurs, so flush-to-zero modes do not matter. Never seen by HLS; tests compare both with
// the reference.
#pragma once
#include "speckv/float_bits.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

SPECKV_INLINE float bits_to_float(int32_t bits) {
  float f;
  std::memcpy(&f, &bits, sizeof(f));
  return f;
}

SPECKV_INLINE int32_t float_to_bits(float f) {
  int32_t bits;
  std::memcpy(&bits, &f, sizeof(bits));
  return bits;
}

template <class F>
struct RealRounding {
  static constexpr int32_t DROP = 23 - int32_t(F::MANTISSA_BITS);
  // bf16 has float32's exponents: computed 2^64 higher, where its subnormals are not float32's.
  static constexpr int32_t LIFT = F::BIAS == 127 ? 64 : 0;
  // 2^DROP times the least normal value: adding it rounds to the subnormals' spacing.
  static constexpr int32_t FLOOR = (1 - F::BIAS + LIFT + DROP + 127) << 23;
  static constexpr int32_t LARGEST = int32_t(infinity_bits<F>()) - 1;
  // p * 2^unit: above this unit an exponent could leave float32, and round_to has to do it.
  static constexpr int32_t UNIT_MAX = 20;
  // Below this one everything rounds to zero, as it does at this one.
  static constexpr int32_t UNIT_MIN = 1 - F::BIAS - int32_t(F::MANTISSA_BITS) - 30;
};

// 2^unit, lifted.
template <class F>
SPECKV_INLINE float real_scale(int32_t unit) {
  using R = RealRounding<F>;
  const int32_t u = unit < R::UNIT_MIN ? R::UNIT_MIN : unit > R::UNIT_MAX ? R::UNIT_MAX : unit;
  return bits_to_float((u + R::LIFT + 127) << 23);
}

// |p| < 2^24.
template <class F>
SPECKV_INLINE uint16_t round_real(int32_t p, float scale) {
  using R = RealRounding<F>;
  const int32_t bits = float_to_bits(float(p) * scale);
  // 2^DROP times the value's power of two: the sum has the type's last bit as its last bit.
  int32_t base = (bits & 0x7F800000) + (R::DROP << 23);
  base = base < R::FLOOR ? R::FLOOR : base;
  const int32_t sum = float_to_bits(bits_to_float(bits & 0x7FFFFFFF) + bits_to_float(base));
  int32_t magnitude = (sum - base) + ((base - R::FLOOR) >> R::DROP);
  magnitude = magnitude > R::LARGEST ? R::LARGEST : magnitude;
  return uint16_t(magnitude | (bits >> 16 & 0x8000));
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
