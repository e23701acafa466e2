// Blocks to records and back, by the native kernels.
#include <cstring>

#include "speckv_csim.h"
#include "system.h"

namespace speckv {

speckv_descriptor System::describe(uint32_t position, uint16_t layer) const {
  speckv_descriptor d = {};
  d.value_offset = strides_.kind_bytes;
  d.first_position = position;
  d.layout_fingerprint = config_.layout_fingerprint;
  d.tokens = static_cast<uint16_t>(config_.block_tokens);
  d.heads = static_cast<uint16_t>(config_.kv_heads);
  d.head_dim = static_cast<uint16_t>(config_.head_dim);
  d.first_layer = layer;
  d.dtype = static_cast<uint8_t>(config_.dtype);
  d.kinds = SPECKV_KIND_BOTH;
  d.layer_count = 1;
  return d;
}

System::Source System::source_of(const Block& block) const {
  Source source;
  source.position = block.position;
  source.layer = block.layer;
  if (block.tier == kNone) {
    source.record = l3_.at(block.line);
    source.record_bytes = block.lines * SPECKV_LINE_BYTES;
  } else {
    source.copy = (block.tier == kL1 ? l1_ : l2_).at(block.slot);
  }
  return source;
}

Failure System::fill(uint8_t* to, const Source& source) const {
  if (source.copy != nullptr) {
    std::memcpy(to, source.copy, strides_.block_bytes);
    return Failure{};
  }
  if (source.record == nullptr) {
    std::memset(to, 0, strides_.block_bytes);
    return Failure{};
  }
  speckv_descriptor d = describe(source.position, source.layer);
  d.record_capacity = source.record_bytes;
  speckv_completion done = {};
  const int32_t status = speckv_csim_kv_decompress(
      source.record, source.record_bytes, to, strides_.block_bytes, nullptr, 0, &d, &done, 1, SPECKV_ABI_ID);
  if (status != SPECKV_STATUS_OK) return Failure{SPECKV_INTERNAL, static_cast<uint64_t>(status), 0};
  if (done.status == SPECKV_STATUS_OK) return Failure{};
  return Failure{SPECKV_BAD_RECORD, done.value, done.limit, done.status};
}

uint32_t System::encode(const uint8_t* from, const Block& block, uint8_t* to, Failure& failure) const {
  speckv_descriptor d = describe(block.position, block.layer);
  d.scheme = block.scheme;
  d.record_capacity = static_cast<uint32_t>(staging_.slot_bytes());
  speckv_completion done = {};
  const int32_t status = speckv_csim_kv_compress(from, strides_.block_bytes, to, staging_.slot_bytes(),
                                                 nullptr, 0, &d, &done, 1, SPECKV_ABI_ID);
  if (status != SPECKV_STATUS_OK || done.status != SPECKV_STATUS_OK) {
    failure = Failure{SPECKV_INTERNAL, done.value, done.limit, done.status};
  }
  return done.record_bytes;
}

}  // namespace speckv
