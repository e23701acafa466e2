// The predictor's two LSTM layers and the projection behind them, in integers.
// speckv_pynq/reference/predictor.py is the definition.
#pragma once
#include "speckv/codes.hpp"
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

// Halves go up.
SPECKV_INLINE int32_t rounded(int32_t x, uint32_t bits) {
  return int32_t(uint32_t(x) + (1u << (bits - 1))) >> bits;
}

SPECKV_INLINE int32_t saturated(int32_t x, int32_t limit) {
  return x < -limit ? -limit : x > limit ? limit : x;
}

// x in 2**-(7 + bits): place in the table.
SPECKV_INLINE uint16_t sigmoid_place(int32_t x, uint32_t bits) {
  constexpr int32_t HALF = SPECKV_PREDICTOR_SIGMOID / 2;
  const int32_t at = rounded(x, bits);
  return uint16_t((at < -HALF ? -HALF : at > HALF - 1 ? HALF - 1 : at) + HALF);
}

// Values of the table, 2**-15, in passes over many: hosts compute the places of all first, which vectors do.
// The mask changes nothing in a table that the host made.
template <uint32_t COUNT>
SPECKV_INLINE void look_up(const int16_t* table, const uint16_t places[COUNT], int16_t values[COUNT]) {
LOOK_UP:
  for (uint32_t i = 0; i < COUNT; ++i) {
#pragma HLS PIPELINE II = 1  // two ports of the table: two looks a cycle where unrolled
    uint32_t at = places[i];
    SPECKV_SCALAR(at);
    values[i] = table[at] & 0x7FFF;
  }
}

// tanh(x) = 2 sigmoid(2x) - 1.
SPECKV_INLINE int32_t tanh_from(int32_t sigmoid) { return 2 * sigmoid - (1 << 15); }

// Gates, in 2**-13, to the new c and h of one layer.
SPECKV_INLINE void lstm_units(const int16_t* sigmoid, const int32_t gates[GATE_ROWS], int16_t c[HIDDEN],
                              int8_t h[HIDDEN]) {
  uint16_t places[GATE_ROWS];
  int16_t values[GATE_ROWS];
GATES:
  for (uint32_t r = 0; r < 2 * HIDDEN; ++r) places[r] = sigmoid_place(gates[r], 6);
CELL_GATES:
  for (uint32_t r = 2 * HIDDEN; r < 3 * HIDDEN; ++r) places[r] = sigmoid_place(gates[r], 5);
OUTPUT_GATES:
  for (uint32_t r = 3 * HIDDEN; r < 4 * HIDDEN; ++r) places[r] = sigmoid_place(gates[r], 6);
  look_up<GATE_ROWS>(sigmoid, places, values);
CELLS:
  for (uint32_t u = 0; u < HIDDEN; ++u) {
#pragma HLS PIPELINE II = 1  // two products a unit
    const int32_t i = values[u], f = values[HIDDEN + u], g = tanh_from(values[2 * HIDDEN + u]);
    const int32_t cell = saturated(rounded(f * c[u] + (i * g >> 3), 15), 32767);
    places[u] = sigmoid_place(cell, 4);
    c[u] = int16_t(cell);
  }
  look_up<HIDDEN>(sigmoid, places, values);
OUT:
  for (uint32_t u = 0; u < HIDDEN; ++u) {
#pragma HLS PIPELINE II = 1  // one product a unit
    h[u] = int8_t(saturated(rounded(values[3 * HIDDEN + u] * tanh_from(values[u]), 23), 127));
  }
}

// 2**-13. Cut to 24 bits, which changes nothing in an image that the host made and keeps sums within 32.
SPECKV_INLINE int32_t gate_bias(const ap_uint<512>* image, const Model& m, uint32_t layer, uint32_t row) {
  const uint32_t bias = load_value<uint32_t>(image, m.bias, layer * GATE_ROWS + row);
  return int32_t(bias << 8) >> 8;
}

SPECKV_INLINE CodeRows token_rows(const Model& m) { return CodeRows{m.codes, m.scales, m.token_bias}; }

// Lines of codes of a block of tokens.
constexpr uint64_t CODE_LINES = RANK / CODE_INPUTS;

SPECKV_INLINE void expect_row(const ap_uint<512>* image, const Model& m, uint32_t row) {
  expect_lines(image, m.codes + row / BLOCK_ROWS * CODE_LINES, CODE_LINES);
  expect_lines(image, m.scales + row / BEAT_BYTES, 1);
  expect_lines(image, m.token_bias + row / BEAT_BYTES, 1);
}

// The row of a token, out of its block.
SPECKV_INLINE void load_row(const ap_uint<512>* image, const Model& m, uint32_t row, int8_t x[RANK]) {
  const uint64_t line = m.codes + row / BLOCK_ROWS * CODE_LINES;
  const int32_t scale = load_value<uint8_t>(image, m.scales, row);
INPUTS:
  for (uint32_t i = 0; i < RANK; ++i) {
#pragma HLS PIPELINE II = 1
    const CodePlace p = code_place(row % BLOCK_ROWS, i);
    x[i] = int8_t(code_of(load_value<uint8_t>(image, line, p.byte), p.shift) * scale);
  }
}

// One step: the state goes on by a token's row. sigmoid: the table on chip or in place.
SPECKV_INLINE void lstm_step(const ap_uint<512>* image, const Model& m, const int16_t* sigmoid, uint32_t row,
                             LstmMemory& s) {
  int32_t gates[GATE_ROWS] = {};
  int8_t x[RANK];
  load_row(image, m, row, x);
  mac_blocks<RANK>(image, m.input, GATE_ROWS / BLOCK_ROWS, x, gates);
FIRST:
  for (uint32_t r = 0; r < GATE_ROWS; ++r)
    gates[r] = gates[r] * 4 + gate_bias(image, m, 0, r);  // 2**-11 to 2**-13
  mac_blocks<HIDDEN>(image, m.recurrent, GATE_ROWS / BLOCK_ROWS, s.h[0], gates);
  lstm_units(sigmoid, gates, s.c[0], s.h[0]);
SECOND:
  for (uint32_t r = 0; r < GATE_ROWS; ++r) gates[r] = gate_bias(image, m, 1, r);
  mac_blocks<2 * HIDDEN>(image, m.second, GATE_ROWS / BLOCK_ROWS, s.h[0], gates);
  lstm_units(sigmoid, gates, s.c[1], s.h[1]);
}

// What rows of tokens and classes are multiplied with, 2**-5.
SPECKV_INLINE void project(const ap_uint<512>* image, const Model& m, const LstmMemory& s, int8_t u[RANK]) {
  int32_t sums[RANK] = {};
  mac_blocks<HIDDEN>(image, m.projection, RANK / BLOCK_ROWS, s.h[1], sums);
OUT:
  for (uint32_t r = 0; r < RANK; ++r) u[r] = int8_t(saturated(rounded(sums[r], 8), 127));
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
