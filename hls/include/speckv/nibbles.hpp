// Bytes, nibbles and 16-bit lanes, kept apart from arithmetic: natively a loop that mixes bytes with 32-bit
// lanes only becomes code for half vectors.
#pragma once
#include <cstring>

#include "speckv/config.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t HALF = LANES / 2;

#ifndef __SYNTHESIS__
// One 32-byte store, which a 32-byte load can follow at once; two of 16 bytes would stall it.
typedef uint8_t ByteVector __attribute__((vector_size(16)));
typedef uint16_t LaneVector __attribute__((vector_size(32)));
typedef LaneVector LaneVectorAt __attribute__((aligned(2), may_alias));
#endif

SPECKV_INLINE void widen(const uint8_t bytes[HALF], uint16_t lanes[HALF]) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // wires only
LANE:
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // wires only
    lanes[l] = bytes[l];
  }
#else
  ByteVector v;
  std::memcpy(&v, bytes, sizeof(v));
  *reinterpret_cast<LaneVectorAt*>(lanes) = __builtin_convertvector(v, LaneVector);
#endif
}

SPECKV_INLINE void narrow(const uint16_t lanes[HALF], uint8_t bytes[HALF]) {
#pragma HLS INLINE  // wires only
LANE:
  SPECKV_ROLLED
  for (uint32_t l = 0; l < HALF; ++l) {
#pragma HLS UNROLL  // wires only
    bytes[l] = uint8_t(lanes[l]);
  }
}

// Byte j to bytes 2j (its low nibble) and 2j + 1.
SPECKV_INLINE void split_nibbles(const uint8_t pairs[HALF / 2], uint8_t nibbles[HALF]) {
#pragma HLS INLINE  // wires only
  uint16_t both[HALF / 2];
PAIR:
  SPECKV_ROLLED
  for (uint32_t j = 0; j < HALF / 2; ++j) {
#pragma HLS UNROLL  // wires only
    both[j] = uint16_t((pairs[j] & 0x0F) | (pairs[j] & 0xF0) << 4);
  }
#ifdef __SYNTHESIS__
UNPACK:
  for (uint32_t j = 0; j < HALF; ++j) {
#pragma HLS UNROLL  // wires only
    nibbles[j] = uint8_t(both[j / 2] >> (8 * (j % 2)));
  }
#else
  std::memcpy(nibbles, both, HALF);
#endif
}

// Its inverse; only the low nibbles count.
SPECKV_INLINE void join_nibbles(const uint8_t nibbles[HALF], uint8_t pairs[HALF / 2]) {
#pragma HLS INLINE  // wires only
  uint16_t both[HALF / 2];
#ifdef __SYNTHESIS__
PACK:
  for (uint32_t j = 0; j < HALF / 2; ++j) {
#pragma HLS UNROLL  // wires only
    both[j] = uint16_t(nibbles[2 * j] | nibbles[2 * j + 1] << 8);
  }
#else
  std::memcpy(both, nibbles, HALF);
#endif
PAIR:
  SPECKV_ROLLED
  for (uint32_t j = 0; j < HALF / 2; ++j) {
#pragma HLS UNROLL  // wires only
    pairs[j] = uint8_t((both[j] & 0x0F) | (both[j] >> 4 & 0xF0));
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
