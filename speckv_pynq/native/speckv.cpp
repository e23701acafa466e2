// The C border of the memory system.
#include "speckv.h"

#include <new>
#include <system_error>

#include "system.h"

struct speckv_system {
  explicit speckv_system(const speckv_config& config) : system(config) {}
  speckv::System system;
};

namespace {

thread_local speckv_error last_error = {0, 0, 0, 0, ""};

int32_t fail(const speckv::Failure& failure) {
  last_error =
      speckv_error{failure.result, failure.kernel_status, failure.value, failure.limit, failure.what};
  return failure.result;
}

const speckv::Failure null_pointer = {SPECKV_BAD_ARGUMENT, 0, 0, 0, "a pointer"};

template <class Body>
int32_t guarded(bool given, Body body) noexcept {
  if (!given) return fail(null_pointer);
  try {
    body();
    return SPECKV_OK;
  } catch (const speckv::Failure& failure) {
    return fail(failure);
  } catch (const std::bad_alloc&) {
    return fail({SPECKV_NO_MEMORY, 0, 0, 0, ""});
  } catch (const std::system_error&) {
    return fail({SPECKV_NO_MEMORY, 0, 0, 0, ""});  // no thread or lock to be had
  } catch (...) {
    return fail({SPECKV_INTERNAL, 0, 0, 0, ""});
  }
}

}  // namespace

extern "C" {

void speckv_config_init(speckv_config* config) {
  *config = speckv_config{};
  config->struct_size = sizeof *config;
  config->block_tokens = SPECKV_BLOCK_TOKENS;
  config->scheme = SPECKV_SCHEME_INT4;
  config->l1_bytes = 12ull << 30;
  config->l2_bytes = 3ull << 30;
  config->l3_bytes = 128ull << 30;
  config->prefetch_depth = 4;
  config->threads = 1;
  config->lease_timeout_ms = 10000;
  config->wait_timeout_ms = 1000;
}

int32_t speckv_init(const speckv_config* config, speckv_system** system) {
  return guarded(config != nullptr && system != nullptr, [&] {
    *system = nullptr;
    *system = new speckv_system(*config);
  });
}

void speckv_shutdown(speckv_system* system) { delete system; }

int32_t speckv_alloc(speckv_system* system, uint32_t req_id, uint32_t tokens) {
  return guarded(system != nullptr, [&] { system->system.alloc(req_id, tokens); });
}

int32_t speckv_free(speckv_system* system, uint32_t req_id) {
  return guarded(system != nullptr, [&] { system->system.free(req_id); });
}

int32_t speckv_fork(speckv_system* system, uint32_t from, uint32_t to) {
  return guarded(system != nullptr, [&] { system->system.fork(from, to); });
}

int32_t speckv_access(speckv_system* system, uint64_t address_high, uint64_t address_low, uint32_t mode,
                      speckv_view* view) {
  return guarded(system != nullptr && view != nullptr,
                 [&] { system->system.access(address_high, address_low, mode, *view); });
}

int32_t speckv_seek(speckv_system* system, uint64_t address_high, uint64_t address_low, speckv_view* view) {
  return guarded(system != nullptr && view != nullptr,
                 [&] { system->system.seek(address_high, address_low, *view); });
}

int32_t speckv_access_batch(speckv_system* system, uint32_t count, const speckv_address* addresses,
                            uint32_t mode, speckv_view* views, int32_t* results) {
  if (count == 0) return SPECKV_OK;
  const bool given = system != nullptr && addresses != nullptr && views != nullptr && results != nullptr;
  if (!given) return fail(null_pointer);
  int32_t first = SPECKV_OK;
  speckv_error error = last_error;
  for (uint32_t i = 0; i < count; ++i) {
    results[i] = speckv_access(system, addresses[i].high, addresses[i].low, mode, &views[i]);
    if (first != SPECKV_OK || results[i] == SPECKV_OK) continue;
    first = results[i];
    error = last_error;
  }
  last_error = error;
  return first;
}

int32_t speckv_release(speckv_system* system, speckv_view* view) {
  return guarded(system != nullptr && view != nullptr, [&] { system->system.release(*view); });
}

int32_t speckv_prefetch(speckv_system* system, uint32_t req_id, uint32_t layer, uint32_t cur_pos,
                        uint32_t depth) {
  return guarded(system != nullptr, [&] { system->system.prefetch(req_id, layer, cur_pos, depth); });
}

int32_t speckv_set_prefetch_depth(speckv_system* system, uint32_t depth) {
  return guarded(system != nullptr, [&] { system->system.set_prefetch_depth(depth); });
}

int32_t speckv_set_compression_scheme(speckv_system* system, uint32_t scheme) {
  return guarded(system != nullptr, [&] { system->system.set_scheme(scheme); });
}

int32_t speckv_stats(speckv_system* system, speckv_counters* counters) {
  return guarded(system != nullptr && counters != nullptr, [&] { system->system.stats(*counters); });
}

int32_t speckv_layout(speckv_system* system, speckv_strides* strides) {
  return guarded(system != nullptr && strides != nullptr, [&] { *strides = system->system.strides(); });
}

const char* speckv_strerror(int32_t result) {
  static const char* const texts[] = {
      "ok",
      "an argument is outside its limit",
      "the request is unknown, or the position outside its region: speckv_alloc first",
      "nothing was written to this block yet",
      "a tier's byte budget does not hold what was asked for",
      "the host has no memory or thread for the library's own tables",
      "views of others stood in the way for as long as the configuration lets a call wait",
      "a record is damaged: overwrite the block or free the request",
      "the view was released before, or its lease had ended",
      "not supported by this library",
      "internal error of the library",
  };
  const bool known = result >= 0 && result < static_cast<int32_t>(sizeof texts / sizeof *texts);
  return known ? texts[result] : "unknown result";
}

void speckv_last_error(speckv_error* error) {
  if (error != nullptr) *error = last_error;
}

}  // extern "C"
