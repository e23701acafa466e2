// The tables of the memory system: blocks, the order of their use, leases. All under the lock.
#include <time.h>

#include <algorithm>

#include "system.h"

namespace speckv {

uint32_t System::take_block() {
  if (free_block_ == kNil) {
    if (blocks_.size() >= kNil - 1) throw std::bad_alloc();
    blocks_.emplace_back();
    ++counters_.blocks;
    return static_cast<uint32_t>(blocks_.size() - 1);
  }
  const uint32_t index = free_block_;
  free_block_ = blocks_[index].newer;
  blocks_[index] = Block{};
  ++counters_.blocks;
  return index;
}

// The lines of a record that cannot be given back for want of memory stay until bury() succeeds.
void System::drop(uint32_t index) noexcept {
  Block& block = blocks_[index];
  if (block.tier != kNone) leave_tier(index, true);
  counters_.dirty_blocks -= block.lines == 0;
  --counters_.blocks;
  if (block.lines != 0 && !drop_record(block)) {
    block.newer = condemned_;
    condemned_ = index;
    return;
  }
  block = Block{};
  block.newer = free_block_;
  free_block_ = index;
  clear_if_empty();
}

void System::clear_if_empty() noexcept {
  if (counters_.blocks != 0 || condemned_ != kNil) return;
  blocks_.clear();
  blocks_.shrink_to_fit();
  free_block_ = kNil;
}

bool System::drop_record(Block& block) noexcept {
  try {
    l3_.give(block.line, block.lines);
  } catch (const std::bad_alloc&) {
    return false;
  }
  block.lines = 0;
  return true;
}

void System::drop_if_unused(uint32_t index) noexcept {
  const Block& block = blocks_[index];
  if (block.references == 0 && block.pins == 0 && !block.moving) drop(index);
}

void System::bury() noexcept {
  while (condemned_ != kNil) {
    Block& block = blocks_[condemned_];
    if (!drop_record(block)) return;
    const uint32_t next = block.newer;
    block = Block{};
    block.newer = free_block_;
    free_block_ = condemned_;
    condemned_ = next;
    clear_if_empty();
  }
  l3_.trim();
}

void System::enter_tier(uint32_t index, Tier tier, uint32_t slot) {
  Block& block = blocks_[index];
  Ends& ends = ends_[tier];
  block.tier = tier;
  block.slot = slot;
  block.older = ends.newest;
  block.newer = kNil;
  (ends.newest == kNil ? ends.oldest : blocks_[ends.newest].newer) = index;
  ends.newest = index;
}

void System::leave_tier(uint32_t index, bool give_back) {
  Block& block = blocks_[index];
  Ends& ends = ends_[block.tier];
  (block.older == kNil ? ends.oldest : blocks_[block.older].newer) = block.newer;
  (block.newer == kNil ? ends.newest : blocks_[block.newer].older) = block.older;
  (block.tier == kL1 ? l1_ : l2_).give(block.slot, give_back);
  block.tier = kNone;
}

// Makes a block of L1 the newest.
void System::touch(uint32_t index) {
  Block& block = blocks_[index];
  Ends& ends = ends_[kL1];
  if (ends.newest == index) return;
  (block.older == kNil ? ends.oldest : blocks_[block.older].newer) = block.newer;
  blocks_[block.newer].older = block.older;
  block.older = ends.newest;
  block.newer = kNil;
  blocks_[ends.newest].newer = index;
  ends.newest = index;
}

uint32_t System::take_lease() {
  uint32_t index = free_lease_;
  if (index == kNil) {
    if (leases_.size() >= kNil - 1) throw std::bad_alloc();
    leases_.emplace_back();
    index = static_cast<uint32_t>(leases_.size() - 1);
  } else {
    free_lease_ = leases_[index].next_free;
  }
  serial_ += serial_ == UINT32_MAX ? 2 : 1;  // never 0
  leases_[index].serial = serial_;
  ++counters_.leases;
  return index;
}

void System::give_lease(uint32_t lease) noexcept {
  leases_[lease] = Lease{0, kNil, free_lease_};
  free_lease_ = lease;
  if (--counters_.leases != 0 || leases_.size() <= 1024) return;  // after a large batch
  leases_.clear();
  leases_.shrink_to_fit();
  free_lease_ = kNil;
}

void System::grant(uint32_t index, uint32_t lease, uint64_t high, uint64_t low, uint32_t mode,
                   speckv_view& view) {
  Block& block = blocks_[index];
  leases_[lease].block = index;
  ++block.pins;
  block.writing = mode != SPECKV_READ;
  const uint64_t lease_ns = config_.lease_timeout_ms * 1000000ull;
  const uint64_t deadline = lease_ns == 0 ? kNever : now_ns() + lease_ns;
  block.deadline_ns = std::max(block.deadline_ns, deadline);
  uint8_t* base = l1_.at(block.slot);
  const uint32_t token = speckv_address_pos(high, low) - block.position;
  view.data = base + speckv_address_kind(high, low) * strides_.kind_bytes + token * strides_.token_bytes +
              speckv_address_head(high, low) * strides_.entry_bytes;
  view.block = base;
  view.id = static_cast<uint64_t>(leases_[lease].serial) << 32 | lease;
  view.deadline_ns = deadline;
  view.first_position = block.position;
  view.mode = mode;
}

uint32_t System::lease_of(const speckv_view& view) const {
  const auto lease = static_cast<uint32_t>(view.id);
  const uint64_t serial = view.id >> 32;
  if (serial != 0 && lease < leases_.size() && leases_[lease].serial == serial) return lease;
  throw Failure{SPECKV_STALE_VIEW, view.id, 0, 0, "view"};
}

void System::end_lease(uint32_t lease) noexcept {
  const uint32_t index = leases_[lease].block;
  Block& block = blocks_[index];
  give_lease(lease);
  block.writing = false;
  if (--block.pins == 0) block.deadline_ns = 0;
  if (block.references == 0) drop_if_unused(index);
  if (waiting_ != 0) changed_.notify_all();
}

// Ends the leases of a block if all have run out; false: one has not.
bool System::fence(uint32_t index) {
  Block& block = blocks_[index];
  if (block.pins == 0) return true;
  if (block.deadline_ns > now_ns()) return false;
  for (uint32_t lease = 0; lease < leases_.size() && block.pins != 0; ++lease) {
    if (leases_[lease].serial == 0 || leases_[lease].block != index) continue;
    give_lease(lease);
    --block.pins;
    ++counters_.expired_leases;
  }
  block.writing = false;
  block.deadline_ns = 0;
  return true;
}

// To a few milliseconds, which leases do not notice: the exact clock would be a quarter of a hit's time.
uint64_t System::now_ns() const {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000ull + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace speckv
