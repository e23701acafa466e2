// CRC32C for hosts: the CPU's instruction where there is one (x86 SSE4.2, arm64 CRC), chosen at run time,
// else slicing by eight. Never seen by HLS.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define SPECKV_CRC_TARGET __attribute__((target("sse4.2")))
#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#ifdef __clang__
#include <arm_acle.h>
#define SPECKV_CRC_TARGET __attribute__((target("crc")))
#else
#define SPECKV_CRC_TARGET __attribute__((target("+crc")))
#include <arm_acle.h>
#endif
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

// Bytes of one of the three streams that hide the instruction's latency of three cycles.
constexpr uint32_t CRC_STREAM_BYTES = 256;

// slice[k][b]: state after byte b and k zero bytes. shift[k][b]: byte k of a state, moved over
// CRC_STREAM_BYTES zero bytes, which joins two streams.
struct CrcTables {
  uint32_t slice[8][256];
  uint32_t shift[4][256];
  constexpr CrcTables() : slice(), shift() {
    for (uint32_t b = 0; b < 256; ++b) {
      uint32_t s = b;
      for (int i = 0; i < 8; ++i) s = (s >> 1) ^ ((s & 1) ? 0x82F63B78u : 0);
      slice[0][b] = s;
    }
    for (int k = 1; k < 8; ++k)
      for (uint32_t b = 0; b < 256; ++b)
        slice[k][b] = (slice[k - 1][b] >> 8) ^ slice[0][slice[k - 1][b] & 255];
    for (int k = 0; k < 4; ++k) {
      for (int bit = 0; bit < 8; ++bit) {
        uint32_t s = 1u << (8 * k + bit);
        for (uint32_t i = 0; i < CRC_STREAM_BYTES; ++i) s = (s >> 8) ^ slice[0][s & 255];
        shift[k][1u << bit] = s;
      }
      for (uint32_t b = 1; b < 256; ++b) shift[k][b] = shift[k][b & (b - 1)] ^ shift[k][b & (~b + 1)];
    }
  }
};
constexpr CrcTables CRC_TABLES{};

static inline uint64_t crc_load64(const uint8_t* p) {
  uint64_t v;
  std::memcpy(&v, p, 8);
  return v;
}

static inline uint32_t crc_shift_stream(uint32_t s) {
  const auto& t = CRC_TABLES.shift;
  return t[0][s & 255] ^ t[1][s >> 8 & 255] ^ t[2][s >> 16 & 255] ^ t[3][s >> 24];
}

static inline uint32_t crc32c_sliced(uint32_t state, const uint8_t* p, size_t bytes) {
  const auto& t = CRC_TABLES.slice;
  for (; bytes >= 8; bytes -= 8, p += 8) {
    const uint64_t v = crc_load64(p) ^ state;
    state = t[7][v & 255] ^ t[6][v >> 8 & 255] ^ t[5][v >> 16 & 255] ^ t[4][v >> 24 & 255] ^
            t[3][v >> 32 & 255] ^ t[2][v >> 40 & 255] ^ t[1][v >> 48 & 255] ^ t[0][v >> 56];
  }
  for (; bytes; --bytes) state = (state >> 8) ^ t[0][(state ^ *p++) & 255];
  return state;
}

#ifdef SPECKV_CRC_TARGET
SPECKV_CRC_TARGET static inline uint32_t crc_step64(uint32_t state, const uint8_t* p) {
#if defined(__x86_64__)
  return uint32_t(_mm_crc32_u64(state, crc_load64(p)));
#else
  return __crc32cd(state, crc_load64(p));
#endif
}

SPECKV_CRC_TARGET static inline uint32_t crc_step8(uint32_t state, uint8_t byte) {
#if defined(__x86_64__)
  return _mm_crc32_u8(state, byte);
#else
  return __crc32cb(state, byte);
#endif
}

SPECKV_CRC_TARGET static inline uint32_t crc32c_instruction(uint32_t a, const uint8_t* p, size_t bytes) {
  constexpr size_t n = CRC_STREAM_BYTES;
  for (; bytes >= 3 * n; bytes -= 3 * n, p += 3 * n) {
    uint32_t b = 0, c = 0;
    for (size_t i = 0; i < n; i += 8) {
      a = crc_step64(a, p + i);
      b = crc_step64(b, p + n + i);
      c = crc_step64(c, p + 2 * n + i);
    }
    a = crc_shift_stream(crc_shift_stream(a) ^ b) ^ c;
  }
  for (; bytes >= 8; bytes -= 8, p += 8) a = crc_step64(a, p);
  for (; bytes; --bytes) a = crc_step8(a, *p++);
  return a;
}

static inline bool crc_has_instruction() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("sse4.2");
#elif defined(__linux__)
  return getauxval(AT_HWCAP) & (1u << 7);  // HWCAP_CRC32
#else
  return true;  // every arm64 Mac has it
#endif
}
#endif

static inline uint32_t crc32c_native(uint32_t state, const uint8_t* p, size_t bytes) {
#ifdef SPECKV_CRC_TARGET
  static const bool fast = crc_has_instruction();
  if (fast) return crc32c_instruction(state, p, bytes);
#endif
  return crc32c_sliced(state, p, bytes);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
