// Runs one story of the directory again and again, each time with another allocation that fails once. The
// call that meets it must say so and change nothing, and the story must go on as if nothing had been.
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "speckv_directory.h"
#include "speckv_spec.h"

namespace {

long to_failure = -1;  // allocations until one fails; -1: none

void* take(size_t bytes) {
  if (to_failure == 0) {
    to_failure = -1;
    throw std::bad_alloc();
  }
  if (to_failure > 0) --to_failure;
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

constexpr uint32_t kKeys = 40;
constexpr uint32_t kAgents = 3;

struct Story {
  speckv_directory* directory = nullptr;
  speckv_directory_agent agents[kAgents];

  speckv_directory_stats stats() const {
    speckv_directory_stats stats;
    speckv_directory_get_stats(directory, &stats);
    return stats;
  }

  // Asks until memory allows; a refused block is as before.
  void ask(uint32_t who, bool write, uint64_t key, uint8_t wanted) {
    for (int attempt = 0;; ++attempt) {
      speckv_directory_block before, after;
      speckv_directory_look(directory, key, &before);
      const speckv_directory_stats counts = stats();
      uint8_t answer = 255;
      uint64_t deadline_ns = 0;
      const int32_t status = speckv_directory_acquire(directory, agents[who].agent, agents[who].epoch, 1,
                                                      write ? 1 : 0, 1, &key, &answer, &deadline_ns, nullptr);
      expect(status == SPECKV_CORE_OK, "acquire goes through");
      if (answer == wanted) return;
      expect(answer == SPECKV_DIRECTORY_NO_MEMORY && attempt == 0, "the answer, or no memory once");
      speckv_directory_look(directory, key, &after);
      expect(before.holders == after.holders && before.state == after.state && before.waiter == after.waiter,
             "the block is as before");
      expect(counts.leases == stats().leases && counts.recalls == stats().recalls, "the counts too");
      expect(counts.blocks == stats().blocks, "and the number of blocks");
    }
  }

  void run() {
    for (int attempt = 0; speckv_directory_create(100, &directory) != SPECKV_CORE_OK; ++attempt) {
      expect(attempt == 0, "creation fails once");
    }
    for (auto& agent : agents) {
      expect(speckv_directory_register(directory, 0, &agent, nullptr) == SPECKV_CORE_OK, "register");
    }
    for (uint64_t key = 0; key < kKeys; ++key) ask(0, false, key, SPECKV_DIRECTORY_GRANTED);
    for (uint64_t key = 0; key < kKeys; ++key) ask(1, false, key, SPECKV_DIRECTORY_GRANTED);
    for (uint64_t key = 0; key < kKeys; ++key) ask(2, true, key, SPECKV_DIRECTORY_WAITING);
    expect(stats().recalls == kKeys && stats().leases == 2 * kKeys, "all recalled");
    for (uint32_t who = 0; who < 2; ++who) {
      std::vector<uint64_t> keys;
      speckv_directory_recall recalls[kKeys];
      uint32_t count = 0;
      uint64_t deadline_ns = 0;
      expect(speckv_directory_poll(directory, agents[who].agent, agents[who].epoch, 1, kKeys, recalls, &count,
                                   &deadline_ns, nullptr) == SPECKV_CORE_OK,
             "poll");
      expect(count == kKeys, "each recall once");
      for (const auto& recall : recalls) {
        expect(speckv_directory_acknowledge(directory, agents[who].agent, agents[who].epoch, 1, &recall.key,
                                            nullptr) == SPECKV_CORE_OK,
               "acknowledge");
      }
    }
    expect(stats().leases == kKeys, "the writer has them");
    expect(speckv_directory_fence(directory, agents[2].agent, agents[2].epoch, nullptr) == SPECKV_CORE_OK,
           "fence");
    uint64_t lost[kKeys];
    expect(speckv_directory_take_lost(directory, kKeys, lost) == kKeys, "all lost are told");
    expect(stats().blocks == 0, "nothing is left");
    speckv_directory_destroy(directory);
  }
};

}  // namespace

void* operator new(size_t bytes) { return take(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

int main() {
  long failing = 0;
  for (;; ++failing) {
    to_failure = failing;
    Story().run();
    if (to_failure >= 0) break;  // the story has fewer allocations
  }
  expect(failing > 50, "the story allocates");
  std::printf("every allocation failed once: %ld\n", failing);
  return 0;
}
