#include "block_table.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "border.h"
#include "speckv_spec.h"

namespace speckv {

namespace {

// A handle: generation above, index below. 2^28 blocks of one core; 2^36 blocks in its life.
constexpr uint32_t kIndexBits = 28;
constexpr uint64_t kIndexMask = (1ull << kIndexBits) - 1;
constexpr uint64_t kMaxRecordLines = (1ull << 24) - 1;

using Guard = std::lock_guard<std::mutex>;

Memory memory_of(const speckv_core_config& c, uint32_t tier) {
  return Memory{c.base[tier], c.bytes[tier], c.frame_bytes, c.give_back[tier] != 0};
}

// log2(2^a + 2^b) with no overflow; b is finite.
double log2_sum(double a, double b) {
  constexpr double kLog2E = 1.4426950408889634;
  const double high = std::max(a, b), low = std::min(a, b);
  return high + kLog2E * std::log1p(std::exp2(low - high));
}

}  // namespace

BlockTable::BlockTable(const speckv_core_config& c)
    : metadata_bytes_(sizeof(BlockTable)),
      parts_(c.parts),
      layers_(c.layers),
      slot_lines_(c.block_bytes / SPECKV_LINE_BYTES),
      tiers_{{memory_of(c, 0), &metadata_bytes_},
             {memory_of(c, 1), &metadata_bytes_},
             {memory_of(c, 2), &metadata_bytes_}},
      blocks_(CountingAllocator<Block>(&metadata_bytes_)),
      records_(CountingAllocator<Record>(&metadata_bytes_)),
      layer_lines_(c.layers, 0, CountingAllocator<uint64_t>(&metadata_bytes_)),
      reserved_{Vector<uint8_t>{CountingAllocator<uint8_t>(&metadata_bytes_)},
                Vector<uint8_t>{CountingAllocator<uint8_t>(&metadata_bytes_)}} {}

uint32_t BlockTable::find(uint64_t handle) const {
  const uint64_t index = handle & kIndexMask, generation = handle >> kIndexBits;
  const bool live = generation != 0 && index < blocks_.size() && blocks_[index].generation == generation;
  return live ? static_cast<uint32_t>(index) : kNil;
}

uint32_t BlockTable::index_of(uint64_t handle, uint32_t i) const {
  const uint32_t index = find(handle);
  if (index == kNil) throw CallError{SPECKV_CORE_STALE_HANDLE, i, handle, 0};
  return index;
}

uint64_t BlockTable::handle_of(uint32_t index) const {
  return blocks_[index].generation << kIndexBits | index;
}

void BlockTable::check_all(uint32_t count, const uint64_t* handles) const {
  for (uint32_t i = 0; i < count; ++i) index_of(handles[i], i);
}

void BlockTable::put(uint32_t count, uint32_t layer, const uint32_t* positions, const uint8_t* staging,
                     const uint64_t* record_offsets, const uint32_t* record_bytes, uint64_t* handles,
                     uint64_t range[2]) {
  Guard guard(mutex_);
  require(layer < layers_, 0, layer, layers_);
  require(live_ + count <= kIndexMask, 0, live_ + count, kIndexMask);
  // Everything that can fail comes first: room in the tables, then lines.
  const size_t grown = std::max(blocks_.size(), static_cast<size_t>(live_) + count);
  if (grown > blocks_.capacity()) {  // by a quarter: at most a fifth of the table is unused
    blocks_.reserve(std::max(grown, blocks_.capacity() + blocks_.capacity() / 4));
    records_.reserve(blocks_.capacity() * parts_);
  }
  Vector<Record> taken{CountingAllocator<Record>(&metadata_bytes_)};
  take_records(count, record_bytes, taken);
  range[0] = count == 0 ? 0 : UINT64_MAX;
  range[1] = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = take_index();
    Block& block = blocks_[index];
    block = Block{};
    block.generation = ++generation_;
    block.references = 1;
    block.position = positions[i];
    block.layer = layer;
    for (uint32_t p = 0; p < parts_; ++p) {
      const size_t source = static_cast<size_t>(i) * parts_ + p;
      const Record& record = taken[source];
      records_[static_cast<size_t>(index) * parts_ + p] = record;
      layer_lines_[layer] += record.lines;
      range[0] = std::min<uint64_t>(range[0], record.line * SPECKV_LINE_BYTES);
      range[1] = std::max<uint64_t>(range[1], (record.line + record.lines) * SPECKV_LINE_BYTES);
      std::memcpy(tiers_[SPECKV_TIER_L3].at(record.line), staging + record_offsets[source],
                  record_bytes[source]);
    }
    handles[i] = handle_of(index);
  }
  live_ += count;
  references_ += count;
}

void BlockTable::take_records(uint32_t count, const uint32_t* record_bytes, Vector<Record>& records) {
  LineAllocator& pool = tiers_[SPECKV_TIER_L3];
  records.reserve(static_cast<size_t>(count) * parts_);
  try {
    for (size_t i = 0; i < static_cast<size_t>(count) * parts_; ++i) {
      const uint64_t lines = record_bytes[i] / SPECKV_LINE_BYTES;
      const auto block = static_cast<uint32_t>(i / parts_);
      require(record_bytes[i] % SPECKV_LINE_BYTES == 0 && lines > 0 && lines <= kMaxRecordLines, block,
              record_bytes[i], kMaxRecordLines * SPECKV_LINE_BYTES);
      const uint64_t line = pool.take(lines);
      if (line == LineAllocator::kNone) {
        throw CallError{SPECKV_CORE_POOL_FULL, block, record_bytes[i], pool.capacity_bytes()};
      }
      records.push_back(Record{line, lines});
    }
  } catch (...) {
    for (size_t i = records.size(); i-- > 0;) pool.give_later(records[i].line, records[i].lines);
    pool.trim();
    throw;
  }
}

uint64_t BlockTable::slot_offset(const Block& block, uint32_t tier) const {
  return block.slots[tier] * slot_lines_ * SPECKV_LINE_BYTES;
}

uint32_t BlockTable::take_index() {
  if (free_ != kNil) {
    const uint32_t index = free_;
    free_ = blocks_[index].links[0].newer;
    return index;
  }
  blocks_.emplace_back();
  records_.resize(records_.size() + parts_);
  return static_cast<uint32_t>(blocks_.size() - 1);
}

void BlockTable::plan(uint32_t count, const uint64_t* handles, speckv_core_plan& plan) {
  Guard guard(mutex_);
  check_all(count, handles);
  plan.misses = plan.hits[0] = plan.hits[1] = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = find(handles[i]);
    Block& block = blocks_[index];
    plan.sources[i] = 0;
    plan.tiers[i] = block.slots[0] != kNil   ? SPECKV_TIER_L1
                    : block.slots[1] != kNil ? SPECKV_TIER_L2
                                             : SPECKV_TIER_L3;
    if (plan.tiers[i] != SPECKV_TIER_L3) {
      plan.offsets[i] = slot_offset(block, plan.tiers[i]);
      ++plan.hits[plan.tiers[i]];
      continue;
    }
    plan.offsets[i] = SPECKV_NO_OFFSET;
    misses_ += plan.uncounted == 0;
    if (block.mark == 0) {
      const uint32_t m = plan.misses++;
      block.mark = m + 1;
      plan.miss_handles[m] = handles[i];
      plan.miss_positions[m] = block.position;
      plan.miss_layers[m] = block.layer;
      for (uint32_t p = 0; p < parts_; ++p) {
        const Record& record = records_[static_cast<size_t>(index) * parts_ + p];
        plan.record_offsets[static_cast<size_t>(m) * parts_ + p] = record.line * SPECKV_LINE_BYTES;
        plan.record_bytes[static_cast<size_t>(m) * parts_ + p] =
            static_cast<uint32_t>(record.lines * SPECKV_LINE_BYTES);
      }
    }
    plan.sources[i] = block.mark - 1;
  }
  for (uint32_t m = 0; m < plan.misses; ++m) blocks_[find(plan.miss_handles[m])].mark = 0;
  if (plan.uncounted != 0) return;
  for (uint32_t tier = 0; tier < kSlotTiers; ++tier) hits_[tier] += plan.hits[tier];
}

void BlockTable::retain(uint32_t count, const uint64_t* handles) {
  Guard guard(mutex_);
  check_all(count, handles);
  for (uint32_t i = 0; i < count; ++i) {  // counts on both sides: a call of 2^32 references cannot be written
    require(blocks_[find(handles[i])].references < UINT32_MAX - count, i, count, UINT32_MAX);
  }
  for (uint32_t i = 0; i < count; ++i) ++blocks_[find(handles[i])].references;
  references_ += count;
}

void BlockTable::release(uint32_t count, const uint64_t* handles) {
  Guard guard(mutex_);
  uint32_t good = 0;  // a handle may stand several times: as often as it has references
  for (; good < count; ++good) {
    const uint32_t index = find(handles[good]);
    if (index == kNil || blocks_[index].mark == blocks_[index].references) break;
    ++blocks_[index].mark;
  }
  for (uint32_t i = 0; i < good; ++i) blocks_[find(handles[i])].mark = 0;
  if (good < count) throw CallError{SPECKV_CORE_STALE_HANDLE, good, handles[good], 0};
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = find(handles[i]);
    --references_;
    if (--blocks_[index].references == 0) drop(index);
  }
  trim();
}

void BlockTable::drop(uint32_t index) noexcept {
  Block& block = blocks_[index];
  for (uint32_t tier = 0; tier < kSlotTiers; ++tier) {
    if (block.slots[tier] != kNil) give_slot(tier, index);
  }
  for (uint32_t p = 0; p < parts_; ++p) {
    const Record& record = records_[static_cast<size_t>(index) * parts_ + p];
    tiers_[SPECKV_TIER_L3].give_later(record.line, record.lines);
    layer_lines_[block.layer] -= record.lines;
  }
  block = Block{};
  block.links[0].newer = free_;
  free_ = index;
  --live_;
}

void BlockTable::enlist(uint32_t tier, uint32_t index) {
  Ends& ends = ends_[tier];
  blocks_[index].links[tier] = Link{ends.newest, kNil};
  (ends.newest == kNil ? ends.oldest : blocks_[ends.newest].links[tier].newer) = index;
  ends.newest = index;
}

void BlockTable::unlist(uint32_t tier, uint32_t index) {
  const Link link = blocks_[index].links[tier];
  (link.older == kNil ? ends_[tier].oldest : blocks_[link.older].links[tier].newer) = link.newer;
  (link.newer == kNil ? ends_[tier].newest : blocks_[link.newer].links[tier].older) = link.older;
}

uint32_t BlockTable::take_line(uint32_t tier) {
  const uint64_t line = tiers_[tier].take(slot_lines_);
  if (line == LineAllocator::kNone) {
    if (tiers_[tier].has_left()) throw std::bad_alloc();  // there would be room, were there memory to note it
    throw CallError{SPECKV_CORE_INTERNAL, 0, tier, 0};
  }
  return static_cast<uint32_t>(line / slot_lines_);  // runs of one length lie at its multiples
}

void BlockTable::take_slot(uint32_t tier, uint32_t index, uint32_t slot) {
  blocks_[index].slots[tier] = slot;
  enlist(tier, index);
  ++residents_[tier];
}

void BlockTable::give_slot(uint32_t tier, uint32_t index) noexcept {
  tiers_[tier].give_later(blocks_[index].slots[tier] * slot_lines_, slot_lines_);
  blocks_[index].slots[tier] = kNil;
  unlist(tier, index);
  --residents_[tier];
}

void BlockTable::give_reserved(uint32_t tier, uint32_t slot) noexcept {
  reserved_[tier][slot] = 0;
  --reserved_count_[tier];
  tiers_[tier].give_later(slot * slot_lines_, slot_lines_);
}

void BlockTable::check_room(uint32_t tier, uint32_t evictions, uint32_t count) const {
  require(tier < kSlotTiers, 0, tier, kSlotTiers);
  require(evictions <= residents_[tier], 0, evictions, residents_[tier]);
  if (residents_[tier] - evictions + reserved_count_[tier] + count > slots_of(tier)) {
    throw CallError{SPECKV_CORE_POOL_FULL, 0, count * slot_lines_ * SPECKV_LINE_BYTES,
                    tiers_[tier].capacity_bytes()};
  }
}

void BlockTable::admit(uint32_t tier, uint32_t evictions, uint32_t count, const uint64_t* handles,
                       uint64_t* offsets) {
  Guard guard(mutex_);
  require(tier < kSlotTiers, 0, tier, kSlotTiers);
  check_all(count, handles);
  check_room(tier, evictions, count);
  uint32_t good = 0;  // each once, and none there yet
  for (; good < count; ++good) {
    Block& block = blocks_[find(handles[good])];
    if (block.slots[tier] != kNil || block.mark != 0) break;
    block.mark = 1;
  }
  for (uint32_t i = 0; i < good; ++i) blocks_[find(handles[i])].mark = 0;
  require(good == count, good, count == good ? 0 : handles[good], 0);
  for (uint32_t i = 0; i < evictions; ++i) give_slot(tier, ends_[tier].oldest);
  uint32_t taken = 0;
  try {
    for (; taken < count; ++taken) {
      const uint32_t index = find(handles[taken]);
      take_slot(tier, index, take_line(tier));
      offsets[taken] = slot_offset(blocks_[index], tier);
    }
  } catch (...) {  // a slot that nobody fills must not pass for its block
    while (taken-- > 0) give_slot(tier, find(handles[taken]));
    tiers_[tier].trim();
    throw;
  }
  tiers_[tier].trim();
}

void BlockTable::evict(uint32_t tier, uint32_t count, const uint64_t* handles) {
  Guard guard(mutex_);
  require(tier < kSlotTiers, 0, tier, kSlotTiers);
  check_all(count, handles);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = find(handles[i]);
    if (blocks_[index].slots[tier] != kNil) give_slot(tier, index);
  }
  tiers_[tier].trim();
}

void BlockTable::reserve(uint32_t tier, uint32_t evictions, uint32_t count, uint64_t* offsets) {
  Guard guard(mutex_);
  check_room(tier, evictions, count);
  reserved_[tier].resize(slots_of(tier), 0);
  for (uint32_t i = 0; i < evictions; ++i) give_slot(tier, ends_[tier].oldest);
  uint32_t taken = 0;
  try {
    for (; taken < count; ++taken) {
      const uint32_t slot = take_line(tier);
      reserved_[tier][slot] = 1;
      ++reserved_count_[tier];
      offsets[taken] = slot * slot_lines_ * SPECKV_LINE_BYTES;
    }
  } catch (...) {  // all slots or none
    const uint64_t slot_bytes = slot_lines_ * SPECKV_LINE_BYTES;
    while (taken-- > 0) give_reserved(tier, static_cast<uint32_t>(offsets[taken] / slot_bytes));
    tiers_[tier].trim();
    throw;
  }
  tiers_[tier].trim();
}

uint32_t BlockTable::install(uint32_t tier, uint32_t count, const uint64_t* handles,
                             const uint64_t* offsets) {
  Guard guard(mutex_);
  require(tier < kSlotTiers, 0, tier, kSlotTiers);
  const uint64_t slot_bytes = slot_lines_ * SPECKV_LINE_BYTES;
  Vector<uint8_t>& reserved = reserved_[tier];
  uint32_t good = 0;  // reserved slots, each once
  for (; good < count; ++good) {
    const uint64_t slot = offsets[good] / slot_bytes;
    if (offsets[good] % slot_bytes != 0 || slot >= reserved.size() || reserved[slot] != 1) break;
    reserved[slot] = 2;
  }
  for (uint32_t i = 0; i < good; ++i) reserved[offsets[i] / slot_bytes] = 1;
  require(good == count, good, good == count ? 0 : offsets[good], tiers_[tier].capacity_bytes());
  uint32_t installed = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const auto slot = static_cast<uint32_t>(offsets[i] / slot_bytes);
    const uint32_t index = find(handles[i]);
    if (index != kNil && blocks_[index].slots[tier] == kNil) {
      reserved[slot] = 0;
      --reserved_count_[tier];
      take_slot(tier, index, slot);
      ++installed;
    } else {
      give_reserved(tier, slot);
    }
  }
  trim();
  return installed;
}

void BlockTable::touch(uint32_t count, const uint64_t* handles) {
  Guard guard(mutex_);
  check_all(count, handles);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = find(handles[i]);
    if (blocks_[index].slots[SPECKV_TIER_L1] == kNil) continue;
    unlist(SPECKV_TIER_L1, index);
    enlist(SPECKV_TIER_L1, index);
  }
}

void BlockTable::warm(uint32_t count, const uint64_t* handles, double when, double* heats) {
  Guard guard(mutex_);
  require(std::isfinite(when), 0, 0, 0);
  check_all(count, handles);
  for (uint32_t i = 0; i < count; ++i) {
    Block& block = blocks_[find(handles[i])];
    if (block.mark == 0) block.heat = log2_sum(block.heat, when);
    block.mark = 1;
    heats[i] = block.heat;
  }
  for (uint32_t i = 0; i < count; ++i) blocks_[find(handles[i])].mark = 0;
}

void BlockTable::heats(uint32_t tier, uint32_t count, const uint64_t* handles, double* heats) {
  Guard guard(mutex_);
  require(tier < kSlotTiers, 0, tier, kSlotTiers);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t index = find(handles[i]);
    const bool there = index != kNil && blocks_[index].slots[tier] != kNil;
    heats[i] = there ? blocks_[index].heat : std::numeric_limits<double>::quiet_NaN();
  }
}

uint64_t BlockTable::resident(uint32_t tier, uint64_t room, uint64_t* handles) {
  Guard guard(mutex_);
  if (tier >= kSlotTiers) return 0;
  uint64_t written = 0;
  for (uint32_t i = ends_[tier].oldest; i != kNil && written < room; i = blocks_[i].links[tier].newer) {
    handles[written++] = handle_of(i);
  }
  return residents_[tier];
}

uint64_t BlockTable::slots_of(uint32_t tier) const {
  return tiers_[tier].capacity_bytes() / SPECKV_LINE_BYTES / slot_lines_;
}

uint64_t BlockTable::total_slots(uint32_t tier) { return tier < kSlotTiers ? slots_of(tier) : 0; }

uint64_t BlockTable::free_slots(uint32_t tier) {
  Guard guard(mutex_);
  return tier < kSlotTiers ? slots_of(tier) - residents_[tier] - reserved_count_[tier] : 0;
}

void BlockTable::trim() {
  for (LineAllocator& tier : tiers_) tier.trim();
  if (live_ != 0) return;
  blocks_.clear();
  blocks_.shrink_to_fit();
  records_.clear();
  records_.shrink_to_fit();
  free_ = kNil;
  for (uint32_t tier = 0; tier < kSlotTiers; ++tier) {
    if (reserved_count_[tier] == 0) Vector<uint8_t>{reserved_[tier].get_allocator()}.swap(reserved_[tier]);
  }
}

void BlockTable::stats(speckv_core_stats& stats) {
  Guard guard(mutex_);
  stats = speckv_core_stats{};
  stats.blocks = live_;
  stats.references = references_;
  stats.record_bytes = tiers_[SPECKV_TIER_L3].used_bytes();
  for (uint32_t tier = 0; tier < 3; ++tier) {
    stats.held_bytes[tier] = tiers_[tier].held_bytes();
    stats.used_bytes[tier] = tiers_[tier].used_bytes();
    stats.slots[tier] = tier < kSlotTiers ? residents_[tier] : live_;
  }
  stats.metadata_bytes = metadata_bytes_;
  for (uint32_t tier = 0; tier < kSlotTiers; ++tier) stats.hits[tier] = hits_[tier];
  stats.misses = misses_;
  stats.free_runs = tiers_[SPECKV_TIER_L3].free_runs();
}

void BlockTable::layer_bytes(uint64_t* record_bytes) {
  Guard guard(mutex_);
  for (uint32_t layer = 0; layer < layers_; ++layer)
    record_bytes[layer] = layer_lines_[layer] * SPECKV_LINE_BYTES;
}

uint32_t BlockTable::block(uint64_t handle, uint64_t* record_offsets, uint32_t* record_bytes) {
  Guard guard(mutex_);
  const uint32_t index = find(handle);
  if (index == kNil) return 0;
  for (uint32_t p = 0; p < parts_; ++p) {
    const Record& record = records_[static_cast<size_t>(index) * parts_ + p];
    record_offsets[p] = record.line * SPECKV_LINE_BYTES;
    record_bytes[p] = static_cast<uint32_t>(record.lines * SPECKV_LINE_BYTES);
  }
  return blocks_[index].references;
}

}  // namespace speckv
