// The predictor's image and a sequence's state as kv_prefetch reads them: sections one behind the other, each
// whole lines, in the order of docs/predictor_format.md. Nothing outside either is touched, whatever their
// bytes; that weights stay within -127..127 is the host's to see to when it makes the image.
#pragma once
#include "speckv/mac.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t HIDDEN = SPECKV_PREDICTOR_HIDDEN;
constexpr uint32_t RANK = SPECKV_PREDICTOR_RANK;
constexpr uint32_t GATE_ROWS = 4 * HIDDEN;  // input, forget, cell, output
constexpr uint32_t TOP = SPECKV_PREDICTOR_TOP;
constexpr uint32_t LEAST_CAPACITY = BEAT_BYTES / 4;
constexpr uint32_t NOWHERE = 0xFFFFFFFF;
constexpr uint32_t LINE_WORDS = BEAT_BYTES / 4;

// What the image's header says, and the first lines of its sections.
struct Model {
  uint64_t fingerprint;
  uint32_t vocabulary, classes, always, rows, opened;
  uint64_t gates, bias, projection, sigmoid, bonus;
  uint64_t class_rows, class_bias, starts, codes, scales, token_bias, token_of_row, row_of_token, end;
};

SPECKV_INLINE void lay_out_model(Model& m) {
  uint64_t line = 1;
  m.gates = take(line, 2 * GATE_ROWS * 2 * RANK);
  m.bias = take(line, 2 * GATE_ROWS * 4);
  m.projection = take(line, 2 * RANK * HIDDEN);
  m.sigmoid = take(line, SPECKV_PREDICTOR_SIGMOID * 2);
  m.bonus = take(line, SPECKV_PREDICTOR_MATCH * SPECKV_PREDICTOR_COUNT * 2);
  m.class_rows = take(line, uint64_t(blocks_of(m.classes)) * BLOCK_ROWS * RANK);
  m.class_bias = take(line, m.classes);
  m.starts = take(line, 8 * uint64_t(m.classes));
  m.codes = take(line, uint64_t(m.rows) * RANK / 2);
  m.scales = take(line, m.rows);
  m.token_bias = take(line, m.rows);
  m.token_of_row = take(line, 4 * uint64_t(m.rows));
  m.row_of_token = take(line, 4 * uint64_t(m.vocabulary));
  m.end = line;
}

SPECKV_INLINE Verdict bad_predictor(uint64_t value, uint64_t limit) {
  return wrong(SPECKV_STATUS_PREDICTOR_MISMATCH, value, limit);
}

SPECKV_INLINE Verdict check_counts(const Model& m) {
  // Every class is blocks of its own, of which the last one may be filled up.
  const uint64_t most_rows = SPECKV_PREDICTOR_MAX_VOCABULARY + uint64_t(m.classes + 1) * BLOCK_ROWS;
  return m.vocabulary < TOP ? bad_predictor(m.vocabulary, TOP)
         : m.vocabulary > SPECKV_PREDICTOR_MAX_VOCABULARY
             ? bad_predictor(m.vocabulary, SPECKV_PREDICTOR_MAX_VOCABULARY)
         : m.classes < 1                             ? bad_predictor(m.classes, 1)
         : m.classes > SPECKV_PREDICTOR_MAX_CLASSES  ? bad_predictor(m.classes, SPECKV_PREDICTOR_MAX_CLASSES)
         : m.opened < 1                              ? bad_predictor(m.opened, 1)
         : m.opened > m.classes                      ? bad_predictor(m.opened, m.classes)
         : m.opened > SPECKV_PREDICTOR_MAX_OPENED    ? bad_predictor(m.opened, SPECKV_PREDICTOR_MAX_OPENED)
         : m.always < TOP                            ? bad_predictor(m.always, TOP)
         : m.always > m.rows                         ? bad_predictor(m.always, m.rows)
         : m.rows > most_rows || m.rows % BLOCK_ROWS ? bad_predictor(m.rows, most_rows)
                                                     : fine();
}

// The model of an image of `lines` lines.
static inline Verdict find_model(const ap_uint<512>* image, uint32_t lines, Model& m) {
  if (lines == 0) return bad_predictor(0, 1);
  uint8_t b[BEAT_BYTES];
#pragma HLS ARRAY_PARTITION variable = b complete  // all fields in the cycle the beat arrives
  load_beat(image, 0, b);
#define SPECKV_GET(field) \
  get_field<decltype(speckv_predictor_header::field)>(b, offsetof(speckv_predictor_header, field))
  if (SPECKV_GET(magic) != SPECKV_PREDICTOR_MAGIC)
    return bad_predictor(SPECKV_GET(magic), SPECKV_PREDICTOR_MAGIC);
  if (SPECKV_GET(version) != SPECKV_PREDICTOR_VERSION)
    return bad_predictor(SPECKV_GET(version), SPECKV_PREDICTOR_VERSION);
  m.fingerprint = SPECKV_GET(fingerprint);
  m.vocabulary = SPECKV_GET(vocabulary);
  m.classes = SPECKV_GET(classes);
  m.always = SPECKV_GET(always_scored);
  m.rows = SPECKV_GET(rows);
  m.opened = SPECKV_GET(opened);
  const uint32_t stated = SPECKV_GET(lines);
#undef SPECKV_GET
  if (m.fingerprint == 0) return bad_predictor(0, 1);
  const Verdict v = check_counts(m);
  if (v.status) return v;
  lay_out_model(m);
  if (stated != m.end) return bad_predictor(stated, m.end);
  return m.end > lines ? bad_predictor(m.end, lines) : fine();
}

SPECKV_INLINE speckv_prediction read_prediction(const ap_uint<512>* port, uint32_t index) {
  uint8_t b[BEAT_BYTES];
#pragma HLS ARRAY_PARTITION variable = b complete  // all fields in the cycle the beat arrives
  load_beat(port, index, b);
  speckv_prediction d;
#define SPECKV_GET(field) d.field = get_field<decltype(d.field)>(b, offsetof(speckv_prediction, field))
  SPECKV_GET(state_offset);
  SPECKV_GET(fingerprint);
  SPECKV_GET(token);
  SPECKV_GET(capacity);
  SPECKV_GET(result);
  SPECKV_GET(req_id);
  SPECKV_GET(layer);
  SPECKV_GET(head);
  SPECKV_GET(kind);
  SPECKV_GET(top);
  SPECKV_GET(flags);
  SPECKV_GET(reserved0);
#undef SPECKV_GET
RESERVED:
  for (uint32_t i = 0; i < 3; ++i) {
#pragma HLS UNROLL  // wires only
    d.reserved1[i] = get_field<uint64_t>(b, offsetof(speckv_prediction, reserved1) + 8 * i);
  }
  return d;
}

// All that a descriptor says by itself, before its state is read.
SPECKV_INLINE Verdict check_prediction(const speckv_prediction& d, const Model& m) {
  const bool power = (d.capacity & (d.capacity - 1)) == 0;
  return d.flags & ~uint32_t(SPECKV_PREDICTION_FLAG_ADVANCE_ONLY)
             ? wrong(SPECKV_STATUS_BAD_FLAGS, d.flags, SPECKV_PREDICTION_FLAG_ADVANCE_ONLY)
         : d.reserved0 || d.reserved1[0] || d.reserved1[1] || d.reserved1[2]
             ? wrong(SPECKV_STATUS_BAD_FLAGS, 1, 0)
         : d.fingerprint != m.fingerprint        ? bad_predictor(d.fingerprint, m.fingerprint)
         : d.token >= m.vocabulary               ? wrong(SPECKV_STATUS_BAD_TOKEN, d.token, m.vocabulary - 1)
         : d.top < 1 || d.top > TOP              ? wrong(SPECKV_STATUS_BAD_SHAPE, d.top, TOP)
         : d.kind > 1                            ? wrong(SPECKV_STATUS_BAD_SHAPE, d.kind, 1)
         : d.capacity < LEAST_CAPACITY || !power ? wrong(SPECKV_STATUS_BAD_SHAPE, d.capacity, LEAST_CAPACITY)
         : d.capacity > SPECKV_PREDICTOR_MAX_CAPACITY
             ? wrong(SPECKV_STATUS_BAD_SHAPE, d.capacity, SPECKV_PREDICTOR_MAX_CAPACITY)
         : d.state_offset % BEAT_BYTES ? wrong(SPECKV_STATUS_MISALIGNED, d.state_offset, BEAT_BYTES)
                                       : fine();
}

// Where the parts of a state lie, in lines of the port.
struct StatePlaces {
  uint64_t header, memory, ring, newest, end;
};

SPECKV_INLINE StatePlaces places_of(const speckv_prediction& d, uint32_t vocabulary) {
  uint64_t line = d.state_offset / BEAT_BYTES;
  StatePlaces p;
  p.header = take(line, BEAT_BYTES);
  p.memory = take(line, 2 * (2 * HIDDEN + RANK));
  p.ring = take(line, 8 * uint64_t(d.capacity));
  p.newest = take(line, 4 * uint64_t(vocabulary));
  p.end = line;
  return p;
}

// How many tokens a state has taken in; bad_state where it is not of this model and descriptor.
SPECKV_INLINE Verdict check_state(const ap_uint<512>* states, const StatePlaces& p,
                                  const speckv_prediction& d, const Model& m, uint32_t& count) {
  uint8_t b[BEAT_BYTES];
#pragma HLS ARRAY_PARTITION variable = b complete  // all fields in the cycle the beat arrives
  load_beat(states, p.header, b);
#define SPECKV_GET(field) \
  get_field<decltype(speckv_predictor_state::field)>(b, offsetof(speckv_predictor_state, field))
  const uint64_t fingerprint = SPECKV_GET(fingerprint);
  const uint32_t capacity = SPECKV_GET(capacity), vocabulary = SPECKV_GET(vocabulary);
  count = SPECKV_GET(count);
#undef SPECKV_GET
  if (fingerprint == 0)
    return count || capacity || vocabulary ? wrong(SPECKV_STATUS_BAD_STATE, count, 0) : fine();
  return fingerprint != m.fingerprint ? wrong(SPECKV_STATUS_BAD_STATE, fingerprint, m.fingerprint)
         : capacity != d.capacity     ? wrong(SPECKV_STATUS_BAD_STATE, capacity, d.capacity)
         : vocabulary != m.vocabulary ? wrong(SPECKV_STATUS_BAD_STATE, vocabulary, m.vocabulary)
         : count >= NOWHERE - 1       ? wrong(SPECKV_STATUS_BAD_STATE, count, NOWHERE - 2)
                                      : fine();
}

SPECKV_INLINE void store_state_header(ap_uint<512>* states, const StatePlaces& p, const speckv_prediction& d,
                                      const Model& m, uint32_t count) {
  uint8_t b[BEAT_BYTES] = {};
#define SPECKV_PUT(field, value) \
  put_field(b, offsetof(speckv_predictor_state, field), decltype(speckv_predictor_state::field)(value))
  SPECKV_PUT(fingerprint, m.fingerprint);
  SPECKV_PUT(count, count);
  SPECKV_PUT(capacity, d.capacity);
  SPECKV_PUT(vocabulary, m.vocabulary);
#undef SPECKV_PUT
  store_beat(states, p.header, b);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
