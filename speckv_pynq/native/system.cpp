// Construction, requests, settings and counters of the memory system.
#include "system.h"

#include <algorithm>
#include <iterator>

namespace speckv {

namespace {

constexpr uint32_t kQueue = 1024;           // prefetches that may wait
constexpr uint64_t kMaxBytes = 1ull << 46;  // of a tier

void require(bool holds, const char* what, uint64_t value, uint64_t limit,
             speckv_result result = SPECKV_BAD_ARGUMENT) {
  if (!holds) throw Failure{result, value, limit, 0, what};
}

void check_scheme(uint32_t scheme, uint32_t dtype) {
  require(scheme <= SPECKV_SCHEME_LOSSLESS, "scheme", scheme, SPECKV_SCHEME_LOSSLESS);
  require(scheme != SPECKV_SCHEME_KLT, "scheme klt", scheme, SPECKV_SCHEME_LOSSLESS, SPECKV_UNSUPPORTED);
  const bool exact = scheme == SPECKV_SCHEME_RAW || scheme == SPECKV_SCHEME_LOSSLESS;
  require(exact || dtype != SPECKV_DTYPE_FP32, "dtype", dtype, SPECKV_DTYPE_BF16);
}

speckv_strides strides_of(const speckv_config& c) {
  const uint64_t entry = static_cast<uint64_t>(c.head_dim) * (c.dtype == SPECKV_DTYPE_FP32 ? 4 : 2);
  const uint64_t token = entry * c.kv_heads, kind = token * c.block_tokens;
  return speckv_strides{entry, token, kind, 2 * kind, nullptr, 0, nullptr, 0};
}

const speckv_config& checked(const speckv_config& c) {
  const uint32_t dims[] = {64, 80, 96, 128, 256};
  const bool dim = std::find(std::begin(dims), std::end(dims), c.head_dim) != std::end(dims);
  const bool tokens = c.block_tokens == 16 || c.block_tokens == 32 || c.block_tokens == 64;
  require(c.struct_size == sizeof c, "struct_size", c.struct_size, sizeof c);
  require(c.layers >= 1 && c.layers <= 65536, "layers", c.layers, 65536);
  require(c.kv_heads >= 1 && c.kv_heads <= 256, "kv_heads", c.kv_heads, 256);
  require(dim, "head_dim", c.head_dim, 256);
  require(tokens, "block_tokens", c.block_tokens, 64);
  require(c.dtype <= SPECKV_DTYPE_FP32, "dtype", c.dtype, SPECKV_DTYPE_FP32);
  check_scheme(c.scheme, c.dtype);
  require(c.policy <= SPECKV_POLICY_DENSE, "policy", c.policy, SPECKV_POLICY_DENSE);
  const uint64_t block_bytes = strides_of(c).block_bytes;
  require(block_bytes <= SPECKV_MAX_BLOCK_BYTES, "bytes of a block", block_bytes, SPECKV_MAX_BLOCK_BYTES);
  require(c.l1_bytes >= block_bytes && c.l1_bytes < kMaxBytes, "l1_bytes", c.l1_bytes, block_bytes);
  require(c.l2_bytes < kMaxBytes, "l2_bytes", c.l2_bytes, kMaxBytes);
  require(c.l3_bytes < kMaxBytes, "l3_bytes", c.l3_bytes, kMaxBytes);
  require(c.threads <= 64, "threads", c.threads, 64);
  return c;
}

uint64_t whole_frames(uint64_t bytes) { return bytes / SPECKV_FRAME_BYTES * SPECKV_FRAME_BYTES; }

}  // namespace

System::System(const speckv_config& config)
    : config_(checked(config)),
      strides_(strides_of(config)),
      l1_(config.l1_bytes, strides_.block_bytes, &metadata_bytes_),
      l2_(config.l2_bytes, strides_.block_bytes, &metadata_bytes_),
      staging_((config.threads + 1) * (strides_.block_bytes + SPECKV_MIN_SLOT_BYTES),
               strides_.block_bytes + SPECKV_MIN_SLOT_BYTES, &metadata_bytes_),
      pool_(whole_frames(config.l3_bytes)),
      l3_(Memory{pool_.base(), pool_.bytes(), SPECKV_FRAME_BYTES, true}, &metadata_bytes_),
      table_(&metadata_bytes_),
      regions_(CountingAllocator<std::pair<const uint32_t, uint32_t>>(&metadata_bytes_)),
      blocks_(CountingAllocator<Block>(&metadata_bytes_)),
      leases_(CountingAllocator<Lease>(&metadata_bytes_)),
      queue_(kQueue, BlockKey{0, 0, 0}, CountingAllocator<BlockKey>(&metadata_bytes_)),
      depth_(config.prefetch_depth),
      scheme_(config.scheme) {
  strides_.l1 = l1_.memory().base();
  strides_.l1_slots = l1_.slots();
  strides_.l3 = pool_.base();
  strides_.l3_bytes = pool_.bytes();
  try {
    threads_.reserve(config.threads);
    for (uint32_t i = 0; i < config.threads; ++i) threads_.emplace_back(&System::serve, this);
  } catch (...) {
    end_threads();
    throw;
  }
}

System::~System() { end_threads(); }

void System::alloc(uint32_t request, uint32_t tokens) {
  const uint64_t whole = (static_cast<uint64_t>(tokens) + config_.block_tokens - 1) / config_.block_tokens *
                         config_.block_tokens;
  Lock lock(mutex_);
  uint64_t& region = regions_[request];  // a new request has 0
  region = std::max(region, whole);
}

void System::free(uint32_t request) {
  Lock lock(mutex_);
  require(regions_.erase(request) == 1, "req_id", request, 0, SPECKV_NOT_ALLOCATED);
  while (const uint64_t handle = table_.take_block(request)) {
    const auto index = static_cast<uint32_t>(handle - 1);
    --blocks_[index].references;
    drop_if_unused(index);
  }
  table_.shrink();
  bury();
  changed_.notify_all();
}

void System::fork(uint32_t from, uint32_t to) {
  Lock lock(mutex_);
  const Effort effort = begin_effort();
  std::vector<BlockKey> keys;
  std::vector<uint64_t> handles;
  for (;;) {
    require(regions_.count(from) == 1, "from", from, 0, SPECKV_NOT_ALLOCATED);
    require(regions_.count(to) == 0, "to", to, from);
    keys.resize(table_.blocks(from));
    handles.resize(keys.size());
    table_.list(from, keys.size(), keys.data(), handles.data());
    const auto written = std::find_if(handles.begin(), handles.end(), [&](uint64_t handle) {
      const auto index = static_cast<uint32_t>(handle - 1);
      return blocks_[index].writing && !fence(index);
    });
    if (written == handles.end()) break;
    wait(lock, effort.lease_deadline);
  }
  table_.reserve(keys.size(), 1);
  regions_.emplace(to, regions_.at(from));
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i].request = to;
    table_.map(keys[i], handles[i]);
    ++blocks_[handles[i] - 1].references;
  }
}

void System::set_prefetch_depth(uint32_t depth) {
  Lock lock(mutex_);
  depth_ = depth;
}

void System::set_scheme(uint32_t scheme) {
  check_scheme(scheme, config_.dtype);
  Lock lock(mutex_);
  scheme_ = scheme;
}

void System::stats(speckv_counters& counters) {
  Lock lock(mutex_);
  counters = counters_;
  counters.requests = regions_.size();
  const uint64_t budgets[3] = {config_.l1_bytes, config_.l2_bytes, config_.l3_bytes};
  std::copy(budgets, budgets + 3, counters.budget_bytes);
  const uint64_t held[3] = {l1_.held_bytes(), l2_.held_bytes(), l3_.held_bytes()};
  std::copy(held, held + 3, counters.held_bytes);
  std::copy(held, held + 2, counters.used_bytes);
  counters.used_bytes[2] = l3_.used_bytes();
  counters.metadata_bytes = metadata_bytes_;
  counters.staging_bytes = staging_.memory().bytes();
}

}  // namespace speckv
