// Scheme raw, and the fallback of every other: the payload is the block itself, one beat a cycle.
#pragma once
#include "speckv/beat.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

static inline void raw_encode(uint32_t beats, const uint16_t block[][LANES], uint8_t payload[][BEAT_BYTES]) {
COPY:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = 1  // one beat a cycle
    lanes_to_beat(block[i], payload[i]);
  }
}

static inline void raw_decode(uint32_t beats, const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
COPY:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = 1  // one beat a cycle
    beat_to_lanes(payload[i], block[i]);
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
