/* C API of the directory: which agents (devices, processes) hold which blocks, kept by the pool side as home.
 *
 * Coherence is by leases, in software: no load or store of an agent is seen or stopped. What agents must do
 * in turn, and what follows from it, is in docs/coherence.md. In short, an agent
 *   - uses a block only while it has a lease on it, and only before the deadline that it was told last;
 *   - polls, acts on recalls (write back what it modified, stop using, then say so), before their deadlines;
 *   - writes modifications to new lines of the pool, never over the copy that others may read, and only then
 *     calls speckv_directory_release (dirty) or speckv_directory_write_back;
 *   - makes its calls about one block one after another.
 *
 * Keys are any 64-bit names of blocks: handles of speckv_core.h, content hashes. Time is the caller's:
 * nanoseconds of one clock that all agents share; a time before the latest one seen counts as the latest.
 * Arrays of a call are read or written during that call only. Every function may be called from any thread;
 * calls on one directory are serialised by a mutex inside it, and wait for nothing else. Functions return a
 * speckv_core_status and fill *error where asked; a call that fails changes nothing. */
#ifndef SPECKV_DIRECTORY_H
#define SPECKV_DIRECTORY_H

#include "speckv_core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct speckv_directory speckv_directory;

/* lease_ns: how long an agent may stay silent, and how long a recall may stay unanswered; 1 to 2^62. */
SPECKV_API int32_t speckv_directory_create(uint64_t lease_ns, speckv_directory** directory);
SPECKV_API void speckv_directory_destroy(speckv_directory* directory);

struct speckv_directory_agent {
  uint64_t epoch;       /* never given out twice; stands in every call of the agent */
  uint64_t deadline_ns; /* of all its leases, until it polls */
  uint32_t agent;       /* below SPECKV_MAX_AGENTS; a fenced agent's number is used again */
  uint32_t pad;
};
/* SPECKV_CORE_BAD_ARGUMENT when SPECKV_MAX_AGENTS are registered. */
SPECKV_API int32_t speckv_directory_register(speckv_directory* directory, uint64_t now_ns,
                                             struct speckv_directory_agent* agent,
                                             struct speckv_core_error* error);

/* The calls below refuse an agent of another epoch: SPECKV_CORE_FENCED, value: the epoch given, limit: the
 * one that holds (0: none). */

enum speckv_directory_answer {
  SPECKV_DIRECTORY_GRANTED = 0,
  SPECKV_DIRECTORY_WAITING =
      1, /* holders were recalled; the lease comes once they gave up: ask again, or release */
  SPECKV_DIRECTORY_BUSY = 2,      /* another agent waits for the block: ask again */
  SPECKV_DIRECTORY_NO_MEMORY = 3, /* this block is as it was */
};
/* Asks for leases on count blocks, write (not 0) or read, each for itself; answers: (count). Asking again for
 * what is held or waited for changes nothing. A write lease covers reading. deadline_ns: of all the agent's
 * leases; asking does not renew it. */
SPECKV_API int32_t speckv_directory_acquire(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                                            uint64_t now_ns, uint32_t write, uint32_t count,
                                            const uint64_t* keys, uint8_t* answers, uint64_t* deadline_ns,
                                            struct speckv_core_error* error);

/* The next three act on all keys or, where one is refused, on none: SPECKV_CORE_NOT_HELD for a block that the
 * agent does not hold so (value: the key), SPECKV_CORE_BAD_ARGUMENT for a key that stands twice. */

/* Gives leases up, and waits. dirty (not 0): the blocks were modified and are written back; needs write
 * leases. */
SPECKV_API int32_t speckv_directory_release(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                                            uint32_t dirty, uint32_t count, const uint64_t* keys,
                                            struct speckv_core_error* error);
/* The modified blocks are written back; their write leases become read leases. */
SPECKV_API int32_t speckv_directory_write_back(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                                               uint32_t count, const uint64_t* keys,
                                               struct speckv_core_error* error);
/* The agent uses its copies no longer, as a recall asked; it had not modified them, or has written them back.
 */
SPECKV_API int32_t speckv_directory_acknowledge(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                                                uint32_t count, const uint64_t* keys,
                                                struct speckv_core_error* error);

enum speckv_directory_recall_kind {
  SPECKV_DIRECTORY_INVALIDATE = 0, /* write back if modified, then give up */
  SPECKV_DIRECTORY_DOWNGRADE = 1,  /* write back; reading on is allowed */
};
struct speckv_directory_recall {
  uint64_t key;
  uint64_t deadline_ns; /* unanswered by then, the agent is fenced */
  uint32_t kind;        /* speckv_directory_recall_kind */
  uint32_t pad;
};
/* The agent lives: its deadline is now lease_ns away. Writes at most room of its unanswered recalls, oldest
 * first; count: how many there are. deadline_ns: until when it may use its leases (the nearest of its own and
 * those of its recalls). */
SPECKV_API int32_t speckv_directory_poll(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                                         uint64_t now_ns, uint32_t room,
                                         struct speckv_directory_recall* recalls, uint32_t* count,
                                         uint64_t* deadline_ns, struct speckv_core_error* error);

/* Fences every agent whose deadline, or that of one of its recalls, is now or past: its leases and waits end,
 * who waits for it is served, later calls with its epoch are refused. fenced: bit set of agents. Visits every
 * block when somebody is fenced, else only recalls. */
SPECKV_API int32_t speckv_directory_expire(speckv_directory* directory, uint64_t now_ns, uint64_t* fenced);
/* Fences one agent at once. For an agent that leaves, or is known to be gone: one that still runs could go on
 * reading until its deadline. */
SPECKV_API int32_t speckv_directory_fence(speckv_directory* directory, uint32_t agent, uint64_t epoch,
                                          struct speckv_core_error* error);
/* Blocks whose writer was fenced: what it wrote since its last write-back is lost, the pool's copy is older.
 * Writes at most room of them, in no order, and forgets those; returns how many it wrote. */
SPECKV_API uint64_t speckv_directory_take_lost(speckv_directory* directory, uint64_t room, uint64_t* keys);

struct speckv_directory_block {
  uint64_t holders;     /* bit set of agents */
  uint64_t deadline_ns; /* of the recall, while one is pending */
  uint32_t state;       /* speckv_directory_state */
  uint32_t waiter;      /* SPECKV_MAX_AGENTS: none */
  uint32_t lost;        /* not 0: speckv_directory_take_lost will name it */
  uint32_t pad;
};
SPECKV_API void speckv_directory_look(speckv_directory* directory, uint64_t key,
                                      struct speckv_directory_block* block);

struct speckv_directory_stats {
  uint64_t agents;
  uint64_t blocks;         /* held, waited for, or lost */
  uint64_t leases;         /* agents that hold, over all blocks */
  uint64_t grants;         /* since the start, like all below */
  uint64_t recalls;        /* blocks recalled */
  uint64_t write_backs;    /* with release and without */
  uint64_t fenced;         /* agents */
  uint64_t lost;           /* blocks */
  uint64_t metadata_bytes; /* everything the directory itself has allocated, now */
};
SPECKV_API void speckv_directory_get_stats(speckv_directory* directory, struct speckv_directory_stats* stats);

#ifdef __cplusplus
}
#endif
#endif
