// What the threads of the memory system do: decode blocks into L2 before they are asked for.
#include <algorithm>

#include "system.h"

namespace speckv {

void System::prefetch(uint32_t request, uint32_t layer, uint32_t position, uint32_t depth) {
  if (layer >= config_.layers) throw Failure{SPECKV_BAD_ARGUMENT, layer, config_.layers - 1, 0, "layer"};
  Lock lock(mutex_);
  if (regions_.count(request) == 0) throw Failure{SPECKV_NOT_ALLOCATED, request, 0, 0, "req_id"};
  const uint64_t first = position / config_.block_tokens;
  const uint64_t end =
      std::min<uint64_t>(first + (depth == 0 ? depth_ : depth), regions_.at(request) / config_.block_tokens);
  for (uint64_t block = first; block < end; ++block) {
    if (threads_.empty() || l2_.slots() == 0 || queue_count_ == queue_.size()) {
      ++counters_.prefetch_dropped;
      continue;
    }
    const BlockKey key = {request, layer, static_cast<uint32_t>(block)};
    const uint64_t handle = table_.find(key);
    if (handle == 0 || blocks_[handle - 1].tier != kNone || blocks_[handle - 1].moving) continue;
    queue_[(queue_first_ + queue_count_++) % queue_.size()] = key;
  }
  if (queue_count_ != 0) queued_.notify_one();
}

void System::serve() {
  Lock lock(mutex_);
  for (;;) {
    queued_.wait(lock, [this] { return stop_ || queue_count_ != 0; });
    if (stop_) return;
    const BlockKey key = queue_[queue_first_];
    queue_first_ = (queue_first_ + 1) % static_cast<uint32_t>(queue_.size());
    --queue_count_;
    if (queue_count_ != 0) queued_.notify_one();
    fetch_ahead(lock, key);
  }
}

// Prepares under the lock, decodes without it, completes under it. Evicts only what L2 holds, never waits.
void System::fetch_ahead(Lock& lock, const BlockKey& key) {
  const uint64_t handle = table_.find(key);
  const auto index = static_cast<uint32_t>(handle - 1);
  if (handle == 0 || blocks_[index].tier != kNone || blocks_[index].moving) return;
  uint32_t oldest = l2_.full() ? ends_[kL2].oldest : kNil;
  while (oldest != kNil && blocks_[oldest].moving) oldest = blocks_[oldest].newer;
  if (oldest != kNil) leave_tier(oldest, false);
  uint32_t slot = SlotPool::kNone;
  try {
    slot = l2_.take();
  } catch (const std::bad_alloc&) {
    // Left out, like any block that finds no room.
  }
  if (slot == SlotPool::kNone) {
    ++counters_.prefetch_dropped;
    return;
  }
  begin_move(index);
  const Source source = source_of(blocks_[index]);
  lock.unlock();
  const Failure failure = fill(l2_.at(slot), source);
  lock.lock();
  if (failure.result == SPECKV_OK) {
    enter_tier(index, kL2, slot);
    ++counters_.prefetched;
  } else {
    failed(failure);
    l2_.give(slot, false);
  }
  const bool freed_meanwhile = blocks_[index].references == 0;
  end_move(index);
  if (freed_meanwhile) bury();  // as its free would have done: no frame stays behind
}

void System::end_threads() {
  {
    Lock lock(mutex_);
    stop_ = true;
  }
  queued_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

}  // namespace speckv
