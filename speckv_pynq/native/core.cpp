// The C border of the tier core.
#include "block_table.h"
#include "border.h"
#include "speckv_core.h"
#include "speckv_spec.h"

struct speckv_core {
  explicit speckv_core(const speckv_core_config& config) : table(config) {}
  speckv::BlockTable table;
};

namespace {

void check(const speckv_core_config& c) {
  using speckv::require;
  const uint32_t frame = c.frame_bytes;
  require(frame >= SPECKV_FRAME_BYTES && frame <= (1u << 20) && (frame & (frame - 1)) == 0, 0, frame,
          SPECKV_FRAME_BYTES);
  require(c.block_bytes > 0 && c.block_bytes % SPECKV_LINE_BYTES == 0, 0, c.block_bytes, SPECKV_LINE_BYTES);
  require(c.parts >= 1 && c.parts <= 65536, 0, c.parts, 65536);
  require(c.layers >= 1 && c.layers <= 65536, 0, c.layers, 65536);
  for (uint32_t tier = 0; tier < 3; ++tier) {
    require(c.bytes[tier] < (1ull << 46), tier, c.bytes[tier], 1ull << 46);  // 40 bits of lines
    require(c.base[tier] != nullptr || c.bytes[tier] < frame, tier, 0, c.bytes[tier]);
    const bool aligned = reinterpret_cast<uintptr_t>(c.base[tier]) % frame == 0;
    require(aligned || c.give_back[tier] == 0, tier, reinterpret_cast<uintptr_t>(c.base[tier]), frame);
  }
}

}  // namespace

extern "C" {

int32_t speckv_core_create(const speckv_core_config* config, speckv_core** core) {
  return speckv::guarded(nullptr, [&] {
    check(*config);
    *core = new speckv_core(*config);
  });
}

void speckv_core_destroy(speckv_core* core) { delete core; }

int32_t speckv_core_put(speckv_core* core, uint32_t count, uint32_t layer, const uint32_t* positions,
                        const uint8_t* staging, const uint64_t* record_offsets, const uint32_t* record_bytes,
                        uint64_t* handles, uint64_t range[2], speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    core->table.put(count, layer, positions, staging, record_offsets, record_bytes, handles, range);
  });
}

int32_t speckv_core_plan_get(speckv_core* core, uint32_t count, const uint64_t* handles,
                             speckv_core_plan* plan, speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.plan(count, handles, *plan); });
}

int32_t speckv_core_retain(speckv_core* core, uint32_t count, const uint64_t* handles,
                           speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.retain(count, handles); });
}

int32_t speckv_core_release(speckv_core* core, uint32_t count, const uint64_t* handles,
                            speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.release(count, handles); });
}

int32_t speckv_core_admit(speckv_core* core, uint32_t tier, uint32_t evictions, uint32_t count,
                          const uint64_t* handles, uint64_t* offsets, speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.admit(tier, evictions, count, handles, offsets); });
}

int32_t speckv_core_evict(speckv_core* core, uint32_t tier, uint32_t count, const uint64_t* handles,
                          speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.evict(tier, count, handles); });
}

int32_t speckv_core_reserve(speckv_core* core, uint32_t tier, uint32_t evictions, uint32_t count,
                            uint64_t* offsets, speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.reserve(tier, evictions, count, offsets); });
}

int32_t speckv_core_install(speckv_core* core, uint32_t tier, uint32_t count, const uint64_t* handles,
                            const uint64_t* offsets, uint32_t* installed, speckv_core_error* error) {
  return speckv::guarded(error, [&] { *installed = core->table.install(tier, count, handles, offsets); });
}

int32_t speckv_core_touch(speckv_core* core, uint32_t count, const uint64_t* handles,
                          speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.touch(count, handles); });
}

int32_t speckv_core_warm(speckv_core* core, uint32_t count, const uint64_t* handles, double when,
                         double* heats, speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.warm(count, handles, when, heats); });
}

int32_t speckv_core_heats(speckv_core* core, uint32_t tier, uint32_t count, const uint64_t* handles,
                          double* heats, speckv_core_error* error) {
  return speckv::guarded(error, [&] { core->table.heats(tier, count, handles, heats); });
}

uint64_t speckv_core_resident(speckv_core* core, uint32_t tier, uint64_t room, uint64_t* handles) {
  return core->table.resident(tier, room, handles);
}

uint64_t speckv_core_free_slots(speckv_core* core, uint32_t tier) { return core->table.free_slots(tier); }

uint64_t speckv_core_total_slots(speckv_core* core, uint32_t tier) { return core->table.total_slots(tier); }

void speckv_core_get_stats(speckv_core* core, speckv_core_stats* stats) { core->table.stats(*stats); }

void speckv_core_layer_bytes(speckv_core* core, uint64_t* record_bytes) {
  core->table.layer_bytes(record_bytes);
}

uint32_t speckv_core_block(speckv_core* core, uint64_t handle, uint64_t* record_offsets,
                           uint32_t* record_bytes) {
  return core->table.block(handle, record_offsets, record_bytes);
}

}  // extern "C"
