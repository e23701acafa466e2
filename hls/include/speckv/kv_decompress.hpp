// kv_decompress: records to blocks. Three stages as DATAFLOW, as in kv_compress.hpp: a record is read once
// and its CRC folded on chip, then decoded into the block buffer, and the block written only when all of it
// held.
#pragma once
#include "speckv/codecs.hpp"
#include "speckv/crc32c.hpp"
#include "speckv/raw.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

struct DecompressJob {
  speckv_descriptor d;
  speckv_record_header h;
  Verdict verdict;
  Geometry geometry;
  Unit unit;  // of scheme klt
};

// Descriptor and header against each other; nothing of the payload is read before this is fine.
SPECKV_INLINE Verdict check_header(const speckv_record_header& h, const speckv_descriptor& d,
                                   const Geometry& g, const CodebookPort& codebooks, Unit& unit) {
  Verdict v = check_format(h);
  v = v.status ? v : check_identity(h, d);
  v = v.status ? v : check_scheme_use(h);
  if (!v.status && h.scheme == SPECKV_SCHEME_KLT && !(h.flags & SPECKV_FLAG_RAW))
    v = find_unit(codebooks.image, codebooks.lines, d, unit);
  v = v.status ? v : check_payload_bytes(h, g);
  return v.status ? v : check_capacity(d, BEAT_BYTES + h.payload_bytes);
}

// Stage 1: descriptor, header, payload, CRC.
static void read_record(const ap_uint<512>* records, const ap_uint<512>* descriptors, uint32_t index,
                        const CodebookPort& codebooks, DecompressJob& job,
                        uint8_t payload[PAYLOAD_BEATS][BEAT_BYTES]) {
  job.d = read_descriptor(descriptors, index);
  job.verdict = check_decompress(job.d);
  if (job.verdict.status) return;
  job.geometry = geometry_of(job.d);
  const uint64_t slot = job.d.record_offset / BEAT_BYTES;
  uint8_t header[BEAT_BYTES];
#pragma HLS ARRAY_PARTITION variable = header complete  // all fields in the cycle the beat arrives
  load_beat(records, slot, header);
  job.h = parse_header(header);
  job.verdict = check_header(job.h, job.d, job.geometry, codebooks, job.unit);
  if (job.verdict.status) return;
  const uint32_t beats = whole_lines(job.h.payload_bytes) / BEAT_BYTES;
  load_beats(records, slot + 1, beats, payload);
  const uint32_t crc = crc32c_beats(crc32c_header(header), payload, job.h.payload_bytes) ^ 0xFFFFFFFFu;
  if (crc != job.h.crc32c) job.verdict = wrong(SPECKV_STATUS_BAD_CRC, crc, job.h.crc32c);
}

// Stage 2: payload to block.
static void decode_block(const DecompressJob& in, const CodebookPort& codebooks,
                         const uint8_t payload[PAYLOAD_BEATS][BEAT_BYTES], DecompressJob& out,
                         uint16_t block[BLOCK_BEATS][LANES]) {
  out = in;
  if (in.verdict.status) return;
  if (in.h.flags & SPECKV_FLAG_RAW) {
#ifdef __SYNTHESIS__
    raw_decode(in.geometry.block_beats, payload, block);
#endif
  } else {
    const Calibrated calibrated = {codebooks.image, &in.unit, in.d.first_position};
    out.verdict = decode_payload(in.h.scheme, in.h.dtype, in.geometry, calibrated, params_word(in.h),
                                 in.h.payload_bytes, payload, block);
  }
}

// Stage 3: K and V, and the completion; a damaged record leaves the destination untouched.
static void write_block(const DecompressJob& job, const uint16_t block[BLOCK_BEATS][LANES],
                        ap_uint<512>* blocks, ap_uint<128>* completions, uint32_t index) {
  speckv_completion done = {job.verdict.status, 0, 0, job.verdict.value, job.verdict.limit};
  if (!job.verdict.status) {
    const Geometry& g = job.geometry;
    const uint32_t value_first = g.has_key ? g.kind_beats : 0;
    if (g.has_key) store_lanes(blocks, job.d.key_offset / BEAT_BYTES, g.kind_beats, block, 0);
    if (g.has_value) store_lanes(blocks, job.d.value_offset / BEAT_BYTES, g.kind_beats, block, value_first);
    done.flags = job.h.flags;
    done.record_bytes = BEAT_BYTES + whole_lines(job.h.payload_bytes);
  }
  store_completion(completions, index, done);
}

#ifndef __SYNTHESIS__
static uint16_t (*destination(const DecompressJob& job, ap_uint<512>* blocks)) [LANES] {
  const uint64_t offset = job.geometry.has_key ? job.d.key_offset : job.d.value_offset;
  return reinterpret_cast<uint16_t (*)[LANES]>(blocks + offset / BEAT_BYTES);
}

// Hosts decode int4 and klt where the block goes, which spares a copy: K and V follow each other there, and a
// payload that has its checksum cannot fail once the first value is written.
static bool decodes_in_place(const DecompressJob& job) {
  const bool can = job.h.scheme == SPECKV_SCHEME_INT4 || job.h.scheme == SPECKV_SCHEME_KLT;
  if (job.verdict.status || !can || (job.h.flags & SPECKV_FLAG_RAW)) return false;
  const Geometry& g = job.geometry;
  return g.has_key != g.has_value || job.d.value_offset == job.d.key_offset + g.kind_beats * BEAT_BYTES;
}
#endif

static void decompress_one(const ap_uint<512>* records, ap_uint<512>* blocks, const ap_uint<512>* descriptors,
                           ap_uint<128>* completions, const CodebookPort& codebooks, uint32_t index) {
#pragma HLS DATAFLOW  // the three stages overlap from record to record
  DecompressJob job, decoded;
  // A bank a lane and a byte of a cycle: windows start anywhere.
  SPECKV_ONCHIP(PayloadBuffer, payload);
#pragma HLS ARRAY_PARTITION variable = payload cyclic factor = BYTES_A_CYCLE dim = 2
  SPECKV_ONCHIP(BlockBuffer, block);
#pragma HLS ARRAY_PARTITION variable = block cyclic factor = LANES_A_CYCLE dim = 2
  read_record(records, descriptors, index, codebooks, job, payload);
#ifdef __SYNTHESIS__
  decode_block(job, codebooks, payload, decoded, block);
  write_block(decoded, block, blocks, completions, index);
#else
  uint16_t (*to)[LANES] = decodes_in_place(job) ? destination(job, blocks) : block;
  decode_block(job, codebooks, payload, decoded, to);
  const bool raw = !decoded.verdict.status && (decoded.h.flags & SPECKV_FLAG_RAW);
  write_block(decoded, raw ? as_block(payload) : to, blocks, completions, index);
#endif
}

static inline void kv_decompress_batch(const ap_uint<512>* records, ap_uint<512>* blocks,
                                       const ap_uint<512>* descriptors, ap_uint<128>* completions,
                                       const ap_uint<512>* codebooks, uint32_t count, uint32_t codebook_lines,
                                       uint64_t abi_id) {
  const CodebookPort port = {codebooks, codebook_lines};
  if (refuse_batch(completions, count, abi_id)) return;
BATCH:
  for (uint32_t i = 0; i < count; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MAX_BATCH
    decompress_one(records, blocks, descriptors, completions, port, i);
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
