// What `speckv bench codec` and `speckv bench predictor` measure beside whole calls: the range coder alone,
// every step of the predictor by itself, and the machine's integer peak.
#include <chrono>

#include "speckv/codecs.hpp"
#include "speckv_csim.h"

namespace {

using namespace speckv;

SPECKV_WIDE_CLONES Verdict symbols_of(const Geometry& g, const ap_uint<512>* image, const Unit& u,
                                      uint64_t params, uint32_t bytes, const uint8_t payload[][BEAT_BYTES],
                                      KltDecodeWork& w) {
  const uint32_t table_set = uint32_t(params >> 48), words = uint32_t(params);
  if (table_set >= TABLE_SETS) return wrong(SPECKV_STATUS_BAD_PAYLOAD, table_set, TABLE_SETS - 1);
  if (STATE_BYTES + 2 * uint64_t(words) > bytes) return wrong(SPECKV_STATUS_BAD_PAYLOAD, words, bytes);
  load_decode_tables(image, u, table_set, w);
  return klt_symbols(g, u, words, payload, w);
}

}  // namespace

int32_t speckv_csim_klt_symbols(const void* records, uint64_t records_bytes, const void* codebooks,
                                uint64_t codebooks_bytes, const struct speckv_descriptor* descriptors,
                                uint32_t count) noexcept {
  SPECKV_ONCHIP(KltDecodeWork, work);
  SPECKV_ONCHIP(PayloadBuffer, payload);
  const auto* image = static_cast<const ap_uint<512>*>(codebooks);
  for (uint32_t i = 0; i < count; ++i) {
    const speckv_descriptor& d = descriptors[i];
    Unit unit;
    if (d.record_offset > records_bytes || records_bytes - d.record_offset < d.record_capacity ||
        d.record_capacity < BEAT_BYTES)
      return SPECKV_STATUS_OUT_OF_RANGE;
    Verdict v = check_decompress(d);
    v = v.status ? v : find_unit(image, uint32_t(codebooks_bytes / BEAT_BYTES), d, unit);
    if (v.status) return v.status;
    const uint8_t* record = static_cast<const uint8_t*>(records) + d.record_offset;
    uint8_t header[BEAT_BYTES];
    std::memcpy(header, record, BEAT_BYTES);
    const speckv_record_header h = parse_header(header);
    if (h.scheme != SPECKV_SCHEME_KLT || (h.flags & SPECKV_FLAG_RAW)) continue;
    const Geometry g = geometry_of(d);
    if (h.payload_bytes < STATE_BYTES || h.payload_bytes > d.record_capacity - BEAT_BYTES ||
        h.payload_bytes > g.raw_bytes)
      return SPECKV_STATUS_BAD_PAYLOAD_BYTES;
    std::memcpy(payload, record + BEAT_BYTES, h.payload_bytes);
    v = symbols_of(g, image, unit, params_word(h), h.payload_bytes, payload, work);
    if (v.status) return v.status;
  }
  return SPECKV_STATUS_OK;
}

int32_t speckv_csim_prefetch_times(const void* predictor, uint64_t predictor_bytes, void* states,
                                   uint64_t states_bytes, void* candidates, uint64_t candidates_bytes,
                                   const struct speckv_prediction* descriptors,
                                   struct speckv_completion* completions, uint32_t count, uint64_t abi_id,
                                   uint64_t* nanoseconds) noexcept {
  using Clock = std::chrono::steady_clock;
  for (uint32_t i = 0; i < count; ++i) {
    const Clock::time_point started = Clock::now();
    const int32_t status =
        speckv_csim_kv_prefetch(predictor, predictor_bytes, states, states_bytes, candidates,
                                candidates_bytes, descriptors + i, completions + i, 1, abi_id);
    nanoseconds[i] = uint64_t(std::chrono::nanoseconds(Clock::now() - started).count());
    if (status) return status;
  }
  return SPECKV_STATUS_OK;
}

#ifdef SPECKV_HAS_CLONES
namespace {

// Independent 16-bit multiply-adds on registers: nothing but the multipliers limits it.
// clang-format off
#define SPECKV_MADD(reg, to) "vpmaddwd %%" reg "0, %%" reg "1, %%" reg to "\n\t"
#define SPECKV_EIGHT(reg)                                                                 \
  SPECKV_MADD(reg, "2")                                                                   \
  SPECKV_MADD(reg, "3") SPECKV_MADD(reg, "4") SPECKV_MADD(reg, "5") SPECKV_MADD(reg, "6") \
      SPECKV_MADD(reg, "7") SPECKV_MADD(reg, "8") SPECKV_MADD(reg, "9")
#define SPECKV_CLOBBERS "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9"
// clang-format on

__attribute__((target("avx2"))) void multiply_adds_avx2(uint64_t rounds) {
  for (uint64_t i = 0; i < rounds; ++i) __asm__ volatile(SPECKV_EIGHT("ymm") : : : SPECKV_CLOBBERS);
}

#ifdef SPECKV_HAS_WIDE_CLONES
__attribute__((target("avx512bw"))) void multiply_adds_avx512(uint64_t rounds) {
  for (uint64_t i = 0; i < rounds; ++i) __asm__ volatile(SPECKV_EIGHT("zmm") : : : SPECKV_CLOBBERS);
}
#endif

}  // namespace

uint64_t speckv_csim_multiply_adds(uint64_t rounds) noexcept {
#ifdef SPECKV_HAS_WIDE_CLONES
  if (__builtin_cpu_supports("avx512bw")) {
    multiply_adds_avx512(rounds);
    return rounds * 8 * 32;
  }
#endif
  if (!__builtin_cpu_supports("avx2")) return 0;
  multiply_adds_avx2(rounds);
  return rounds * 8 * 16;
}
#else
uint64_t speckv_csim_multiply_adds(uint64_t) noexcept { return 0; }
#endif
