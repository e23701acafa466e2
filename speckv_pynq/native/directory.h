// Which agents hold which blocks. The protocol is the coherence table of the spec; here is what carries it
// out.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "counting.h"
#include "speckv_directory.h"
#include "speckv_spec.h"

namespace speckv {

class Directory {
 public:
  explicit Directory(uint64_t lease_ns);

  void enroll(uint64_t now_ns, speckv_directory_agent& agent);
  uint64_t acquire(uint32_t agent, uint64_t epoch, uint64_t now_ns, bool write, uint32_t count,
                   const uint64_t* keys, uint8_t* answers);
  void give(uint32_t agent, uint64_t epoch, speckv_directory_event event, uint32_t count,
            const uint64_t* keys);
  uint64_t poll(uint32_t agent, uint64_t epoch, uint64_t now_ns, uint32_t room,
                speckv_directory_recall* recalls, uint32_t& count);
  uint64_t expire(uint64_t now_ns);
  void fence(uint32_t agent, uint64_t epoch);
  uint64_t take_lost(uint64_t room, uint64_t* keys);
  void look(uint64_t key, speckv_directory_block& block);
  void stats(speckv_directory_stats& stats);

 private:
  static constexpr uint32_t kNobody = SPECKV_MAX_AGENTS;

  struct Block {
    uint64_t holders = 0;      // bit set of agents
    uint64_t recall = 0;       // number of its latest recall
    uint64_t deadline_ns = 0;  // of that recall
    uint64_t mark = 0;         // number of the call that saw it last
    uint8_t state = SPECKV_DIRECTORY_STATE_INVALID;
    uint8_t waiter = kNobody;
    bool lost = false;
  };
  struct Recall {
    uint64_t key, recall, deadline_ns;
  };
  template <class T>
  using Vector = std::vector<T, CountingAllocator<T>>;
  struct Agent {
    uint64_t epoch = 0;  // 0: not registered
    uint64_t deadline_ns = 0;
    Vector<Recall> recalls;  // in order of their deadlines; those answered by now are cleared in passing
  };
  struct Hash {
    size_t operator()(uint64_t key) const noexcept;
  };
  using Blocks = std::unordered_map<uint64_t, Block, Hash, std::equal_to<uint64_t>,
                                    CountingAllocator<std::pair<const uint64_t, Block>>>;

  Agent& find(uint32_t agent, uint64_t epoch);
  uint64_t advance(uint64_t now_ns);
  uint8_t ask(uint32_t agent, bool write, uint64_t key);
  void check_give(uint32_t agent, speckv_directory_event event, uint64_t key, uint32_t place);
  uint8_t apply(Blocks::iterator at, speckv_directory_event event, uint32_t agent);
  void recall(uint64_t key, Block& block, uint32_t asking);
  void give_up(Blocks::iterator at, speckv_directory_event event, uint32_t agent);
  void forget_idle(Blocks::iterator at);
  void clear_answered(uint32_t agent);
  uint64_t nearest_deadline(const Agent& agent) const;
  void end(uint64_t fenced);

  std::mutex mutex_;
  size_t metadata_bytes_;
  const uint64_t lease_ns_;
  uint64_t now_ns_ = 0;
  uint64_t epochs_ = 0, recalls_ = 0, calls_ = 0;  // given out so far
  uint64_t grants_ = 0, write_backs_ = 0, fenced_ = 0, lost_ = 0, lost_untold_ = 0, leases_ = 0;
  Vector<Agent> agents_;
  Blocks blocks_;
};

}  // namespace speckv
