// CRC32C (Castagnoli, reflected, init and xorout 0xFFFFFFFF; "123456789" gives 0xE3069283).
// In hardware a beat is folded by one XOR matrix; natively see crc32c_native.hpp. Both work on the register's
// state: seed ^ 0xFFFFFFFF before, ^ 0xFFFFFFFF after.
#pragma once
#include "speckv/config.hpp"
#ifndef __SYNTHESIS__
#include "speckv/crc32c_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t CRC_POLY = 0x82F63B78u;

SPECKV_INLINE uint32_t crc32c_byte(uint32_t state, uint8_t byte) {
#pragma HLS INLINE  // eight XOR levels at most
  uint32_t s = state ^ byte;
BITS:
  for (int i = 0; i < 8; ++i) {
#pragma HLS UNROLL  // becomes one XOR matrix
    s = (s >> 1) ^ ((s & 1) ? CRC_POLY : 0);
  }
  return s;
}

// column[b]: what input bit b of a beat (byte b / 8, least significant bit first) adds to the state after
// the beat. The old state is XORed into the first four bytes, so one matrix serves both.
struct CrcMatrix {
  uint32_t column[8 * BEAT_BYTES];
  constexpr CrcMatrix() : column() {
    uint32_t s = 1;  // the last bit of a beat is one shift away from leaving the register
    for (int b = 8 * int(BEAT_BYTES) - 1; b >= 0; --b) {
      s = (s >> 1) ^ ((s & 1) ? CRC_POLY : 0);
      column[b] = s;
    }
  }
};
constexpr CrcMatrix CRC_MATRIX{};

// One beat a cycle: 512 data bits enter a pipelined XOR tree, only the 32 bits of state feed back.
SPECKV_INLINE uint32_t crc32c_beat(uint32_t state, const uint8_t beat[BEAT_BYTES]) {
#pragma HLS INLINE  // part of its caller's pipeline
  uint32_t data = 0, fed_back = 0;
DATA:
  for (uint32_t b = 0; b < 8 * BEAT_BYTES; ++b) {
#pragma HLS UNROLL  // constants: an XOR tree
    data ^= (beat[b / 8] >> (b % 8) & 1) ? CRC_MATRIX.column[b] : 0;
  }
STATE:
  for (uint32_t b = 0; b < 32; ++b) {
#pragma HLS UNROLL  // constants: an XOR tree
    fed_back ^= (state >> b & 1) ? CRC_MATRIX.column[b] : 0;
  }
  return data ^ fed_back;
}

// The first `bytes` of beats, whole beats by the matrix, the rest byte by byte (63 cycles at most).
static inline uint32_t crc32c_beats(uint32_t state, const uint8_t beats[][BEAT_BYTES], uint32_t bytes) {
#ifdef __SYNTHESIS__
  uint32_t whole = bytes / BEAT_BYTES;
WHOLE:
  for (uint32_t i = 0; i < whole; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle keeps m_axi full
    state = crc32c_beat(state, beats[i]);
  }
REST:
  for (uint32_t i = 0; i < bytes % BEAT_BYTES; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 63
    state = crc32c_byte(state, beats[whole][i]);
  }
  return state;
#else
  return crc32c_native(state, &beats[0][0], bytes);
#endif
}

// header: a record's first beat; bytes 0-59 count, the last four hold the result.
SPECKV_INLINE uint32_t crc32c_header(const uint8_t header[BEAT_BYTES]) {
  uint32_t state = 0xFFFFFFFFu;
#ifdef __SYNTHESIS__
HEADER:
  for (uint32_t i = 0; i < BEAT_BYTES - 4; ++i) state = crc32c_byte(state, header[i]);
#else
  state = crc32c_native(state, header, BEAT_BYTES - 4);
#endif
  return state;
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
