// Products of rows of int8 weights with a vector: all arithmetic of the token predictor that takes time.
// Weights lie in blocks of BLOCK_ROWS rows, in a block the rows' first 4 inputs, then the next 4, ...: a beat
// holds 8 inputs of every row, which is what the array multiplies in a cycle, and a native vector 4 of every
// row.
#pragma once
#include "speckv/beat.hpp"
#ifndef __SYNTHESIS__
#include "speckv/mac_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t BLOCK_ROWS = SPECKV_PREDICTOR_BLOCK;
constexpr uint32_t MAC_GROUP = 4;  // inputs of a row that lie together
constexpr uint32_t BEAT_INPUTS = BEAT_BYTES / BLOCK_ROWS;
static_assert(BEAT_INPUTS % MAC_GROUP == 0, "a beat is whole groups");

constexpr uint32_t blocks_of(uint32_t rows) { return (rows + BLOCK_ROWS - 1) / BLOCK_ROWS; }

// One block: acc[row] += row . x.
template <uint32_t INPUTS>
SPECKV_INLINE void mac_block(const ap_uint<512>* image, uint64_t line, const int8_t* x,
                             int32_t acc[BLOCK_ROWS]) {
BEATS:
  for (uint32_t i = 0; i < INPUTS / BEAT_INPUTS; ++i) {
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle keeps m_axi full
    uint8_t beat[BEAT_BYTES];
    load_beat(image, line + i, beat);
  ARRAY:
    for (uint32_t m = 0; m < BEAT_BYTES; ++m) {
#pragma HLS UNROLL  // the array: a multiplier a byte, an adder tree a row
      const uint32_t row = m / MAC_GROUP % BLOCK_ROWS;
      const uint32_t input = i * BEAT_INPUTS + m / (MAC_GROUP * BLOCK_ROWS) * MAC_GROUP + m % MAC_GROUP;
      acc[row] += int8_t(beat[m]) * x[input];
    }
  }
}

// sums[row] += row . x, for all rows of `blocks` blocks from a line on. Weights and x within -127..127.
template <uint32_t INPUTS>
static inline void mac_blocks(const ap_uint<512>* image, uint64_t line, uint32_t blocks, const int8_t* x,
                              int32_t* sums) {
#ifdef SPECKV_MAC_NATIVE
  if (mac_has_native()) {
    mac_native<INPUTS>(reinterpret_cast<const uint8_t*>(image + line), blocks, x, sums);
    return;
  }
#endif
BLOCKS:
  for (uint32_t b = 0; b < blocks; ++b) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 128
    mac_block<INPUTS>(image, line + uint64_t(b) * (INPUTS / BEAT_INPUTS), x, sums + b * BLOCK_ROWS);
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
