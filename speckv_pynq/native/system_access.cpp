// Access of the memory system: hits, and what a miss has to do for its block.
#include <algorithm>
#include <cstring>

#include "system.h"

namespace speckv {

namespace {

constexpr std::chrono::milliseconds kPause(5);  // leases run out without a notice
constexpr std::chrono::seconds kCoding(
    10);  // for what other threads code: more than any queue of blocks takes

}  // namespace

BlockKey System::key_of(uint64_t high, uint64_t low) const {
  const uint32_t layer = speckv_address_layer(high, low), head = speckv_address_head(high, low);
  if (!speckv_address_valid(high))
    throw Failure{SPECKV_BAD_ARGUMENT, high, (1ull << 25) - 1, 0, "address_high"};
  if (layer >= config_.layers) throw Failure{SPECKV_BAD_ARGUMENT, layer, config_.layers - 1, 0, "layer"};
  if (head >= config_.kv_heads) throw Failure{SPECKV_BAD_ARGUMENT, head, config_.kv_heads - 1, 0, "head"};
  return {speckv_address_req_id(high, low), layer, speckv_address_pos(high, low) / config_.block_tokens};
}

// Hits touch the page table, the block and a lease.
void System::access(uint64_t high, uint64_t low, uint32_t mode, speckv_view& view) {
  view.id = 0;
  if (mode > SPECKV_OVERWRITE) throw Failure{SPECKV_BAD_ARGUMENT, mode, SPECKV_OVERWRITE, 0, "mode"};
  const BlockKey key = key_of(high, low);
  Lock lock(mutex_);
  const uint32_t lease = take_lease();
  try {
    const uint64_t handle = table_.find(key);
    auto index = static_cast<uint32_t>(handle - 1);
    if (handle != 0 && ready(blocks_[index], mode)) {
      ++counters_.hits_l1;
    } else {
      index = obtain(lock, key, mode);
    }
    Block& block = blocks_[index];
    if (mode != SPECKV_READ && block.lines != 0) {  // what is written now has no record yet
      if (!drop_record(block)) throw std::bad_alloc();
      ++counters_.dirty_blocks;
      l3_.trim();
    }
    if (config_.policy == SPECKV_POLICY_LRU) touch(index);
    grant(index, lease, high, low, mode, view);
  } catch (...) {
    give_lease(lease);
    throw;
  }
}

void System::seek(uint64_t high, uint64_t low, speckv_view& view) {
  const BlockKey key = key_of(high, low);
  Lock lock(mutex_);
  const uint32_t old = view.id == 0 ? kNil : lease_of(view);
  const uint64_t handle = table_.find(key);
  const auto index = static_cast<uint32_t>(handle - 1);
  const bool reads = old == kNil || view.mode == SPECKV_READ;
  if (handle == 0 || !reads || !ready(blocks_[index], SPECKV_READ)) throw busy();
  const uint32_t lease = take_lease();
  ++counters_.hits_l1;
  if (config_.policy == SPECKV_POLICY_LRU) touch(index);
  grant(index, lease, high, low, SPECKV_READ, view);
  if (old != kNil) end_lease(old);
}

void System::release(speckv_view& view) {
  Lock lock(mutex_);
  end_lease(lease_of(view));
  view.id = 0;
}

bool System::ready(const Block& block, uint32_t mode) const {
  if (block.tier != kL1 || block.moving || block.writing) return false;
  return mode == SPECKV_READ || (block.pins == 0 && block.references == 1);
}

// Goes on until the block is ready, and returns with the lock held ever since. Whatever lets go of the lock
// starts again from the page table.
uint32_t System::obtain(Lock& lock, const BlockKey& key, uint32_t mode) {
  Effort effort = begin_effort();
  for (;;) {
    if (Clock::now() > effort.coding_deadline) throw busy();
    const uint64_t handle = table_.find(key);
    if (handle == 0) {
      check_region(key, mode);
      if (make_room(lock, effort)) create(lock, key, kNil, mode);
      continue;
    }
    const auto index = static_cast<uint32_t>(handle - 1);
    const Block& block = blocks_[index];
    if (ready(block, mode)) return index;
    const bool copy = mode != SPECKV_READ && block.references > 1;  // readers do not disturb a copy
    const bool held = block.writing || (mode != SPECKV_READ && !copy && block.pins != 0);
    if (block.moving) {
      wait(lock, effort.coding_deadline);
    } else if (held && !fence(index)) {
      wait(lock, effort.lease_deadline);
    } else if (copy || block.tier != kL1) {
      if (!make_room(lock, effort)) continue;
      copy ? create(lock, key, index, mode) : bring(lock, index, mode);
    }
  }
}

void System::check_region(const BlockKey& key, uint32_t mode) const {
  const uint64_t position = static_cast<uint64_t>(key.block) * config_.block_tokens;
  const auto region = regions_.find(key.request);
  const uint64_t tokens = region == regions_.end() ? 0 : region->second;
  if (position >= tokens) throw Failure{SPECKV_NOT_ALLOCATED, position, tokens, 0, "position"};
  if (mode == SPECKV_READ) throw Failure{SPECKV_NOT_WRITTEN, position, tokens, 0, "position"};
}

// A new block for the key, in a slot that make_room() found: zeros, or what block `from` holds, which stays
// with the others that share it. Nothing is seen of it before it is filled; where things have changed
// meanwhile, it is given up and the caller starts again.
void System::create(Lock& lock, const BlockKey& key, uint32_t from, uint32_t mode) {
  const uint32_t slot = l1_.take();
  Source source;
  if (from != kNil) {
    begin_move(from);
    if (mode != SPECKV_OVERWRITE) source = source_of(blocks_[from]);
  }
  lock.unlock();
  Failure failure = fill(l1_.at(slot), source);
  lock.lock();
  bool keep = failure.result == SPECKV_OK && table_.find(key) == (from == kNil ? 0 : from + 1ull);
  keep = keep && (from == kNil ? regions_.count(key.request) != 0 : blocks_[from].references > 1);
  try {
    if (keep) publish(key, from, slot);
  } catch (const std::bad_alloc&) {
    failure.result = SPECKV_NO_MEMORY;
    keep = false;
  }
  if (!keep) l1_.give(slot, false);
  if (from != kNil) end_move(from);
  if (failure.result != SPECKV_OK) throw failed(failure);
}

void System::publish(const BlockKey& key, uint32_t from, uint32_t slot) {
  table_.reserve(1, 1);
  const uint32_t index = take_block();
  Block& block = blocks_[index];
  block.position = key.block * config_.block_tokens;
  block.layer = static_cast<uint16_t>(key.layer);
  block.scheme = static_cast<uint8_t>(scheme_);
  block.references = 1;
  enter_tier(index, kL1, slot);
  table_.map(key, index + 1ull);
  ++counters_.dirty_blocks;
  if (from != kNil) --blocks_[from].references;
  ++(from == kNil ? counters_.created : counters_.copied);
}

// Brings a block into L1, in a slot that make_room() found.
void System::bring(Lock& lock, uint32_t index, uint32_t mode) {
  const uint32_t slot = l1_.take();
  begin_move(index);
  const bool staged = blocks_[index].tier == kL2;
  const Source source = mode == SPECKV_OVERWRITE ? Source{} : source_of(blocks_[index]);
  lock.unlock();
  Failure failure = fill(l1_.at(slot), source);
  lock.lock();
  Block& block = blocks_[index];
  bool keep = failure.result == SPECKV_OK;
  if (keep && mode == SPECKV_OVERWRITE) {  // the zeros must not pass for what the record holds
    keep = block.references == 1;          // forked meanwhile: the caller starts again
    if (keep && !drop_record(block)) {
      failure.result = SPECKV_NO_MEMORY;
      keep = false;
    }
    counters_.dirty_blocks += keep;
  }
  if (keep) {
    if (staged) leave_tier(index, false);
    enter_tier(index, kL1, slot);
    ++(staged ? counters_.hits_l2 : counters_.misses);
  } else {
    l1_.give(slot, false);
  }
  end_move(index);
  if (failure.result != SPECKV_OK) throw failed(failure);
}

// Whether a slot of L1 is free now, with the lock held all the time. False: something was done towards it and
// the lock let go of meanwhile.
bool System::make_room(Lock& lock, Effort& effort) {
  if (!l1_.full()) return true;
  const uint32_t index = victim(effort.wanted_bytes != 0);
  if (index == kNil) {
    if (effort.wanted_bytes != 0)
      throw Failure{SPECKV_POOL_FULL, effort.wanted_bytes, config_.l3_bytes, 0, "bytes of a record"};
    wait(lock, moving_ != 0 ? effort.coding_deadline : effort.lease_deadline);
    return false;
  }
  if (blocks_[index].references == 0) {  // freed, and its last lease has run out
    drop(index);
    return true;
  }
  if (blocks_[index].lines == 0) {
    write_back(lock, index, effort);
    return false;
  }
  leave_tier(index, false);
  ++counters_.evictions;
  return true;
}

uint32_t System::victim(bool clean) {
  const bool dense = config_.policy == SPECKV_POLICY_DENSE;
  uint32_t index = dense ? ends_[kL1].newest : ends_[kL1].oldest;
  for (; index != kNil; index = dense ? blocks_[index].older : blocks_[index].newer) {
    const Block& block = blocks_[index];
    if (!block.moving && !(clean && block.lines == 0) && fence(index)) return index;
  }
  return kNil;
}

// Codes a dirty block into a record; it stays in L1.
void System::write_back(Lock& lock, uint32_t index, Effort& effort) {
  const uint32_t staging = staging_.take();
  if (staging == SlotPool::kNone) return wait(lock, effort.coding_deadline);
  begin_move(index);
  const Block block = blocks_[index];
  lock.unlock();
  Failure failure{};
  const uint32_t bytes = encode(l1_.at(block.slot), block, staging_.at(staging), failure);
  lock.lock();
  bury();
  uint64_t line = LineAllocator::kNone;
  if (failure.result == SPECKV_OK) {
    try {
      line = l3_.take(bytes / SPECKV_LINE_BYTES);
      if (line == LineAllocator::kNone) effort.wanted_bytes = bytes;
    } catch (const std::bad_alloc&) {
      failure.result = SPECKV_NO_MEMORY;
    }
  }
  if (line != LineAllocator::kNone) {
    lock.unlock();
    std::memcpy(l3_.at(line), staging_.at(staging), bytes);
    lock.lock();
    blocks_[index].line = line;
    blocks_[index].lines = bytes / SPECKV_LINE_BYTES;
    --counters_.dirty_blocks;
    ++counters_.write_backs;
  }
  staging_.give(staging, false);
  end_move(index);
  if (failure.result != SPECKV_OK) throw failed(failure);
}

System::Effort System::begin_effort() const {
  const auto now = Clock::now();
  const auto leases = now + std::chrono::milliseconds(config_.wait_timeout_ms);
  return Effort{leases, leases + kCoding};
}

Failure System::busy() const {
  return Failure{SPECKV_BUSY, config_.wait_timeout_ms, 0, 0, "wait_timeout_ms"};
}

Failure System::failed(const Failure& failure) {
  counters_.bad_records += failure.result == SPECKV_BAD_RECORD;
  return failure;
}

void System::wait(Lock& lock, Clock::time_point deadline) {
  const auto now = Clock::now();
  if (now >= deadline) throw busy();
  ++waiting_;
  changed_.wait_until(lock, std::min(deadline, now + kPause));
  --waiting_;
}

void System::begin_move(uint32_t index) {
  blocks_[index].moving = true;
  ++moving_;
}

void System::end_move(uint32_t index) noexcept {
  blocks_[index].moving = false;
  --moving_;
  drop_if_unused(index);
  if (waiting_ != 0) changed_.notify_all();
}

}  // namespace speckv
