// Which tokens are scored, and the best of them.
#pragma once
#include "speckv/history.hpp"
#include "speckv/top_k.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t CHUNK_ROWS = 1024;  // that the best are looked for in at a time
constexpr uint32_t PIECE_ROWS = 128;   // scored at a time
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
#pragma HLS PIPELINE II = BEAT_CYCLES
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

// Rows side by side.
struct RowRange {
  uint32_t first, n;
};

// What is scored: the rows that always are, then those of each open class. False where a damaged image has
// them elsewhere.
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

// The next rows of a list of ranges, at most `most` of them.
struct RowCursor {
  uint32_t range, done;
};

SPECKV_INLINE RowRange take_rows(const RowRange* ranges, RowCursor& at, uint32_t most) {
  const uint32_t first = ranges[at.range].first + at.done, left = ranges[at.range].n - at.done;
  const RowRange taken = {first, left < most ? left : most};
  at = left <= most ? RowCursor{at.range + 1, 0} : RowCursor{at.range, at.done + most};
  return taken;
}

SPECKV_INLINE void expect_rows(const ap_uint<512>* image, const Model& m, const RowRange& r) {
  const uint32_t line = r.first / BEAT_BYTES, lines = r.n / BEAT_BYTES + 1;
  expect_lines(image, m.codes + r.first / BLOCK_ROWS * CODE_LINES, blocks_of(r.n) * CODE_LINES);
  expect_lines(image, m.scales + line, lines);
  expect_lines(image, m.token_bias + line, lines);
}

// Where followers have scores of their own, the row's is out of the running.
SPECKV_INLINE void drop_extras(const RowRange& r, const Extra* extra, uint32_t extras, Logits& logits) {
DROP:
  for (uint32_t i = 0; i < extras; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    if (extra[i].row - r.first < r.n) logits[extra[i].row - r.first] = NEVER;
  }
}

// The best of all rows of the ranges. What is always scored is near; meanwhile rows of the open classes may
// come.
SPECKV_INLINE void score_ranges(const ap_uint<512>* image, const Model& m, const int8_t u[RANK],
                                const RowRange* ranges, uint32_t end, const Extra* extra, uint32_t extras,
                                uint32_t top, Best& best) {
  Logits logits;
  RowCursor at = {0, 0}, ahead = {1, 0};
CHUNKS:
  while (at.range < end) {
#pragma HLS LOOP_TRIPCOUNT min = 2 max = 16
    const RowRange chunk = take_rows(ranges, at, CHUNK_ROWS);
  PIECES:
    for (uint32_t done = 0; done < chunk.n; done += PIECE_ROWS) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 8
      if (ahead.range < end) expect_rows(image, m, take_rows(ranges, ahead, PIECE_ROWS));
      const uint32_t left = chunk.n - done, n = left < PIECE_ROWS ? left : PIECE_ROWS;
      code_logits<RANK>(image, token_rows(m), (chunk.first + done) / BLOCK_ROWS, blocks_of(n), u,
                        logits + done);
    }
    drop_extras(chunk, extra, extras, logits);
    offer_all(best, top, logits, chunk.n,
              [&](uint32_t i) { return load_value<uint32_t>(image, m.token_of_row, chunk.first + i); });
  }
}

// The best of all tokens that are scored; predictor_mismatch where the image contradicts itself. extra: the
// rows of the followers.
SPECKV_INLINE Verdict best_tokens(const ap_uint<512>* image, const Model& m, const int8_t u[RANK],
                                  const Followers& f, Extra extra[WALK], uint32_t top, Best& best) {
  OpenClasses open;
  RowRange ranges[1 + MAX_OPENED];
  open_classes(image, m, u, open);
  if (!find_ranges(image, m, open, ranges)) return bad_predictor(m.rows, m.rows);
  clear_top(best);
  score_ranges(image, m, u, ranges, 1 + m.opened, extra, f.size, top, best);
  score_extras(image, m, f, u, extra);
FOLLOWERS:
  for (uint32_t i = 0; i < f.size; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    offer(best, Scored{extra[i].score, f.entry[i].token});
  }
  return fine();
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
