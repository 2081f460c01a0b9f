/* Which SSRCs sessions have now that are in no index by them: those that take any, and those at a port of
 * their own. For RTCP, which names a session by nothing else.
 *
 * Of a fixed size, and what finds no room is forgotten: the owner of a session notes it again with each run.
 * Written by any worker; a session that is removed is forgotten after its grace period, and then there is
 * another one. */
#ifndef RF_ALIASES_H
#define RF_ALIASES_H

#include <stdbool.h>

#include "atomic.h"

enum { ALIAS_BUCKETS = 1024, ALIAS_WAYS = 4 };

struct aliases {
    _Atomic uint64_t slot[ALIAS_BUCKETS][ALIAS_WAYS]; /* SSRC, and the index of the session + 1; 0: free */
};

static inline uint64_t alias_of(uint32_t ssrc, uint32_t index)
{
    return (uint64_t)ssrc << 32 | (index + 1);
}

static inline _Atomic uint64_t *alias_bucket(struct aliases *a, uint32_t ssrc)
{
    return a->slot[(ssrc * UINT32_C(2654435761)) >> 22]; /* Knuth's multiplicative hash: ten bits */
}

static inline void alias_note(struct aliases *a, uint32_t ssrc, uint32_t index)
{
    _Atomic uint64_t *way = alias_bucket(a, ssrc);
    uint64_t alias = alias_of(ssrc, index);
    unsigned free = index % ALIAS_WAYS;

    for (unsigned i = 0; i < ALIAS_WAYS; i++) {
        uint64_t there = load_rlx(&way[i]);

        if (there == alias)
            return;
        if (there == 0)
            free = i;
    }
    store_rls(&way[free], alias);
}

/* The session number `*way` or later of the bucket with that SSRC; false: there is none more. */
static inline bool alias_next(struct aliases *a, uint32_t ssrc, unsigned *way, uint32_t *index)
{
    for (; *way < ALIAS_WAYS; ++*way) {
        uint64_t there = load_acq(&alias_bucket(a, ssrc)[*way]);

        if (there != 0 && there >> 32 == ssrc) {
            *index = (uint32_t)there - 1;
            ++*way;
            return true;
        }
    }
    return false;
}

/* Whether it had any. */
static inline bool alias_forget(struct aliases *a, uint32_t index)
{
    bool had = false;

    for (unsigned i = 0; i < ALIAS_BUCKETS * ALIAS_WAYS; i++) {
        _Atomic uint64_t *slot = &a->slot[i / ALIAS_WAYS][i % ALIAS_WAYS];

        if ((uint32_t)load_rlx(slot) == index + 1) {
            store_rlx(slot, 0);
            had = true;
        }
    }
    return had;
}

#endif
