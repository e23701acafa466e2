#include "speckv_csim.h"

#include "bounds.h"
#include "speckv/crc32c.hpp"
#include "speckv/validate.hpp"

// The generated tops, as on hardware.
extern "C" void kv_compress(const ap_uint<512>* blocks, ap_uint<512>* records,
                            const ap_uint<512>* descriptors, ap_uint<128>* completions,
                            const ap_uint<512>* codebooks, uint32_t count, uint32_t codebook_lines,
                            uint64_t abi_id);
extern "C" void kv_decompress(const ap_uint<512>* records, ap_uint<512>* blocks,
                              const ap_uint<512>* descriptors, ap_uint<128>* completions,
                              const ap_uint<512>* codebooks, uint32_t count, uint32_t codebook_lines,
                              uint64_t abi_id);

namespace {

using speckv::Verdict;

struct Buffers {
  const void* in;
  void* out;
  uint64_t blocks_bytes, records_bytes;
  const void* codebooks;
  uint64_t codebooks_bytes;
};

// d has passed the kernel's own checks.
Verdict check_bounds(const speckv_descriptor& d, const Buffers& b) {
  const uint64_t all = speckv::block_bytes(d);
  const uint64_t kind_bytes = d.kinds == SPECKV_KIND_BOTH ? all / 2 : all;
  Verdict v = check_span(d.record_offset, d.record_capacity, b.records_bytes);
  if (!v.status && d.kinds & SPECKV_KIND_KEY) v = check_span(d.key_offset, kind_bytes, b.blocks_bytes);
  if (!v.status && d.kinds & SPECKV_KIND_VALUE) v = check_span(d.value_offset, kind_bytes, b.blocks_bytes);
  return v;
}

using Top = void (*)(const ap_uint<512>*, ap_uint<512>*, const ap_uint<512>*, ap_uint<128>*,
                     const ap_uint<512>*, uint32_t, uint32_t, uint64_t);
using Check = Verdict (*)(const speckv_descriptor&);

// Descriptors that the kernel itself refuses go to it like good ones; only those out of bounds are kept back.
int32_t run(Top top, Check check, const Buffers& b, const speckv_descriptor* descriptors,
            speckv_completion* completions, uint32_t count, uint64_t abi_id) {
  if (count == 0 && abi_id == SPECKV_ABI_ID) return SPECKV_STATUS_OK;
  if (count && (!descriptors || !completions)) return SPECKV_STATUS_OUT_OF_RANGE;
  // The kernels read its arrays in place; beyond what 32 bits of lines reach there is nothing to read.
  const uint64_t lines = b.codebooks ? b.codebooks_bytes / SPECKV_LINE_BYTES : 0;
  if (lines && reinterpret_cast<uintptr_t>(b.codebooks) % SPECKV_LINE_BYTES) return SPECKV_STATUS_MISALIGNED;
  const uint32_t codebook_lines = uint32_t(lines < UINT32_MAX ? lines : UINT32_MAX);
  const auto launch = [&](uint32_t first, uint32_t n) {
    if (n)
      top(static_cast<const ap_uint<512>*>(b.in), static_cast<ap_uint<512>*>(b.out),
          reinterpret_cast<const ap_uint<512>*>(descriptors + first),
          reinterpret_cast<ap_uint<128>*>(completions + first), static_cast<const ap_uint<512>*>(b.codebooks),
          n, codebook_lines, abi_id);
  };
  const Verdict batch = speckv::check_batch(count, abi_id);
  if (batch.status) {
    launch(0, count <= SPECKV_MAX_BATCH ? count : 0);
    return batch.status;
  }
  uint32_t first = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const Verdict v = check(descriptors[i]).status ? speckv::fine() : check_bounds(descriptors[i], b);
    if (!v.status) continue;
    launch(first, i - first);
    completions[i] = speckv_completion{v.status, 0, 0, v.value, v.limit};
    first = i + 1;
  }
  launch(first, count - first);
  return SPECKV_STATUS_OK;
}

Verdict compress_check(const speckv_descriptor& d) { return speckv::check_compress(d); }
Verdict decompress_check(const speckv_descriptor& d) { return speckv::check_decompress(d); }

}  // namespace

#if defined(__clang__)
#define SPECKV_COMPILER "clang " __clang_version__
#else
#define SPECKV_COMPILER "gcc " __VERSION__
#endif

uint64_t speckv_csim_abi_id(void) noexcept { return SPECKV_ABI_ID; }

uint32_t speckv_csim_format_version(void) noexcept { return SPECKV_FORMAT_VERSION; }

const char* speckv_csim_build_info(void) noexcept {
#if defined(__SYNTHESIS__)
  return SPECKV_COMPILER ", synthesis branches, generic";
#elif defined(__aarch64__)
  return SPECKV_COMPILER ", neon";
#elif defined(SPECKV_HAS_CLONES)
#ifdef SPECKV_HAS_WIDE_CLONES
  if (__builtin_cpu_supports("x86-64-v4")) return SPECKV_COMPILER ", avx512";
#endif
  return __builtin_cpu_supports("avx2") ? SPECKV_COMPILER ", avx2" : SPECKV_COMPILER ", generic";
#else
  return SPECKV_COMPILER ", generic";
#endif
}

int32_t speckv_csim_kv_compress(const void* blocks, uint64_t blocks_bytes, void* records,
                                uint64_t records_bytes, const void* codebooks, uint64_t codebooks_bytes,
                                const struct speckv_descriptor* descriptors,
                                struct speckv_completion* completions, uint32_t count,
                                uint64_t abi_id) noexcept {
  const Buffers b = {blocks,    records,        blocks ? blocks_bytes : 0, records ? records_bytes : 0,
                     codebooks, codebooks_bytes};
  return run(kv_compress, compress_check, b, descriptors, completions, count, abi_id);
}

int32_t speckv_csim_kv_decompress(const void* records, uint64_t records_bytes, void* blocks,
                                  uint64_t blocks_bytes, const void* codebooks, uint64_t codebooks_bytes,
                                  const struct speckv_descriptor* descriptors,
                                  struct speckv_completion* completions, uint32_t count,
                                  uint64_t abi_id) noexcept {
  const Buffers b = {records,   blocks,         blocks ? blocks_bytes : 0, records ? records_bytes : 0,
                     codebooks, codebooks_bytes};
  return run(kv_decompress, decompress_check, b, descriptors, completions, count, abi_id);
}

uint32_t speckv_csim_crc32c(uint32_t seed, const void* data, uint64_t bytes) noexcept {
  uint32_t state = ~seed;
  const uint8_t* p = static_cast<const uint8_t*>(data);
#ifdef __SYNTHESIS__
  for (; bytes >= speckv::BEAT_BYTES; bytes -= speckv::BEAT_BYTES, p += speckv::BEAT_BYTES)
    state = speckv::crc32c_beat(state, p);
  for (; bytes; --bytes) state = speckv::crc32c_byte(state, *p++);
#else
  state = speckv::crc32c_native(state, p, bytes);
#endif
  return ~state;
}
