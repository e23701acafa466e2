/* The kernels as a native library (csim). Plain C; thread-safe; never throws, never aborts on its input. */
#ifndef SPECKV_CSIM_H
#define SPECKV_CSIM_H

#include "speckv_spec.h"

#if defined(__GNUC__)
#define SPECKV_API __attribute__((visibility("default")))
#else
#define SPECKV_API
#endif

#ifdef __cplusplus
extern "C" {
#define SPECKV_NOEXCEPT noexcept
#else
#define SPECKV_NOEXCEPT
#endif

/* What descriptors, completions and ports this library was built for; pass it back in every call. */
SPECKV_API uint64_t speckv_csim_abi_id(void) SPECKV_NOEXCEPT;
SPECKV_API uint32_t speckv_csim_format_version(void) SPECKV_NOEXCEPT;

/* Compiler and the instruction set that hot loops run at here: "avx2", "neon" or "generic". */
SPECKV_API const char* speckv_csim_build_info(void) SPECKV_NOEXCEPT;

/* Run `count` descriptors (at most SPECKV_MAX_BATCH), in order. Return 0, or the status of the call as a
   whole: abi_mismatch, or out_of_range for a bad count or a missing table; then no block or record is
   touched. A descriptor whose bytes would leave a buffer gets status out_of_range (value: the offset's low 32
   bits, limit: the last offset that fits, or 0) and touches nothing. Base pointers need no alignment, but
   that of codebooks (misaligned); blocks and records must not overlap. codebooks: a codebook image, or NULL
   and 0 bytes where no descriptor has a calibrated scheme; whatever its bytes, nothing outside it is read.
   Buffers belong to the caller and are not kept. Blocks until all are done. */
SPECKV_API int32_t speckv_csim_kv_compress(const void* blocks, uint64_t blocks_bytes, void* records,
                                           uint64_t records_bytes, const void* codebooks,
                                           uint64_t codebooks_bytes,
                                           const struct speckv_descriptor* descriptors,
                                           struct speckv_completion* completions, uint32_t count,
                                           uint64_t abi_id) SPECKV_NOEXCEPT;

SPECKV_API int32_t speckv_csim_kv_decompress(const void* records, uint64_t records_bytes, void* blocks,
                                             uint64_t blocks_bytes, const void* codebooks,
                                             uint64_t codebooks_bytes,
                                             const struct speckv_descriptor* descriptors,
                                             struct speckv_completion* completions, uint32_t count,
                                             uint64_t abi_id) SPECKV_NOEXCEPT;

/* Run `count` steps of sequences (at most SPECKV_MAX_BATCH), in order; what is returned, and what a
   descriptor that would leave a buffer gets, as above. predictor: an image as docs/predictor_format.md has
   it, states: of all sequences; both begin on a line of 64 bytes (misaligned). candidates:
   SPECKV_PREDICTOR_TOP of them for each slot that a descriptor names. A refused descriptor leaves its state
   and its slot as they were. Calls may run side by side where they have no state in common. */
SPECKV_API int32_t speckv_csim_kv_prefetch(const void* predictor, uint64_t predictor_bytes, void* states,
                                           uint64_t states_bytes, void* candidates, uint64_t candidates_bytes,
                                           const struct speckv_prediction* descriptors,
                                           struct speckv_completion* completions, uint32_t count,
                                           uint64_t abi_id) SPECKV_NOEXCEPT;

/* CRC32C of `bytes` bytes; seed 0 to begin, an earlier result to go on. */
SPECKV_API uint32_t speckv_csim_crc32c(uint32_t seed, const void* data, uint64_t bytes) SPECKV_NOEXCEPT;

/* For benchmarks: the range coder of klt records alone, results dropped; 0, or the status of the first fault.
 */
SPECKV_API int32_t speckv_csim_klt_symbols(const void* records, uint64_t records_bytes, const void* codebooks,
                                           uint64_t codebooks_bytes,
                                           const struct speckv_descriptor* descriptors,
                                           uint32_t count) SPECKV_NOEXCEPT;

/* For benchmarks: speckv_csim_kv_prefetch, a call for each descriptor, and what each took on the monotonic
   clock. The first call that fails ends it. */
SPECKV_API int32_t speckv_csim_prefetch_times(const void* predictor, uint64_t predictor_bytes, void* states,
                                              uint64_t states_bytes, void* candidates,
                                              uint64_t candidates_bytes,
                                              const struct speckv_prediction* descriptors,
                                              struct speckv_completion* completions, uint32_t count,
                                              uint64_t abi_id, uint64_t* nanoseconds) SPECKV_NOEXCEPT;

/* For benchmarks: nothing but independent 16-bit multiply-accumulates, at the widest vectors that the kernels
   use here. Returns how many were done; 0 where this build has no such loop. */
SPECKV_API uint64_t speckv_csim_multiply_adds(uint64_t rounds) SPECKV_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
