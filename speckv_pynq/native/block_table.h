// Blocks by handle: references, records in the pool, decoded slots in L1 and L2. Mechanism only; Python
// decides what goes where.
#pragma once

#include <cstdint>
#include <limits>
#include <mutex>
#include <vector>

#include "counting.h"
#include "line_allocator.h"
#include "speckv_core.h"

namespace speckv {

class BlockTable {
 public:
  explicit BlockTable(const speckv_core_config& config);

  void put(uint32_t count, uint32_t layer, const uint32_t* positions, const uint8_t* staging,
           const uint64_t* record_offsets, const uint32_t* record_bytes, uint64_t* handles,
           uint64_t range[2]);
  void plan(uint32_t count, const uint64_t* handles, speckv_core_plan& plan);
  void retain(uint32_t count, const uint64_t* handles);
  void release(uint32_t count, const uint64_t* handles);
  void admit(uint32_t tier, uint32_t evictions, uint32_t count, const uint64_t* handles, uint64_t* offsets);
  void evict(uint32_t tier, uint32_t count, const uint64_t* handles);
  void reserve(uint32_t tier, uint32_t evictions, uint32_t count, uint64_t* offsets);
  uint32_t install(uint32_t tier, uint32_t count, const uint64_t* handles, const uint64_t* offsets);
  void touch(uint32_t count, const uint64_t* handles);
  void warm(uint32_t count, const uint64_t* handles, double when, double* heats);
  void heats(uint32_t tier, uint32_t count, const uint64_t* handles, double* heats);
  uint64_t resident(uint32_t tier, uint64_t room, uint64_t* handles);
  uint64_t free_slots(uint32_t tier);
  uint64_t total_slots(uint32_t tier);
  void stats(speckv_core_stats& stats);
  void layer_bytes(uint64_t* record_bytes);
  uint32_t block(uint64_t handle, uint64_t* record_offsets, uint32_t* record_bytes);

 private:
  static constexpr uint32_t kNil = UINT32_MAX;
  static constexpr uint32_t kSlotTiers = 2;

  template <class T>
  using Vector = std::vector<T, CountingAllocator<T>>;

  struct Link {
    uint32_t older = kNil, newer = kNil;
  };
  struct Block {
    uint64_t generation = 0;                    // 0: this place is free
    uint32_t slots[kSlotTiers] = {kNil, kNil};  // in units of slots
    Link links[kSlotTiers];  // of residents, by age; a free place names the next one in links[0].newer
    uint32_t references = 0;
    uint32_t position = 0;
    uint32_t layer = 0;
    uint32_t mark = 0;                                       // scratch of one call, 0 between calls
    double heat = -std::numeric_limits<double>::infinity();  // log2 of the sum of 2^when over its uses
  };
  struct Record {
    uint64_t line : 40;
    uint64_t lines : 24;
  };
  struct Ends {
    uint32_t oldest = kNil, newest = kNil;
  };

  uint32_t find(uint64_t handle) const;  // kNil: stale
  uint32_t index_of(uint64_t handle, uint32_t i) const;
  uint64_t handle_of(uint32_t index) const;
  void check_all(uint32_t count, const uint64_t* handles) const;
  void take_records(uint32_t count, const uint32_t* record_bytes, Vector<Record>& records);
  uint64_t slot_offset(const Block& block, uint32_t tier) const;
  uint32_t take_index();
  void drop(uint32_t index) noexcept;
  void enlist(uint32_t tier, uint32_t index);
  void unlist(uint32_t tier, uint32_t index);
  uint64_t slots_of(uint32_t tier) const;
  void check_room(uint32_t tier, uint32_t evictions, uint32_t count) const;
  uint32_t take_line(uint32_t tier);
  void take_slot(uint32_t tier, uint32_t index, uint32_t slot);
  void give_slot(uint32_t tier, uint32_t index) noexcept;
  void give_reserved(uint32_t tier, uint32_t slot) noexcept;
  void trim();

  std::mutex mutex_;
  size_t metadata_bytes_;
  const uint32_t parts_, layers_;
  const uint64_t slot_lines_;
  LineAllocator tiers_[3];
  Vector<Block> blocks_;
  Vector<Record> records_;  // (blocks, parts)
  Vector<uint64_t> layer_lines_;
  Ends ends_[kSlotTiers];
  uint64_t residents_[kSlotTiers] = {0, 0};
  Vector<uint8_t> reserved_[kSlotTiers];  // by slot; empty until a slot is reserved
  uint64_t reserved_count_[kSlotTiers] = {0, 0};
  uint64_t live_ = 0, references_ = 0;
  uint32_t free_ = kNil;  // first free place
  uint64_t generation_ =
      0;  // of the newest block; never used twice, so a table that shrinks keeps no stale handle alive
  uint64_t hits_[kSlotTiers] = {0, 0}, misses_ = 0;
};

}  // namespace speckv
