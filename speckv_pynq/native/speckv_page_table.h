/* C API of the page table: where the block of an address is. A block's key is what its virtual KV address
 * says of it: request, layer, and position / block_tokens. Handles are those of speckv_core.h; 0 is none.
 *
 * Ownership: a table keeps no memory of its callers; arrays are read or written during a call only. Thread
 * safety: calls on one table are serialised by a mutex inside it; none waits for anything else. A call that
 * fails returns a speckv_core_status and has changed nothing. */
#ifndef SPECKV_PAGE_TABLE_H
#define SPECKV_PAGE_TABLE_H

#include "speckv_core.h"

#ifdef __cplusplus
extern "C" {
#endif

struct speckv_block_key {
  uint32_t request;
  uint32_t layer; /* at most 65535 */
  uint32_t block; /* position / block_tokens */
};

struct speckv_page_table_stats {
  uint64_t entries;        /* keys mapped */
  uint64_t requests;       /* that have at least one */
  uint64_t capacity;       /* places of the hash table */
  uint64_t metadata_bytes; /* everything the table has allocated */
};

typedef struct speckv_page_table speckv_page_table;

SPECKV_API int32_t speckv_page_table_create(speckv_page_table** table);
SPECKV_API void speckv_page_table_destroy(speckv_page_table* table);

/* All keys or none. replaced: (count) handle that the key had before, or 0. A key may stand twice: the later
 * handle replaces the earlier one. Errors: BAD_ARGUMENT for a layer over 65535 or a handle 0; NO_MEMORY. */
SPECKV_API int32_t speckv_page_table_map(speckv_page_table* table, uint32_t count,
                                         const struct speckv_block_key* keys, const uint64_t* handles,
                                         uint64_t* replaced, struct speckv_core_error* error);
/* handles: (count) what each key was mapped to, or 0. */
SPECKV_API int32_t speckv_page_table_unmap(speckv_page_table* table, uint32_t count,
                                           const struct speckv_block_key* keys, uint64_t* handles,
                                           struct speckv_core_error* error);
SPECKV_API int32_t speckv_page_table_lookup(speckv_page_table* table, uint32_t count,
                                            const struct speckv_block_key* keys, uint64_t* handles,
                                            struct speckv_core_error* error);

/* How many blocks a request has; writes the first `room` of them, oldest mapping first. */
SPECKV_API uint64_t speckv_page_table_blocks(speckv_page_table* table, uint32_t request, uint64_t room,
                                             struct speckv_block_key* keys, uint64_t* handles);
/* Unmaps all blocks of a request, in time proportional to their number, and writes their handles; how many
 * there were. Where that is over `room`, nothing is written or changed: ask again with that much room. */
SPECKV_API uint64_t speckv_page_table_free(speckv_page_table* table, uint32_t request, uint64_t room,
                                           uint64_t* handles);

SPECKV_API void speckv_page_table_get_stats(speckv_page_table* table, struct speckv_page_table_stats* stats);

#ifdef __cplusplus
}
#endif
#endif
