// A few threads that share one loop at a time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace speckv {

class Workers {
 public:
  using Body = std::function<void(uint32_t first, uint32_t last)>;

  explicit Workers(uint32_t threads);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // Runs body over [0, count) in one range per thread; the caller takes the first. Body must not throw.
  // When another call has the workers, the caller runs the whole loop itself.
  void run(uint32_t count, const Body& body);

 private:
  void serve(uint32_t which);

  std::mutex turn_;  // held by the call that uses the workers
  std::mutex mutex_;
  std::condition_variable start_, finished_;
  const Body* body_ = nullptr;
  uint32_t count_ = 0;
  uint32_t running_ = 0;
  uint64_t round_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace speckv
