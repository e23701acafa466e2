// For benchmarks: what a hit costs, with nothing else around it.
#include <chrono>

#include "speckv.h"

int32_t speckv_measure_hits(speckv_system* system, uint32_t count, const struct speckv_address* addresses,
                            uint32_t rounds, double* seconds) {
  const auto start = std::chrono::steady_clock::now();
  for (uint32_t round = 0; round < rounds; ++round) {
    for (uint32_t i = 0; i < count; ++i) {
      speckv_view view;
      int32_t result = speckv_access(system, addresses[i].high, addresses[i].low, SPECKV_READ, &view);
      if (result == SPECKV_OK) result = speckv_release(system, &view);
      if (result != SPECKV_OK) return result;
    }
  }
  *seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return SPECKV_OK;
}
