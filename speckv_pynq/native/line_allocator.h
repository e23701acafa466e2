// Runs of lines in one memory that grows and shrinks by frames.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "counting.h"

namespace speckv {

struct Memory {
  uint8_t* base;
  uint64_t bytes;
  uint32_t frame_bytes;
  bool give_back;  // host memory: pages of empty frames go back to the system
};

// Best fit, lowest address first, with coalescing. A frame is held from the first line taken in it until
// trim() finds it empty: take and give never call the system, so a slot that changes hands within a call
// keeps its pages.
class LineAllocator {
 public:
  static constexpr uint64_t kNone = UINT64_MAX;

  LineAllocator(const Memory& memory, size_t* metadata_bytes);

  // First line of a run, or kNone when no run is long enough.
  uint64_t take(uint64_t lines);
  // std::bad_alloc changes nothing.
  void give(uint64_t first, uint64_t lines);
  // Never fails: lines that the host has no memory to note as free stay in use until a trim() has it. Until
  // then a note lies in their own, first bytes.
  void give_later(uint64_t first, uint64_t lines) noexcept;
  // Gives empty frames back, after the lines that give_later() left.
  void trim();

  uint8_t* at(uint64_t line) const;
  uint64_t capacity_bytes() const { return capacity_ * line_bytes(); }
  uint64_t used_bytes() const { return used_ * line_bytes(); }
  uint64_t held_bytes() const { return held_frames_ * memory_.frame_bytes; }
  bool has_left() const { return left_ != kNone; }
  uint64_t free_runs() const { return by_start_.size(); }

 private:
  using Run = std::pair<uint64_t, uint64_t>;
  template <class T>
  using Vector = std::vector<T, CountingAllocator<T>>;

  static uint64_t line_bytes();
  void add_free(uint64_t first, uint64_t lines);
  void remove_free(uint64_t first, uint64_t lines);
  void change_free(const Run& from, const Run& to);  // (first, lines)
  void count_lines(uint64_t first, uint64_t lines, bool taken);
  void give_frames_back(uint64_t first, uint64_t frames);
  void give_left() noexcept;

  // A frame's state: lines in use, and a bit that says its memory is held.
  static constexpr uint16_t kHeld = 0x8000;
  static constexpr uint16_t kInUse = 0x7FFF;

  Memory memory_;
  uint64_t capacity_;  // lines
  uint64_t frame_lines_;
  uint64_t top_ = 0;   // no line at or above it is in use; what lies there is not among the free runs
  uint64_t used_ = 0;  // lines
  uint64_t held_frames_ = 0;
  uint64_t left_ = kNone;  // first line of the last run that give_later() left
  std::map<uint64_t, uint64_t, std::less<uint64_t>, CountingAllocator<std::pair<const uint64_t, uint64_t>>>
      by_start_;
  std::set<Run, std::less<Run>, CountingAllocator<Run>> by_size_;  // (lines, first)
  Vector<uint16_t> frames_;
  Vector<Run> emptied_;  // (first frame, frames) that may have become empty since the last trim
};

}  // namespace speckv
