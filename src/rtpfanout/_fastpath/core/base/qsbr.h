/* Quiescent-state-based reclamation (the QSBR flavour of liburcu, for a fixed set of readers).
 *
 * A writer unpublishes an object, starts a grace period, and may free the object once
 * every reader has passed a quiescent state or was offline since. */
#ifndef RF_QSBR_H
#define RF_QSBR_H

#include <stdalign.h>
#include <stdbool.h>

#include "atomic.h"

enum { QSBR_READERS = 64, QSBR_OFFLINE = 0 };

struct qsbr_reader {
    alignas(CACHE_LINE) _Atomic uint64_t seen; /* last period seen, or QSBR_OFFLINE */
};

/* First member of whatever is retired; `period` must have passed before it is freed. */
struct qsbr_retired {
    struct qsbr_retired *next;
    uint64_t period;
};

struct qsbr {
    alignas(CACHE_LINE) _Atomic uint64_t period;
    struct qsbr_reader readers[QSBR_READERS];
    /* Oldest first; guarded by the engine's writer mutex. */
    struct qsbr_retired *oldest, *newest;
};

void qsbr_init(struct qsbr *q);
/* Frees all that is retired; there must be no reader left. */
void qsbr_destroy(struct qsbr *q);

/* Readers. Between online and offline, what the reader loaded stays valid until its
 * next quiescent call. */
void qsbr_online(struct qsbr *q, unsigned reader);
void qsbr_quiescent(struct qsbr *q, unsigned reader);
void qsbr_offline(struct qsbr *q, unsigned reader);

/* Writers. Call after unpublishing. */
uint64_t qsbr_start(struct qsbr *q);
bool qsbr_passed(struct qsbr *q, uint64_t period);
/* Sleeps until a period started now has passed. */
void qsbr_synchronize(struct qsbr *q);
/* Frees `r` (by free()) once a period started now has passed. Under the writer mutex. */
void qsbr_retire(struct qsbr *q, struct qsbr_retired *r);
void qsbr_reclaim(struct qsbr *q);

#endif
