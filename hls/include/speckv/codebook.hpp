// The codebook image as kernels read it: one header a slot, sections shared by all units, sections of a unit,
// each whole lines (speckv_pynq/codebook/image.py). In hardware the tables of a unit are copied on chip and
// rows of the transforms streamed; natively every section is read where it lies. Nothing outside the image is
// read, whatever its bytes; that sums fit 32 bits is checked by the host when it loads a codebook.
#pragma once
#include "speckv/record.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t MAX_INPUTS = SPECKV_MAX_BLOCK_BYTES / 2 / 16;  // channels of a block of 16 tokens
constexpr uint32_t MAX_TRANSFORMS = MAX_INPUTS / 64;
constexpr uint32_t MAX_PAIRS = 128;
constexpr uint32_t COLUMN_PAD = 32;  // values of a beat: rows of a transform are whole beats
constexpr uint32_t MAX_CLASSES = SPECKV_CODEBOOK_CLASSES;
constexpr uint32_t SYMBOLS = SPECKV_ENTROPY_SYMBOLS;
constexpr uint32_t SLOT_COUNT = 1u << SPECKV_ENTROPY_BITS;
constexpr uint32_t TABLE_SETS = SPECKV_KLT_TABLE_SETS;

constexpr uint32_t pad_columns(uint32_t n) { return (n + COLUMN_PAD - 1) / COLUMN_PAD * COLUMN_PAD; }

// `COUNT` values of a section, on chip or in place.
template <class T, uint32_t COUNT>
struct Section {
#ifdef __SYNTHESIS__
  T data[COUNT];
#else
  const T* data;
#endif
};

// Makes `count` values from `line` of the image available.
template <class T, uint32_t COUNT>
SPECKV_INLINE void load_section(const ap_uint<512>* image, uint64_t line, uint32_t count,
                                Section<T, COUNT>& to) {
#ifdef __SYNTHESIS__
  constexpr uint32_t EACH = BEAT_BYTES / sizeof(T), MOST_BEATS = (COUNT + EACH - 1) / EACH;
LOAD:
  for (uint32_t i = 0; i * EACH < count; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MOST_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle keeps m_axi full
    uint8_t beat[BEAT_BYTES];
    load_beat(image, line + i, beat);
  SPLIT:
    for (uint32_t j = 0; j < EACH; ++j) {
#pragma HLS UNROLL  // wires only
      if (i * EACH + j < COUNT) to.data[i * EACH + j] = get_field<T>(beat, j * sizeof(T));
    }
  }
#else
  (void)count;
  to.data = reinterpret_cast<const T*>(image + line);
#endif
}

// What a header says, and where its sections lie.
struct Unit {
  uint32_t inputs, each, row;  // channels: of a record, of one transform, padded
  uint32_t rank, slots;        // components of all transforms, padded
  uint32_t width;              // components of the largest transform, padded
  uint32_t transforms, pairs, classes;
  uint32_t heads, head_dim, kinds;
  bool apart, interleaved;
  uint64_t rotation, raw_bits, half, codes, cost, symbol_at;  // lines of the image
  uint64_t turns, ranks, exponent, in_shift, out_shift, mean, rounding, shift, limit, class_of;
  uint64_t analysis, synthesis, end;
};

SPECKV_INLINE uint64_t lay_out_shared(Unit& u, uint64_t line) {
  u.rotation = take(line, 2 * 256 * 2 * 2);
  u.raw_bits = take(line, u.classes);
  u.half = take(line, u.classes);
  u.codes = take(line, u.classes * SYMBOLS * 4);
  u.cost = take(line, u.classes * SYMBOLS * 2);
  u.symbol_at = take(line, u.classes * SLOT_COUNT);
  return line;
}

SPECKV_INLINE void lay_out_unit(Unit& u, uint64_t line) {
  u.turns = take(line, 8 * u.pairs);
  u.ranks = take(line, 2 * u.transforms);
  u.exponent = take(line, u.inputs);
  u.in_shift = take(line, u.inputs);
  u.out_shift = take(line, u.inputs);
  u.mean = take(line, 4 * u.inputs);
  u.rounding = take(line, 4 * u.slots);
  u.shift = take(line, u.slots);
  u.limit = take(line, 2 * u.slots);
  u.class_of = take(line, TABLE_SETS * u.slots);
  u.analysis = take(line, uint64_t(u.rank) * u.row * 2);
  u.end = line;  // of what is known without the ranks
}

SPECKV_INLINE Verdict mismatch(uint64_t value, uint64_t limit) {
  return wrong(SPECKV_STATUS_CODEBOOK_MISMATCH, value, limit);
}

// The ranks make up the total, none is larger than its transform; the synthesis fits the image.
SPECKV_INLINE Verdict check_ranks(const ap_uint<512>* image, uint32_t lines, Unit& u) {
  Section<uint16_t, MAX_TRANSFORMS> ranks;
  load_section(image, u.ranks, u.transforms, ranks);
  uint32_t total = 0, most = 0;
RANKS:
  for (uint32_t j = 0; j < u.transforms; ++j) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 64
    const uint32_t r = ranks.data[j];
    if (r == 0 || r > u.each) return mismatch(r, u.each);
    total += r;
    most = r > most ? r : most;
  }
  if (total != u.rank) return mismatch(total, u.rank);
  u.width = pad_columns(most);
  u.synthesis = u.end;
  u.end += lines_of(uint64_t(u.inputs) * u.width * 2);
  return u.end > lines ? mismatch(u.end, lines) : fine();
}

// The unit that a checked descriptor names; codebook_mismatch where it was not made for this block.
static inline Verdict find_unit(const ap_uint<512>* image, uint32_t lines, const speckv_descriptor& d,
                                Unit& u) {
  if (d.codebook_slot >= lines) return mismatch(d.codebook_slot, lines);
  uint8_t b[BEAT_BYTES];
#pragma HLS ARRAY_PARTITION variable = b complete  // all fields in the cycle the beat arrives
  load_beat(image, d.codebook_slot, b);
#define SPECKV_GET(field) \
  get_field<decltype(speckv_codebook_header::field)>(b, offsetof(speckv_codebook_header, field))
  if (SPECKV_GET(magic) != SPECKV_CODEBOOK_MAGIC) return mismatch(SPECKV_GET(magic), SPECKV_CODEBOOK_MAGIC);
  if (SPECKV_GET(version) != SPECKV_CODEBOOK_VERSION)
    return mismatch(SPECKV_GET(version), SPECKV_CODEBOOK_VERSION);
  if (d.codebook_slot >= SPECKV_GET(slots)) return mismatch(d.codebook_slot, SPECKV_GET(slots));
  if (SPECKV_GET(fingerprint) != d.codebook_fingerprint)
    return mismatch(SPECKV_GET(fingerprint), d.codebook_fingerprint);
  if (SPECKV_GET(heads) != d.heads) return mismatch(SPECKV_GET(heads), d.heads);
  if (SPECKV_GET(head_dim) != d.head_dim) return mismatch(SPECKV_GET(head_dim), d.head_dim);
  if (SPECKV_GET(kinds) != d.kinds) return mismatch(SPECKV_GET(kinds), d.kinds);
  if (SPECKV_GET(first_layer) != d.first_layer) return mismatch(SPECKV_GET(first_layer), d.first_layer);
  if (SPECKV_GET(layer_count) != d.layer_count) return mismatch(SPECKV_GET(layer_count), d.layer_count);
  const uint32_t kinds = d.kinds == SPECKV_KIND_BOTH ? 2 : 1;
  u.heads = d.heads;
  u.head_dim = d.head_dim;
  u.kinds = kinds;
  u.inputs = kinds * u.heads * u.head_dim;
  u.transforms = SPECKV_GET(transforms);
  u.pairs = SPECKV_GET(pairs);
  u.classes = SPECKV_GET(classes);
  u.rank = SPECKV_GET(rank);
  u.apart = SPECKV_GET(apart) != 0;
  u.interleaved = SPECKV_GET(interleaved) != 0;
  const uint32_t groups = u.apart ? u.transforms / kinds : u.transforms;
  if (groups == 0 || u.heads % groups || (u.apart && u.transforms % kinds))
    return mismatch(u.transforms, u.heads);
  if (2 * u.pairs > u.head_dim) return mismatch(u.pairs, u.head_dim / 2);
  if (u.classes == 0 || u.classes > MAX_CLASSES) return mismatch(u.classes, MAX_CLASSES);
  if (u.rank == 0 || u.rank > u.inputs) return mismatch(u.rank, u.inputs);
  u.each = u.inputs / u.transforms;
  u.row = pad_columns(u.each);
  u.slots = pad_columns(u.rank);
  const uint64_t shared_end = lay_out_shared(u, SPECKV_GET(shared_line));
  lay_out_unit(u, SPECKV_GET(body_line));
#undef SPECKV_GET
  if (shared_end > lines) return mismatch(shared_end, lines);
  if (u.end > lines) return mismatch(u.end, lines);
  return check_ranks(image, lines, u);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
