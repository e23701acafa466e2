// What hardware does not know and the host does: where buffers end.
#pragma once
#include "speckv/config.hpp"

// [offset, offset + bytes) inside [0, size): no sum that could wrap.
static inline speckv::Verdict check_span(uint64_t offset, uint64_t bytes, uint64_t size) {
  if (bytes <= size && offset <= size - bytes) return speckv::fine();
  return speckv::wrong(SPECKV_STATUS_OUT_OF_RANGE, offset, bytes <= size ? size - bytes : 0);
}
