// What crosses the C border: exceptions inside, status codes outside.
#pragma once

#include <cstdint>
#include <new>
#include <system_error>

#include "speckv_core.h"

namespace speckv {

struct CallError {
  speckv_core_status status;
  uint32_t index;
  uint64_t value, limit;
};

inline void require(bool holds, uint32_t index, uint64_t value, uint64_t limit) {
  if (!holds) throw CallError{SPECKV_CORE_BAD_ARGUMENT, index, value, limit};
}

template <class Body>
int32_t guarded(speckv_core_error* error, Body body) noexcept {
  try {
    body();
    return SPECKV_CORE_OK;
  } catch (const CallError& e) {
    if (error != nullptr) *error = speckv_core_error{e.index, 0, e.value, e.limit};
    return e.status;
  } catch (const std::bad_alloc&) {
    return SPECKV_CORE_NO_MEMORY;
  } catch (const std::system_error&) {
    return SPECKV_CORE_NO_MEMORY;  // no thread or lock to be had
  } catch (...) {
    return SPECKV_CORE_INTERNAL;
  }
}

}  // namespace speckv
