// The best few of a stream of scores.
#pragma once
#include "speckv/config.hpp"
#ifndef __SYNTHESIS__
#include "speckv/top_k_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr int32_t NEVER = INT32_MIN;  // a score that is not in the running

struct Scored {
  int32_t score;
  uint32_t id;
};

// Of equal scores the lower id is better.
SPECKV_INLINE bool is_better(const Scored& a, const Scored& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// Best first; what nothing was offered for has score NEVER.
template <uint32_t K>
struct TopK {
  Scored entry[K];
};

template <uint32_t K>
SPECKV_INLINE void clear_top(TopK<K>& top) {
CLEAR:
  for (uint32_t i = 0; i < K; ++i) {
#pragma HLS UNROLL  // registers
    top.entry[i] = Scored{NEVER, 0xFFFFFFFF};
  }
}

// Every register compares with the new one at once and keeps its own, takes it, or takes its neighbour's.
template <uint32_t K>
SPECKV_INLINE void offer(TopK<K>& top, const Scored& x) {
  if (x.score == NEVER) return;
SHIFT:
  for (uint32_t i = K; i-- > 0;) {
#pragma HLS UNROLL  // a chain of registers
    if (!is_better(x, top.entry[i])) break;
    if (i + 1 < K) top.entry[i + 1] = top.entry[i];
    top.entry[i] = x;
  }
}

// n scores, of which the first `keep` of the best count.
template <uint32_t K, class IdOf>
SPECKV_INLINE void offer_each(TopK<K>& top, uint32_t keep, const int32_t* scores, uint32_t n, IdOf id_of) {
SCORES:
  for (uint32_t i = 0; i < n; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 8 max = 1024
#pragma HLS PIPELINE II = BEAT_CYCLES  // one comparison with all registers
    if (scores[i] >= top.entry[keep - 1].score) offer(top, Scored{scores[i], id_of(i)});
  }
}

// The same. Few are in the running: hosts look for these alone, up to SCAN_AHEAD scores behind the last one.
template <uint32_t K, class IdOf>
SPECKV_INLINE void offer_all(TopK<K>& top, uint32_t keep, const int32_t* scores, uint32_t n, IdOf id_of) {
#ifdef SPECKV_SCAN_NATIVE
  if (scan_has_native()) {
    const bool begun = top.entry[keep - 1].score != NEVER;  // then few are better anyway
    const int32_t least = begun ? NEVER : floor_native(scores, n, keep);
    for (uint32_t i = 0;; ++i) {
      const int32_t worst = top.entry[keep - 1].score;
      i = scan_native(scores, i, n, worst > least ? worst : least);
      if (i >= n) return;
      offer(top, Scored{scores[i], id_of(i)});
    }
  }
#endif
  offer_each(top, keep, scores, n, id_of);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
