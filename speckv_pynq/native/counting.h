// Containers whose memory is counted, so that the core can say what it costs.
#pragma once

#include <cstddef>
#include <new>

namespace speckv {

// Counts what it allocates, with the usual cost of a heap block beside it: glibc gives multiples of 16 bytes,
// 8 of them its own.
template <class T>
struct CountingAllocator {
  using value_type = T;

  explicit CountingAllocator(size_t* counter) noexcept : counter(counter) {}
  template <class U>
  CountingAllocator(const CountingAllocator<U>& other) noexcept : counter(other.counter) {}

  static size_t cost(size_t count) noexcept { return (count * sizeof(T) + 8 + 15) / 16 * 16; }

  T* allocate(size_t count) {
    T* memory = static_cast<T*>(::operator new(count * sizeof(T)));
    *counter += cost(count);
    return memory;
  }

  void deallocate(T* memory, size_t count) noexcept {
    *counter -= cost(count);
    ::operator delete(memory);
  }

  template <class U>
  bool operator==(const CountingAllocator<U>& other) const noexcept {
    return counter == other.counter;
  }
  template <class U>
  bool operator!=(const CountingAllocator<U>& other) const noexcept {
    return counter != other.counter;
  }

  size_t* counter;
};

}  // namespace speckv
