/* Writes one layer of a short sequence, forks it, and reads it back through the three tiers.
 * cc hello.c $(pkg-config --cflags --libs speckv) -o hello */
#include <speckv.h>
#include <stdio.h>
#include <string.h>

enum {
  HEADS = 2,
  HEAD_DIM = 64,
  TOKENS = 128,
  LAYER = 3
};

static int check(int32_t result, const char* what) {
  struct speckv_error error;
  if (result == SPECKV_OK) return 0;
  speckv_last_error(&error);
  fprintf(stderr, "%s: %s (%llu, limit %llu)\n", what, speckv_strerror(result),
          (unsigned long long)error.value, (unsigned long long)error.limit);
  return 1;
}

/* Puts the bits of 1.0 (fp16) times a sign, or compares them, in every entry of a position. */
static int each_entry(speckv_system* cache, uint32_t request, uint32_t pos, uint32_t mode) {
  uint16_t entry[HEAD_DIM];
  uint32_t head, kind, i;
  for (i = 0; i < HEAD_DIM; ++i) entry[i] = (uint16_t)(0x3C00u | (pos & 1u) << 15);
  for (head = 0; head < HEADS; ++head) {
    for (kind = 0; kind < 2; ++kind) {
      const struct speckv_address a = speckv_pack_address(request, LAYER, head, pos, kind);
      struct speckv_view view;
      int same = 1;
      if (check(speckv_access(cache, a.high, a.low, mode, &view), "access")) return 1;
      if (mode == SPECKV_WRITE) {
        memcpy(view.data, entry, sizeof entry);
      } else {
        same = memcmp(view.data, entry, sizeof entry) == 0;
      }
      if (check(speckv_release(cache, &view), "release")) return 1;
      if (!same) return fprintf(stderr, "position %u came back changed\n", pos), 1;
    }
  }
  return 0;
}

int main(void) {
  struct speckv_config config;
  struct speckv_counters counters;
  speckv_system* cache;
  uint32_t pos;
  speckv_config_init(&config);
  config.layers = 4;
  config.kv_heads = HEADS;
  config.head_dim = HEAD_DIM;
  config.scheme = SPECKV_SCHEME_LOSSLESS;
  config.l1_bytes = 2 * 2 * 32 * HEADS * HEAD_DIM * 2; /* two blocks: the others go to L3 */
  config.l2_bytes = 0;
  config.l3_bytes = 1 << 20;
  if (check(speckv_init(&config, &cache), "init")) return 1;
  if (check(speckv_alloc(cache, 1, TOKENS), "alloc")) return 1;
  for (pos = 0; pos < TOKENS; ++pos) {
    if (each_entry(cache, 1, pos, SPECKV_WRITE)) return 1;
  }
  if (check(speckv_fork(cache, 1, 2), "fork") || check(speckv_free(cache, 1), "free")) return 1;
  for (pos = 0; pos < TOKENS; ++pos) {
    if (each_entry(cache, 2, pos, SPECKV_READ)) return 1;
  }
  if (check(speckv_stats(cache, &counters), "stats")) return 1;
  printf("%llu blocks, %llu B in L1, %llu B in L3, %llu written back\n", (unsigned long long)counters.blocks,
         (unsigned long long)counters.held_bytes[0], (unsigned long long)counters.used_bytes[2],
         (unsigned long long)counters.write_backs);
  speckv_shutdown(cache);
  return 0;
}
