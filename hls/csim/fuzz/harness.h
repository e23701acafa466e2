// What the fuzz harnesses share.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "speckv_spec.h"

// splitmix64: small, seeded, the same everywhere.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = (state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  uint32_t below(uint32_t n) { return uint32_t(next() % n); }
  template <class T, size_t N>
  T pick(const T (&of)[N]) {
    return of[below(N)];
  }
};

// A file's bytes on a line, or nothing.
struct Image {
  std::unique_ptr<uint8_t, void (*)(void*)> bytes{nullptr, std::free};
  uint64_t size = 0;
};

static inline void read_image(Image& image, const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (!file || std::fseek(file, 0, SEEK_END)) std::abort();
  image.size = uint64_t(std::ftell(file));
  std::rewind(file);
  image.bytes.reset(static_cast<uint8_t*>(std::aligned_alloc(SPECKV_LINE_BYTES, image.size)));
  if (std::fread(image.bytes.get(), 1, image.size, file) != image.size) std::abort();
  std::fclose(file);
}

static inline void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}
