// klt, both directions: channels and their segments, rotation of keys, dot products.
// speckv_pynq/reference/klt.py is the definition; sums fit 32 bits because the host checks codebooks.
#pragma once
#include "speckv/codebook.hpp"
#include "speckv/float_bits.hpp"
#ifndef __SYNTHESIS__
#include "speckv/klt_mac_native.hpp"
#endif

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr int32_t FIXED_MAX = SPECKV_KLT_FIXED_MAX;
constexpr int32_t INPUT_MAX = SPECKV_KLT_INPUT_MAX;
constexpr uint32_t ROTATION_BITS = SPECKV_KLT_ROTATION_BITS;
constexpr uint32_t MAX_VALUES = SPECKV_MAX_BLOCK_BYTES / 2;
// Rows padded to whole beats: 80 values of a head become 96.
constexpr uint32_t MAX_PADDED = MAX_VALUES / 80 * 96 + 64 * COLUMN_PAD;
constexpr uint32_t MAX_TOKENS = 64;
// MAC_ROWS * TILE sums at a time; TILE tokens share the loads of a row. Natively what 16 vector registers
// hold.
#ifdef __SYNTHESIS__
constexpr uint32_t MAC_ROWS = SPECKV_KLT_MAC_ROWS;
constexpr uint32_t TILE = SPECKV_KLT_MAC_TOKENS;
#else
constexpr uint32_t MAC_ROWS = 2;
constexpr uint32_t TILE = 4;
#endif
static_assert(16 % TILE == 0, "a block of 16 tokens is whole tiles");
constexpr uint32_t MAX_TILES = MAX_TOKENS / TILE;
constexpr uint32_t MAX_RAW_BITS = 12;
constexpr uint32_t MAX_SHIFT = 30;

// Consecutive channels of one kind within one transform.
struct Segment {
  uint32_t kind;  // of the kinds present
  uint32_t first_head;
  uint32_t heads;
  uint32_t channel;  // first one, in the order of the unit
  uint32_t column;   // first one, within the padded rows of all transforms
};

SPECKV_INLINE uint32_t segment_count(const Unit& u) {
  return u.apart ? u.transforms : u.transforms * u.kinds;
}

SPECKV_INLINE Segment segment_of(const Unit& u, uint32_t i) {
  const uint32_t groups = u.apart ? u.transforms / u.kinds : u.transforms, heads = u.heads / groups;
  const uint32_t transform = u.apart ? i : i / u.kinds;
  const uint32_t kind = u.apart ? i / groups : i % u.kinds, group = u.apart ? i % groups : transform;
  const uint32_t before = u.apart ? 0 : kind * heads * u.head_dim;  // within the transform
  return Segment{kind, group * heads, heads, transform * u.each + before, transform * u.row + before};
}

// Its first value of one token, in a block as it lies in memory.
SPECKV_INLINE uint32_t segment_at(const Geometry& g, const Segment& s, uint32_t token) {
  return ((s.kind * g.tokens + token) * g.heads + s.first_head) * g.head_dim;
}

// What a unit says of every channel and every component.
struct KltTables {
  Section<uint8_t, MAX_CLASSES> raw_bits, half;
  Section<uint32_t, MAX_CLASSES * SYMBOLS> codes;
  Section<int16_t, 2 * 256 * 2> rotation;
  Section<uint64_t, MAX_PAIRS> turns;
  Section<uint16_t, MAX_TRANSFORMS> ranks;
  Section<int8_t, MAX_INPUTS> exponent;
  Section<int32_t, MAX_INPUTS> mean;
  Section<int16_t, MAX_INPUTS> limit;
};

SPECKV_INLINE void load_tables(const ap_uint<512>* image, const Unit& u, KltTables& t) {
  load_section(image, u.raw_bits, u.classes, t.raw_bits);
  load_section(image, u.half, u.classes, t.half);
  load_section(image, u.codes, u.classes * SYMBOLS, t.codes);
  load_section(image, u.rotation, 2 * 256 * 2, t.rotation);
  load_section(image, u.turns, u.pairs, t.turns);
  load_section(image, u.ranks, u.transforms, t.ranks);
  load_section(image, u.exponent, u.inputs, t.exponent);
  load_section(image, u.mean, u.inputs, t.mean);
  load_section(image, u.limit, u.rank, t.limit);
}

// A class's parameters; what no checked codebook holds is brought into range.
struct Class {
  uint32_t raw_bits;
  int32_t half;
};

SPECKV_INLINE Class class_of(const KltTables& t, uint32_t id) {
  const uint32_t raw = t.raw_bits.data[id], half = t.half.data[id];
  return Class{raw > MAX_RAW_BITS ? MAX_RAW_BITS : raw, int32_t(half % (SYMBOLS / 2))};
}

SPECKV_INLINE uint32_t class_id(const Unit& u, uint32_t id) { return id < u.classes ? id : u.classes - 1; }

SPECKV_INLINE uint32_t bounded_shift(uint32_t s) { return s > MAX_SHIFT ? MAX_SHIFT : s; }

// ---- rotation

struct Angles {
  int32_t cosine[MAX_PAIRS], sine[MAX_PAIRS];
};

SPECKV_INLINE int32_t rotation_round(int32_t x) { return (x + (1 << (ROTATION_BITS - 1))) >> ROTATION_BITS; }

// Of one position: the coarse and the fine angle of each phase added.
SPECKV_INLINE void angles_of(const Unit& u, const KltTables& t, uint32_t position, Angles& angles) {
  const int16_t* table = t.rotation.data;
PAIRS:
  for (uint32_t i = 0; i < u.pairs; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 128
#pragma HLS PIPELINE II = BEAT_CYCLES  // one 64 x 32 bit product, four 16-bit ones
    const uint32_t phase = uint32_t((t.turns.data[i] * position) >> 48);
    const int16_t *coarse = table + 2 * (phase >> 8), *fine = table + 2 * (256 + (phase & 255));
    angles.cosine[i] = rotation_round(coarse[0] * fine[0] - coarse[1] * fine[1]);
    angles.sine[i] = rotation_round(coarse[1] * fine[0] + coarse[0] * fine[1]);
  }
}

// One head, by the angles (SIGN -1) or back (SIGN 1).
template <int32_t SIGN>
SPECKV_INLINE void rotate_head(const Unit& u, const Angles& angles, int32_t* head) {
  const uint32_t pairs = u.pairs;
  if (u.interleaved) {
  NEIGHBOURS:
    for (uint32_t i = 0; i < pairs; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 128
#pragma HLS PIPELINE II = BEAT_CYCLES  // four products
      const int32_t a = head[2 * i], b = head[2 * i + 1], c = angles.cosine[i], s = SIGN * angles.sine[i];
      head[2 * i] = rotation_round(a * c + b * s);
      head[2 * i + 1] = rotation_round(b * c - a * s);
    }
  } else {
    int32_t *low = head, *high = head + pairs;
  HALVES:
    for (uint32_t i = 0; i < pairs; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = 128
#pragma HLS PIPELINE II = BEAT_CYCLES  // four products
      const int32_t a = low[i], b = high[i], c = angles.cosine[i], s = SIGN * angles.sine[i];
      low[i] = rotation_round(a * c + b * s);
      high[i] = rotation_round(b * c - a * s);
    }
  }
}

// ---- dot products

using Rows = Section<int16_t, MAX_INPUTS>[MAC_ROWS];

// Rows first .. first + MAC_ROWS - 1 of a transform that ends before `end`; the last one again beyond it.
SPECKV_INLINE void load_rows(const ap_uint<512>* image, uint64_t line, uint32_t columns, uint32_t first,
                             uint32_t end, Rows& rows) {
ROWS:
  for (uint32_t r = 0; r < MAC_ROWS; ++r) {
    const uint32_t k = first + r < end ? first + r : end - 1;
    load_section(image, line + uint64_t(k) * (columns / COLUMN_PAD), columns, rows[r]);
  }
}

// All rows against TILE columns of n values each, n a multiple of 16: out[row * TILE + column].
SPECKV_INLINE void dot_tile(const Rows& rows, const int16_t* x, uint32_t stride, uint32_t n,
                            int32_t out[MAC_ROWS * TILE]) {
#ifdef __SYNTHESIS__
CLEAR:
  for (uint32_t i = 0; i < MAC_ROWS * TILE; ++i) out[i] = 0;
BEATS:
  for (uint32_t at = 0; at < n; at += 16) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = 2048
#pragma HLS PIPELINE II = BEAT_CYCLES  // the array: half a beat of every row and token a cycle
  ARRAY:
    for (uint32_t i = 0; i < MAC_ROWS * TILE; ++i) {
#pragma HLS UNROLL  // rows times tokens
      int32_t sum = 0;
    LANE:
      for (uint32_t l = 0; l < 16; ++l) {
#pragma HLS UNROLL  // an adder tree
        sum += rows[i / TILE].data[at + l] * x[i % TILE * stride + at + l];
      }
      out[i] += sum;
    }
  }
#else
  const int16_t *row0 = rows[0].data, *row1 = rows[1].data, *x0 = x, *x1 = x + stride, *x2 = x1 + stride,
                *x3 = x2 + stride;
  int32_t a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
MACS:
  for (uint32_t i = 0; i < n; ++i) {
    a0 += row0[i] * x0[i];
    a1 += row0[i] * x1[i];
    a2 += row0[i] * x2[i];
    a3 += row0[i] * x3[i];
    b0 += row1[i] * x0[i];
    b1 += row1[i] * x1[i];
    b2 += row1[i] * x2[i];
    b3 += row1[i] * x3[i];
  }
  const int32_t sums[MAC_ROWS * TILE] = {a0, a1, a2, a3, b0, b1, b2, b3};
OUT:
  for (uint32_t i = 0; i < MAC_ROWS * TILE; ++i) out[i] = sums[i];
#endif
}

#ifdef SPECKV_KLT_NATIVE
// One transform's products natively.
struct PairWork {
  int32_t values[MAX_VALUES / 2];
  uint16_t which[MAX_TOKENS / TILE_TOKENS * (MAX_INPUTS / 2)];
  int32_t sums[MAX_VALUES];  // (rows, tokens)
  PairTile tiles[MAX_TOKENS / TILE_TOKENS];
};

// Room for `pairs` of them in each of the tiles; values * 2 and which fit any block that is checked.
SPECKV_INLINE void lay_out_tiles(uint32_t tokens, uint32_t pairs, PairWork& w) {
  for (uint32_t t = 0; t < tokens / TILE_TOKENS; ++t) {
    w.tiles[t] = PairTile{w.values + t * pairs * TILE_TOKENS, w.which + t * pairs, 0};
  }
}
#endif

// ---- bytes of a payload

SPECKV_INLINE void copy_in(uint8_t payload[][BEAT_BYTES], uint32_t at, const uint8_t* from, uint32_t bytes) {
#ifdef __SYNTHESIS__
COPY:
  for (uint32_t i = 0; i < bytes; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = MAX_BLOCK_BYTES
    payload[(at + i) / BEAT_BYTES][(at + i) % BEAT_BYTES] = from[i];
  }
#else
  std::memcpy(payload[0] + at, from, bytes);
#endif
}

SPECKV_INLINE void copy_out(const uint8_t payload[][BEAT_BYTES], uint32_t at, uint8_t* to, uint32_t bytes) {
#ifdef __SYNTHESIS__
COPY:
  for (uint32_t i = 0; i < bytes; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 0 max = MAX_BLOCK_BYTES
    to[i] = payload[(at + i) / BEAT_BYTES][(at + i) % BEAT_BYTES];
  }
#else
  std::memcpy(to, payload[0] + at, bytes);
#endif
}

// scheme_params.
struct KltParams {
  uint32_t words;
  uint32_t escapes;
  uint32_t table_set;
};

SPECKV_INLINE uint64_t pack_params(const KltParams& p) {
  return p.words | uint64_t(p.escapes) << 32 | uint64_t(p.table_set) << 48;
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
