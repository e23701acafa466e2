// Ports to plain arrays and back. ap_uint<512> is only a port type: it is unpacked once a beat, because
// range() costs two orders of magnitude natively and plain arrays cost nothing in hardware.
#pragma once
#include <cstring>

#include "speckv/config.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

// beat: bytes in memory order.
SPECKV_INLINE void load_beat(const ap_uint<512>* port, uint64_t index, uint8_t beat[BEAT_BYTES]) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
  ap_uint<512> word = port[index];
UNPACK:
  for (uint32_t i = 0; i < BEAT_BYTES; ++i) {
#pragma HLS UNROLL  // wires only
    beat[i] = uint8_t(uint64_t(word.range(8 * i + 7, 8 * i)));
  }
#else
  std::memcpy(beat, &port[index], BEAT_BYTES);
#endif
}

SPECKV_INLINE void store_beat(ap_uint<512>* port, uint64_t index, const uint8_t beat[BEAT_BYTES]) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
  ap_uint<512> word;
PACK:
  for (uint32_t i = 0; i < BEAT_BYTES; ++i) {
#pragma HLS UNROLL  // wires only
    word.range(8 * i + 7, 8 * i) = beat[i];
  }
  port[index] = word;
#else
  std::memcpy(static_cast<void*>(&port[index]), beat, BEAT_BYTES);
#endif
}

// lanes: 16-bit values, little-endian in memory.
SPECKV_INLINE void lanes_to_beat(const uint16_t lanes[LANES], uint8_t beat[BEAT_BYTES]) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
SPLIT:
  for (uint32_t i = 0; i < LANES; ++i) {
#pragma HLS UNROLL  // wires only
    beat[2 * i] = uint8_t(lanes[i]);
    beat[2 * i + 1] = uint8_t(lanes[i] >> 8);
  }
#else
  static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are little-endian");
  std::memcpy(beat, lanes, BEAT_BYTES);
#endif
}

SPECKV_INLINE void beat_to_lanes(const uint8_t beat[BEAT_BYTES], uint16_t lanes[LANES]) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
JOIN:
  for (uint32_t i = 0; i < LANES; ++i) {
#pragma HLS UNROLL  // wires only
    lanes[i] = uint16_t(beat[2 * i] | beat[2 * i + 1] << 8);
  }
#else
  std::memcpy(lanes, beat, BEAT_BYTES);
#endif
}

// Bursts between a port and a buffer. Natively one copy: the library's memcpy is faster than a loop of beats.
static inline void load_beats(const ap_uint<512>* port, uint64_t index, uint32_t beats,
                              uint8_t buffer[][BEAT_BYTES]) {
#ifdef __SYNTHESIS__
BURST:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle keeps m_axi full
    load_beat(port, index + i, buffer[i]);
  }
#else
  std::memcpy(buffer, &port[index], uint64_t(beats) * BEAT_BYTES);
#endif
}

static inline void store_beats(ap_uint<512>* port, uint64_t index, uint32_t beats,
                               const uint8_t buffer[][BEAT_BYTES]) {
#ifdef __SYNTHESIS__
BURST:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle keeps m_axi full
    store_beat(port, index + i, buffer[i]);
  }
#else
  std::memcpy(static_cast<void*>(&port[index]), buffer, uint64_t(beats) * BEAT_BYTES);
#endif
}

// The same for a block's lanes; first: beat of the buffer.
static inline void load_lanes(const ap_uint<512>* port, uint64_t index, uint32_t beats,
                              uint16_t buffer[][LANES], uint32_t first) {
#ifdef __SYNTHESIS__
BURST:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle keeps m_axi full
    uint8_t beat[BEAT_BYTES];
    load_beat(port, index + i, beat);
    beat_to_lanes(beat, buffer[first + i]);
  }
#else
  std::memcpy(buffer[first], &port[index], uint64_t(beats) * BEAT_BYTES);
#endif
}

static inline void store_lanes(ap_uint<512>* port, uint64_t index, uint32_t beats,
                               const uint16_t buffer[][LANES], uint32_t first) {
#ifdef __SYNTHESIS__
BURST:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle keeps m_axi full
    uint8_t beat[BEAT_BYTES];
    lanes_to_beat(buffer[first + i], beat);
    store_beat(port, index + i, beat);
  }
#else
  void* to = &port[index];
  if (to != buffer[first]) std::memcpy(to, buffer[first], uint64_t(beats) * BEAT_BYTES);
#endif
}

// Little-endian field of a structure that lies in a beat.
template <typename T>
SPECKV_INLINE T get_field(const uint8_t* beat, uint32_t offset) {
#pragma HLS INLINE  // wires only
  uint64_t v = 0;
GET:
  for (uint32_t i = 0; i < sizeof(T); ++i) {
#pragma HLS UNROLL  // wires only
    v |= uint64_t(beat[offset + i]) << (8 * i);
  }
  return T(v);
}

template <typename T>
SPECKV_INLINE void put_field(uint8_t* beat, uint32_t offset, T value) {
#pragma HLS INLINE  // wires only
PUT:
  for (uint32_t i = 0; i < sizeof(T); ++i) {
#pragma HLS UNROLL  // wires only
    beat[offset + i] = uint8_t(uint64_t(value) >> (8 * i));
  }
}

// Says that lines will be read soon: hosts fetch them meanwhile. In hardware the burst itself is early
// enough.
SPECKV_INLINE void expect_lines(const ap_uint<512>* port, uint64_t line, uint64_t lines) {
#ifndef __SYNTHESIS__
  for (uint64_t i = 0; i < lines; ++i) __builtin_prefetch(port + line + i, 0, 2);
#else
  (void)port, (void)line, (void)lines;
#endif
}

// One value of a port, `index` values behind a line's first.
template <typename T>
SPECKV_INLINE T load_value(const ap_uint<512>* port, uint64_t line, uint64_t index) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
  constexpr uint32_t EACH = BEAT_BYTES / sizeof(T);
  uint8_t beat[BEAT_BYTES];
  load_beat(port, line + index / EACH, beat);
  return get_field<T>(beat, uint32_t(index % EACH) * sizeof(T));
#else
  T value;
  std::memcpy(&value, reinterpret_cast<const uint8_t*>(port + line) + index * sizeof(T), sizeof(T));
  return value;
#endif
}

template <typename T>
SPECKV_INLINE void store_value(ap_uint<512>* port, uint64_t line, uint64_t index, T value) {
#ifdef __SYNTHESIS__
#pragma HLS INLINE  // part of its caller's pipeline
  constexpr uint32_t EACH = BEAT_BYTES / sizeof(T);
  uint8_t beat[BEAT_BYTES];
  load_beat(port, line + index / EACH, beat);
  put_field(beat, uint32_t(index % EACH) * sizeof(T), value);
  store_beat(port, line + index / EACH, beat);
#else
  std::memcpy(reinterpret_cast<uint8_t*>(port + line) + index * sizeof(T), &value, sizeof(T));
#endif
}

SPECKV_INLINE uint64_t lines_of(uint64_t bytes) { return (bytes + BEAT_BYTES - 1) / BEAT_BYTES; }

// Sections one behind the other, in the order in which the image has them.
SPECKV_INLINE uint64_t take(uint64_t& line, uint64_t bytes) {
  const uint64_t first = line;
  line += lines_of(bytes);
  return first;
}

SPECKV_INLINE void store_completion(ap_uint<128>* port, uint32_t index, const speckv_completion& c) {
  uint8_t bytes[sizeof(speckv_completion)];
  put_field(bytes, offsetof(speckv_completion, status), c.status);
  put_field(bytes, offsetof(speckv_completion, flags), c.flags);
  put_field(bytes, offsetof(speckv_completion, record_bytes), c.record_bytes);
  put_field(bytes, offsetof(speckv_completion, value), c.value);
  put_field(bytes, offsetof(speckv_completion, limit), c.limit);
#ifdef __SYNTHESIS__
  ap_uint<128> word;
PACK:
  for (uint32_t i = 0; i < sizeof(bytes); ++i) {
#pragma HLS UNROLL  // wires only
    word.range(8 * i + 7, 8 * i) = bytes[i];
  }
  port[index] = word;
#else
  std::memcpy(static_cast<void*>(&port[index]), bytes, sizeof(bytes));
#endif
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
