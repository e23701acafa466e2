// Damages records and descriptors and hands them to kv_decompress. Every buffer is exactly as large as the
// call is told, so that a sanitizer sees the first byte too far. Checks beside: whatever is not ok leaves the
// destination as it was, and what is ok and unharmed decodes as before.
//   fuzz_decompress [iterations] [seed] [codebook image], or LLVMFuzzerTestOneInput under libFuzzer
//   (-DSPECKV_LIBFUZZER). With an image, scheme klt is met too, in blocks that its first unit was made for.
#include <cstring>

#include "harness.h"
#include "speckv_csim.h"

namespace {

using Bytes = std::unique_ptr<uint8_t[]>;
constexpr uint8_t UNTOUCHED = 0x5A;

Image codebook;

uint32_t dtype_bytes(const speckv_descriptor& d) { return d.dtype == SPECKV_DTYPE_FP32 ? 4 : 2; }

// A block, its record, and the descriptor that decodes it.
struct Sample {
  speckv_descriptor d;
  uint32_t block_bytes;
  uint32_t record_bytes;
  Bytes record;
  Bytes decoded;
};

speckv_descriptor random_descriptor(Random& r) {
  constexpr uint16_t tokens[] = {16, 32, 64}, head_dims[] = {64, 80, 96, 128, 256};
  speckv_descriptor d = {};
  d.tokens = r.pick(tokens);
  d.head_dim = r.pick(head_dims);
  d.scheme = uint8_t(r.below(SPECKV_SCHEME_INT4 + 1));
  d.dtype = uint8_t(r.below(d.scheme == SPECKV_SCHEME_RAW ? 3 : 2));
  d.kinds = uint8_t(1 + r.below(3));
  const uint32_t head_bytes = uint32_t(d.tokens) * d.head_dim * dtype_bytes(d) * 2;
  d.heads = uint16_t(1 + (2 * head_bytes <= SPECKV_MAX_BLOCK_BYTES ? r.below(2) : 0));
  d.layer_count = 1;
  d.first_layer = uint16_t(r.next());
  d.first_position = uint32_t(r.next());
  d.layout_fingerprint = r.next();
  if (codebook.size && r.below(2)) {
    speckv_codebook_header h;
    std::memcpy(&h, codebook.bytes.get(), sizeof(h));
    d.scheme = SPECKV_SCHEME_KLT;
    d.dtype = uint8_t(r.below(2));
    d.kinds = h.kinds;
    d.heads = h.heads;
    d.head_dim = h.head_dim;
    d.first_layer = h.first_layer;
    d.layer_count = h.layer_count;
    d.codebook_fingerprint = h.fingerprint;
  }
  return d;
}

// Values from smooth to arbitrary bits, with runs, so that every coding branch is met.
void fill_block(Random& r, uint8_t* block, uint32_t bytes) {
  const uint32_t style = r.below(6);
  uint16_t held = 0;
  for (uint32_t i = 0; i + 1 < bytes; i += 2) {
    uint16_t v = uint16_t(r.next());
    if (style == 0) v = uint16_t((v & 0x83FF) | 0x3800);
    if (style == 1) v = 0;
    if (style == 2) v = held = r.below(40) ? held : uint16_t(v & 0xBBFF);
    if (style == 3) v = uint16_t(v & 0xBFFF);
    if (style == 5) v = uint16_t(v & 0x8FFF);  // small enough for klt
    block[i] = uint8_t(v);
    block[i + 1] = uint8_t(v >> 8);
  }
}

int32_t decode(const Sample& s, const speckv_descriptor& d, const uint8_t* record, uint32_t record_bytes,
               uint8_t* blocks, speckv_completion* done) {
  *done = {};
  return speckv_csim_kv_decompress(record, record_bytes, blocks, s.block_bytes, codebook.bytes.get(),
                                   codebook.size, &d, done, 1, speckv_csim_abi_id());
}

Sample make_sample(Random& r) {
  Sample s;
  s.d = random_descriptor(r);
  const uint32_t kind_bytes = uint32_t(s.d.tokens) * s.d.heads * s.d.head_dim * dtype_bytes(s.d);
  s.block_bytes = s.d.kinds == SPECKV_KIND_BOTH ? 2 * kind_bytes : kind_bytes;
  s.d.value_offset = s.d.kinds == SPECKV_KIND_BOTH ? kind_bytes : 0;
  s.d.record_capacity = s.block_bytes + SPECKV_MIN_SLOT_BYTES;
  Bytes block(new uint8_t[s.block_bytes]), slot(new uint8_t[s.d.record_capacity]);
  fill_block(r, block.get(), s.block_bytes);
  speckv_completion done = {};
  const int32_t rc =
      speckv_csim_kv_compress(block.get(), s.block_bytes, slot.get(), s.d.record_capacity,
                              codebook.bytes.get(), codebook.size, &s.d, &done, 1, speckv_csim_abi_id());
  expect(rc == 0 && done.status == SPECKV_STATUS_OK, "a valid block was refused");
  s.record_bytes = done.record_bytes;
  s.d.record_capacity = s.record_bytes;
  s.record.reset(new uint8_t[s.record_bytes]);
  std::memcpy(s.record.get(), slot.get(), s.record_bytes);
  s.decoded.reset(new uint8_t[s.block_bytes]);
  expect(decode(s, s.d, s.record.get(), s.record_bytes, s.decoded.get(), &done) == 0 && !done.status,
         "a valid record was refused");
  return s;
}

// Makes header and payload consistent again, so that damage reaches the decoder behind the checksum.
void mend_crc(uint8_t* record, uint32_t bytes) {
  speckv_record_header h;
  std::memcpy(&h, record, sizeof(h));
  const uint32_t payload =
      h.payload_bytes < bytes - sizeof(h) ? h.payload_bytes : uint32_t(bytes - sizeof(h));
  h.crc32c = speckv_csim_crc32c(0, record, offsetof(speckv_record_header, crc32c));
  h.crc32c = speckv_csim_crc32c(h.crc32c, record + sizeof(h), payload);
  std::memcpy(record, &h, sizeof(h));
}

// One damaged call. `damage` decides what is hit; `record` is the exact allocation that the decoder may read.
void check_call(const Sample& s, const speckv_descriptor& d, const uint8_t* record, uint32_t record_bytes) {
  Bytes blocks(new uint8_t[s.block_bytes]);
  std::memset(blocks.get(), UNTOUCHED, s.block_bytes);
  speckv_completion done;
  expect(decode(s, d, record, record_bytes, blocks.get(), &done) == 0, "a bad descriptor failed the call");
  if (done.status == SPECKV_STATUS_OK) return;
  expect(done.status <= SPECKV_STATUS_BAD_FLAGS && done.record_bytes == 0, "a completion makes no sense");
  for (uint32_t i = 0; i < s.block_bytes; ++i)
    expect(blocks[i] == UNTOUCHED, "a refused record touched its destination");
}

void damage_record(Random& r, const Sample& s) {
  const uint32_t kept = r.below(4) ? s.record_bytes : r.below(s.record_bytes + 1);
  Bytes record(new uint8_t[kept]);
  std::memcpy(record.get(), s.record.get(), kept);
  for (uint32_t n = r.below(4); n && kept; --n) {
    const uint32_t at = r.below(2) || kept < 64 ? r.below(kept) : r.below(64);
    record[at] = r.below(2) ? uint8_t(record[at] ^ (1u << r.below(8))) : uint8_t(r.next());
  }
  if (kept >= SPECKV_LINE_BYTES && r.below(4)) mend_crc(record.get(), kept);
  speckv_descriptor d = s.d;
  d.record_capacity = r.below(4) ? kept / SPECKV_LINE_BYTES * SPECKV_LINE_BYTES : d.record_capacity;
  check_call(s, d, record.get(), kept);
}

void damage_descriptor(Random& r, const Sample& s) {
  speckv_descriptor d = s.d;
  uint8_t raw[sizeof(d)];
  std::memcpy(raw, &d, sizeof(d));
  for (uint32_t n = 1 + r.below(3); n; --n) raw[r.below(sizeof(raw))] = uint8_t(r.next());
  std::memcpy(&d, raw, sizeof(d));
  if (r.below(4) == 0) d.record_offset = r.next() & ~63ull;
  if (r.below(4) == 0) d.key_offset = 0 - 64ull * r.below(4096);
  if (r.below(4) == 0) d.value_offset = r.next() & ~63ull;
  check_call(s, d, s.record.get(), s.record_bytes);
}

}  // namespace

// data: 8 bytes of seed for the sample, then what overwrites its record, checksum mended.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 8) return 0;
  Random r = {0};
  std::memcpy(&r.state, data, 8);
  r.state %= 64;
  const Sample s = make_sample(r);
  Bytes record(new uint8_t[s.record_bytes]);
  std::memcpy(record.get(), s.record.get(), s.record_bytes);
  const size_t n = size - 8 < s.record_bytes ? size - 8 : s.record_bytes;
  for (size_t i = 0; i < n; ++i) record[i] = uint8_t(record[i] ^ data[8 + i]);
  mend_crc(record.get(), s.record_bytes);
  check_call(s, s.d, record.get(), s.record_bytes);
  return 0;
}

#ifndef SPECKV_LIBFUZZER
int main(int argc, char** argv) {
  const uint64_t iterations = argc > 1 ? std::strtoull(argv[1], nullptr, 0) : 20000;
  Random r = {argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 1};
  if (argc > 3) read_image(codebook, argv[3]);
  constexpr uint32_t PER_SAMPLE = 50;
  for (uint64_t i = 0; i < iterations; i += PER_SAMPLE) {
    const Sample s = make_sample(r);
    for (uint32_t n = 0; n < PER_SAMPLE; ++n) r.below(3) ? damage_record(r, s) : damage_descriptor(r, s);
    uint8_t input[8 + 256];
    for (uint8_t& b : input) b = r.below(4) ? 0 : uint8_t(r.next());
    LLVMFuzzerTestOneInput(input, sizeof(input));
  }
  std::printf("fuzz_decompress: %llu iterations, no fault\n", static_cast<unsigned long long>(iterations));
  return 0;
}
#endif
