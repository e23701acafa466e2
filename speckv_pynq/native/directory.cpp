#include "directory.h"

#include <algorithm>

#include "border.h"

namespace speckv {

namespace {

using Guard = std::lock_guard<std::mutex>;
using Event = speckv_directory_event;

constexpr speckv_directory_transition kTable[SPECKV_DIRECTORY_STATES][SPECKV_DIRECTORY_EVENTS] =
    SPECKV_DIRECTORY_TABLE;

// An event and the same of the last holder stand side by side in the spec.
static_assert(SPECKV_DIRECTORY_EVENT_UPGRADE_LAST == SPECKV_DIRECTORY_EVENT_UPGRADE + 1, "order");
static_assert(SPECKV_DIRECTORY_EVENT_PUT_CLEAN_LAST == SPECKV_DIRECTORY_EVENT_PUT_CLEAN + 1, "order");
static_assert(SPECKV_DIRECTORY_EVENT_ACK_LAST == SPECKV_DIRECTORY_EVENT_ACK + 1, "order");
static_assert(SPECKV_DIRECTORY_EVENT_FENCE_LAST == SPECKV_DIRECTORY_EVENT_FENCE + 1, "order");

uint64_t bit(uint32_t agent) { return agent < SPECKV_MAX_AGENTS ? 1ull << agent : 0; }

// The holder of a block in this state may have modified it.
bool has_writer(uint8_t state) { return kTable[state][SPECKV_DIRECTORY_EVENT_PUT_DIRTY].legal != 0; }

}  // namespace

size_t Directory::Hash::operator()(uint64_t key) const noexcept {
  // The finaliser of splitmix64: handles differ in few bits.
  key = (key ^ (key >> 30)) * 0xBF58476D1CE4E5B9ull;
  key = (key ^ (key >> 27)) * 0x94D049BB133111EBull;
  return static_cast<size_t>(key ^ (key >> 31));
}

Directory::Directory(uint64_t lease_ns)
    : metadata_bytes_(sizeof(Directory)),
      lease_ns_(lease_ns),
      agents_(CountingAllocator<Agent>(&metadata_bytes_)),
      blocks_(0, Hash(), std::equal_to<uint64_t>(),
              CountingAllocator<std::pair<const uint64_t, Block>>(&metadata_bytes_)) {
  agents_.reserve(SPECKV_MAX_AGENTS);
  for (uint32_t i = 0; i < SPECKV_MAX_AGENTS; ++i) {
    agents_.push_back(Agent{0, 0, Vector<Recall>(CountingAllocator<Recall>(&metadata_bytes_))});
  }
}

Directory::Agent& Directory::find(uint32_t agent, uint64_t epoch) {
  require(agent < SPECKV_MAX_AGENTS, 0, agent, SPECKV_MAX_AGENTS);
  Agent& found = agents_[agent];
  if (epoch == 0 || epoch != found.epoch) throw CallError{SPECKV_CORE_FENCED, 0, epoch, found.epoch};
  return found;
}

// Threads may bring their times out of order; deadlines must not go back.
uint64_t Directory::advance(uint64_t now_ns) {
  now_ns_ = std::max(now_ns_, std::min(now_ns, UINT64_MAX - lease_ns_));
  return now_ns_;
}

void Directory::enroll(uint64_t now_ns, speckv_directory_agent& agent) {
  Guard guard(mutex_);
  const auto free = std::find_if(agents_.begin(), agents_.end(), [](const Agent& a) { return a.epoch == 0; });
  require(free != agents_.end(), 0, SPECKV_MAX_AGENTS + 1, SPECKV_MAX_AGENTS);
  free->epoch = ++epochs_;
  free->deadline_ns = advance(now_ns) + lease_ns_;
  agent = {free->epoch, free->deadline_ns, static_cast<uint32_t>(free - agents_.begin()), 0};
}

uint64_t Directory::acquire(uint32_t agent, uint64_t epoch, uint64_t now_ns, bool write, uint32_t count,
                            const uint64_t* keys, uint8_t* answers) {
  Guard guard(mutex_);
  Agent& asking = find(agent, epoch);
  advance(now_ns);
  for (uint32_t i = 0; i < count; ++i) {
    try {
      answers[i] = ask(agent, write, keys[i]);
    } catch (const std::bad_alloc&) {
      answers[i] = SPECKV_DIRECTORY_NO_MEMORY;
    }
  }
  clear_answered(agent);
  return nearest_deadline(asking);
}

uint8_t Directory::ask(uint32_t agent, bool write, uint64_t key) {
  const auto at = blocks_.try_emplace(key).first;
  const Block& block = at->second;
  const bool holds = (block.holders & bit(agent)) != 0;
  if (holds && (!write || has_writer(block.state))) return SPECKV_DIRECTORY_GRANTED;
  if (block.waiter == agent) return SPECKV_DIRECTORY_WAITING;
  const uint64_t others = block.holders & ~bit(agent) & ~bit(block.waiter);
  Event event = SPECKV_DIRECTORY_EVENT_GET_SHARED;
  if (write && holds) {
    event = others != 0 ? SPECKV_DIRECTORY_EVENT_UPGRADE : SPECKV_DIRECTORY_EVENT_UPGRADE_LAST;
  } else if (write) {
    event = SPECKV_DIRECTORY_EVENT_GET_MODIFIED;
  }
  const uint8_t actions = apply(at, event, agent);
  if (actions & SPECKV_DIRECTORY_ACTION_GRANT) return SPECKV_DIRECTORY_GRANTED;
  return actions & SPECKV_DIRECTORY_ACTION_RECALL ? SPECKV_DIRECTORY_WAITING : SPECKV_DIRECTORY_BUSY;
}

// One cell of the table; its actions. Throws before it changes anything.
uint8_t Directory::apply(Blocks::iterator at, Event event, uint32_t agent) {
  Block& block = at->second;
  const speckv_directory_transition& cell = kTable[block.state][event];
  if (!cell.legal) throw CallError{SPECKV_CORE_INTERNAL, 0, event, block.state};
  const auto does = [&](speckv_directory_action action) { return (cell.actions & action) != 0; };
  const auto hold = [&](uint32_t who) {
    leases_ += (block.holders & bit(who)) == 0;
    block.holders |= bit(who);
    ++grants_;
  };
  if (does(SPECKV_DIRECTORY_ACTION_RECALL)) recall(at->first, block, agent);
  if (does(SPECKV_DIRECTORY_ACTION_GRANT)) hold(agent);
  if (does(SPECKV_DIRECTORY_ACTION_STORE)) ++write_backs_;
  if (does(SPECKV_DIRECTORY_ACTION_DROP)) {
    block.holders &= ~bit(agent);
    --leases_;
  }
  if (does(SPECKV_DIRECTORY_ACTION_LOST)) {
    lost_untold_ += !block.lost;
    block.lost = true;
    ++lost_;
  }
  if (does(SPECKV_DIRECTORY_ACTION_SERVE)) hold(block.waiter);
  if (does(SPECKV_DIRECTORY_ACTION_SERVE) || does(SPECKV_DIRECTORY_ACTION_FORGET)) block.waiter = kNobody;
  block.state = cell.next;
  return cell.actions;
}

void Directory::recall(uint64_t key, Block& block, uint32_t asking) {
  const uint64_t others = block.holders & ~bit(asking);
  for (uint32_t agent = 0; agent < SPECKV_MAX_AGENTS; ++agent) {  // all memory first
    Vector<Recall>& recalls = agents_[agent].recalls;
    if ((others & bit(agent)) != 0 && recalls.size() == recalls.capacity()) {
      clear_answered(agent);
      if (2 * recalls.size() >= recalls.capacity()) recalls.reserve(std::max<size_t>(8, 2 * recalls.size()));
    }
  }
  block.recall = ++recalls_;
  block.deadline_ns = now_ns_ + lease_ns_;
  block.waiter = static_cast<uint8_t>(asking);
  for (uint32_t agent = 0; agent < SPECKV_MAX_AGENTS; ++agent) {
    if ((others & bit(agent)) != 0) {
      agents_[agent].recalls.push_back(Recall{key, block.recall, block.deadline_ns});
    }
  }
}

void Directory::clear_answered(uint32_t agent) {
  Vector<Recall>& recalls = agents_[agent].recalls;
  const auto answered = [&](const Recall& recall) {
    const auto at = blocks_.find(recall.key);
    if (at == blocks_.end()) return true;
    const Block& block = at->second;
    const bool pending = block.recall == recall.recall && block.waiter != kNobody;
    return !pending || (block.holders & bit(agent)) == 0 || block.waiter == agent;
  };
  recalls.erase(std::remove_if(recalls.begin(), recalls.end(), answered), recalls.end());
}

uint64_t Directory::nearest_deadline(const Agent& agent) const {
  return agent.recalls.empty() ? agent.deadline_ns
                               : std::min(agent.deadline_ns, agent.recalls.front().deadline_ns);
}

void Directory::give(uint32_t agent, uint64_t epoch, Event event, uint32_t count, const uint64_t* keys) {
  Guard guard(mutex_);
  find(agent, epoch);
  ++calls_;
  for (uint32_t i = 0; i < count; ++i) check_give(agent, event, keys[i], i);
  for (uint32_t i = 0; i < count; ++i) give_up(blocks_.find(keys[i]), event, agent);
}

void Directory::check_give(uint32_t agent, Event event, uint64_t key, uint32_t place) {
  const auto at = blocks_.find(key);
  if (at == blocks_.end()) {
    throw CallError{SPECKV_CORE_NOT_HELD, place, key, SPECKV_DIRECTORY_STATE_INVALID};
  }
  Block& block = at->second;
  const bool holds = (block.holders & bit(agent)) != 0;
  const bool writes = event == SPECKV_DIRECTORY_EVENT_PUT_DIRTY || event == SPECKV_DIRECTORY_EVENT_WRITE_BACK;
  const bool waits = event == SPECKV_DIRECTORY_EVENT_PUT_CLEAN && block.waiter == agent;
  if (!(holds && (!writes || has_writer(block.state))) && !waits) {
    throw CallError{SPECKV_CORE_NOT_HELD, place, key, block.state};
  }
  require(block.mark != calls_, place, key, 1);  // the same key twice
  block.mark = calls_;
}

void Directory::give_up(Blocks::iterator at, Event event, uint32_t agent) {
  Block& block = at->second;
  if (block.waiter == agent) apply(at, SPECKV_DIRECTORY_EVENT_CANCEL, agent);
  if ((block.holders & bit(agent)) != 0) {
    const bool written =
        event == SPECKV_DIRECTORY_EVENT_PUT_DIRTY || event == SPECKV_DIRECTORY_EVENT_WRITE_BACK;
    const bool last = (block.holders & ~bit(agent) & ~bit(block.waiter)) == 0;
    apply(at, static_cast<Event>(event + (last && !written ? 1 : 0)), agent);
  }
  forget_idle(at);
}

void Directory::forget_idle(Blocks::iterator at) {
  if (at->second.state == SPECKV_DIRECTORY_STATE_INVALID && !at->second.lost) blocks_.erase(at);
}

uint64_t Directory::poll(uint32_t agent, uint64_t epoch, uint64_t now_ns, uint32_t room,
                         speckv_directory_recall* recalls, uint32_t& count) {
  Guard guard(mutex_);
  Agent& polling = find(agent, epoch);
  polling.deadline_ns = advance(now_ns) + lease_ns_;
  clear_answered(agent);
  count = static_cast<uint32_t>(polling.recalls.size());
  for (uint32_t i = 0; i < std::min(room, count); ++i) {
    const Recall& recall = polling.recalls[i];
    const bool downgrade = blocks_.find(recall.key)->second.state == SPECKV_DIRECTORY_STATE_DOWNGRADE_PENDING;
    const auto kind = downgrade ? SPECKV_DIRECTORY_DOWNGRADE : SPECKV_DIRECTORY_INVALIDATE;
    recalls[i] = {recall.key, recall.deadline_ns, static_cast<uint32_t>(kind), 0};
  }
  return nearest_deadline(polling);
}

uint64_t Directory::expire(uint64_t now_ns) {
  Guard guard(mutex_);
  advance(now_ns);
  uint64_t late = 0;
  for (uint32_t agent = 0; agent < SPECKV_MAX_AGENTS; ++agent) {
    if (agents_[agent].epoch == 0) continue;
    clear_answered(agent);
    if (nearest_deadline(agents_[agent]) <= now_ns_) late |= bit(agent);
  }
  if (late != 0) end(late);
  return late;
}

void Directory::fence(uint32_t agent, uint64_t epoch) {
  Guard guard(mutex_);
  find(agent, epoch);
  end(bit(agent));
}

// Ends all leases and waits of some agents; allocates nothing. Waits first: none of them is served meanwhile.
void Directory::end(uint64_t fenced) {
  for (auto at = blocks_.begin(); at != blocks_.end();) {
    const auto here = at++;
    Block& block = here->second;
    if ((bit(block.waiter) & fenced) != 0) apply(here, SPECKV_DIRECTORY_EVENT_CANCEL, block.waiter);
    const uint64_t holding = block.holders & fenced;
    for (uint32_t agent = 0; agent < SPECKV_MAX_AGENTS && holding != 0; ++agent) {
      if ((holding & bit(agent)) == 0) continue;
      const bool last = (block.holders & ~bit(agent) & ~bit(block.waiter)) == 0;
      apply(here, last ? SPECKV_DIRECTORY_EVENT_FENCE_LAST : SPECKV_DIRECTORY_EVENT_FENCE, agent);
    }
    forget_idle(here);
  }
  for (uint32_t agent = 0; agent < SPECKV_MAX_AGENTS; ++agent) {
    if ((fenced & bit(agent)) == 0) continue;
    agents_[agent].epoch = 0;
    agents_[agent].recalls.clear();
    ++fenced_;
  }
}

uint64_t Directory::take_lost(uint64_t room, uint64_t* keys) {
  Guard guard(mutex_);
  uint64_t told = 0;
  for (auto at = blocks_.begin(); at != blocks_.end() && lost_untold_ != 0 && told < room;) {
    const auto here = at++;
    if (!here->second.lost) continue;
    here->second.lost = false;
    --lost_untold_;
    keys[told++] = here->first;
    forget_idle(here);
  }
  return told;
}

void Directory::look(uint64_t key, speckv_directory_block& out) {
  Guard guard(mutex_);
  const auto at = blocks_.find(key);
  const Block block = at == blocks_.end() ? Block{} : at->second;
  const uint64_t deadline_ns = block.waiter == kNobody ? 0 : block.deadline_ns;
  out = {block.holders, deadline_ns, block.state, block.waiter, block.lost, 0};
}

void Directory::stats(speckv_directory_stats& stats) {
  Guard guard(mutex_);
  const auto agents =
      std::count_if(agents_.begin(), agents_.end(), [](const Agent& a) { return a.epoch != 0; });
  stats = {static_cast<uint64_t>(agents),
           blocks_.size(),
           leases_,
           grants_,
           recalls_,
           write_backs_,
           fenced_,
           lost_,
           metadata_bytes_};
}

}  // namespace speckv
