/* Who knocks: the latest strangers, of packets that no session admits. A table of fixed size of each
 * worker, which is the only one to write it; the control plane reads it at any time.
 *
 * Who comes again is counted in any case. Who is new gets a place at a bounded rate, in the set that
 * its hash chooses, of the one there who came least often: a flood of sources that come once each
 * takes places from its own, and hardly from a camera that goes on sending. */
#ifndef RF_KNOCKS_H
#define RF_KNOCKS_H

#include <stdalign.h>

#include "addr.h"
#include "atomic.h"
#include "core_senders.h"
#include "session.h"
#include "stats.h"

enum { KNOCK_SETS = 32, KNOCK_WAYS = 8, KNOCK_WORDS = (sizeof(struct rf_knock) + 7) / 8 };

struct knock_slot {
    _Atomic uint64_t version; /* odd: being written */
    _Atomic uint64_t word[KNOCK_WORDS]; /* of a struct rf_knock */
    uint64_t packets, last_ns; /* the worker's */
};

struct knocks {
    alignas(CACHE_LINE) uint64_t tag[KNOCK_SETS][KNOCK_WAYS]; /* hashes; 0: free */
    struct knock_slot slot[KNOCK_SETS][KNOCK_WAYS];
    uint64_t full_at; /* when as many may come at once again as ever */
};

/* NULL when there is no memory. By free(). */
struct knocks *knocks_new(void);
/* The worker. A packet from `source` was dropped; `hash` is of (SSRC, source), `s` the session that it
 * came for, or NULL. */
void knock(struct knocks *k, uint64_t hash, const struct rf_addr *source, const uint8_t *packet,
           enum drop_reason reason, const struct session *s, uint64_t now);
/* Anybody. Up to KNOCK_SETS * KNOCK_WAYS, in no order; returns how many. */
unsigned knocks_read(struct knocks *k, struct rf_knock *out);

#endif
