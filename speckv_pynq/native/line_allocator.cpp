#include "line_allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <tuple>

#include "speckv_spec.h"

namespace speckv {

LineAllocator::LineAllocator(const Memory& memory, size_t* metadata_bytes)
    : memory_(memory),
      capacity_(memory.bytes / memory.frame_bytes * memory.frame_bytes / SPECKV_LINE_BYTES),
      frame_lines_(memory.frame_bytes / SPECKV_LINE_BYTES),
      by_start_(CountingAllocator<std::pair<const uint64_t, uint64_t>>(metadata_bytes)),
      by_size_(CountingAllocator<Run>(metadata_bytes)),
      frames_(CountingAllocator<uint16_t>(metadata_bytes)),
      emptied_(CountingAllocator<Run>(metadata_bytes)) {}

uint64_t LineAllocator::line_bytes() { return SPECKV_LINE_BYTES; }

uint8_t* LineAllocator::at(uint64_t line) const { return memory_.base + line * SPECKV_LINE_BYTES; }

uint64_t LineAllocator::take(uint64_t lines) {
  const auto best = by_size_.lower_bound({lines, 0});
  uint64_t first = top_, free_lines = 0;
  if (best != by_size_.end()) {
    std::tie(free_lines, first) = *best;
  } else if (capacity_ - top_ < lines) {
    return kNone;
  }
  const uint64_t last_frame = (first + lines - 1) / frame_lines_;
  if (frames_.size() <= last_frame) frames_.resize(last_frame + 1);
  if (free_lines == 0) {
    top_ += lines;
  } else {
    if (free_lines > lines) add_free(first + lines, free_lines - lines);
    remove_free(first, free_lines);
  }
  count_lines(first, lines, true);
  return first;
}

// What may fail for want of memory comes before the first change.
void LineAllocator::give(uint64_t first, uint64_t lines) {
  if (emptied_.size() == emptied_.capacity()) emptied_.reserve(std::max<size_t>(16, 2 * emptied_.capacity()));
  const uint64_t end = first + lines;
  const auto next = by_start_.lower_bound(first);
  Run before{0, 0}, after{0, 0};  // free neighbours, as (first, lines)
  if (next != by_start_.begin() && std::prev(next)->first + std::prev(next)->second == first) {
    before = *std::prev(next);
  }
  if (next != by_start_.end() && next->first == end) after = *next;
  if (end != top_ && before.second == 0 && after.second == 0) add_free(first, lines);
  count_lines(first, lines, false);
  if (end == top_) {
    top_ = before.second == 0 ? first : before.first;
    if (before.second != 0) remove_free(before.first, before.second);
  } else if (before.second != 0) {
    if (after.second != 0) remove_free(after.first, after.second);
    change_free(before, Run{before.first, before.second + lines + after.second});
  } else if (after.second != 0) {
    change_free(after, Run{first, lines + after.second});
  }
}

void LineAllocator::give_later(uint64_t first, uint64_t lines) noexcept {
  try {
    give(first, lines);
  } catch (const std::bad_alloc&) {
    const uint64_t note[2] = {left_, lines};
    std::memcpy(at(first), note, sizeof note);
    left_ = first;
  }
}

void LineAllocator::give_left() noexcept {
  while (left_ != kNone) {
    uint64_t note[2];
    std::memcpy(note, at(left_), sizeof note);
    try {
      give(left_, note[1]);
    } catch (const std::bad_alloc&) {
      return;
    }
    left_ = note[0];
  }
}

void LineAllocator::trim() {
  give_left();
  for (const Run& run : emptied_) {
    uint64_t empty = 0;  // frames in a row to give back
    for (uint64_t f = run.first; f <= run.first + run.second; ++f) {
      const bool give = f < run.first + run.second && frames_[f] == kHeld;
      if (give) {
        frames_[f] = 0;
        ++empty;
      } else if (empty > 0) {
        give_frames_back(f - empty, empty);
        empty = 0;
      }
    }
  }
  emptied_.clear();
  if (used_ == 0) {  // nothing left: the tables go as well
    frames_.clear();
    frames_.shrink_to_fit();
    emptied_.shrink_to_fit();
  }
}

void LineAllocator::add_free(uint64_t first, uint64_t lines) {
  const auto added = by_size_.emplace(lines, first).first;
  try {
    by_start_.emplace(first, lines);
  } catch (...) {
    by_size_.erase(added);
    throw;
  }
}

void LineAllocator::remove_free(uint64_t first, uint64_t lines) {
  by_size_.erase({lines, first});
  by_start_.erase(first);
}

// Reuses the nodes, so that it cannot fail.
void LineAllocator::change_free(const Run& from, const Run& to) {
  auto size = by_size_.extract({from.second, from.first});
  size.value() = {to.second, to.first};
  by_size_.insert(std::move(size));
  auto start = by_start_.extract(from.first);
  start.key() = to.first;
  start.mapped() = to.second;
  by_start_.insert(std::move(start));
}

void LineAllocator::count_lines(uint64_t first, uint64_t lines, bool taken) {
  const uint64_t first_frame = first / frame_lines_, last_frame = (first + lines - 1) / frame_lines_;
  if (!taken) emptied_.emplace_back(first_frame, last_frame - first_frame + 1);
  for (uint64_t f = first_frame; f <= last_frame; ++f) {
    const uint64_t begin = std::max(first, f * frame_lines_);
    const uint64_t end = std::min(first + lines, (f + 1) * frame_lines_);
    const auto in_frame = static_cast<uint16_t>(end - begin);
    if (taken) {
      held_frames_ += (frames_[f] & kHeld) == 0;
      frames_[f] = static_cast<uint16_t>((frames_[f] + in_frame) | kHeld);
    } else {
      frames_[f] = static_cast<uint16_t>(frames_[f] - in_frame);
    }
  }
  used_ = taken ? used_ + lines : used_ - lines;
}

void LineAllocator::give_frames_back(uint64_t first, uint64_t frames) {
  held_frames_ -= frames;
  if (!memory_.give_back) return;
  // Cannot fail on anonymous memory that the caller gave us; were it to, the pages would only stay longer.
  madvise(memory_.base + first * memory_.frame_bytes, frames * memory_.frame_bytes, MADV_DONTNEED);
}

}  // namespace speckv
