// The predictor's two LSTM layers, the projection of each included, in integers.
// speckv_pynq/reference/predictor.py is the definition.
#pragma once
#include "speckv/codes.hpp"
#include "speckv/predictor.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

// Of one sequence, as it lies in its state: c in 2**-12, what a layer gives on in 2**-5. The second layer
// reads both at once.
struct LstmMemory {
  int16_t c[2][HIDDEN];
  int8_t p[2][RANK];
};
static_assert(sizeof(LstmMemory) == 2 * (2 * HIDDEN + RANK) && sizeof(LstmMemory) % BEAT_BYTES == 0,
              "whole lines");

SPECKV_INLINE void load_memory(const ap_uint<512>* states, uint64_t line, LstmMemory& s) {
#ifdef __SYNTHESIS__
UNITS:
  for (uint32_t u = 0; u < 2 * HIDDEN; ++u)
    s.c[u / HIDDEN][u % HIDDEN] = load_value<int16_t>(states, line, u);
GIVEN:
  for (uint32_t u = 0; u < 2 * RANK; ++u)
    s.p[u / RANK][u % RANK] = load_value<int8_t>(states, line, 2 * 2 * HIDDEN + u);
#else
  std::memcpy(&s, states + line, sizeof(s));
#endif
}

SPECKV_INLINE void store_memory(ap_uint<512>* states, uint64_t line, const LstmMemory& s) {
#ifdef __SYNTHESIS__
UNITS:
  for (uint32_t u = 0; u < 2 * HIDDEN; ++u)
    store_value<int16_t>(states, line, u, s.c[u / HIDDEN][u % HIDDEN]);
GIVEN:
  for (uint32_t u = 0; u < 2 * RANK; ++u)
    store_value<int8_t>(states, line, 2 * 2 * HIDDEN + u, s.p[u / RANK][u % RANK]);
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
#pragma HLS PIPELINE II = BEAT_CYCLES  // two ports of the table: two looks a cycle where unrolled
    uint32_t at = places[i];
    SPECKV_SCALAR(at);
    values[i] = table[at] & 0x7FFF;
  }
}

// tanh(x) = 2 sigmoid(2x) - 1.
SPECKV_INLINE int32_t tanh_from(int32_t sigmoid) { return 2 * sigmoid - (1 << 15); }

// Gates, in 2**-13, to the new c and h of one layer; h in 2**-7.
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
#pragma HLS PIPELINE II = BEAT_CYCLES  // two products a unit
    const int32_t i = values[u], f = values[HIDDEN + u], g = tanh_from(values[2 * HIDDEN + u]);
    const int32_t cell = saturated(rounded(f * c[u] + (i * g >> 3), 15), 32767);
    places[u] = sigmoid_place(cell, 4);
    c[u] = int16_t(cell);
  }
  look_up<HIDDEN>(sigmoid, places, values);
OUT:
  for (uint32_t u = 0; u < HIDDEN; ++u) {
#pragma HLS PIPELINE II = BEAT_CYCLES  // one product a unit
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
#pragma HLS PIPELINE II = BEAT_CYCLES
    const CodePlace p = code_place(row % BLOCK_ROWS, i);
    x[i] = int8_t(code_of(load_value<uint8_t>(image, line, p.byte), p.shift) * scale);
  }
}

// One layer: inputs are what comes from below and what it gave on itself, in 2**-5.
SPECKV_INLINE void lstm_layer(const ap_uint<512>* image, const Model& m, const int16_t* sigmoid,
                              uint32_t layer, const int8_t inputs[2 * RANK], int16_t c[HIDDEN],
                              int8_t p[RANK]) {
  constexpr uint64_t GATE_LINES = GATE_ROWS * 2 * RANK / BEAT_BYTES, OUT_LINES = RANK * HIDDEN / BEAT_BYTES;
  int32_t gates[GATE_ROWS] = {}, sums[RANK] = {};
  int8_t h[HIDDEN];
  mac_blocks<2 * RANK>(image, m.gates + layer * GATE_LINES, GATE_ROWS / BLOCK_ROWS, inputs, gates);
BIASES:
  for (uint32_t r = 0; r < GATE_ROWS; ++r)
    gates[r] = gates[r] * 4 + gate_bias(image, m, layer, r);  // 2**-11 to 2**-13
  lstm_units(sigmoid, gates, c, h);
  mac_blocks<HIDDEN>(image, m.projection + layer * OUT_LINES, RANK / BLOCK_ROWS, h, sums);
OUT:
  for (uint32_t r = 0; r < RANK; ++r) p[r] = int8_t(saturated(rounded(sums[r], 8), 127));
}

// One step: the state goes on by a token's row. sigmoid: the table on chip or in place. What the second layer
// gives on is what rows of tokens and classes are multiplied with.
SPECKV_INLINE void lstm_step(const ap_uint<512>* image, const Model& m, const int16_t* sigmoid, uint32_t row,
                             LstmMemory& s) {
  int8_t inputs[2 * RANK];
  load_row(image, m, row, inputs);
OWN:
  for (uint32_t r = 0; r < RANK; ++r) inputs[RANK + r] = s.p[0][r];
  lstm_layer(image, m, sigmoid, 0, inputs, s.c[0], s.p[0]);
BOTH:
  for (uint32_t r = 0; r < 2 * RANK; ++r) inputs[r] = s.p[r / RANK][r % RANK];
  lstm_layer(image, m, sigmoid, 1, inputs, s.c[1], s.p[1]);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
