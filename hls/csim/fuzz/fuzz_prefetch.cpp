// Damages predictor images, states and descriptors and hands them to kv_prefetch. Every buffer is exactly as
// large as the call is told, so that a sanitizer sees the first byte too far. Checks beside: whatever is not
// ok leaves state and candidates as they were.
//   fuzz_prefetch iterations seed image, or LLVMFuzzerTestOneInput under libFuzzer (-DSPECKV_LIBFUZZER) with
//   the image's path in SPECKV_FUZZ_IMAGE. Without an image there is nothing to do.
#include <cstring>

#include "harness.h"
#include "speckv_csim.h"

namespace {

constexpr uint8_t UNTOUCHED = 0x5A;
constexpr uint32_t CAPACITY = 16, SLOTS = 2;
constexpr uint64_t CANDIDATES_BYTES = SLOTS * SPECKV_PREDICTOR_TOP * sizeof(speckv_candidate);

Image good;

using Lines = std::unique_ptr<uint8_t, void (*)(void*)>;

Lines lines(uint64_t bytes) {
  return Lines(static_cast<uint8_t*>(std::aligned_alloc(SPECKV_LINE_BYTES, bytes)), std::free);
}

speckv_predictor_header header() {
  speckv_predictor_header h;
  std::memcpy(&h, good.bytes.get(), sizeof(h));
  return h;
}

uint64_t state_bytes() {
  const uint64_t newest = (4ull * header().vocabulary + SPECKV_LINE_BYTES - 1) / SPECKV_LINE_BYTES;
  const uint64_t memory = 2 * (2 * SPECKV_PREDICTOR_HIDDEN + SPECKV_PREDICTOR_RANK);
  return SPECKV_LINE_BYTES * (1 + memory / SPECKV_LINE_BYTES + newest) + 8 * CAPACITY;
}

speckv_prediction describe(uint32_t token) {
  speckv_prediction d = {};
  d.fingerprint = header().fingerprint;
  d.token = token;
  d.capacity = CAPACITY;
  d.top = SPECKV_PREDICTOR_TOP;
  return d;
}

uint16_t call(const uint8_t* image, uint64_t image_bytes, uint8_t* states, uint64_t states_bytes,
              uint8_t* candidates, const speckv_prediction& d) {
  speckv_completion done = {};
  const int32_t rc = speckv_csim_kv_prefetch(image, image_bytes, states, states_bytes, candidates,
                                             CANDIDATES_BYTES, &d, &done, 1, SPECKV_ABI_ID);
  expect(rc == 0, "a bad descriptor failed the call");
  expect(done.status <= SPECKV_STATUS_BAD_STATE, "a completion makes no sense");
  return done.status;
}

// Some bytes anywhere, more often in the first line.
void damage(Random& r, uint8_t* data, uint64_t bytes, uint32_t most) {
  for (uint32_t n = r.below(most + 1); n && bytes; --n) {
    const uint64_t at =
        r.below(3) && bytes > SPECKV_LINE_BYTES ? r.next() % bytes : r.below(SPECKV_LINE_BYTES) % bytes;
    data[at] = r.below(2) ? uint8_t(data[at] ^ (1u << r.below(8))) : uint8_t(r.next());
  }
}

void damage_words(Random& r, uint8_t* data, uint64_t bytes) {
  constexpr uint32_t words[] = {0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
  for (uint32_t n = r.below(40); n; --n) {
    const uint32_t word = r.below(2) ? r.pick(words) : uint32_t(r.next());
    std::memcpy(data + r.next() % (bytes / 4) * 4, &word, 4);
  }
}

void run(Random& r) {
  const uint64_t kept =
      r.below(8) ? good.size : r.next() % (good.size / SPECKV_LINE_BYTES + 1) * SPECKV_LINE_BYTES;
  const uint64_t bytes = state_bytes();
  Lines image = lines(kept), states = lines(bytes), before = lines(bytes);
  std::memcpy(image.get(), good.bytes.get(), kept);
  std::memset(states.get(), 0, bytes);
  uint8_t candidates[CANDIDATES_BYTES];
  for (uint32_t i = r.below(12); i && kept == good.size; --i)
    call(image.get(), kept, states.get(), bytes, candidates, describe(r.below(4)));
  const uint32_t what = r.below(8);
  if (what & 1) damage(r, image.get(), kept, 4);
  if (what == 2 && kept) damage_words(r, image.get(), kept);
  if (what == 4) damage(r, states.get(), bytes, 8);
  if (what == 6) damage_words(r, states.get() + SPECKV_LINE_BYTES, bytes - SPECKV_LINE_BYTES);
  for (uint32_t i = 0; i < 3; ++i) {
    speckv_prediction d = describe(r.below(4));
    if (r.below(4) == 0) damage(r, reinterpret_cast<uint8_t*>(&d), sizeof(d), 3);
    if (r.below(8) == 0) d.state_offset = r.next() & ~63ull;
    if (kept >= sizeof(d) && r.below(2)) std::memcpy(&d.fingerprint, image.get() + 8, 8);
    std::memcpy(before.get(), states.get(), bytes);
    std::memset(candidates, UNTOUCHED, sizeof(candidates));
    if (call(image.get(), kept, states.get(), bytes, candidates, d) == SPECKV_STATUS_OK) continue;
    expect(std::memcmp(before.get(), states.get(), bytes) == 0, "a refused step touched its state");
    for (const uint8_t c : candidates) expect(c == UNTOUCHED, "a refused step touched its candidates");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (!good.size && std::getenv("SPECKV_FUZZ_IMAGE")) read_image(good, std::getenv("SPECKV_FUZZ_IMAGE"));
  if (size < 8 || !good.size) return 0;
  Random r = {0};
  std::memcpy(&r.state, data, 8);
  run(r);
  return 0;
}

#ifndef SPECKV_LIBFUZZER
int main(int argc, char** argv) {
  if (argc < 4) return 0;
  const uint64_t iterations = std::strtoull(argv[1], nullptr, 0);
  Random r = {std::strtoull(argv[2], nullptr, 0)};
  read_image(good, argv[3]);
  for (uint64_t i = 0; i < iterations; ++i) run(r);
  std::printf("fuzz_prefetch: %llu iterations, no fault\n", static_cast<unsigned long long>(iterations));
  return 0;
}
#endif
