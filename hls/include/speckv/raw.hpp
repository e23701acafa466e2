// Scheme raw, and the fallback of every other: the payload is the block itself, one beat a cycle.
#pragma once
#include "speckv/beat.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

#ifdef __SYNTHESIS__
static inline void raw_encode(uint32_t beats, const uint16_t block[][LANES], uint8_t payload[][BEAT_BYTES]) {
COPY:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle
    lanes_to_beat(block[i], payload[i]);
  }
}

static inline void raw_decode(uint32_t beats, const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
COPY:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle
    beat_to_lanes(payload[i], block[i]);
  }
}

#else
// Natively nothing is copied: both buffers are read through memcpy only, so one may stand for the other.
SPECKV_INLINE const uint8_t (*as_payload(const uint16_t block[][LANES]))
    [BEAT_BYTES] { return reinterpret_cast<const uint8_t (*)[BEAT_BYTES]>(block); } SPECKV_INLINE const
    uint16_t (*as_block(const uint8_t payload[][BEAT_BYTES]))
        [LANES] { return reinterpret_cast<const uint16_t (*)[LANES]>(payload); }
#endif

}  // namespace SPECKV_VARIANT
}  // namespace speckv
