// Build-dependent words that every kernel header shares: inlining, dispatch, on-chip memory, buffer sizes.
#pragma once
#if defined(__SYNTHESIS__) && !defined(__VITIS_HLS__)
// A host compiler that checks the synthesis branches: the open ap_int headers refuse the macro.
#undef __SYNTHESIS__
#include <ap_int.h>
#define __SYNTHESIS__
#else
#include <ap_int.h>
#endif

#include <cstdint>
#include <cstdlib>

#include "speckv_spec.h"

// The variant names an inline namespace: a library built with __SYNTHESIS__ may live in one process with
// the native one, and no symbol of theirs may be taken for the other's.
#ifdef __SYNTHESIS__
#define SPECKV_VARIANT synth
#else
#define SPECKV_VARIANT native
#endif

// Lanes that the hardware has: 32, or fewer on boards whose memory ports are narrow (overlay/build.py).
#ifndef SPECKV_LANES_A_CYCLE
#define SPECKV_LANES_A_CYCLE 32
#endif

// Stage functions must be inlined into the function that carries SPECKV_CLONES, or they would run at the
// baseline's instruction set.
#ifdef __SYNTHESIS__
#define SPECKV_INLINE static inline
#else
#define SPECKV_INLINE static inline __attribute__((always_inline))
#endif

// Hot loops are compiled for several levels and chosen at load time: one library runs on every x86-64 (glibc:
// clones are ifuncs) and uses AVX2 where it is. Other architectures need none (NEON is arm64's baseline);
// sanitizers cannot have it (SPECKV_NO_DISPATCH), because ifuncs resolve before their runtime is up.
#if defined(__SYNTHESIS__) || defined(SPECKV_NO_DISPATCH) || !defined(__x86_64__) || !defined(__GLIBC__)
#define SPECKV_CLONES
#define SPECKV_WIDE_CLONES
#else
#define SPECKV_CLONES __attribute__((target_clones("default", "avx2")))
#define SPECKV_HAS_CLONES
// Where multipliers are the limit, AVX-512 pays; older compilers do not know its level by name.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define SPECKV_WIDE_CLONES __attribute__((target_clones("default", "avx2", "arch=x86-64-v4")))
#define SPECKV_HAS_WIDE_CLONES
#else
#define SPECKV_WIDE_CLONES SPECKV_CLONES
#endif
#endif

// Stands before a loop of 16 rounds or fewer: GCC would peel it into scalar code before it looks for vectors.
#if defined(__SYNTHESIS__) || defined(__clang__)
#define SPECKV_ROLLED
#else
#define SPECKV_ROLLED _Pragma("GCC unroll 1")
#endif

// Block, payload and work buffers: BRAM/URAM in hardware (a local of a DATAFLOW body becomes a ping-pong
// pair). Natively each thread has one buffer of a type, because several engines call the kernels at once; it
// is made when first wanted, and pages that no block reaches are never touched.
#ifdef __VITIS_HLS__
#define SPECKV_ONCHIP(type, name) alignas(64) type name
#else
#define SPECKV_ONCHIP(type, name) type& name = ThreadBuffer<type>::get()
#endif

// Keeps a value in a register of its own: GCC would build vectors out of single loads, which takes longer.
#ifdef __SYNTHESIS__
#define SPECKV_SCALAR(value)
#else
#define SPECKV_SCALAR(value) __asm__("" : "+r"(value))
#endif

static_assert(SPECKV_AXI_BITS == 512 && SPECKV_LINE_BYTES == 64, "a beat is a line of 64 bytes");
static_assert(SPECKV_LANES_A_CYCLE == 32 || SPECKV_LANES_A_CYCLE == 16 || SPECKV_LANES_A_CYCLE == 8 ||
                  SPECKV_LANES_A_CYCLE == 4,
              "a beat takes 1, 2, 4 or 8 cycles");
static_assert(SPECKV_MAX_BLOCK_BYTES % 8192 == 0,
              "blocks of whole 8 KiB: one head of the smallest usual shape");
static_assert((SPECKV_SCHEMES & 1) &&
                  (!(SPECKV_SCHEMES >> SPECKV_SCHEME_KLT & 1) || (SPECKV_SCHEMES >> SPECKV_SCHEME_INT4 & 1)),
              "every scheme falls back to raw, klt to int4");
static_assert(SPECKV_LANES == 32 && SPECKV_GROUP == 32, "a beat is 32 lanes of 16 bits and one group");

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t LANES = SPECKV_LANES;
constexpr uint32_t BEAT_BYTES = SPECKV_LINE_BYTES;
// With fewer lanes loops over beats share operators, and the buffers need fewer banks.
constexpr uint32_t LANES_A_CYCLE = SPECKV_LANES_A_CYCLE;
constexpr uint32_t BYTES_A_CYCLE = 2 * LANES_A_CYCLE;
constexpr uint32_t BEAT_CYCLES = LANES / LANES_A_CYCLE;
// Pragmas take the name of a constexpr; a macro would not be expanded there.
constexpr uint32_t MAX_BATCH = SPECKV_MAX_BATCH;
constexpr uint32_t MAX_BLOCK_BYTES = SPECKV_MAX_BLOCK_BYTES;
constexpr uint32_t MAX_BLOCK_BEATS = MAX_BLOCK_BYTES / BEAT_BYTES;
// A window of lanes may look half a beat past the block.
constexpr uint32_t BLOCK_BEATS = MAX_BLOCK_BEATS + 1;
// A payload is never longer than its raw block. Two beats more let a window of two beats be read at any
// position.
constexpr uint32_t PAYLOAD_BEATS = MAX_BLOCK_BEATS + 2;

#ifndef __VITIS_HLS__
// Not zeroed, as on-chip memory is not.
template <class T>
class ThreadBuffer {
 public:
  static T& get() {
    static thread_local ThreadBuffer buffer;
    return *buffer.memory_;
  }

 private:
  ThreadBuffer() : memory_(static_cast<T*>(std::aligned_alloc(64, (sizeof(T) + 63) / 64 * 64))) {
    if (!memory_) std::abort();  // nothing can be told to anybody: the call has begun
  }
  ~ThreadBuffer() { std::free(memory_); }

  T* memory_;
};
#endif

using BlockBuffer = uint16_t[BLOCK_BEATS][LANES];
using PayloadBuffer = uint8_t[PAYLOAD_BEATS][BEAT_BYTES];

// What was found wrong; status 0 is fine. Becomes the completion.
struct Verdict {
  uint16_t status;
  uint32_t value;
  uint32_t limit;
};

// Whether this build has a scheme: false in a constant expression takes its hardware away.
SPECKV_INLINE constexpr bool has_scheme(uint8_t scheme) {
  return scheme < 32 && (SPECKV_SCHEMES >> scheme & 1);
}

SPECKV_INLINE Verdict fine() { return Verdict{SPECKV_STATUS_OK, 0, 0}; }

SPECKV_INLINE Verdict wrong(uint16_t status, uint64_t value, uint64_t limit) {
  return Verdict{status, uint32_t(value), uint32_t(limit)};
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
