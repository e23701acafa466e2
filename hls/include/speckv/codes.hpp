// Logits of rows of codes: numbers of -7 to 7, two in a byte, times the row's scale. The tokens of a
// vocabulary have such rows, because they are what a step fetches from afar. Blocks lie as those of mac.hpp
// do; 8 is added to a code, and of 8 inputs of a row the first 4 stand in the low halves of 4 bytes, the
// others in the high ones.
#pragma once
#include "speckv/mac.hpp"
#ifndef __SYNTHESIS__
#include "speckv/codes_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t CODE_OFFSET = 8;
constexpr uint32_t CODE_INPUTS = 2 * BEAT_INPUTS;  // of every row in a beat
constexpr uint32_t BIAS_STEP = 128;                // biases are 2**-3, logits 2**-10

// Sections of the image, in lines.
struct CodeRows {
  uint64_t codes, scales, biases;
};

// Where in a byte row `row` of a block has input `i`.
struct CodePlace {
  uint32_t byte, shift;
};

SPECKV_INLINE CodePlace code_place(uint32_t row, uint32_t i) {
  constexpr uint32_t EACH = 2 * MAC_GROUP;  // inputs of a row that lie together
  return CodePlace{i / EACH * MAC_GROUP * BLOCK_ROWS + row * MAC_GROUP + i % MAC_GROUP,
                   i % EACH / MAC_GROUP * 4};
}

SPECKV_INLINE int32_t code_of(uint8_t byte, uint32_t shift) {
  return int32_t(byte >> shift & 15) - int32_t(CODE_OFFSET);
}

template <uint32_t INPUTS>
SPECKV_INLINE void code_block(const ap_uint<512>* image, uint64_t line, const int8_t* u,
                              int32_t acc[BLOCK_ROWS]) {
CLEAR:
  for (uint32_t r = 0; r < BLOCK_ROWS; ++r) acc[r] = 0;
BEATS:
  for (uint32_t i = 0; i < INPUTS / CODE_INPUTS; ++i) {
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle keeps m_axi full
    uint8_t beat[BEAT_BYTES];
    load_beat(image, line + i, beat);
  ARRAY:
    for (uint32_t m = 0; m < BLOCK_ROWS * CODE_INPUTS; ++m) {
#pragma HLS UNROLL  // the array: two multipliers a byte, an adder tree a row
      const uint32_t row = m / CODE_INPUTS, input = m % CODE_INPUTS;
      const CodePlace p = code_place(row, input);
      acc[row] += code_of(beat[p.byte], p.shift) * u[i * CODE_INPUTS + input];
    }
  }
}

// Logits, 2**-10, of all rows of `blocks` blocks from one on. u: within -127..127.
template <uint32_t INPUTS>
static inline void code_logits(const ap_uint<512>* image, const CodeRows& rows, uint32_t block,
                               uint32_t blocks, const int8_t* u, int32_t* logits) {
  const uint64_t line = rows.codes + uint64_t(block) * (INPUTS / CODE_INPUTS);
  const uint32_t first = block * BLOCK_ROWS;
#ifdef SPECKV_MAC_NATIVE
  if (mac_has_native()) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(image);
    code_logits_native<INPUTS>(bytes + line * BEAT_BYTES, bytes + rows.scales * BEAT_BYTES + first,
                               bytes + rows.biases * BEAT_BYTES + first, blocks, u, logits);
    return;
  }
#endif
BLOCKS:
  for (uint32_t b = 0; b < blocks; ++b) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 16
    int32_t acc[BLOCK_ROWS];
    code_block<INPUTS>(image, line + uint64_t(b) * (INPUTS / CODE_INPUTS), u, acc);
  ROWS:
    for (uint32_t r = 0; r < BLOCK_ROWS; ++r) {
      const uint32_t row = b * BLOCK_ROWS + r;
      const int32_t scale = load_value<uint8_t>(image, rows.scales, first + row);
      logits[row] = acc[r] * scale + load_value<int8_t>(image, rows.biases, first + row) * int32_t(BIAS_STEP);
    }
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
