#include "page_table.h"

#include <algorithm>
#include <new>

namespace speckv {

namespace {

constexpr uint32_t kAhead = 24;  // look-ups under way: enough to cover a miss of the last-level cache

bool equal(const BlockKey& a, const BlockKey& b) {
  return a.request == b.request && a.block == b.block && a.layer == b.layer;
}

}  // namespace

uint64_t PageTable::hash(const BlockKey& key) {
  uint64_t h = (static_cast<uint64_t>(key.request) << 32 | key.block) * 0x9E3779B97F4A7C15ull;
  h = (h ^ h >> 32) + key.layer * 0xC2B2AE3D27D4EB4Full;
  h *= 0xD6E8FEB86659FD93ull;
  return h ^ h >> 32;
}

uint32_t PageTable::place_of(const BlockKey& key) const {
  if (entries_.empty()) return kNil;
  const uint64_t mask = entries_.size() - 1;
  for (uint64_t i = hash(key) & mask; entries_[i].handle != 0; i = (i + 1) & mask) {
    if (equal(entries_[i].key, key)) return static_cast<uint32_t>(i);
  }
  return kNil;
}

uint64_t PageTable::find(const BlockKey& key) const {
  const uint32_t place = place_of(key);
  return place == kNil ? 0 : entries_[place].handle;
}

void PageTable::find(uint32_t count, const BlockKey* keys, uint64_t* handles) const {
  if (entries_.empty()) {
    std::fill_n(handles, count, 0);
    return;
  }
  const uint64_t mask = entries_.size() - 1;
  uint64_t homes[kAhead];  // a ring: the hash of each key is worked out once
  for (uint32_t i = 0; i < count + kAhead; ++i) {
    if (i >= kAhead) {
      const BlockKey& key = keys[i - kAhead];
      uint64_t place = homes[i % kAhead];
      while (entries_[place].handle != 0 && !equal(entries_[place].key, key)) place = (place + 1) & mask;
      handles[i - kAhead] = entries_[place].handle;
    }
    if (i < count) {
      homes[i % kAhead] = hash(keys[i]) & mask;
      __builtin_prefetch(&entries_[homes[i % kAhead]]);
    }
  }
}

void PageTable::reserve(uint64_t blocks, uint64_t requests) {
  const uint64_t wanted = used_ + blocks + requests;
  uint64_t capacity = std::max<uint64_t>(entries_.size(), kMinCapacity);
  while (wanted > capacity / 4 * 3) capacity *= 2;
  if (capacity > 1ull << 31) throw std::bad_alloc();
  if (capacity != entries_.size()) rehash(capacity);
}

uint64_t PageTable::map(const BlockKey& key, uint64_t handle) {
  const uint32_t there = place_of(key);
  if (there != kNil) {
    const uint64_t replaced = entries_[there].handle;
    entries_[there].handle = handle;
    return replaced;
  }
  const BlockKey request = {key.request, kRequest, 0};
  uint32_t root = place_of(request);
  if (root == kNil) {
    root = add(request, 1);
    entries_[root].older = entries_[root].newer = root;
    ++requests_;
  } else {
    ++entries_[root].handle;
  }
  const uint32_t place = add(key, handle);  // the newest: between the request's entry and the last one
  const uint32_t last = entries_[root].older;
  entries_[place].older = last;
  entries_[place].newer = root;
  entries_[last].newer = entries_[root].older = place;
  return 0;
}

void PageTable::map(uint32_t count, const BlockKey* keys, const uint64_t* handles, uint64_t* replaced) {
  uint64_t blocks = 0, requests = 0;  // at most: a key that stands twice counts twice
  for (uint32_t i = 0; i < count; ++i) {
    blocks += place_of(keys[i]) == kNil;
    const bool seen = i > 0 && keys[i - 1].request == keys[i].request;
    requests += !seen && place_of({keys[i].request, kRequest, 0}) == kNil;
  }
  if (blocks + requests > 0) reserve(blocks, requests);
  for (uint32_t i = 0; i < count; ++i) replaced[i] = map(keys[i], handles[i]);
}

uint64_t PageTable::unmap(const BlockKey& key) {
  const uint32_t place = place_of(key);
  if (place == kNil) return 0;
  const uint64_t handle = entries_[place].handle;
  erase(place);
  const uint32_t root = place_of({key.request, kRequest, 0});
  if (--entries_[root].handle == 0) {
    entries_[root].handle = 1;  // still in use until it is erased
    erase(root);
    --requests_;
  }
  return handle;
}

void PageTable::unmap(uint32_t count, const BlockKey* keys, uint64_t* handles) {
  for (uint32_t i = 0; i < count; ++i) handles[i] = unmap(keys[i]);
  shrink();
}

uint64_t PageTable::blocks(uint32_t request) const { return find({request, kRequest, 0}); }

void PageTable::list(uint32_t request, uint64_t room, BlockKey* keys, uint64_t* handles) const {
  const uint32_t root = place_of({request, kRequest, 0});
  if (root == kNil) return;
  uint64_t i = 0;
  for (uint32_t e = entries_[root].newer; e != root && i < room; e = entries_[e].newer, ++i) {
    keys[i] = entries_[e].key;
    handles[i] = entries_[e].handle;
  }
}

uint64_t PageTable::take_block(uint32_t request) {
  const uint32_t root = place_of({request, kRequest, 0});
  return root == kNil ? 0 : unmap(BlockKey(entries_[entries_[root].older].key));
}

uint32_t PageTable::add(const BlockKey& key, uint64_t handle) {
  const uint64_t mask = entries_.size() - 1;
  uint64_t place = hash(key) & mask;
  while (entries_[place].handle != 0) place = (place + 1) & mask;
  entries_[place].key = key;
  entries_[place].handle = handle;
  ++used_;
  return static_cast<uint32_t>(place);
}

// Takes an entry out of its ring, then closes the gap: what probed past it moves up.
void PageTable::erase(uint32_t place) {
  const uint64_t mask = entries_.size() - 1;
  entries_[entries_[place].older].newer = entries_[place].newer;
  entries_[entries_[place].newer].older = entries_[place].older;
  uint64_t hole = place;
  for (uint64_t i = (hole + 1) & mask; entries_[i].handle != 0; i = (i + 1) & mask) {
    const uint64_t home = hash(entries_[i].key) & mask;
    if (((i - home) & mask) < ((i - hole) & mask)) continue;
    Entry& entry = entries_[hole] = entries_[i];
    const auto from = static_cast<uint32_t>(i), to = static_cast<uint32_t>(hole);
    if (entry.older == from) {  // alone in its ring
      entry.older = entry.newer = to;
    } else {
      entries_[entry.older].newer = entries_[entry.newer].older = to;
    }
    hole = i;
  }
  entries_[hole] = Entry{};
  --used_;
}

void PageTable::rehash(uint64_t capacity) {
  Entries old(capacity, Entry{}, entries_.get_allocator());
  old.swap(entries_);
  used_ = 0;
  for (Entry& entry : old) {
    if (entry.handle != 0) entry.moved = add(entry.key, entry.handle);
  }
  for (const Entry& entry : old) {
    if (entry.handle == 0) continue;
    entries_[entry.moved].older = old[entry.older].moved;
    entries_[entry.moved].newer = old[entry.newer].moved;
  }
}

void PageTable::shrink() noexcept {
  if (used_ == 0) {
    entries_.clear();
    entries_.shrink_to_fit();
    return;
  }
  uint64_t capacity = entries_.size();
  if (used_ > capacity / 8) return;
  while (capacity > kMinCapacity && used_ <= capacity / 8) capacity /= 2;
  if (capacity == entries_.size()) return;
  try {
    rehash(capacity);
  } catch (const std::bad_alloc&) {
    // The larger table serves as well; the next call tries again.
  }
}

}  // namespace speckv
