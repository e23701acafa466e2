#include "bounds.h"
#include "speckv/predictor.hpp"
#include "speckv/validate.hpp"
#include "speckv_csim.h"

extern "C" void kv_prefetch(const ap_uint<512>* predictor, ap_uint<512>* states,
                            const ap_uint<512>* descriptors, ap_uint<128>* completions,
                            ap_uint<512>* candidates, uint32_t count, uint32_t predictor_lines,
                            uint64_t abi_id);

namespace {

bool is_misaligned(const void* base) { return reinterpret_cast<uintptr_t>(base) % SPECKV_LINE_BYTES != 0; }

// d has passed the kernel's own checks.
speckv::Verdict check_places(const speckv_prediction& d, uint32_t vocabulary, uint64_t states_bytes,
                             uint64_t candidates_bytes) {
  const speckv::StatePlaces p = speckv::places_of(d, vocabulary);
  const speckv::Verdict v = check_span(d.state_offset, (p.end - p.header) * SPECKV_LINE_BYTES, states_bytes);
  if (v.status || (d.flags & SPECKV_PREDICTION_FLAG_ADVANCE_ONLY)) return v;
  constexpr uint64_t SLOT_BYTES = SPECKV_PREDICTOR_TOP * sizeof(speckv_candidate);
  return check_span(d.result * SLOT_BYTES, SLOT_BYTES, candidates_bytes);
}

}  // namespace

int32_t speckv_csim_kv_prefetch(const void* predictor, uint64_t predictor_bytes, void* states,
                                uint64_t states_bytes, void* candidates, uint64_t candidates_bytes,
                                const struct speckv_prediction* descriptors,
                                struct speckv_completion* completions, uint32_t count,
                                uint64_t abi_id) noexcept {
  if (count == 0 && abi_id == SPECKV_ABI_ID) return SPECKV_STATUS_OK;
  if (count && (!descriptors || !completions)) return SPECKV_STATUS_OUT_OF_RANGE;
  if (is_misaligned(predictor) || is_misaligned(states)) return SPECKV_STATUS_MISALIGNED;
  const uint64_t lines = predictor ? predictor_bytes / SPECKV_LINE_BYTES : 0;
  const uint32_t predictor_lines = uint32_t(lines < UINT32_MAX ? lines : UINT32_MAX);
  const auto* image = static_cast<const ap_uint<512>*>(predictor);
  const auto launch = [&](uint32_t first, uint32_t n) {
    if (n)
      kv_prefetch(image, static_cast<ap_uint<512>*>(states),
                  reinterpret_cast<const ap_uint<512>*>(descriptors + first),
                  reinterpret_cast<ap_uint<128>*>(completions + first),
                  static_cast<ap_uint<512>*>(candidates), n, predictor_lines, abi_id);
  };
  const speckv::Verdict batch = speckv::check_batch(count, abi_id);
  if (batch.status) {
    launch(0, count <= SPECKV_MAX_BATCH ? count : 0);
    return batch.status;
  }
  speckv::Model model;
  const bool known = speckv::find_model(image, predictor_lines, model).status == SPECKV_STATUS_OK;
  uint32_t first = 0;
  for (uint32_t i = 0; known && i < count; ++i) {
    const speckv_prediction& d = descriptors[i];
    if (speckv::check_prediction(d, model).status) continue;  // the kernel says so
    const speckv::Verdict v =
        check_places(d, model.vocabulary, states ? states_bytes : 0, candidates ? candidates_bytes : 0);
    if (!v.status) continue;
    launch(first, i - first);
    completions[i] = speckv_completion{v.status, 0, 0, v.value, v.limit};
    first = i + 1;
  }
  launch(first, count - first);
  return SPECKV_STATUS_OK;
}
