// Which tokens are scored, and the best of them.
#pragma once
#include "speckv/history.hpp"
#include "speckv/top_k.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t CHUNK_ROWS = 256;  // scored at a time
constexpr uint32_t MAX_OPENED = SPECKV_PREDICTOR_MAX_OPENED;
constexpr uint64_t ROW_LINES = RANK / BEAT_INPUTS;  // of a block

using OpenClasses = TopK<MAX_OPENED>;
using Best = TopK<TOP>;

// Logits, 2**-10, of n rows from one that begins a block.
SPECKV_INLINE void row_logits(const ap_uint<512>* image, uint64_t rows, uint64_t biases, uint32_t first,
                              uint32_t n, const int8_t u[RANK], int32_t logits[CHUNK_ROWS]) {
BIASES:
  for (uint32_t i = 0; i < blocks_of(n) * BLOCK_ROWS; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 8 max = CHUNK_ROWS
    logits[i] = load_value<int8_t>(image, biases, first + i) * 128;  // 2**-3 to 2**-10
  }
  mac_blocks<RANK>(image, rows + first / BLOCK_ROWS * ROW_LINES, blocks_of(n), u, logits);
}

SPECKV_INLINE void open_classes(const ap_uint<512>* image, const Model& m, const int8_t u[RANK],
                                OpenClasses& open) {
  int32_t logits[CHUNK_ROWS];
  clear_top(open);
CLASSES:
  for (uint32_t first = 0; first < m.classes; first += CHUNK_ROWS) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 4
    const uint32_t n = m.classes - first < CHUNK_ROWS ? m.classes - first : CHUNK_ROWS;
    row_logits(image, m.class_rows, m.class_bias, first, n, u, logits);
    offer_all(open, logits, n, [&](uint32_t i) { return first + i; });
  }
}

// A follower, where its row is, and its score.
struct Extra {
  uint32_t row;
  int32_t score;
};

SPECKV_INLINE bool score_followers(const ap_uint<512>* image, const Model& m, const Followers& f,
                                   const int8_t u[RANK], Extra extra[WALK]) {
FOLLOWERS:
  for (uint32_t i = 0; i < f.size; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    const Follower& e = f.entry[i];
    const uint32_t row = load_value<uint32_t>(image, m.row_of_token, e.token);
    if (row >= m.rows) return false;
    int32_t logits[CHUNK_ROWS];
    row_logits(image, m.token_rows, m.token_bias, row / BLOCK_ROWS * BLOCK_ROWS, BLOCK_ROWS, u, logits);
    const uint32_t which = (e.match - 1) * SPECKV_PREDICTOR_COUNT + e.count - 1;
    extra[i] = Extra{row, logits[row % BLOCK_ROWS] + load_value<int16_t>(image, m.bonus, which)};
  }
  return true;
}

// n rows from one that begins a block, but for those of followers, which have scores of their own.
SPECKV_INLINE void score_rows(const ap_uint<512>* image, const Model& m, const int8_t u[RANK], uint32_t first,
                              uint32_t n, const Extra* extra, uint32_t extras, Best& best) {
  int32_t logits[CHUNK_ROWS];
CHUNKS:
  for (uint32_t done = 0; done < n; done += CHUNK_ROWS) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 8
    const uint32_t from = first + done, some = n - done < CHUNK_ROWS ? n - done : CHUNK_ROWS;
    row_logits(image, m.token_rows, m.token_bias, from, some, u, logits);
  APART:
    for (uint32_t i = 0; i < extras; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
      if (extra[i].row - from < some) logits[extra[i].row - from] = NEVER;
    }
    offer_all(best, logits, some,
              [&](uint32_t i) { return load_value<uint32_t>(image, m.token_of_row, from + i); });
  }
}

// The rows of a class; false where a damaged image has them elsewhere.
SPECKV_INLINE bool class_rows(const ap_uint<512>* image, const Model& m, uint32_t id, uint32_t& first,
                              uint32_t& n) {
  first = load_value<uint32_t>(image, m.starts, 2 * uint64_t(id));
  n = load_value<uint32_t>(image, m.starts, 2 * uint64_t(id) + 1);
  return first % BLOCK_ROWS == 0 && n <= m.rows && first <= m.rows - n;
}

// The best of all tokens that are scored; predictor_mismatch where the image contradicts itself.
static inline Verdict best_tokens(const ap_uint<512>* image, const Model& m, const int8_t u[RANK],
                                  const Followers& f, Best& best) {
  Extra extra[WALK];
  clear_top(best);
  if (!score_followers(image, m, f, u, extra)) return bad_predictor(m.rows, m.rows);
OFFER:
  for (uint32_t i = 0; i < f.size; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    offer(best, Scored{extra[i].score, f.entry[i].token});
  }
  OpenClasses open;
  open_classes(image, m, u, open);
  score_rows(image, m, u, 0, m.always, extra, f.size, best);
OPENED:
  for (uint32_t i = 0; i < m.opened; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 8
    uint32_t first, n;
    if (!class_rows(image, m, open.entry[i].id, first, n)) return bad_predictor(first, m.rows);
    score_rows(image, m, u, first, n, extra, f.size, best);
  }
  return fine();
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
