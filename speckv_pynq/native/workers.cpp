#include "workers.h"

namespace speckv {

namespace {

uint32_t share(uint32_t count, uint32_t which, uint32_t shares) {
  return static_cast<uint32_t>(static_cast<uint64_t>(count) * which / shares);
}

}  // namespace

Workers::Workers(uint32_t threads) {
  for (uint32_t i = 1; i < threads; ++i) threads_.emplace_back(&Workers::serve, this, i);
}

Workers::~Workers() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Workers::run(uint32_t count, const Body& body) {
  std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
  if (threads_.empty() || !turn.owns_lock() || count < 2) {
    body(0, count);
    return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    body_ = &body;
    count_ = count;
    running_ = static_cast<uint32_t>(threads_.size());
    ++round_;
  }
  start_.notify_all();
  body(0, share(count, 1, static_cast<uint32_t>(threads_.size()) + 1));
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, [this] { return running_ == 0; });
}

void Workers::serve(uint32_t which) {
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    start_.wait(lock, [&] { return stop_ || round_ != seen; });
    if (stop_) return;
    seen = round_;
    const Body& body = *body_;
    const uint32_t shares = static_cast<uint32_t>(threads_.size()) + 1;
    const uint32_t first = share(count_, which, shares), last = share(count_, which + 1, shares);
    lock.unlock();
    body(first, last);
    lock.lock();
    if (--running_ == 0) finished_.notify_one();
  }
}

}  // namespace speckv
