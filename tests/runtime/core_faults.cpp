// Runs one story of the tier core again and again, each time with another allocation that fails once. The
// call that meets it must say so and change nothing, or do its work all the same; nothing may stay in the
// end.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "speckv_core.h"

namespace {

long to_failure = -1;  // allocations until one fails; -1: none
long live = 0, refusals = 0;

void* take(size_t bytes) {
  if (to_failure == 0) {
    to_failure = -1;
    throw std::bad_alloc();
  }
  if (to_failure > 0) --to_failure;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  ++live;
  return memory;
}

void give(void* memory) {
  live -= memory != nullptr;
  std::free(memory);
}

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

constexpr uint32_t kLine = 64, kFrame = 4096, kSlot = 21 * kLine, kBlocks = 60, kRounds = 6;
constexpr uint32_t kSlots = 12;

struct Memory {
  uint8_t* base[3];
  static constexpr uint64_t kBytes[3] = {8 * kFrame, 8 * kFrame, 64 * kFrame};
  Memory() {
    for (int i = 0; i < 3; ++i) base[i] = static_cast<uint8_t*>(std::aligned_alloc(kFrame, kBytes[i]));
  }
  ~Memory() {
    for (uint8_t* memory : base) std::free(memory);
  }
};

struct Held {
  uint64_t handle;
  uint32_t lines;
  uint8_t byte;
};

class Story {
 public:
  explicit Story(unsigned seed) : seed_(seed) {
    speckv_core_config config{};
    for (int i = 0; i < 3; ++i) {
      config.base[i] = memory_.base[i];
      config.bytes[i] = Memory::kBytes[i];
    }
    config.frame_bytes = kFrame;
    config.block_bytes = kSlot;
    config.parts = config.layers = 1;
    for (int i = 0; speckv_core_create(&config, &core_) != SPECKV_CORE_OK; ++i) expect(i == 0, "once");
  }
  ~Story() { speckv_core_destroy(core_); }

  void run() {
    for (uint32_t round = 0; round < kRounds; ++round) {
      while (count_ < kBlocks) put();
      admit();
      bring_up();
      check();
      while (count_ > kBlocks / 3) release(random() % count_);
      check();
    }
    while (count_ != 0) release(count_ - 1);
    put();  // by now there is memory again: what was left is given back with the next call
    release(0);
    const speckv_core_stats now = stats();
    expect(now.blocks == 0 && now.references == 0 && now.record_bytes == 0, "no block is left");
    expect(now.slots[0] == 0 && now.free_runs == 0, "no slot and no run is left");
    expect(now.held_bytes[0] + now.held_bytes[1] + now.held_bytes[2] == 0, "no frame is left");
    expect(speckv_core_free_slots(core_, SPECKV_TIER_L2) == speckv_core_total_slots(core_, SPECKV_TIER_L2),
           "no slot of L2 is left");
  }

 private:
  uint32_t random() { return seed_ = seed_ * 1103515245u + 12345u, seed_ >> 16; }

  speckv_core_stats stats() const {
    speckv_core_stats stats;
    speckv_core_get_stats(core_, &stats);
    stats.metadata_bytes = 0;
    return stats;
  }

  // A call that fails has changed nothing; evictions that it made room with may stay.
  template <class Call>
  void persist(const Call& call, bool evicts) {
    for (int attempt = 0;; ++attempt) {
      speckv_core_stats before = stats();
      const int32_t status = call();
      if (status == SPECKV_CORE_OK) return;
      expect(status == SPECKV_CORE_NO_MEMORY && attempt == 0, "no memory, once");
      ++refusals;
      speckv_core_stats after = stats();
      if (evicts) {
        expect(after.slots[0] <= before.slots[0], "no slot more");
        before.slots[0] = after.slots[0] = 0;
        before.held_bytes[0] = after.held_bytes[0] = before.used_bytes[0] = after.used_bytes[0] = 0;
      }
      expect(after.record_bytes == before.record_bytes && after.blocks == before.blocks &&
                 after.references == before.references && after.slots[0] == before.slots[0],
             "nothing changed");
    }
  }

  void put() {
    Held held{0, 1 + random() % 30, static_cast<uint8_t>(random())};
    std::memset(staged_, held.byte, held.lines * kLine);
    const uint32_t position = 0, bytes = held.lines * kLine;
    const uint64_t offset = 0;
    uint64_t range[2];
    persist(
        [&] {
          return speckv_core_put(core_, 1, 0, &position, staged_, &offset, &bytes, &held.handle, range,
                                 nullptr);
        },
        false);
    held_[count_++] = held;
  }

  void release(uint32_t which) {
    const int32_t status = speckv_core_release(core_, 1, &held_[which].handle, nullptr);
    expect(status == SPECKV_CORE_OK, "a release needs no memory");
    held_[which] = held_[--count_];
  }

  // Some blocks that are not there, after as many have left as they need; then one is evicted by name.
  void admit() {
    uint64_t resident[kSlots], wanted[5], offsets[5];
    const uint64_t there = speckv_core_resident(core_, SPECKV_TIER_L1, kSlots, resident);
    uint32_t count = 0;
    for (uint32_t h = 0; h < count_; ++h) {
      const Held& held = held_[h];
      bool in = false;
      for (uint64_t i = 0; i < there; ++i) in = in || resident[i] == held.handle;
      if (!in && count < 5) wanted[count++] = held.handle;
    }
    persist(
        [&] {
          const uint64_t room = speckv_core_free_slots(core_, SPECKV_TIER_L1);
          const uint32_t leave = room < count ? count - static_cast<uint32_t>(room) : 0;
          return speckv_core_admit(core_, SPECKV_TIER_L1, leave, count, wanted, offsets, nullptr);
        },
        true);
    expect(speckv_core_evict(core_, SPECKV_TIER_L1, 1, &wanted[1], nullptr) == SPECKV_CORE_OK, "evict");
  }

  // Two blocks come up into slots of L2 that were reserved for them, a third one is gone by then; both count
  // as used, and leave again.
  void bring_up() {
    const uint64_t handles[3] = {held_[0].handle, held_[1].handle, UINT64_MAX};
    const uint64_t room = speckv_core_free_slots(core_, SPECKV_TIER_L2);
    uint64_t offsets[3];
    persist([&] { return speckv_core_reserve(core_, SPECKV_TIER_L2, 0, 3, offsets, nullptr); }, false);
    expect(speckv_core_free_slots(core_, SPECKV_TIER_L2) == room - 3, "three slots are reserved");
    uint32_t installed = 0;
    const int32_t status =
        speckv_core_install(core_, SPECKV_TIER_L2, 3, handles, offsets, &installed, nullptr);
    expect(status == SPECKV_CORE_OK && installed == 2, "an install needs no memory");
    double heats[2];
    persist([&] { return speckv_core_warm(core_, 2, handles, 1.0, heats, nullptr); }, false);
    expect(speckv_core_evict(core_, SPECKV_TIER_L2, 2, handles, nullptr) == SPECKV_CORE_OK, "evict both");
  }

  void check() const {
    for (uint32_t h = 0; h < count_; ++h) {
      const Held& held = held_[h];
      uint64_t offset;
      uint32_t bytes;
      expect(speckv_core_block(core_, held.handle, &offset, &bytes) == 1, "one reference");
      expect(bytes == held.lines * kLine, "its size");
      const uint8_t* at = memory_.base[2] + offset;
      for (uint32_t i = 0; i < bytes; ++i) expect(at[i] == held.byte, "its bytes");
    }
  }

  Memory memory_;
  speckv_core* core_ = nullptr;
  Held held_[kBlocks];
  uint32_t count_ = 0;
  uint8_t staged_[32 * kLine];
  unsigned seed_;
};

}  // namespace

void* operator new(size_t bytes) { return take(bytes); }
void operator delete(void* memory) noexcept { give(memory); }
void operator delete(void* memory, size_t) noexcept { give(memory); }

int main() {
  long stories = 0;
  for (unsigned seed = 1; seed <= 2; ++seed) {
    for (long failing = 0;; ++failing, ++stories) {
      const long before = live;
      to_failure = failing;
      Story(seed).run();
      expect(live == before, "all memory is given back");
      if (to_failure >= 0) break;  // the story has fewer allocations
    }
  }
  expect(refusals > 100 && refusals < stories, "some calls fail, others do without");
  std::printf("every allocation failed once: %ld, %ld calls refused\n", stories, refusals);
  return 0;
}
