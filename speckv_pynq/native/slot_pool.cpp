#include "slot_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>

namespace speckv {

Mapping::Mapping(uint64_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<uint8_t*>(memory);
}

Mapping::~Mapping() {
  if (base_ != nullptr) munmap(base_, bytes_);
}

SlotPool::SlotPool(uint64_t budget_bytes, uint64_t slot_bytes, size_t* metadata_bytes)
    : slot_bytes_(slot_bytes),
      slots_(std::min<uint64_t>(budget_bytes / slot_bytes, kNone - 1)),
      memory_(slots_ * slot_bytes),
      free_(CountingAllocator<uint32_t>(metadata_bytes)) {}

uint32_t SlotPool::take() {
  if (full()) return kNone;
  if (free_.empty()) {
    if (free_.capacity() <= top_) free_.reserve(std::max<size_t>(2 * free_.capacity(), 16));
    ++in_use_;
    return top_++;
  }
  const uint32_t slot = free_.back();
  free_.pop_back();
  ++in_use_;
  return slot;
}

void SlotPool::give(uint32_t slot, bool give_back) noexcept {
  free_.push_back(slot);  // take() reserved its place
  --in_use_;
  if (!give_back) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(at(slot)) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(at(slot) + slot_bytes_) / page * page;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

}  // namespace speckv
