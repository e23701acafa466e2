// The memory system behind speckv.h: page table, blocks, leases, three tiers, one lock.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "counting.h"
#include "line_allocator.h"
#include "page_table.h"
#include "slot_pool.h"
#include "speckv.h"

namespace speckv {

struct Failure {
  speckv_result result = SPECKV_OK;
  uint64_t value = 0, limit = 0;
  uint32_t kernel_status = 0;
  const char* what = "";  // names the argument
};

// A block is dirty, in L1 with no record, or it has a record, and at most one decoded copy in L1 or L2. While
// it is `moving` one thread codes or copies it without the lock; nobody else touches its slot, tier or
// record.
class System {
 public:
  explicit System(const speckv_config& config);
  ~System();
  System(const System&) = delete;
  System& operator=(const System&) = delete;

  void alloc(uint32_t request, uint32_t tokens);
  void free(uint32_t request);
  void fork(uint32_t from, uint32_t to);
  void access(uint64_t high, uint64_t low, uint32_t mode, speckv_view& view);
  void seek(uint64_t high, uint64_t low, speckv_view& view);
  void release(speckv_view& view);
  void prefetch(uint32_t request, uint32_t layer, uint32_t position, uint32_t depth);
  void set_prefetch_depth(uint32_t depth);
  void set_scheme(uint32_t scheme);
  void stats(speckv_counters& counters);
  const speckv_strides& strides() const { return strides_; }

 private:
  using Lock = std::unique_lock<std::mutex>;
  using Clock = std::chrono::steady_clock;
  template <class T>
  using Vector = std::vector<T, CountingAllocator<T>>;
  template <class K, class V>
  using Map =
      std::unordered_map<K, V, std::hash<K>, std::equal_to<K>, CountingAllocator<std::pair<const K, V>>>;

  static constexpr uint32_t kNil = UINT32_MAX;
  static constexpr uint64_t kNever = UINT64_MAX;

  enum Tier : uint8_t {
    kL1,
    kL2,
    kNone
  };
  struct Block {
    uint64_t line = 0;
    uint64_t deadline_ns = 0;  // when the last of its leases ends
    uint32_t lines = 0;        // of the record; 0: dirty
    uint32_t slot = 0;         // in its tier
    uint32_t older = kNil, newer = kNil;
    uint32_t references = 0;  // requests that map it
    uint32_t pins = 0;        // leases
    uint32_t position = 0;    // of its first token
    uint16_t layer = 0;
    uint8_t scheme = 0;
    Tier tier = kNone;
    bool moving = false, writing = false;
  };
  struct Lease {
    uint32_t serial = 0;  // 0: free
    uint32_t block = kNil;
    uint32_t next_free = kNil;
  };
  struct Ends {
    uint32_t oldest = kNil, newest = kNil;
  };
  // What a call that waits has left, and what it has learnt.
  struct Effort {
    Clock::time_point lease_deadline, coding_deadline;
    uint64_t wanted_bytes = 0;  // not 0: a record that L3 has no room for, so dirty blocks stay in L1
  };
  // Where a block's content is, for the thread that has it `moving`; nowhere: zeros.
  struct Source {
    const uint8_t* copy = nullptr;  // decoded
    const uint8_t* record = nullptr;
    uint32_t record_bytes = 0;
    uint32_t position = 0;
    uint16_t layer = 0;
  };

  // system_blocks.cpp: tables, under the lock
  uint32_t take_block();
  void drop(uint32_t index) noexcept;
  bool drop_record(Block& block) noexcept;
  void drop_if_unused(uint32_t index) noexcept;
  void bury() noexcept;
  void clear_if_empty() noexcept;
  void enter_tier(uint32_t index, Tier tier, uint32_t slot);
  void leave_tier(uint32_t index, bool give_back);
  void touch(uint32_t index);
  uint32_t take_lease();
  void give_lease(uint32_t lease) noexcept;
  uint32_t lease_of(const speckv_view& view) const;
  void end_lease(uint32_t lease) noexcept;
  void grant(uint32_t index, uint32_t lease, uint64_t high, uint64_t low, uint32_t mode, speckv_view& view);
  bool fence(uint32_t index);
  uint64_t now_ns() const;

  // system_access.cpp: what may let go of the lock
  BlockKey key_of(uint64_t high, uint64_t low) const;
  bool ready(const Block& block, uint32_t mode) const;
  uint32_t obtain(Lock& lock, const BlockKey& key, uint32_t mode);
  void check_region(const BlockKey& key, uint32_t mode) const;
  void create(Lock& lock, const BlockKey& key, uint32_t from, uint32_t mode);
  void publish(const BlockKey& key, uint32_t from, uint32_t slot);
  void bring(Lock& lock, uint32_t index, uint32_t mode);
  bool make_room(Lock& lock, Effort& effort);
  uint32_t victim(bool clean);
  void write_back(Lock& lock, uint32_t index, Effort& effort);
  Effort begin_effort() const;
  Failure busy() const;
  Failure failed(const Failure& failure);
  void wait(Lock& lock, Clock::time_point deadline);
  void begin_move(uint32_t index);
  void end_move(uint32_t index) noexcept;

  // system_codec.cpp: without the lock, for a block that is moving
  Source source_of(const Block& block) const;
  Failure fill(uint8_t* to, const Source& source) const;
  uint32_t encode(const uint8_t* from, const Block& block, uint8_t* to, Failure& failure) const;
  speckv_descriptor describe(uint32_t position, uint16_t layer) const;

  // system_prefetch.cpp
  void serve();
  void fetch_ahead(Lock& lock, const BlockKey& key);
  void end_threads();

  const speckv_config config_;
  speckv_strides strides_;  // never changes
  mutable std::mutex mutex_;
  std::condition_variable changed_, queued_;
  size_t metadata_bytes_ = sizeof(System);
  SlotPool l1_, l2_, staging_;
  Mapping pool_;
  LineAllocator l3_;
  PageTable table_;                  // handles are block indices plus 1
  Map<uint32_t, uint64_t> regions_;  // request -> tokens, whole blocks
  Vector<Block> blocks_;
  Vector<Lease> leases_;
  Vector<BlockKey> queue_;  // a ring
  Ends ends_[2];
  uint32_t free_block_ = kNil, free_lease_ = kNil, condemned_ = kNil;
  uint32_t serial_ = 0, waiting_ = 0, moving_ = 0, queue_first_ = 0, queue_count_ = 0;
  uint32_t depth_, scheme_;
  speckv_counters counters_ = {};
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace speckv
