// The memory system under many threads, and with every allocation failing once.
//   stress_system threads THREADS ROUNDS SEED
//   stress_system allocations
// Ends with 0 and a line that says what was done, or with 1 and what went wrong.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "speckv.h"

namespace {

// What operator new does below: -1 counts only; else fails when it reaches 0, once.
std::atomic<long> allocations_left{-1};
std::atomic<long> live_allocations{0};

void* take(size_t bytes) {
  if (allocations_left.load() >= 0 && allocations_left.fetch_sub(1) == 0) return nullptr;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  live_allocations += memory != nullptr;
  return memory;
}

}  // namespace

void* operator new(size_t bytes) {
  if (void* memory = take(bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new[](size_t bytes) { return operator new(bytes); }
void operator delete(void* memory) noexcept {
  live_allocations -= memory != nullptr;
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
void operator delete[](void* memory) noexcept { operator delete(memory); }
void operator delete[](void* memory, size_t) noexcept { operator delete(memory); }

namespace {

constexpr uint32_t kLayers = 2, kTokens = 16, kHeadDim = 64, kBlocks = 6;
constexpr uint32_t kElements = 2 * kTokens * kHeadDim;  // of a block: one KV head
constexpr uint64_t kBlockBytes = kElements * 2;
std::atomic<bool> failed{false};

#define CHECK(holds, ...)                                      \
  do {                                                         \
    if (!(holds) && !failed.exchange(true)) {                  \
      std::fprintf(stderr, "line %d: %s: ", __LINE__, #holds); \
      std::fprintf(stderr, "" __VA_ARGS__);                    \
      std::fprintf(stderr, "\n");                              \
    }                                                          \
  } while (false)

struct Random {  // splitmix64: small, seeded, the same everywhere
  uint64_t state;
  uint32_t below(uint32_t n) {
    uint64_t z = (state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return static_cast<uint32_t>((z ^ (z >> 31)) % n);
  }
};

speckv_config config_of(uint32_t slots, uint32_t threads) {
  speckv_config config;
  speckv_config_init(&config);
  config.layers = kLayers;
  config.kv_heads = 1;
  config.head_dim = kHeadDim;
  config.block_tokens = kTokens;
  config.scheme = SPECKV_SCHEME_RAW;
  config.l1_bytes = slots * kBlockBytes;
  config.l2_bytes = 2 * kBlockBytes;
  config.l3_bytes = 4 << 20;
  config.threads = threads;
  config.lease_timeout_ms = 0;
  config.wait_timeout_ms = 20000;
  return config;
}

speckv_address address_of(uint32_t request, uint32_t block) {
  return speckv_pack_address(request, block % kLayers, 0, block / kLayers * kTokens, 0);
}

int32_t open_view(speckv_system* system, uint32_t request, uint32_t block, uint32_t mode, speckv_view* view) {
  const speckv_address a = address_of(request, block);
  return speckv_access(system, a.high, a.low, mode, view);
}

// All elements of a block are its stamp: a torn block, or one of somebody else, shows.
uint16_t stamp_of(const speckv_view& view) {
  const auto* elements = static_cast<const uint16_t*>(view.block);
  for (uint32_t i = 1; i < kElements; ++i) CHECK(elements[i] == elements[0], "torn at %u", i);
  return elements[0];
}

void stamp(const speckv_view& view, uint16_t value) {
  auto* elements = static_cast<uint16_t*>(view.block);
  for (uint32_t i = 0; i < kElements; ++i) elements[i] = value;
}

void release(speckv_system* system, speckv_view& view) {
  CHECK(speckv_release(system, &view) == SPECKV_OK, "release");
}

// Request 0 is everybody's: its stamps only grow, and nobody may see one smaller than what a writer had
// finished before. Each thread also forks it, changes the copy, and frees it.
struct Shared {
  speckv_system* system;
  std::atomic<uint32_t> finished[kBlocks];
  std::atomic<uint64_t> writes{0}, reads{0}, forks{0};
};

void write_shared(Shared& shared, uint32_t block) {
  speckv_view view;
  CHECK(open_view(shared.system, 0, block, SPECKV_WRITE, &view) == SPECKV_OK, "write");
  if (failed) return;
  const uint32_t next = stamp_of(view) + 1u;
  CHECK(next == shared.finished[block] + 1u, "lost write: %u", next);
  stamp(view, static_cast<uint16_t>(next));
  shared.finished[block] = next;
  release(shared.system, view);
  ++shared.writes;
}

void read_shared(Shared& shared, uint32_t block) {
  speckv_view view;
  const uint32_t before = shared.finished[block];
  CHECK(open_view(shared.system, 0, block, SPECKV_READ, &view) == SPECKV_OK, "read");
  if (failed) return;
  CHECK(stamp_of(view) >= before, "stale read");
  release(shared.system, view);
  ++shared.reads;
}

void use_fork(Shared& shared, uint32_t mine, Random& random) {
  CHECK(speckv_fork(shared.system, 0, mine) == SPECKV_OK, "fork");
  uint16_t own[kBlocks] = {};
  bool known[kBlocks] = {};
  for (uint32_t i = 0; i < 8 && !failed; ++i) {
    const uint32_t block = random.below(kBlocks);
    const bool write = random.below(2) == 0;
    speckv_view view;
    CHECK(open_view(shared.system, mine, block, write ? SPECKV_WRITE : SPECKV_READ, &view) == SPECKV_OK,
          "copy");
    if (failed) return;
    const uint16_t seen = stamp_of(view);
    CHECK(!known[block] || seen == own[block], "a copy changed: %u", seen);
    known[block] = true;
    own[block] = write ? static_cast<uint16_t>(60000 + random.below(5000)) : seen;
    if (write) stamp(view, own[block]);
    release(shared.system, view);
  }
  CHECK(speckv_free(shared.system, mine) == SPECKV_OK, "free");
  ++shared.forks;
}

void work(Shared& shared, uint32_t thread, uint32_t rounds, uint64_t seed) {
  Random random{seed * 1000 + thread};
  for (uint32_t round = 0; round < rounds && !failed; ++round) {
    const uint32_t what = random.below(16), block = random.below(kBlocks);
    if (what < 5) {
      write_shared(shared, block);
    } else if (what < 13) {
      read_shared(shared, block);
    } else if (what < 15) {
      speckv_prefetch(shared.system, 0, random.below(kLayers), 0, 3);
    } else {
      use_fork(shared, thread + 1, random);
    }
  }
}

int run_threads(uint32_t threads, uint32_t rounds, uint64_t seed) {
  Shared shared = {};
  // Fewer slots than blocks and copies, and one more than threads, each of which holds one view.
  const speckv_config config = config_of(threads + 1, 2);
  CHECK(speckv_init(&config, &shared.system) == SPECKV_OK, "init");
  speckv_alloc(shared.system, 0, kBlocks / kLayers * kTokens);
  for (uint32_t block = 0; block < kBlocks; ++block) {
    speckv_view view;
    CHECK(open_view(shared.system, 0, block, SPECKV_OVERWRITE, &view) == SPECKV_OK, "first write");
    release(shared.system, view);
  }
  std::vector<std::thread> workers;
  for (uint32_t i = 0; i < threads; ++i) workers.emplace_back(work, std::ref(shared), i, rounds, seed);
  for (std::thread& worker : workers) worker.join();
  for (uint32_t block = 0; block < kBlocks; ++block) read_shared(shared, block);
  speckv_counters counters;
  CHECK(speckv_free(shared.system, 0) == SPECKV_OK, "free");
  speckv_stats(shared.system, &counters);
  CHECK(counters.blocks == 0 && counters.leases == 0 && counters.held_bytes[0] == 0, "left over");
  CHECK(counters.used_bytes[2] == 0, "left in L3");
  speckv_shutdown(shared.system);
  std::printf("%llu writes, %llu reads, %llu forks, %llu write-backs, %llu prefetched, no fault\n",
              static_cast<unsigned long long>(shared.writes), static_cast<unsigned long long>(shared.reads),
              static_cast<unsigned long long>(shared.forks),
              static_cast<unsigned long long>(counters.write_backs),
              static_cast<unsigned long long>(counters.prefetched));
  return failed ? 1 : 0;
}

// One scenario with every kind of call. A call that fails for want of memory is made again, and must then do
// what it would have done.
struct Scenario {
  speckv_system* system = nullptr;
  uint32_t failures = 0;

  template <class Call>
  void must(Call call) {
    int32_t result = call();
    if (result == SPECKV_NO_MEMORY) {
      ++failures;
      result = call();
    }
    CHECK(result == SPECKV_OK, "%s", speckv_strerror(result));
  }

  void write(uint32_t request, uint32_t block, uint16_t old, uint16_t value, uint32_t mode) {
    speckv_view view;
    must([&] { return open_view(system, request, block, mode, &view); });
    if (failed) return;
    CHECK(mode == SPECKV_OVERWRITE || stamp_of(view) == old, "not the old content");
    stamp(view, value);
    release(system, view);
  }

  void read(uint32_t request, uint32_t block, uint16_t value) {
    speckv_view view;
    must([&] { return open_view(system, request, block, SPECKV_READ, &view); });
    if (failed) return;
    CHECK(stamp_of(view) == value, "block %u of %u", block, request);
    release(system, view);
  }

  void run() {
    const speckv_config config = config_of(2, 0);
    must([&] { return speckv_init(&config, &system); });
    if (failed) return;
    const uint32_t tokens = 40 * kTokens;
    must([&] { return speckv_alloc(system, 1, tokens); });
    for (uint32_t block = 0; block < 40; ++block)
      write(1, block, 0, static_cast<uint16_t>(block + 1), SPECKV_WRITE);
    must([&] { return speckv_fork(system, 1, 2); });
    for (uint32_t block = 0; block < 40; block += 3) {
      write(2, block, static_cast<uint16_t>(block + 1), static_cast<uint16_t>(block + 100), SPECKV_WRITE);
    }
    for (uint32_t block = 0; block < 40; block += 2) {  // records leave holes of all kinds
      write(1, block, 0, static_cast<uint16_t>(block + 200), SPECKV_OVERWRITE);
    }
    for (uint32_t block = 0; block < 40; ++block) {
      read(1, block, static_cast<uint16_t>(block % 2 == 0 ? block + 200 : block + 1));
      read(2, block, static_cast<uint16_t>(block % 3 == 0 ? block + 100 : block + 1));
    }
    must([&] { return speckv_free(system, 1); });
    for (uint32_t block = 0; block < 40; ++block) {
      read(2, block, static_cast<uint16_t>(block % 3 == 0 ? block + 100 : block + 1));
    }
    must([&] { return speckv_free(system, 2); });
    // What could not be given back for want of memory is, with the next call that gives back.
    must([&] { return speckv_alloc(system, 3, 1); });
    must([&] { return speckv_free(system, 3); });
    speckv_counters counters;
    speckv_stats(system, &counters);
    CHECK(counters.blocks == 0 && counters.leases == 0 && counters.held_bytes[0] == 0, "left over");
    CHECK(counters.used_bytes[2] == 0 && counters.held_bytes[2] == 0, "left in L3");
  }
};

int run_allocations() {
  Scenario first;  // what the kernels allocate once is not ours
  first.run();
  speckv_shutdown(first.system);
  long points = 0, failures = 0;
  for (;; ++points) {
    const long before = live_allocations;
    Scenario scenario;
    allocations_left = points;
    scenario.run();
    const bool reached = allocations_left < 0;
    allocations_left = -1;
    speckv_shutdown(scenario.system);
    CHECK(live_allocations == before, "%ld allocations leaked at point %ld", live_allocations - before,
          points);
    failures += scenario.failures;
    if (failed || !reached) break;
  }
  std::printf("%ld points of failure, %ld calls failed, no fault\n", points, failures);
  return failed || points < 50 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "allocations") == 0) return run_allocations();
  if (argc != 5 || std::strcmp(argv[1], "threads") != 0) return 2;
  return run_threads(static_cast<uint32_t>(std::atoi(argv[2])), static_cast<uint32_t>(std::atoi(argv[3])),
                     static_cast<uint64_t>(std::atoll(argv[4])));
}
