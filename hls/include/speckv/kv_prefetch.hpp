// kv_prefetch: predicts the next tokens of sequences. A descriptor is a step of one sequence: its LSTM state
// and its history go on by a token, the tokens that may come next are scored, and the best are written with
// the virtual addresses at which they stood before. Descriptors run in order, since one may go on where the
// one before it ended; a step streams the weights once, a beat a cycle. A state is written only when all of
// its step held.
#pragma once
#include "speckv/codebook.hpp"
#include "speckv/lstm.hpp"
#include "speckv/scoring.hpp"
#include "speckv/validate.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t CANDIDATE_LINES = TOP * sizeof(speckv_candidate) / BEAT_BYTES;  // of one descriptor
static_assert(BEAT_BYTES % sizeof(speckv_candidate) == 0, "whole candidates in a line");

// The image and what its header says; a wrong one is every descriptor's fault.
struct PredictorPort {
  const ap_uint<512>* image;
  Verdict verdict;
  Model model;
  Section<int16_t, SPECKV_PREDICTOR_SIGMOID> sigmoid;
};

SPECKV_INLINE speckv_candidate candidate_of(const speckv_prediction& d, const Model& m, const History& h,
                                            const Followers& f, const Scored& scored) {
  speckv_candidate c = {scored.id, uint32_t(scored.score), NOWHERE, 0, 0, 0, 0, 0};
FIND:
  for (uint32_t i = 0; i < f.size; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = WALK
    if (f.entry[i].token != scored.id) continue;
    c.position = f.entry[i].position;
    c.match = f.entry[i].match;
    c.count = f.entry[i].count;
  }
  if (!c.match && scored.id < m.vocabulary) c.position = last_of(h, scored.id);
  if (c.position != NOWHERE) {
    const speckv_address a = speckv_pack_address(d.req_id, d.layer, d.head, c.position, d.kind);
    c.flags = SPECKV_CANDIDATE_FLAG_KNOWN;
    c.address_high = a.high;
    c.address_low = a.low;
  }
  return c;
}

// All of the descriptor's slot: what was not wanted is zero.
SPECKV_INLINE void store_candidates(ap_uint<512>* candidates, const speckv_prediction& d, const Model& m,
                                    const History& h, const Followers& f, const Best& best) {
  constexpr uint32_t EACH = BEAT_BYTES / sizeof(speckv_candidate);
LINES:
  for (uint32_t line = 0; line < CANDIDATE_LINES; ++line) {
    uint8_t b[BEAT_BYTES] = {};
  CANDIDATES:
    for (uint32_t i = 0; i < EACH && line * EACH + i < d.top; ++i) {
      const speckv_candidate c = candidate_of(d, m, h, f, best.entry[line * EACH + i]);
      const uint32_t at = i * sizeof(c);
#define SPECKV_PUT(field) put_field(b, at + offsetof(speckv_candidate, field), c.field)
      SPECKV_PUT(token);
      SPECKV_PUT(score);
      SPECKV_PUT(position);
      SPECKV_PUT(match);
      SPECKV_PUT(count);
      SPECKV_PUT(flags);
      SPECKV_PUT(address_high);
      SPECKV_PUT(address_low);
#undef SPECKV_PUT
    }
    store_beat(candidates, uint64_t(d.result) * CANDIDATE_LINES + line, b);
  }
}

// A step of a sequence whose state is in order. What is far is named before it is wanted.
SPECKV_CLONES static Verdict take_token(const PredictorPort& port, ap_uint<512>* states,
                                        ap_uint<512>* candidates, const speckv_prediction& d,
                                        const StatePlaces& places, uint32_t count) {
  const Model& m = port.model;
  const bool wanted = !(d.flags & SPECKV_PREDICTION_FLAG_ADVANCE_ONLY);
  const uint32_t row = load_value<uint32_t>(port.image, m.row_of_token, d.token);
  if (row >= m.rows) return bad_predictor(row, m.rows);
  expect_row(port.image, m, row);
  const History h = history_of(states, places, d.capacity, count, d.token);
  Followers followers;
  Extra extra[WALK];
  if (wanted) find_followers(h, m.vocabulary, followers);
  if (wanted && !find_extras(port.image, m, followers, extra)) return bad_predictor(m.rows, m.rows);
  LstmMemory memory;
  load_memory(states, places.memory, memory);
  lstm_step(port.image, m, port.sigmoid.data, row, memory);
  if (wanted) {
    Best best;
    const Verdict v = best_tokens(port.image, m, memory.p[1], followers, extra, d.top, best);
    if (v.status) return v;
    store_candidates(candidates, d, m, h, followers, best);
  }
  store_memory(states, places.memory, memory);
  push_token(states, h);
  store_state_header(states, places, d, m, count + 1);
  return fine();
}

static inline void predict_one(const PredictorPort& port, ap_uint<512>* states,
                               const ap_uint<512>* descriptors, ap_uint<128>* completions,
                               ap_uint<512>* candidates, uint32_t index) {
  const speckv_prediction d = read_prediction(descriptors, index);
  Verdict v = port.verdict;
  v = v.status ? v : check_prediction(d, port.model);
  if (!v.status) {
    const StatePlaces places = places_of(d, port.model.vocabulary);
    uint32_t count;
    v = check_state(states, places, d, port.model, count);
    v = v.status ? v : take_token(port, states, candidates, d, places, count);
  }
  const bool scored = !v.status && !(d.flags & SPECKV_PREDICTION_FLAG_ADVANCE_ONLY);
  const uint32_t bytes = scored ? uint32_t(d.top * sizeof(speckv_candidate)) : 0;
  store_completion(completions, index, speckv_completion{v.status, 0, bytes, v.value, v.limit});
}

static inline void kv_prefetch_batch(const ap_uint<512>* predictor, ap_uint<512>* states,
                                     const ap_uint<512>* descriptors, ap_uint<128>* completions,
                                     ap_uint<512>* candidates, uint32_t count, uint32_t predictor_lines,
                                     uint64_t abi_id) {
  if (refuse_batch(completions, count, abi_id)) return;
  PredictorPort port;
  port.image = predictor;
  port.verdict = find_model(predictor, predictor_lines, port.model);
  if (!port.verdict.status)
    load_section(predictor, port.model.sigmoid, SPECKV_PREDICTOR_SIGMOID, port.sigmoid);
BATCH:
  for (uint32_t i = 0; i < count; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MAX_BATCH
    predict_one(port, states, descriptors, completions, candidates, i);
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
