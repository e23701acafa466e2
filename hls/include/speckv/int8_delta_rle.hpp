// Scheme int8_delta_rle: the published pipeline (seed, 20 stages) for each kind by itself, in C order.
//   stages 1-4   input, absmax           stages 5-8   scale, quantise to int8
//   stages 9-14  delta modulo 256        stages 15-18 run lengths     stages 19-20 format
// Integers only. scheme_params: absmax bits of K and of V (u16 each), bytes of K's runs (u32).
//
// Rate: absmax, quantise and delta are 32 independent lanes, one beat a cycle. Run lengths carry state from
// lane to lane; unrolled they are a prefix sum over 32 break flags and a 32-to-64 byte crossbar, feed-forward
// but for run, value and fill. Expanding runs closes its loop over a whole beat and is the slowest stage.
#pragma once
#include "speckv/float_bits.hpp"
#include "speckv/record.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

constexpr uint32_t MAX_RUN = 256;
constexpr int32_t LEVELS = 127;
constexpr int32_t RECIPROCAL_BITS = 20;

// Stages 1-4. Returns the largest magnitude of a kind.
SPECKV_INLINE uint32_t kind_absmax(const uint16_t block[][LANES], uint32_t first, uint32_t beats) {
  uint16_t best[LANES];
#pragma HLS ARRAY_PARTITION variable = best complete  // one compare a lane a cycle
CLEAR:
  for (uint32_t l = 0; l < LANES; ++l) best[l] = 0;
ABSMAX:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle; the tree over lanes comes after the loop
  LANE:
    for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL
      const uint16_t a = block[first + i][l] & 0x7FFF;
      best[l] = a > best[l] ? a : best[l];
    }
  }
  uint16_t top = 0;
TREE:
  for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // a compare tree
    top = best[l] > top ? best[l] : top;
  }
  return top;
}

// Stages 5-8. d > 8 cannot reach a half: the product stays below 2^28.
template <class F>
SPECKV_INLINE uint8_t quantise_lane(uint16_t bits, int32_t top_exponent, uint32_t reciprocal) {
#pragma HLS INLINE  // one DSP, one shifter
  const int32_t magnitude = bits & 0x7FFF;
  const int32_t d = top_exponent - exponent_of<F>(magnitude);
  const uint32_t near = uint32_t(d > 8 ? 8 : d);
  const uint32_t product = uint32_t(mantissa_of<F>(magnitude)) * reciprocal;
  int32_t q = int32_t((product + (1u << (RECIPROCAL_BITS - 1 + near))) >> (RECIPROCAL_BITS + near));
  q = q > LEVELS ? LEVELS : q;
  q = d > 8 ? 0 : q;
  const int32_t sign = -int32_t(bits >> 15);
  return uint8_t((q ^ sign) - sign);
}

// Open run, and pairs that do not yet fill a beat.
struct RunWriter {
  uint8_t window[2 * BEAT_BYTES];
  uint32_t fill;   // bytes of window in use, even, below 64 between beats
  uint32_t beats;  // beats of payload written
  uint32_t run;
  uint8_t value;
};

// Stages 19-20: a full beat leaves the window.
SPECKV_INLINE void flush_beat(RunWriter& w, uint8_t payload[][BEAT_BYTES]) {
#pragma HLS INLINE  // part of its caller's pipeline
  if (w.fill >= BEAT_BYTES) {
  SHIFT:
    for (uint32_t i = 0; i < BEAT_BYTES; ++i) {
#pragma HLS UNROLL  // wires only
      payload[w.beats][i] = w.window[i];
      w.window[i] = w.window[BEAT_BYTES + i];
    }
    w.fill -= BEAT_BYTES;
    ++w.beats;
  }
}

// Stages 15-18: a run ends where the value changes or 256 are counted.
SPECKV_INLINE void append_runs(RunWriter& w, const uint8_t delta[LANES]) {
#pragma HLS INLINE  // part of its caller's pipeline
  uint32_t fill = w.fill, run = w.run;
  uint8_t value = w.value;
LANE:
  for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // prefix sum of ends, see the head of this file
    const bool ends = (delta[l] != value) | (run == MAX_RUN);
    w.window[fill] = uint8_t(run - 1);
    w.window[fill + 1] = value;
    fill += ends ? 2 : 0;
    run = ends ? 1 : run + 1;
    value = delta[l];
  }
  w.fill = fill;
  w.run = run;
  w.value = value;
}

template <class F>
SPECKV_INLINE void encode_runs(const uint16_t block[][LANES], uint32_t first, uint32_t beats, uint32_t absmax,
                               RunWriter& w, uint8_t payload[][BEAT_BYTES]) {
  const int32_t top_exponent = exponent_of<F>(int32_t(absmax));
  const uint32_t top_mantissa = uint32_t(mantissa_of<F>(int32_t(absmax)));
  const uint32_t reciprocal = (uint32_t(LEVELS) << RECIPROCAL_BITS) / (top_mantissa | (top_mantissa == 0));
  uint8_t last = 0;
BEATS:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
#pragma HLS PIPELINE II = BEAT_CYCLES  // one beat a cycle, as fast as it was read
    uint8_t q[LANES + 1], delta[LANES];
    q[0] = last;
  QUANTISE:
    for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // 32 lanes side by side
      q[l + 1] = quantise_lane<F>(block[first + i][l], top_exponent, reciprocal);
    }
  DELTA:
    for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS UNROLL  // stages 9-14
      delta[l] = uint8_t(q[l + 1] - q[l]);
    }
    last = q[LANES];
    w.value = i == 0 ? delta[0] : w.value;
    w.run = i == 0 ? 0 : w.run;
    append_runs(w, delta);
    flush_beat(w, payload);
  }
  w.window[w.fill] = uint8_t(w.run - 1);
  w.window[w.fill + 1] = w.value;
  w.fill += 2;
  flush_beat(w, payload);
}

// block: the kinds present, K first. payload: holds the raw block, hence any coding of it.
template <class F>
SPECKV_INLINE Coded int8_encode(const Geometry& g, const uint16_t block[][LANES],
                                uint8_t payload[][BEAT_BYTES]) {
  RunWriter w;
#pragma HLS ARRAY_PARTITION variable = w.window complete  // any byte in any cycle
  w.fill = 0;
  w.beats = 0;
  uint32_t absmax[2] = {0, 0}, key_bytes = 0, first = 0;
KINDS:
  for (uint32_t k = 0; k < 2; ++k) {
    if (k == 0 ? g.has_key : g.has_value) {
      absmax[k] = kind_absmax(block, first, g.kind_beats);
      if (absmax[k] >= infinity_bits<F>()) return Coded{false, 0, 0};
      encode_runs<F>(block, first, g.kind_beats, absmax[k], w, payload);
      first += g.kind_beats;
    }
    key_bytes = k == 0 ? w.beats * BEAT_BYTES + w.fill : key_bytes;
  }
  const uint32_t bytes = w.beats * BEAT_BYTES + w.fill;
REST:
  for (uint32_t i = 0; i < BEAT_BYTES; ++i) {
#pragma HLS UNROLL  // one beat
    payload[w.beats][i] = w.window[i];
  }
  return Coded{bytes < g.raw_bytes, bytes, absmax[0] | uint64_t(absmax[1]) << 16 | uint64_t(key_bytes) << 32};
}

// table[byte]: float bits of the quantised value. q * mm * 2^em / 127 to nearest; 127 is odd, so there are no
// ties. The quotient gets as many more bits as a full mantissa needs and the exponent allows.
template <class F>
SPECKV_INLINE void dequantise_table(uint32_t absmax, uint16_t table[2 * (LEVELS + 1)]) {
  const int32_t exponent = exponent_of<F>(int32_t(absmax));
  const uint32_t mantissa = uint32_t(mantissa_of<F>(int32_t(absmax)));
TABLE:
  for (uint32_t q = 0; q <= uint32_t(LEVELS); ++q) {
#pragma HLS PIPELINE II = BEAT_CYCLES  // 128 cycles a kind, while the payload is still read
    const uint32_t n = q * mantissa;
    int32_t up = 0;
  NORMALISE:
    for (int32_t s = 1; s <= 7; ++s) {
#pragma HLS UNROLL  // seven compares
      up += (n << (s - 1)) < (uint32_t(LEVELS) << F::MANTISSA_BITS) && s < exponent ? 1 : 0;
    }
    const uint32_t quotient = (n << up) / LEVELS, rest = (n << up) % LEVELS;
    const uint32_t rounded = quotient + (2 * rest > uint32_t(LEVELS) ? 1 : 0);
    // The hidden bit, and a carry of rounding, add themselves into the exponent.
    const uint32_t bits = n == 0 ? 0 : (uint32_t(exponent - up - 1) << F::MANTISSA_BITS) + rounded;
    table[q] = uint16_t(bits);
    table[256 - (q == 0 ? 128 : q)] = uint16_t(q == 0 ? 0 : bits | 0x8000);
  }
}

// Values in the runs of payload bytes [begin, end), both even distances apart.
SPECKV_INLINE uint32_t count_runs(const uint8_t payload[][BEAT_BYTES], uint32_t begin, uint32_t end) {
  uint32_t total = 0;
COUNT:
  for (uint32_t p = begin; p < end; p += 2) {
#pragma HLS LOOP_TRIPCOUNT min = 4 max = 65536
#pragma HLS PIPELINE II = BEAT_CYCLES
    total += payload[p / BEAT_BYTES][p % BEAT_BYTES] + 1u;
  }
  return total;
}

// Expands runs that are known to hold exactly the kind's values. Returns true if a value is -128.
SPECKV_INLINE bool expand_runs(const uint8_t payload[][BEAT_BYTES], uint32_t begin, const uint16_t table[256],
                               uint32_t beats, uint16_t block[][LANES], uint32_t first) {
  uint32_t at = begin, left = 0;
  uint8_t delta = 0, q = 0;
  bool below = false;
BEATS:
  for (uint32_t i = 0; i < beats; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 32 max = MAX_BLOCK_BEATS
  LANE:
    for (uint32_t l = 0; l < LANES; ++l) {
#pragma HLS PIPELINE II = BEAT_CYCLES  // a value a cycle: the next pair depends on this one's count
      const bool next = left == 0;
      const uint32_t beat = at / BEAT_BYTES, byte = at % BEAT_BYTES;
      // `at` may stand one past the last pair only when no value is due any more: left > 0 till then.
      left = next ? payload[beat][byte] + 1u : left;
      const uint32_t second = at + 1;
      delta = next ? payload[second / BEAT_BYTES][second % BEAT_BYTES] : delta;
      at += next ? 2 : 0;
      --left;
      q = uint8_t(q + delta);
      below |= q == 0x80;
      block[first + i][l] = table[q];
    }
  }
  return below;
}

template <class F>
SPECKV_INLINE Verdict int8_decode_kind(const uint8_t payload[][BEAT_BYTES], uint32_t begin, uint32_t end,
                                       uint32_t absmax, uint32_t beats, uint16_t block[][LANES],
                                       uint32_t first) {
  if (absmax >= infinity_bits<F>()) return wrong(SPECKV_STATUS_BAD_PAYLOAD, absmax, infinity_bits<F>() - 1);
  if ((end - begin) % 2) return wrong(SPECKV_STATUS_BAD_PAYLOAD, end - begin, end - begin - 1);
  const uint32_t total = count_runs(payload, begin, end);
  if (total != beats * LANES) return wrong(SPECKV_STATUS_BAD_PAYLOAD, total, beats * LANES);
  uint16_t table[2 * (LEVELS + 1)];
  dequantise_table<F>(absmax, table);
  const bool below = expand_runs(payload, begin, table, beats, block, first);
  return below ? wrong(SPECKV_STATUS_BAD_PAYLOAD, uint64_t(-128), uint64_t(-LEVELS)) : fine();
}

// Least and most payload bytes of a coded block are checked before; everything else is here.
template <class F>
SPECKV_INLINE Verdict int8_decode(const Geometry& g, uint64_t params, uint32_t payload_bytes,
                                  const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
  const uint32_t key_bytes = uint32_t(params >> 32);
  if (key_bytes > payload_bytes) return wrong(SPECKV_STATUS_BAD_PAYLOAD, key_bytes, payload_bytes);
  Verdict verdict = fine();
  uint32_t first = 0;
KINDS:
  for (uint32_t k = 0; k < 2; ++k) {
    const uint32_t begin = k == 0 ? 0 : key_bytes, end = k == 0 ? key_bytes : payload_bytes;
    const uint32_t absmax = uint32_t(params >> (16 * k)) & 0xFFFF;
    const bool present = k == 0 ? g.has_key : g.has_value;
    if (!verdict.status && present) {
      verdict = int8_decode_kind<F>(payload, begin, end, absmax, g.kind_beats, block, first);
      first += g.kind_beats;
    } else if (!verdict.status && (begin != end || absmax)) {
      verdict = wrong(SPECKV_STATUS_BAD_PAYLOAD, end - begin, 0);
    }
  }
  return verdict;
}

SPECKV_INLINE uint32_t int8_least_bytes(const Geometry& g) {
  const uint32_t kinds = (g.has_key ? 1 : 0) + (g.has_value ? 1 : 0);
  return 2 * kinds * ((g.kind_beats * LANES + MAX_RUN - 1) / MAX_RUN);
}

// One clone a type: dispatch happens once a block, not once a beat.
SPECKV_CLONES static Coded int8_encode_fp16(const Geometry& g, const uint16_t block[][LANES],
                                            uint8_t payload[][BEAT_BYTES]) {
  return int8_encode<Fp16>(g, block, payload);
}
SPECKV_CLONES static Coded int8_encode_bf16(const Geometry& g, const uint16_t block[][LANES],
                                            uint8_t payload[][BEAT_BYTES]) {
  return int8_encode<Bf16>(g, block, payload);
}
SPECKV_CLONES static Verdict int8_decode_fp16(const Geometry& g, uint64_t params, uint32_t payload_bytes,
                                              const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
  return int8_decode<Fp16>(g, params, payload_bytes, payload, block);
}
SPECKV_CLONES static Verdict int8_decode_bf16(const Geometry& g, uint64_t params, uint32_t payload_bytes,
                                              const uint8_t payload[][BEAT_BYTES], uint16_t block[][LANES]) {
  return int8_decode<Bf16>(g, params, payload_bytes, payload, block);
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
