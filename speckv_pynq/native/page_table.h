// Keys of blocks to their handles: open addressing, linear probing, no tombstones.
#pragma once

#include <cstdint>
#include <vector>

#include "counting.h"
#include "speckv_page_table.h"

namespace speckv {

using BlockKey = speckv_block_key;

// Not locked: who owns it does that. Entries of one request form a ring through an entry of the request
// itself, so that a whole request is found and freed in time proportional to its blocks.
class PageTable {
 public:
  explicit PageTable(size_t* metadata_bytes) : entries_(CountingAllocator<Entry>(metadata_bytes)) {}

  uint64_t find(const BlockKey& key) const;  // 0: not mapped
  void find(uint32_t count, const BlockKey* keys, uint64_t* handles) const;
  // Room for so many more blocks, so that mapping them cannot fail; std::bad_alloc changes nothing.
  void reserve(uint64_t blocks, uint64_t requests);
  // Returns what was replaced, or 0. Never fails after reserve().
  uint64_t map(const BlockKey& key, uint64_t handle);
  uint64_t unmap(const BlockKey& key);
  void map(uint32_t count, const BlockKey* keys, const uint64_t* handles, uint64_t* replaced);
  void unmap(uint32_t count, const BlockKey* keys, uint64_t* handles);
  uint64_t blocks(uint32_t request) const;
  void list(uint32_t request, uint64_t room, BlockKey* keys, uint64_t* handles) const;
  // Unmaps one block of the request, the one mapped last, and returns its handle; 0: it has none.
  uint64_t take_block(uint32_t request);
  // Gives memory back that few entries leave unused; never fails.
  void shrink() noexcept;

  uint64_t entries() const { return used_ - requests_; }
  uint64_t requests() const { return requests_; }
  uint64_t capacity() const { return entries_.size(); }

 private:
  struct Entry {
    uint64_t handle = 0;  // 0: this place is free; of a request's own entry: how many blocks it has
    BlockKey key = {0, 0, 0};
    uint32_t older = 0, newer = 0;  // places: the request's ring
    uint32_t moved = 0;             // scratch of rehash: the place in the new table
  };
  using Entries = std::vector<Entry, CountingAllocator<Entry>>;
  static constexpr uint32_t kRequest = 1u << 16;  // layer of a request's own entry: no block has it
  static constexpr uint32_t kNil = UINT32_MAX;
  static constexpr uint64_t kMinCapacity = 16;

  static uint64_t hash(const BlockKey& key);
  uint32_t place_of(const BlockKey& key) const;  // kNil: not there
  uint32_t add(const BlockKey& key, uint64_t handle);
  void erase(uint32_t place);
  void rehash(uint64_t capacity);

  Entries entries_;  // a power of two, at most three quarters in use
  uint64_t used_ = 0, requests_ = 0;
};

}  // namespace speckv
