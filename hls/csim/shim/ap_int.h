// A small ap_uint for the native build: what kernels use it for is a port type, so a word is just its bytes.
// Vitis never sees this file; the real headers compile the same kernels in a test.
#pragma once
#include <cstdint>

// Alignment is 1 on purpose: a host buffer may start anywhere.
template <int W>
struct ap_uint {
  static_assert(W % 8 == 0, "whole bytes");
  uint8_t bytes[W / 8];

  // Up to 64 bits on byte bounds, as kernels ask for them under __SYNTHESIS__.
  struct Range {
    uint8_t* at;
    int count;
    operator uint64_t() const {
      uint64_t v = 0;
      for (int i = 0; i < count; ++i) v |= uint64_t(at[i]) << (8 * i);
      return v;
    }
    Range& operator=(uint64_t v) {
      for (int i = 0; i < count; ++i) at[i] = uint8_t(v >> (8 * i));
      return *this;
    }
  };
  Range range(int high, int low) { return Range{bytes + low / 8, (high - low + 1) / 8}; }
};
