/* C API of the tier core and of pack/unpack. Python (native/__init__.py) and C programs call it; it never
 * calls back.
 *
 * Ownership: a core keeps no memory of its callers but the L1, L2 and L3 bases, which must outlive it. Arrays
 * of a call are read or written during that call only. Thread safety: every function may be called from any
 * thread; calls on one core are serialised by a mutex inside it. No function waits for anything but that
 * mutex and its own workers. Every function that can fail returns a speckv_core_status and, where asked,
 * fills *error; a call that fails changes nothing. */
#ifndef SPECKV_CORE_H
#define SPECKV_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SPECKV_API __attribute__((visibility("default")))
#else
#define SPECKV_API
#endif

enum speckv_core_status {
  SPECKV_CORE_OK = 0,
  SPECKV_CORE_BAD_ARGUMENT = 1,
  SPECKV_CORE_STALE_HANDLE = 2, /* released, or never given out */
  SPECKV_CORE_POOL_FULL = 3,    /* the tier's byte budget does not hold what was asked for */
  SPECKV_CORE_NO_MEMORY = 4,    /* the host has no memory for the core's own tables */
  SPECKV_CORE_INTERNAL = 5,
  SPECKV_CORE_FENCED = 16,   /* the epoch is not, or no longer, the agent's: register again */
  SPECKV_CORE_NOT_HELD = 17, /* the agent has no lease on the block, or none that allows this */
};

struct speckv_core_error {
  uint32_t index; /* of the element of the call's arrays that failed */
  uint32_t pad;
  uint64_t value; /* the offending value: a handle, bytes asked for, ... */
  uint64_t limit; /* its bound: the budget in bytes, ... */
};

/* ---- Tier core: block table, line allocators, residency. ---- */

enum speckv_tier {
  SPECKV_TIER_L1 = 0,
  SPECKV_TIER_L2 = 1,
  SPECKV_TIER_L3 = 2
};
#define SPECKV_NO_OFFSET UINT64_MAX

struct speckv_core_config {
  uint8_t* base[3];  /* memory of L1, L2 (decoded slots) and L3 (records); aligned to frame_bytes where given
                        back */
  uint64_t bytes[3]; /* budgets; cut to whole frames */
  uint32_t give_back[3]; /* not 0: host memory whose empty frames go back to the system (MADV_DONTNEED) */
  uint32_t frame_bytes;  /* a power of two, at least SPECKV_FRAME_BYTES and a page of the host */
  uint32_t
      block_bytes; /* a decoded block, all parts: the slot of L1 and L2; a multiple of SPECKV_LINE_BYTES */
  uint32_t parts;  /* records of one block */
  uint32_t layers;
  uint32_t pad;
};

struct speckv_core_stats {
  uint64_t blocks, references;
  uint64_t record_bytes;    /* of all records, padding to lines included */
  uint64_t held_bytes[3];   /* frames that hold memory, per tier */
  uint64_t used_bytes[3];   /* slots or records in them */
  uint64_t slots[3];        /* blocks resident, per tier */
  uint64_t metadata_bytes;  /* everything the core itself has allocated */
  uint64_t hits[2], misses; /* look-ups of speckv_core_plan_get; hits of L1, L2 */
  uint64_t free_runs;       /* of L3 below its highest record: how broken up the pool is */
};

typedef struct speckv_core speckv_core;

SPECKV_API int32_t speckv_core_create(const struct speckv_core_config* config, speckv_core** core);
SPECKV_API void speckv_core_destroy(speckv_core* core);

/* Takes lines for count blocks of one layer and copies their records there. record_offsets and record_bytes:
 * (count, parts); offsets are bytes from staging, bytes are whole lines. handles: (count), each with one
 * reference. range: the first byte of L3 that was written, and one past the last. */
SPECKV_API int32_t speckv_core_put(speckv_core* core, uint32_t count, uint32_t layer,
                                   const uint32_t* positions, const uint8_t* staging,
                                   const uint64_t* record_offsets, const uint32_t* record_bytes,
                                   uint64_t* handles, uint64_t range[2], struct speckv_core_error* error);

/* Looks count handles up and counts hits (unless plan->uncounted). For each: tiers (highest tier that holds
 * it), offsets (its slot; SPECKV_NO_OFFSET for L3) and sources (for L3: its place among the misses). Misses
 * stand once each, in order of first use: miss_handles, first_position, layer (*misses); record_offset,
 * record_bytes (*misses, parts). Arrays need room for count misses. */
struct speckv_core_plan {
  uint8_t* tiers;
  uint64_t* offsets;
  uint32_t* sources;
  uint64_t* miss_handles;
  uint32_t* miss_positions;
  uint32_t* miss_layers;
  uint64_t* record_offsets;
  uint32_t* record_bytes;
  uint32_t misses;
  uint32_t hits[2];
  uint32_t uncounted; /* in: not 0: leave the counters of speckv_core_stats alone */
};
SPECKV_API int32_t speckv_core_plan_get(speckv_core* core, uint32_t count, const uint64_t* handles,
                                        struct speckv_core_plan* plan, struct speckv_core_error* error);

SPECKV_API int32_t speckv_core_retain(speckv_core* core, uint32_t count, const uint64_t* handles,
                                      struct speckv_core_error* error);
/* A block whose last reference goes leaves all tiers. */
SPECKV_API int32_t speckv_core_release(speckv_core* core, uint32_t count, const uint64_t* handles,
                                       struct speckv_core_error* error);

/* Takes a slot of tier L1 or L2 for each handle, which must not have one there, after evicting the
 * `evictions` slots that were admitted or touched longest ago. The caller decodes into the slot, or evicts it
 * again. offsets: (count). */
SPECKV_API int32_t speckv_core_admit(speckv_core* core, uint32_t tier, uint32_t evictions, uint32_t count,
                                     const uint64_t* handles, uint64_t* offsets,
                                     struct speckv_core_error* error);
SPECKV_API int32_t speckv_core_evict(speckv_core* core, uint32_t tier, uint32_t count,
                                     const uint64_t* handles, struct speckv_core_error* error);
/* Two-phase admission, for blocks that are decoded while others call. reserve takes `count` slots that are no
 * block's yet, after evictions as above; no call but install changes them, so a device may write there
 * whatever becomes of the blocks. offsets: (count).
 * install ends that: a slot at offsets[i] becomes handles[i]'s, the newest of the tier, or goes back where
 * the handle is stale (0 always is) or has a slot there already. installed: how many became a block's. */
SPECKV_API int32_t speckv_core_reserve(speckv_core* core, uint32_t tier, uint32_t evictions, uint32_t count,
                                       uint64_t* offsets, struct speckv_core_error* error);
SPECKV_API int32_t speckv_core_install(speckv_core* core, uint32_t tier, uint32_t count,
                                       const uint64_t* handles, const uint64_t* offsets, uint32_t* installed,
                                       struct speckv_core_error* error);
/* Makes the handles, in this order, the newest of L1; those not in L1 are passed over. */
SPECKV_API int32_t speckv_core_touch(speckv_core* core, uint32_t count, const uint64_t* handles,
                                     struct speckv_core_error* error);
/* Heat of a block: log2 of the sum of 2^when over its uses; kept while it has references, in whatever tier.
 * It orders blocks by their number of uses decayed exponentially, and so does not depend on what time it is.
 * warm: one use more for each block of the call, however often it stands there; when is finite. heats:
 * (count), the new ones. */
SPECKV_API int32_t speckv_core_warm(speckv_core* core, uint32_t count, const uint64_t* handles, double when,
                                    double* heats, struct speckv_core_error* error);
/* heats: (count); NaN where a block has no slot of tier L1 or L2, or is stale; -infinity: never warmed. */
SPECKV_API int32_t speckv_core_heats(speckv_core* core, uint32_t tier, uint32_t count,
                                     const uint64_t* handles, double* heats, struct speckv_core_error* error);
/* Handles in a tier's slots, oldest first; writes at most room of them, returns how many there are. */
SPECKV_API uint64_t speckv_core_resident(speckv_core* core, uint32_t tier, uint64_t room, uint64_t* handles);
/* Slots that a tier can still take, reserved ones not among them / has in all. */
SPECKV_API uint64_t speckv_core_free_slots(speckv_core* core, uint32_t tier);
SPECKV_API uint64_t speckv_core_total_slots(speckv_core* core, uint32_t tier);

SPECKV_API void speckv_core_get_stats(speckv_core* core, struct speckv_core_stats* stats);
/* record_bytes: (layers) */
SPECKV_API void speckv_core_layer_bytes(speckv_core* core, uint64_t* record_bytes);
/* A block's references (0: stale), and its records: offsets, bytes (parts). */
SPECKV_API uint32_t speckv_core_block(speckv_core* core, uint64_t handle, uint64_t* record_offsets,
                                      uint32_t* record_bytes);

/* ---- Pack and unpack: strided (batch, heads, tokens, head_dim) tensors <-> block slots (tokens, heads,
 * head_dim). ---- Numbers: fp16 <- fp32 and bf16 <- fp32 round to nearest even; a finite value that does not
 * fit becomes infinity and is counted. fp16 <-> bf16 go through fp32. NaNs stay NaNs: sign and the payload's
 * top bits are kept; a conversion from or to fp16 and one to bf16 sets the quiet bit; bf16 -> fp32 and equal
 * types keep all bits. Every dispatch level gives the same bits. */

struct speckv_tensor {
  void* data;         /* NULL: this kind is absent */
  int64_t strides[3]; /* batch, head, token; in elements; head_dim is contiguous */
  uint32_t sizes[3];  /* batch, heads, tokens */
  uint32_t dtype;     /* speckv_dtype */
};

struct speckv_pack {
  struct speckv_tensor key, value;
  uint8_t* slots; /* base of the block slots */
  uint64_t slots_bytes;
  const uint64_t* slot_offsets; /* (count) bytes from the base: K of a block, then its V */
  const uint32_t* rows;         /* (count) batch row */
  const uint32_t* first_tokens; /* (count) first token of the block in the tensor */
  uint32_t count;
  uint32_t tokens, heads, head_dim;
  uint32_t first_head; /* of the tensor */
  uint32_t dtype;      /* of the slots */
  uint32_t level;      /* 0: best for this CPU; 1: portable */
  uint32_t pad;
};

typedef struct speckv_workers speckv_workers;
/* threads: in all, the calling one included. A call that finds the workers busy runs alone. */
SPECKV_API int32_t speckv_workers_create(uint32_t threads, speckv_workers** workers);
SPECKV_API void speckv_workers_destroy(speckv_workers* workers);

/* workers may be NULL. Everything is checked before anything is written. overflows: values that became
 * infinite. */
SPECKV_API int32_t speckv_pack_blocks(const struct speckv_pack* pack, speckv_workers* workers,
                                      uint64_t* overflows, struct speckv_core_error* error);
SPECKV_API int32_t speckv_unpack_blocks(const struct speckv_pack* pack, speckv_workers* workers,
                                        uint64_t* overflows, struct speckv_core_error* error);
/* "avx2" or "generic": what level 0 means here. */
SPECKV_API const char* speckv_pack_level(void);

/* ---- What is kept of keys for sparse attention: per row, KV head and block, bounds of each channel, and a
 * bit a key and channel: set where the key lies in the upper half of its bounds. ---- */

struct speckv_keys {
  const float* bounds;   /* (rows, kv_heads, room, 2, head_dim): upper, lower */
  const uint8_t* halves; /* (rows, kv_heads, room, block_tokens, ceil(head_dim / 8)), first channel highest */
  const float* open;     /* (rows, kv_heads, block_tokens, head_dim): the keys of the unfinished block */
  uint64_t room;         /* blocks that there is memory for */
  uint64_t tokens;
  uint32_t rows, kv_heads, head_dim, block_tokens; /* head_dim at most 1024 */
};

/* queries: (rows, q_heads, head_dim), scaled. shares: (rows, ceil(tokens / block_tokens)): the softmax over
 * all keys, each the middle of its half, summed over the block, mean over query heads. */
SPECKV_API int32_t speckv_key_promise(const struct speckv_keys* keys, const float* queries, uint32_t q_heads,
                                      float* shares, struct speckv_core_error* error);

#ifdef __cplusplus
}
#endif
#endif
