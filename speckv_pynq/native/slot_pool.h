// Memory from the system, and equal slots in it.
#pragma once

#include <cstdint>
#include <vector>

#include "counting.h"

namespace speckv {

// Address space whose pages come with their first use; std::bad_alloc when there is none.
class Mapping {
 public:
  explicit Mapping(uint64_t bytes);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  uint8_t* base() const { return base_; }
  uint64_t bytes() const { return bytes_; }

 private:
  uint8_t* base_ = nullptr;
  uint64_t bytes_;
};

class SlotPool {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  SlotPool(uint64_t budget_bytes, uint64_t slot_bytes, size_t* metadata_bytes);

  uint32_t take();  // kNone: all in use
  // Never fails. give_back: the slot's pages go back to the system.
  void give(uint32_t slot, bool give_back) noexcept;

  uint8_t* at(uint32_t slot) const { return memory_.base() + slot * slot_bytes_; }
  bool full() const { return in_use_ == slots_; }
  uint64_t slots() const { return slots_; }
  uint64_t slot_bytes() const { return slot_bytes_; }
  uint64_t held_bytes() const { return in_use_ * slot_bytes_; }
  const Mapping& memory() const { return memory_; }

 private:
  uint64_t slot_bytes_, slots_;
  Mapping memory_;
  uint64_t in_use_ = 0;
  uint32_t top_ = 0;                                         // slots at or above it were never taken
  std::vector<uint32_t, CountingAllocator<uint32_t>> free_;  // the last one given is the first one taken
};

}  // namespace speckv
