// kv_compress: blocks to records. For each descriptor three stages run as DATAFLOW, so block i is coded while
// i + 1 is read and i - 1 written; no stage reads external memory twice. Each stage moves one beat of 32
// values a cycle: its loops have II=1 over whole beats, arrays are one beat wide and two-ported by ping-pong,
// and the only values carried from beat to beat are maxima, the CRC's 32 bits and an open run.
#pragma once
#include "speckv/codecs.hpp"
#include "speckv/crc32c.hpp"
#include "speckv/raw.hpp"
#include "speckv/validate.hpp"

namespace speckv {
inline namespace SPECKV_VARIANT {

struct CompressJob {
  speckv_descriptor d;
  Verdict verdict;
  Geometry geometry;
  Unit unit;  // of scheme klt
};

struct CodedJob {
  CompressJob job;
  Coded payload;
  uint8_t scheme;
};

// Stage 1: descriptor, checks, K and V into the block buffer.
static void read_block(const ap_uint<512>* blocks, const ap_uint<512>* descriptors, uint32_t index,
                       const CodebookPort& codebooks, CompressJob& job, uint16_t block[BLOCK_BEATS][LANES]) {
  job.d = read_descriptor(descriptors, index);
  job.verdict = check_compress(job.d);
  if (!job.verdict.status && job.d.scheme == SPECKV_SCHEME_KLT)
    job.verdict = find_unit(codebooks.image, codebooks.lines, job.d, job.unit);
  if (job.verdict.status) return;
  job.geometry = geometry_of(job.d);
  const Geometry& g = job.geometry;
  const uint32_t value_first = g.has_key ? g.kind_beats : 0;
  if (g.has_key) load_lanes(blocks, job.d.key_offset / BEAT_BYTES, g.kind_beats, block, 0);
  if (g.has_value) load_lanes(blocks, job.d.value_offset / BEAT_BYTES, g.kind_beats, block, value_first);
}

// Stage 2: the scheme, or the block itself where the scheme cannot hold it or does not pay.
static void code_block(const CompressJob& job, const CodebookPort& codebooks,
                       const uint16_t block[BLOCK_BEATS][LANES], CodedJob& out,
                       uint8_t payload[PAYLOAD_BEATS][BEAT_BYTES]) {
  out.job = job;
  out.scheme = job.d.scheme;
  if (job.verdict.status) return;
  const Calibrated calibrated = {codebooks.image, &job.unit, job.d.first_position};
  out.payload = encode_payload(out.scheme, job.d.dtype, job.geometry, calibrated, block, payload);
  if (!out.payload.coded) {
    out.scheme = job.d.scheme;
#ifdef __SYNTHESIS__
    raw_encode(job.geometry.block_beats, block, payload);
#endif
    out.payload = Coded{false, job.geometry.raw_bytes, 0};
  }
}

SPECKV_INLINE speckv_record_header make_header(const speckv_descriptor& d, uint8_t scheme,
                                               const Coded& payload) {
  speckv_record_header h;
  h.magic = SPECKV_MAGIC;
  h.format_version = SPECKV_FORMAT_VERSION;
  h.flags = payload.coded ? 0 : SPECKV_FLAG_RAW;
  h.scheme = scheme;
  h.dtype = d.dtype;
  h.kinds = d.kinds;
  h.layer_count = d.layer_count;
  h.first_layer = d.first_layer;
  h.heads = d.heads;
  h.first_head = d.first_head;
  h.head_dim = d.head_dim;
  h.tokens = d.tokens;
  h.reserved0 = 0;
  h.first_position = d.first_position;
  h.payload_bytes = payload.bytes;
  h.layout_fingerprint = d.layout_fingerprint;
  h.codebook_fingerprint = d.codebook_fingerprint;
  put_field(h.scheme_params, 0, payload.params);
  h.reserved1 = 0;
  h.crc32c = 0;
  return h;
}

// Stage 3: payload with zero padding, header with the CRC of both, completion.
static void write_record(const CodedJob& coded, const uint8_t payload[PAYLOAD_BEATS][BEAT_BYTES],
                         ap_uint<512>* records, ap_uint<128>* completions, uint32_t index) {
  const Verdict& v = coded.job.verdict;
  speckv_completion done = {v.status, 0, 0, v.value, v.limit};
  if (!v.status) {
    const speckv_descriptor& d = coded.job.d;
    const uint64_t slot = d.record_offset / BEAT_BYTES;
    const uint32_t bytes = coded.payload.bytes, beats = whole_lines(bytes) / BEAT_BYTES;
    speckv_record_header h = make_header(d, coded.scheme, coded.payload);
    uint8_t header[BEAT_BYTES];
#pragma HLS ARRAY_PARTITION variable = header complete  // written as one beat
    format_header(h, header);
    const uint32_t crc = crc32c_beats(crc32c_header(header), payload, bytes) ^ 0xFFFFFFFFu;
    put_field(header, offsetof(speckv_record_header, crc32c), crc);
    store_beat(records, slot, header);
    const uint32_t whole = bytes / BEAT_BYTES;
    store_beats(records, slot + 1, whole, payload);
    if (whole != beats) {
      uint8_t last[BEAT_BYTES];
    PAD:
      for (uint32_t b = 0; b < BEAT_BYTES; ++b) {
#pragma HLS UNROLL  // one beat
        last[b] = b < bytes % BEAT_BYTES ? payload[whole][b] : 0;
      }
      store_beat(records, slot + 1 + whole, last);
    }
    done.flags = h.flags;
    done.record_bytes = BEAT_BYTES * (1 + beats);
  }
  store_completion(completions, index, done);
}

static void compress_one(const ap_uint<512>* blocks, ap_uint<512>* records, const ap_uint<512>* descriptors,
                         ap_uint<128>* completions, const CodebookPort& codebooks, uint32_t index) {
#pragma HLS DATAFLOW  // the three stages overlap from block to block
  CompressJob job;
  CodedJob coded;
  // A bank a lane and a byte of a cycle: windows start anywhere.
  SPECKV_ONCHIP(BlockBuffer, block);
#pragma HLS ARRAY_PARTITION variable = block cyclic factor = LANES_A_CYCLE dim = 2
  SPECKV_ONCHIP(PayloadBuffer, payload);
#pragma HLS ARRAY_PARTITION variable = payload cyclic factor = BYTES_A_CYCLE dim = 2
  read_block(blocks, descriptors, index, codebooks, job, block);
  code_block(job, codebooks, block, coded, payload);
#ifdef __SYNTHESIS__
  write_record(coded, payload, records, completions, index);
#else
  // A raw payload is the block: natively it need not be copied from buffer to buffer.
  const bool raw = !job.verdict.status && !coded.payload.coded;
  write_record(coded, raw ? as_payload(block) : payload, records, completions, index);
#endif
}

static inline void kv_compress_batch(const ap_uint<512>* blocks, ap_uint<512>* records,
                                     const ap_uint<512>* descriptors, ap_uint<128>* completions,
                                     const ap_uint<512>* codebooks, uint32_t count, uint32_t codebook_lines,
                                     uint64_t abi_id) {
  const CodebookPort port = {codebooks, codebook_lines};
  if (refuse_batch(completions, count, abi_id)) return;
BATCH:
  for (uint32_t i = 0; i < count; ++i) {
#pragma HLS LOOP_TRIPCOUNT min = 1 max = MAX_BATCH
    compress_one(blocks, records, descriptors, completions, port, i);
  }
}

}  // namespace SPECKV_VARIANT
}  // namespace speckv
