// Pack and unpack of blocks: which rows go where; convert.h says how an element changes.
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <atomic>
#include <cstring>
#include <type_traits>

#include "border.h"
#include "convert.h"
#include "speckv_core.h"
#include "speckv_spec.h"
#include "workers.h"

namespace speckv {
namespace {

// One block and one kind: the slot is dense (tokens, heads, head_dim), the tensor has strides in elements.
struct Grid {
  uint8_t* slot;
  uint8_t* tensor;
  int64_t head_stride, token_stride;
  uint32_t tokens, heads, head_dim;
};

using BlockFunction = uint64_t (*)(const Grid&);

template <class From, class To, bool kUnpack, class Row>
inline __attribute__((always_inline)) void each_row(const Grid& g, Row row) {
  using SlotWord = std::conditional_t<kUnpack, typename From::Word, typename To::Word>;
  using TensorWord = std::conditional_t<kUnpack, typename To::Word, typename From::Word>;
  auto* slot = reinterpret_cast<SlotWord*>(g.slot);
  auto* tensor = reinterpret_cast<TensorWord*>(g.tensor);
  // Heads outside: the tensor's tokens usually lie together, and the slot is small enough for the L1 or L2
  // cache.
  for (uint32_t h = 0; h < g.heads; ++h) {
    for (uint32_t t = 0; t < g.tokens; ++t) {
      SlotWord* in_slot = slot + (static_cast<size_t>(t) * g.heads + h) * g.head_dim;
      TensorWord* in_tensor = tensor + h * g.head_stride + t * g.token_stride;
      if constexpr (kUnpack) {
        row(in_slot, in_tensor);
      } else {
        row(in_tensor, in_slot);
      }
    }
  }
}

template <class From, class To, bool kUnpack>
uint64_t block_portable(const Grid& g) {
  uint64_t overflows = 0;
  each_row<From, To, kUnpack>(g, [&](const typename From::Word* from, typename To::Word* to) {
    if constexpr (std::is_same_v<From, To>) {
      std::memcpy(to, from, g.head_dim * sizeof(*to));
    } else {
      uint32_t in_row = 0;
      convert_row<From, To>(from, to, g.head_dim, in_row);
      overflows += in_row;
    }
  });
  return overflows;
}

#ifdef SPECKV_HAS_AVX2
template <class From, class To, bool kUnpack>
__attribute__((target("avx2,f16c"))) uint64_t block_avx2(const Grid& g) {
  using SlotWord = std::conditional_t<kUnpack, typename From::Word, typename To::Word>;
  using TensorWord = std::conditional_t<kUnpack, typename To::Word, typename From::Word>;
  __m256i overflows = _mm256_setzero_si256();
  // The loops of each_row again: a lambda does not inherit the target of the function around it.
  for (uint32_t h = 0; h < g.heads; ++h) {
    auto* slot = reinterpret_cast<SlotWord*>(g.slot) + static_cast<size_t>(h) * g.head_dim;
    auto* tensor = reinterpret_cast<TensorWord*>(g.tensor) + h * g.head_stride;
    for (uint32_t t = 0; t < g.tokens; ++t) {
      if constexpr (kUnpack) {
        convert_row_avx2<From, To>(slot, tensor, g.head_dim, overflows);
      } else {
        convert_row_avx2<From, To>(tensor, slot, g.head_dim, overflows);
      }
      slot += static_cast<size_t>(g.heads) * g.head_dim;
      tensor += g.token_stride;
    }
  }
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), overflows);
  uint64_t sum = 0;
  for (uint32_t lane : lanes) sum += 0u - lane;
  return sum;
}
#endif

template <class From, class To, bool kUnpack>
BlockFunction choose(bool wide) {
#ifdef SPECKV_HAS_AVX2
  if constexpr (!std::is_same_v<From, To>) {
    if (wide) return block_avx2<From, To, kUnpack>;
  }
#endif
  (void)wide;
  return block_portable<From, To, kUnpack>;
}

template <class From, bool kUnpack>
BlockFunction choose_to(uint32_t to, bool wide) {
  if (to == SPECKV_DTYPE_FP16) return choose<From, Fp16, kUnpack>(wide);
  if (to == SPECKV_DTYPE_BF16) return choose<From, Bf16, kUnpack>(wide);
  return choose<From, Fp32, kUnpack>(wide);
}

template <bool kUnpack>
BlockFunction choose_from(uint32_t from, uint32_t to, bool wide) {
  if (from == SPECKV_DTYPE_FP16) return choose_to<Fp16, kUnpack>(to, wide);
  if (from == SPECKV_DTYPE_BF16) return choose_to<Bf16, kUnpack>(to, wide);
  return choose_to<Fp32, kUnpack>(to, wide);
}

bool cpu_is_wide() {
#ifdef SPECKV_HAS_AVX2
  // clang 14's __builtin_cpu_supports does not know f16c.
  static const bool wide = [] {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
  }();
  return wide;
#else
  return false;
#endif
}

uint32_t element_bytes(uint32_t dtype) { return dtype == SPECKV_DTYPE_FP32 ? 4 : 2; }

void check_tensor(const speckv_pack& p, const speckv_tensor& t) {
  require(t.dtype <= SPECKV_DTYPE_FP32, 0, t.dtype, SPECKV_DTYPE_FP32);
  require(static_cast<uint64_t>(p.first_head) + p.heads <= t.sizes[1], 0, p.first_head + p.heads, t.sizes[1]);
  for (uint32_t i = 0; i < p.count; ++i) {
    require(p.rows[i] < t.sizes[0], i, p.rows[i], t.sizes[0]);
    const uint64_t end = static_cast<uint64_t>(p.first_tokens[i]) + p.tokens;
    require(end <= t.sizes[2], i, end, t.sizes[2]);
  }
}

void check(const speckv_pack& p) {
  require(p.dtype <= SPECKV_DTYPE_FP32, 0, p.dtype, SPECKV_DTYPE_FP32);
  require(p.head_dim > 0 && p.head_dim % 8 == 0 && p.head_dim <= 65536, 0, p.head_dim, 8);
  require(p.tokens > 0 && p.tokens <= 65536 && p.heads > 0 && p.heads <= 65536, 0, p.tokens, 65536);
  const uint64_t kind_bytes = static_cast<uint64_t>(p.tokens) * p.heads * p.head_dim * element_bytes(p.dtype);
  const uint64_t bytes = kind_bytes * ((p.key.data != nullptr) + (p.value.data != nullptr));
  require(bytes > 0, 0, 0, 1);
  for (uint32_t i = 0; i < p.count; ++i) {
    const uint64_t offset = p.slot_offsets[i];
    require(offset % SPECKV_LINE_BYTES == 0, i, offset, SPECKV_LINE_BYTES);
    require(offset <= p.slots_bytes && p.slots_bytes - offset >= bytes, i, offset, p.slots_bytes);
  }
  if (p.key.data != nullptr) check_tensor(p, p.key);
  if (p.value.data != nullptr) check_tensor(p, p.value);
}

struct Side {
  const speckv_tensor* tensor;
  BlockFunction function;
  uint64_t slot_bytes;  // from the block's slot to this kind in it
};

template <bool kUnpack>
uint64_t run(const speckv_pack& p, Workers* workers) {
  check(p);
  const bool wide = p.level == 0 && cpu_is_wide();
  const uint64_t kind_bytes = static_cast<uint64_t>(p.tokens) * p.heads * p.head_dim * element_bytes(p.dtype);
  Side sides[2];
  uint32_t kinds = 0;
  for (const speckv_tensor* t : {&p.key, &p.value}) {
    if (t->data == nullptr) continue;
    const BlockFunction function =
        kUnpack ? choose_from<true>(p.dtype, t->dtype, wide) : choose_from<false>(t->dtype, p.dtype, wide);
    sides[kinds] = Side{t, function, kinds * kind_bytes};
    ++kinds;
  }
  std::atomic<uint64_t> overflows{0};
  const auto body = [&](uint32_t first, uint32_t last) {
    uint64_t sum = 0;
    for (uint32_t i = first; i < last; ++i) {
      for (uint32_t k = 0; k < kinds; ++k) {
        const speckv_tensor& t = *sides[k].tensor;
        const int64_t element =
            p.rows[i] * t.strides[0] + p.first_head * t.strides[1] + p.first_tokens[i] * t.strides[2];
        uint8_t* slot = p.slots + p.slot_offsets[i] + sides[k].slot_bytes;
        uint8_t* tensor = static_cast<uint8_t*>(t.data) + element * element_bytes(t.dtype);
        sum +=
            sides[k].function(Grid{slot, tensor, t.strides[1], t.strides[2], p.tokens, p.heads, p.head_dim});
      }
    }
    overflows += sum;
  };
  // Waking a worker costs some 10 us: about what 128 KiB take.
  if (workers != nullptr && p.count * kind_bytes * kinds >= (128u << 10)) {
    workers->run(p.count, body);
  } else {
    body(0, p.count);
  }
  return overflows;
}

}  // namespace
}  // namespace speckv

struct speckv_workers {
  explicit speckv_workers(uint32_t threads) : workers(threads) {}
  speckv::Workers workers;
};

extern "C" {

int32_t speckv_workers_create(uint32_t threads, speckv_workers** workers) {
  return speckv::guarded(nullptr, [&] {
    speckv::require(threads >= 1 && threads <= 256, 0, threads, 256);
    *workers = new speckv_workers(threads);
  });
}

void speckv_workers_destroy(speckv_workers* workers) { delete workers; }

int32_t speckv_pack_blocks(const speckv_pack* pack, speckv_workers* workers, uint64_t* overflows,
                           speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    *overflows = speckv::run<false>(*pack, workers != nullptr ? &workers->workers : nullptr);
  });
}

int32_t speckv_unpack_blocks(const speckv_pack* pack, speckv_workers* workers, uint64_t* overflows,
                             speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    *overflows = speckv::run<true>(*pack, workers != nullptr ? &workers->workers : nullptr);
  });
}

const char* speckv_pack_level(void) { return speckv::cpu_is_wide() ? "avx2" : "generic"; }

}  // extern "C"
