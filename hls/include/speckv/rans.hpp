// Interleaved rANS over 32 lanes (speckv_pynq/reference/rans.py is the definition). Symbol i is lane i mod
// 32's. In hardware a round's lanes are independent but for the order of their words, a prefix sum over 32
// flags; a lane's own loop (multiply, add, renormalise) is hidden by taking rounds of several records in
// turn.
#pragma once
#include "speckv/config.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t ENTROPY_LANES = SPECKV_ENTROPY_LANES;
constexpr uint32_t ENTROPY_BITS = SPECKV_ENTROPY_BITS;
constexpr uint32_t STATE_LOW = 1u << 16;
constexpr uint32_t STATE_BYTES = 4 * ENTROPY_LANES;
constexpr uint32_t SEED_BYTES = 2 * ENTROPY_LANES;  // of side information that travels in the states

// A symbol's frequency (low half) and the sum of those before it.
SPECKV_INLINE uint32_t frequency_of(uint32_t code) { return code & 0xFFFF; }
SPECKV_INLINE uint32_t start_of(uint32_t code) { return code >> 16; }

// Codes symbols count - 1 .. 0. words: filled from `words_end` downwards; returns how many.
SPECKV_INLINE uint32_t rans_encode(const uint32_t* codes, uint32_t count, uint32_t state[ENTROPY_LANES],
                                   uint16_t* words_end) {
  uint32_t words = 0;
SYMBOLS_BACK:
  for (uint32_t i = count; i-- > 0;) {
#pragma HLS LOOP_TRIPCOUNT min = 1024 max = 524288
    const uint32_t lane = i % ENTROPY_LANES, f = frequency_of(codes[i]);
    uint32_t x = state[lane];
    const uint32_t full = (x >> (32 - ENTROPY_BITS)) >= f ? 1 : 0;  // no branch: it would be a coin's throw
    words_end[-int32_t(words) - 1] = uint16_t(x);                   // kept only where it counts
    words += full;
    x >>= 16 * full;
    const uint32_t quotient = x / f;
    state[lane] = (quotient << ENTROPY_BITS) + (x - quotient * f) + start_of(codes[i]);
  }
  return words;
}

struct RansDecoder {
  uint32_t state[ENTROPY_LANES];
  uint32_t words, used;
};

// One symbol of lane `lane`. symbol_at, codes: of its class; next: the word at `used`, if there is one.
SPECKV_INLINE uint8_t rans_symbol(RansDecoder& r, uint32_t lane, const uint8_t* symbol_at,
                                  const uint32_t* codes, uint32_t next) {
#pragma HLS INLINE  // part of its caller's pipeline
  const uint32_t x = r.state[lane], slot = x & ((1u << ENTROPY_BITS) - 1);
  const uint8_t symbol = symbol_at[slot] % SPECKV_ENTROPY_SYMBOLS;
  const uint32_t code = codes[symbol];
  const uint32_t y = frequency_of(code) * (x >> ENTROPY_BITS) + slot - start_of(code);
  const uint32_t low = y < STATE_LOW ? 1 : 0;  // no branch: it would be a coin's throw
  r.state[lane] = y << (16 * low) | (next & (0 - low));
  r.used += low;
  return symbol;
}

// `lanes` symbols of one class, from lane `first` on.
SPECKV_INLINE void rans_symbols(RansDecoder& r, uint32_t first, uint32_t lanes, const uint8_t* symbol_at,
                                const uint32_t* codes, const uint16_t* words, uint8_t* symbols) {
  if (r.used + lanes <= r.words) {
  FAST:
    for (uint32_t l = 0; l < lanes; ++l) {
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 16
#pragma HLS UNROLL factor = 16  // half a round side by side
      symbols[l] = rans_symbol(r, first + l, symbol_at, codes, words[r.used]);
    }
  } else {
  LAST:
    for (uint32_t l = 0; l < lanes; ++l) {  // beyond the last word zeros are read, and counted
#pragma HLS LOOP_TRIPCOUNT min = 16 max = 16
      const uint32_t next = r.used < r.words ? words[r.used] : 0;
      symbols[l] = rans_symbol(r, first + l, symbol_at, codes, next);
    }
  }
}

// After the last symbol: all words used, all states back in the range they began in.
SPECKV_INLINE Verdict rans_finish(const RansDecoder& r) {
  if (r.used != r.words) return wrong(SPECKV_STATUS_BAD_PAYLOAD, r.words, r.used);
  uint32_t most = 0;
STATES:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) {
#pragma HLS UNROLL  // a compare tree
    most = r.state[l] > most ? r.state[l] : most;
  }
  return most >= 2 * STATE_LOW ? wrong(SPECKV_STATUS_BAD_PAYLOAD, most, 2 * STATE_LOW - 1) : fine();
}

// Before the first symbol.
SPECKV_INLINE Verdict rans_check_states(const RansDecoder& r) {
  uint32_t least = r.state[0];
STATES:
  for (uint32_t l = 0; l < ENTROPY_LANES; ++l) {
#pragma HLS UNROLL  // a compare tree
    least = r.state[l] < least ? r.state[l] : least;
  }
  return least < STATE_LOW ? wrong(SPECKV_STATUS_BAD_PAYLOAD, least, STATE_LOW) : fine();
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
