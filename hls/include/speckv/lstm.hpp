// The predictor's two LSTM layers and the projection behind them, in integers.
// speckv_pynq/reference/predictor.py is the definition.
#pragma once
#include "speckv/predictor.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

// Of one sequence, as it lies in its state: c in 2**-12, h in 2**-7. The second layer reads both h at once.
struct LstmMemory {
  int16_t c[2][HIDDEN];
  int8_t h[2][HIDDEN];
};
static_assert(sizeof(LstmMemory) == 2 * HIDDEN * 3 && sizeof(LstmMemory) % BEAT_BYTES == 0, "whole lines");

SPECKV_INLINE void load_memory(const ap_uint<512>* states, uint64_t line, LstmMemory& s) {
#ifdef __SYNTHESIS__
UNITS:
  for (uint32_t u = 0; u < 2 * HIDDEN; ++u) {
    s.c[u / HIDDEN][u % HIDDEN] = load_value<int16_t>(states, line, u);
    s.h[u / HIDDEN][u % HIDDEN] = load_value<int8_t>(states, line, 2 * 2 * HIDDEN + u);
  }
#else
  std::memcpy(&s, states + line, sizeof(s));
#endif
}

SPECKV_INLINE void store_memory(ap_uint<512>* states, uint64_t line, const LstmMemory& s) {
#ifdef __SYNTHESIS__
UNITS:
  for (uint32_t u = 0; u < 2 * HIDDEN; ++u) {
    store_value<int16_t>(states, line, u, s.c[u / HIDDEN][u % HIDDEN]);
    store_value<int8_t>(states, line, 2 * 2 * HIDDEN + u, s.h[u / HIDDEN][u % HIDDEN]);
  }
#else
  std::memcpy(static_cast<void*>(states + line), &s, sizeof(s));
#endif
}

// Halves go up. Sums wrap, which only a damaged image makes them do.
SPECKV_INLINE int32_t rounded(int32_t x, uint32_t bits) {
  return int32_t(uint32_t(x) + (1u << (bits - 1))) >> bits;
}

SPECKV_INLINE int32_t saturated(int32_t x, int32_t limit) { return x < -limit ? -limit : x > limit ? limit : x; }

// x in 2**-(7 + bits): place in the table.
SPECKV_INLINE int32_t sigmoid_place(int32_t x, uint32_t bits) {
  constexpr int32_t HALF = SPECKV_PREDICTOR_SIGMOID / 2;
  const int32_t at = rounded(x, bits);
  return (at < -HALF ? -HALF : at > HALF - 1 ? HALF - 1 : at) + HALF;
}

// 2**-15. The mask changes nothing in a table that the host made.
SPECKV_INLINE int32_t sigmoid_of(const int16_t* table, int32_t x, uint32_t bits) {
  return table[sigmoid_place(x, bits)] & 0x7FFF;
}

SPECKV_INLINE int32_t tanh_of(const int16_t* table, int32_t x, uint32_t bits) {
  return 2 * sigmoid_of(table, x, bits - 1) - (1 << 15);
}

// Gates, in 2**-13, to the new c and h of one layer.
SPECKV_INLINE void lstm_units(const int16_t* sigmoid, const int32_t gates[GATE_ROWS], int16_t c[HIDDEN],
                              int8_t h[HIDDEN]) {
UNITS:
  for (uint32_t u = 0; u < HIDDEN; ++u) {
#pragma HLS PIPELINE II = 5  // one table, five looks at it
    const int32_t i = sigmoid_of(sigmoid, gates[u], 6);
    const int32_t f = sigmoid_of(sigmoid, gates[HIDDEN + u], 6);
    const int32_t g = tanh_of(sigmoid, gates[2 * HIDDEN + u], 6);
    const int32_t o = sigmoid_of(sigmoid, gates[3 * HIDDEN + u], 6);
    const int32_t cell = saturated(rounded(f * c[u] + (i * g >> 3), 15), 32767);
    c[u] = int16_t(cell);
    h[u] = int8_t(saturated(rounded(o * tanh_of(sigmoid, cell, 5), 23), 127));
  }
}

SPECKV_INLINE void add_biases(const ap_uint<512>* image, uint64_t line, uint32_t layer,
                              int32_t gates[GATE_ROWS]) {
BIASES:
  for (uint32_t r = 0; r < GATE_ROWS; ++r) {
#pragma HLS PIPELINE II = 1
    const int32_t bias = load_value<int32_t>(image, line, layer * GATE_ROWS + r);
    gates[r] = int32_t(uint32_t(gates[r]) + uint32_t(bias));
  }
}

// The row of a token, out of its block.
SPECKV_INLINE void load_row(const ap_uint<512>* image, const Model& m, uint32_t row, int8_t x[RANK]) {
  const uint64_t line = m.token_rows + uint64_t(row / BLOCK_ROWS) * (RANK / BEAT_INPUTS);
INPUTS:
  for (uint32_t i = 0; i < RANK; ++i) {
#pragma HLS PIPELINE II = 1
    const uint32_t at = i / MAC_GROUP * MAC_GROUP * BLOCK_ROWS + row % BLOCK_ROWS * MAC_GROUP + i % MAC_GROUP;
    x[i] = load_value<int8_t>(image, line, at);
  }
}

// One step: the state goes on by a row. sigmoid: the table on chip or in place.
static inline void lstm_step(const ap_uint<512>* image, const Model& m, const int16_t* sigmoid,
                             const int8_t x[RANK], LstmMemory& s) {
  int32_t gates[GATE_ROWS] = {};
  mac_blocks<RANK>(image, m.input, GATE_ROWS / BLOCK_ROWS, x, gates);
ALIGN:
  for (uint32_t r = 0; r < GATE_ROWS; ++r) gates[r] *= 4;  // 2**-11 to 2**-13
  mac_blocks<HIDDEN>(image, m.recurrent, GATE_ROWS / BLOCK_ROWS, s.h[0], gates);
  add_biases(image, m.bias, 0, gates);
  lstm_units(sigmoid, gates, s.c[0], s.h[0]);
CLEAR:
  for (uint32_t r = 0; r < GATE_ROWS; ++r) gates[r] = 0;
  mac_blocks<2 * HIDDEN>(image, m.second, GATE_ROWS / BLOCK_ROWS, s.h[0], gates);
  add_biases(image, m.bias, 1, gates);
  lstm_units(sigmoid, gates, s.c[1], s.h[1]);
}

// What rows of tokens and classes are multiplied with, 2**-5.
static inline void project(const ap_uint<512>* image, const Model& m, const LstmMemory& s, int8_t u[RANK]) {
  int32_t sums[RANK] = {};
  mac_blocks<HIDDEN>(image, m.projection, RANK / BLOCK_ROWS, s.h[1], sums);
OUT:
  for (uint32_t r = 0; r < RANK; ++r) u[r] = int8_t(saturated(rounded(sums[r], 8), 127));
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
