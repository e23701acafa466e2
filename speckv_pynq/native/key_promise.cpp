// What blocks of keys promise a query, from their bounds and a bit a key and channel: see speckv_key_promise.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <vector>

#include "border.h"
#include "speckv/config.hpp"
#include "speckv_core.h"

namespace speckv {
namespace {

constexpr uint32_t kLanes = 8;      // channels of a byte of bits
constexpr float kNothing = -20.0f;  // exp of less is nothing beside 1
constexpr uint32_t kMostChannels = 1024;

// Eight sums side by side: the compiler may not reorder those of one.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

// The eight factors 0 or 1 of each byte, the first channel in its highest bit.
struct BitTable {
  Lanes ones[256];
  BitTable() {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      for (uint32_t i = 0; i < kLanes; ++i) ones[byte][i] = static_cast<float>((byte >> (7 - i)) & 1);
    }
  }
};

inline __attribute__((always_inline)) float sum_of(const Lanes& lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

// By reference: vectors in registers would change the calling convention with the instruction set.
inline __attribute__((always_inline)) void load(Lanes& lanes, const float* values, uint32_t count) {
  if (count >= kLanes) {
    std::memcpy(&lanes, values, sizeof lanes);
    return;
  }
  lanes = Lanes{};
  std::memcpy(&lanes, values, count * sizeof(float));
}

// Products of one query with the keys of a block: the sum over channels of low + step * bit.
SPECKV_CLONES void block_products(const float* query, const float* upper, const float* lower,
                                  const uint8_t* halves, uint32_t head_dim, uint32_t tokens,
                                  const BitTable& table, float* products) {
  Lanes steps[kMostChannels / kLanes];
  Lanes low = {};
  const uint32_t bytes = (head_dim + kLanes - 1) / kLanes;
  for (uint32_t b = 0; b < bytes; ++b) {
    const uint32_t d = b * kLanes, left = head_dim - d;
    Lanes factors, most, least;
    load(factors, query + d, left);
    load(most, upper + d, left);
    load(least, lower + d, left);
    const Lanes step = 0.5f * (most - least);
    low += factors * (least + 0.5f * step);
    steps[b] = factors * step;
  }
  const float base = sum_of(low);
  for (uint32_t t = 0; t < tokens; ++t) {
    Lanes sums = {};
    for (uint32_t b = 0; b < bytes; ++b) sums += table.ones[halves[t * bytes + b]] * steps[b];
    products[t] = base + sum_of(sums);
  }
}

void plain_products(const float* query, const float* keys, uint32_t head_dim, uint32_t tokens,
                    float* products) {
  for (uint32_t t = 0; t < tokens; ++t) {
    float sum = 0;
    for (uint32_t d = 0; d < head_dim; ++d) sum += query[d] * keys[t * head_dim + d];
    products[t] = sum;
  }
}

// Adds the softmax of `products`, summed over each block and times `part`, to `shares`.
void add_shares(std::vector<float>& products, uint32_t block_tokens, float part, float* shares) {
  const float most = *std::max_element(products.begin(), products.end());
  float total = 0;
  for (float& product : products) {
    const float below = product - most;
    product = below < kNothing ? 0.0f : std::exp(below);
    total += product;
  }
  const float factor = part / total;
  for (size_t t = 0; t < products.size(); t += block_tokens) {
    const size_t end = std::min(products.size(), t + block_tokens);
    float sum = 0;
    for (size_t i = t; i < end; ++i) sum += products[i];
    *shares++ += factor * sum;
  }
}

void promise(const speckv_keys& keys, const float* queries, uint32_t q_heads, float* shares) {
  static const BitTable table;
  const uint32_t dim = keys.head_dim, size = keys.block_tokens, group = q_heads / keys.kv_heads;
  const size_t coded = keys.tokens / size, left = keys.tokens % size, blocks = coded + (left != 0);
  const size_t block_bits = static_cast<size_t>(size) * ((dim + kLanes - 1) / kLanes);
  std::vector<float> products(keys.tokens);
  std::fill_n(shares, keys.rows * blocks, 0.0f);
  for (size_t head = 0; head < static_cast<size_t>(keys.rows) * keys.kv_heads; ++head) {
    const float* bounds = keys.bounds + head * keys.room * 2 * dim;
    const uint8_t* halves = keys.halves + head * keys.room * block_bits;
    for (uint32_t g = 0; g < group; ++g) {
      const float* query = queries + (head * group + g) * dim;
      for (size_t b = 0; b < coded; ++b) {
        const float* upper = bounds + b * 2 * dim;
        block_products(query, upper, upper + dim, halves + b * block_bits, dim, size, table,
                       products.data() + b * size);
      }
      plain_products(query, keys.open + head * size * dim, dim, static_cast<uint32_t>(left),
                     products.data() + coded * size);
      add_shares(products, size, 1.0f / static_cast<float>(q_heads), shares + head / keys.kv_heads * blocks);
    }
  }
}

}  // namespace
}  // namespace speckv

extern "C" int32_t speckv_key_promise(const speckv_keys* keys, const float* queries, uint32_t q_heads,
                                      float* shares, speckv_core_error* error) {
  return speckv::guarded(error, [&] {
    const speckv_keys& k = *keys;
    speckv::require(k.head_dim >= 1 && k.head_dim <= speckv::kMostChannels, 0, k.head_dim,
                    speckv::kMostChannels);
    speckv::require(k.block_tokens >= 1 && k.kv_heads >= 1 && k.tokens >= 1, 0, 0, 1);
    speckv::require(q_heads >= 1 && q_heads % k.kv_heads == 0, 0, q_heads, k.kv_heads);
    const uint64_t blocks = (k.tokens + k.block_tokens - 1) / k.block_tokens;
    speckv::require(blocks <= k.room, 0, blocks, k.room);
    speckv::promise(k, queries, q_heads, shares);
  });
}
