// Which tokens are scored, and the best of them.
#pragma once
#include "speckv/history.hpp"
#include "speckv/top_k.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t CHUNK_ROWS = 128;  // scored at a time
constexpr uint32_t MAX_OPENED = SPECKV_PREDICTOR_MAX_OPENED;

using OpenClasses = TopK<MAX_OPENED>;
using Best = TopK<TOP>;
using Logits = int32_t[CHUNK_ROWS + BLOCK_ROWS];  // a search may look behind the last one

SPECKV_INLINE void open_classes(const ap_uint<512>* image, const Model& m, const int8_t u[RANK],
                                OpenClasses& open) {
  constexpr uint64_t LINES = RANK / BEAT_INPUTS;  // of a block
  Logits logits;
  clear_top(open);
CLASSES:
  for (uint32_t first = 0; first < m.classes; first += CHUNK_ROWS) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 8
    const uint32_t n = m.classes - first < CHUNK_ROWS ? m.classes - first : CHUNK_ROWS;
  BIASES:
    for (uint32_t i = 0; i < blocks_of(n) * BLOCK_ROWS; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 8 max = CHUNK_ROWS
      logits[i] = load_value<int8_t>(image, m.class_bias, first + i) * int32_t(BIAS_STEP);
    }
    mac_blocks<RANK>(image, m.class_rows + first / BLOCK_ROWS * LINES, blocks_of(n), u, logits);
    offer_all(open, m.opened, logits, n, [&](uint32_t i) { return first + i; });
  }
}

// A follower's row, and its score.
struct Extra {
  uint32_t row;
  int32_t score;
};

// Where the rows of followers are; false where a damaged image has one elsewhere.
SPECKV_INLINE bool find_extras(const ap_uint<512>* image, const Model& m, const Followers& f,
                               Extra extra[WALK]) {
  uint32_t most = 0;
FOLLOWERS:
  for (uint32_t i = 0; i < f.size; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    const uint32_t row = load_value<uint32_t>(image, m.row_of_token, f.entry[i].token);
    expect_row(image, m, row);
    extra[i].row = row;
    most = row > most ? row : most;
  }
  return most < m.rows;
}

SPECKV_INLINE void score_extras(const ap_uint<512>* image, const Model& m, const Followers& f,
                                const int8_t u[RANK], Extra extra[WALK]) {
FOLLOWERS:
  for (uint32_t i = 0; i < f.size; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    const Follower& e = f.entry[i];
    int32_t logits[BLOCK_ROWS];
    code_logits<RANK>(image, token_rows(m), extra[i].row / BLOCK_ROWS, 1, u, logits);
    const uint32_t which = (e.match - 1) * SPECKV_PREDICTOR_COUNT + e.count - 1;
    extra[i].score = logits[extra[i].row % BLOCK_ROWS] + load_value<int16_t>(image, m.bonus, which);
  }
}

// n rows from one that begins a block, but for those of followers, which have scores of their own.
SPECKV_INLINE void score_rows(const ap_uint<512>* image, const Model& m, const int8_t u[RANK], uint32_t first,
                              uint32_t n, const Extra* extra, uint32_t extras, uint32_t top, Best& best) {
  Logits logits;
  code_logits<RANK>(image, token_rows(m), first / BLOCK_ROWS, blocks_of(n), u, logits);
APART:
  for (uint32_t i = 0; i < extras; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    if (extra[i].row - first < n) logits[extra[i].row - first] = NEVER;
  }
  offer_all(best, top, logits, n,
            [&](uint32_t i) { return load_value<uint32_t>(image, m.token_of_row, first + i); });
}

// Rows side by side.
struct RowRange {
  uint32_t first, n;
};

// What is scored: the rows that always are, then those of each open class. False where a damaged image has them
// elsewhere.
SPECKV_INLINE bool find_ranges(const ap_uint<512>* image, const Model& m, const OpenClasses& open,
                               RowRange ranges[1 + MAX_OPENED]) {
  ranges[0] = RowRange{0, m.always};
OPENED:
  for (uint32_t i = 0; i < m.opened; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 8
    const uint64_t at = 2 * uint64_t(open.entry[i].id);
    const uint32_t first = load_value<uint32_t>(image, m.starts, at);
    const uint32_t n = load_value<uint32_t>(image, m.starts, at + 1);
    if (first % BLOCK_ROWS || n > m.rows || first > m.rows - n) return false;
    ranges[1 + i] = RowRange{first, n};
  }
  return true;
}

// Says which rows of a chunk of the open classes will be wanted.
SPECKV_INLINE void expect_chunk(const ap_uint<512>* image, const Model& m, uint32_t first, uint32_t n) {
  const uint32_t row = first / BEAT_BYTES, rows = n / BEAT_BYTES + 2;
  expect_lines(image, m.codes + first / BLOCK_ROWS * CODE_LINES, blocks_of(n) * CODE_LINES);
  expect_lines(image, m.scales + row, rows);
  expect_lines(image, m.token_bias + row, rows);
}

// The chunks of all ranges in order: the place of one.
struct ChunkPlace {
  uint32_t range, done;
};

SPECKV_INLINE RowRange chunk_at(const RowRange* ranges, const ChunkPlace& p) {
  const uint32_t left = ranges[p.range].n - p.done;
  return RowRange{ranges[p.range].first + p.done, left < CHUNK_ROWS ? left : CHUNK_ROWS};
}

SPECKV_INLINE void next_chunk(const RowRange* ranges, ChunkPlace& p) {
  p.done += CHUNK_ROWS;
  if (p.done >= ranges[p.range].n) p = ChunkPlace{p.range + 1, 0};
}

// The best of all tokens that are scored; predictor_mismatch where the image contradicts itself. extra: the rows of
// the followers.
SPECKV_INLINE Verdict best_tokens(const ap_uint<512>* image, const Model& m, const int8_t u[RANK],
                                  const Followers& f, Extra extra[WALK], uint32_t top, Best& best) {
  OpenClasses open;
  RowRange ranges[1 + MAX_OPENED];
  open_classes(image, m, u, open);
  if (!find_ranges(image, m, open, ranges)) return bad_predictor(m.rows, m.rows);
  score_extras(image, m, f, u, extra);
  clear_top(best);
FOLLOWERS:
  for (uint32_t i = 0; i < f.size; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    offer(best, Scored{extra[i].score, f.entry[i].token});
  }
  const uint32_t end = 1 + m.opened;
  ChunkPlace at = {0, 0}, ahead = {1, 0};
CHUNKS:
  while (at.range < end) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 16
    if (ahead.range < end) {  // what is always scored is near; meanwhile the open classes may come
      const RowRange c = chunk_at(ranges, ahead);
      expect_chunk(image, m, c.first, c.n);
      next_chunk(ranges, ahead);
    }
    const RowRange c = chunk_at(ranges, at);
    score_rows(image, m, u, c.first, c.n, extra, f.size, top, best);
    next_chunk(ranges, at);
  }
  return fine();
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
