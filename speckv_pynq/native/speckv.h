/* SpecKV for C programs: a KV cache of three tiers in one process. L1 holds decoded blocks, L2 decoded blocks
 * that were fetched ahead, L3 compressed records. Link with -lspeckv (pkg-config speckv).
 *
 * Blocks: `block_tokens` consecutive positions of one request and one layer, both kinds, all KV heads. A
 * block is made by the first write to it, as zeros; what was never written reads as SPECKV_NOT_WRITTEN. It
 * lies in L1 until its slot is needed: then it is coded into a record and leaves. Loss does not add up: a
 * block is coded again only after somebody took a write view of it, never because it moved or was forked.
 *
 * Views: speckv_access gives a pointer into L1 and pins its block with a lease: until speckv_release, or
 * until lease_timeout_ms have passed and somebody needs the block or its slot. One writer or many readers
 * hold a block. The pointer must not be used after either; a writer that may outlast its lease sets the
 * timeout to 0.
 *
 * Threads: every function may be called from any thread, but speckv_shutdown, which must be the last one.
 * Blocking: calls wait for a mutex that is held for microseconds; where a function's comment says that it
 * waits for leases, it does so for at most wait_timeout_ms. None waits for anything else but its own coding.
 * Errors: an enum speckv_result; speckv_last_error tells more. A call that fails has changed nothing that a
 * caller can see, but which blocks lie decoded in L1. Structures are the caller's and are not kept.
 * Budgets are exact: a tier never holds more than its bytes; the tables beside them are in metadata_bytes. */
#ifndef SPECKV_H
#define SPECKV_H

#include <stddef.h>
#include <stdint.h>

#include "speckv_spec.h" /* SPECKV_DTYPE_*, SPECKV_SCHEME_*, struct speckv_address, speckv_pack_address */

#ifdef __cplusplus
extern "C" {
#endif

#ifndef SPECKV_API
#if defined(__GNUC__)
#define SPECKV_API __attribute__((visibility("default")))
#else
#define SPECKV_API
#endif
#endif

enum speckv_result {
  SPECKV_OK = 0,
  SPECKV_BAD_ARGUMENT = 1,  /* value against limit */
  SPECKV_NOT_ALLOCATED = 2, /* value: the position or request; limit: tokens of the request's region */
  SPECKV_NOT_WRITTEN = 3,   /* a read of a block that nobody wrote; value: its position */
  SPECKV_POOL_FULL = 4,     /* value: bytes wanted; limit: the tier's budget */
  SPECKV_NO_MEMORY = 5,     /* the host has no memory or thread for the library's own tables */
  SPECKV_BUSY = 6,          /* leases of others stood in the way for wait_timeout_ms (the value) */
  SPECKV_BAD_RECORD = 7,  /* a record is damaged: kernel_status, value, limit; overwrite or free the block */
  SPECKV_STALE_VIEW = 8,  /* released before, or its lease ended and the block was needed */
  SPECKV_UNSUPPORTED = 9, /* value: what is not there, such as scheme klt, which needs a codebook */
  SPECKV_INTERNAL = 10
};

enum speckv_mode {
  SPECKV_READ = 0,
  SPECKV_WRITE = 1,
  /* A write that does not fetch the old content: whoever asks writes the whole block. What it leaves out is
   * undefined: old or zero. Also the way to make a block with a damaged record good again. */
  SPECKV_OVERWRITE = 2
};

enum speckv_policy {
  SPECKV_POLICY_LRU = 0,
  /* For scans of all blocks in order, where LRU never hits: the newest leave first, the others stay. */
  SPECKV_POLICY_DENSE = 1
};

typedef struct speckv_system speckv_system;

struct speckv_config {
  uint32_t struct_size; /* sizeof(struct speckv_config): set by speckv_config_init */
  uint32_t layers, kv_heads, head_dim;
  uint32_t block_tokens; /* 16, 32 or 64 */
  uint32_t dtype;        /* enum speckv_dtype */
  uint32_t scheme;       /* enum speckv_scheme; not klt */
  uint32_t policy;       /* enum speckv_policy */
  uint64_t l1_bytes, l2_bytes, l3_bytes;
  uint32_t prefetch_depth;     /* blocks; 0: none */
  uint32_t threads;            /* that fetch ahead; 0: none, speckv_prefetch does nothing */
  uint32_t lease_timeout_ms;   /* 0: a view holds until it is released */
  uint32_t wait_timeout_ms;    /* how long a call waits for leases of others; 0: not at all */
  uint64_t layout_fingerprint; /* of model, layout and RoPE; stands in every record */
};

struct speckv_view {
  void* data;  /* the entry: head_dim elements */
  void* block; /* its block: K, then V, each (block_tokens, kv_heads, head_dim), C order; see speckv_layout */
  uint64_t id; /* of the lease; 0 once released */
  uint64_t deadline_ns;    /* when the lease ends, CLOCK_MONOTONIC; UINT64_MAX: never */
  uint32_t first_position; /* of the block */
  uint32_t mode;
};

/* How a block lies in memory, and where blocks do. */
struct speckv_strides {
  uint64_t entry_bytes; /* head_dim elements: also from one head to the next */
  uint64_t token_bytes; /* from one position to the next */
  uint64_t kind_bytes;  /* from K to V */
  uint64_t block_bytes;
  void* l1; /* where the slots of L1 begin, one block each: to register the memory with a device */
  uint64_t l1_slots;
  void* l3; /* where records lie: the library's own, for the same purpose */
  uint64_t l3_bytes;
};

struct speckv_counters {
  uint64_t requests, blocks, dirty_blocks, leases;
  uint64_t budget_bytes[3], held_bytes[3], used_bytes[3]; /* L1, L2, L3; held: whole frames */
  uint64_t metadata_bytes;                                /* tables of the library */
  uint64_t staging_bytes; /* buffers that blocks are coded into on their way to L3 */
  uint64_t hits_l1, hits_l2, misses, created, copied; /* accesses granted, by where the block came from */
  uint64_t evictions, write_backs, bad_records, expired_leases;
  uint64_t prefetched, prefetch_dropped; /* blocks brought into L2; requests not served */
};

struct speckv_error {
  int32_t result;
  uint32_t kernel_status; /* enum speckv_status where result is BAD_RECORD */
  uint64_t value, limit;
  const char* what; /* the argument or setting that is wrong, where one is; else "". Static. */
};

/* Fills in every field: fp16, int4, 32 tokens a block, 12, 3 and 128 GiB, depth 4, one thread, leases of 10
 * s, waits of 1 s. The caller sets layers, kv_heads and head_dim. */
SPECKV_API void speckv_config_init(struct speckv_config* config);
/* Reserves address space for the tiers; memory follows as blocks come. BAD_ARGUMENT, UNSUPPORTED, NO_MEMORY.
 */
SPECKV_API int32_t speckv_init(const struct speckv_config* config, speckv_system** system);
/* Ends the threads and frees everything, views included, written back or not. NULL: nothing. */
SPECKV_API void speckv_shutdown(speckv_system* system);

/* Lets a request use positions 0..tokens-1, rounded up to whole blocks; a call with more makes the region
 * larger, one with fewer changes nothing. Takes no memory of the tiers. */
SPECKV_API int32_t speckv_alloc(speckv_system* system, uint32_t req_id, uint32_t tokens);
/* Ends a request. Blocks that no other request shares leave all tiers; one with a view does when that ends.
 */
SPECKV_API int32_t speckv_free(speckv_system* system, uint32_t req_id);
/* Makes `to`, which must be new, a copy of `from`. Blocks are shared, and copied when either writes to one.
 * Waits for write views of `from`. */
SPECKV_API int32_t speckv_fork(speckv_system* system, uint32_t from, uint32_t to);

/* Brings the entry's block into L1 and gives a view of it. Waits for views that exclude this one, and for a
 * slot of L1 while all of them are held by views. The caller of a write view sees the block's old content. */
SPECKV_API int32_t speckv_access(speckv_system* system, uint64_t address_high, uint64_t address_low,
                                 uint32_t mode, struct speckv_view* view);
/* Moves a read view (or one with id 0) to another entry, if the entry's block is ready in L1: the cheapest
 * way to walk. Else BUSY, and the view is as it was: release it and use speckv_access. Never waits. */
SPECKV_API int32_t speckv_seek(speckv_system* system, uint64_t address_high, uint64_t address_low,
                               struct speckv_view* view);
/* One after the other; results: (count). Views of those that failed have id 0. Returns the first failure. */
SPECKV_API int32_t speckv_access_batch(speckv_system* system, uint32_t count,
                                       const struct speckv_address* addresses, uint32_t mode,
                                       struct speckv_view* views, int32_t* results);
/* Ends a view and sets its id to 0. STALE_VIEW tells a writer that its lease had ended: what it wrote since
 * may be lost. */
SPECKV_API int32_t speckv_release(speckv_system* system, struct speckv_view* view);

/* Asks for `depth` blocks from the one of cur_pos on (0: the depth of the configuration) to be decoded into
 * L2. Returns at once; what is not there, or does not fit, is left out. */
SPECKV_API int32_t speckv_prefetch(speckv_system* system, uint32_t req_id, uint32_t layer, uint32_t cur_pos,
                                   uint32_t depth);
SPECKV_API int32_t speckv_set_prefetch_depth(speckv_system* system, uint32_t depth);
/* For blocks that are made from now on, copies of shared ones included. */
SPECKV_API int32_t speckv_set_compression_scheme(speckv_system* system, uint32_t scheme);

SPECKV_API int32_t speckv_stats(speckv_system* system, struct speckv_counters* counters);
SPECKV_API int32_t speckv_layout(speckv_system* system, struct speckv_strides* strides);
/* What a result means, in English. Never NULL; static. */
SPECKV_API const char* speckv_strerror(int32_t result);
/* About the last call that failed on this thread. */
SPECKV_API void speckv_last_error(struct speckv_error* error);

/* For benchmarks: `rounds` times a read view of each address and its release; the time of all. */
SPECKV_API int32_t speckv_measure_hits(speckv_system* system, uint32_t count,
                                       const struct speckv_address* addresses, uint32_t rounds,
                                       double* seconds);

#ifdef __cplusplus
}
#endif
#endif
