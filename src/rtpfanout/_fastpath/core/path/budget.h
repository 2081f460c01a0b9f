/* How much leaves at a time.
 *
 * What was admitted is sent before it comes to much more than BUDGET_ENTRIES or so many copies:
 * other sessions and whoever waits for a grace period wait no longer than that. Where copies are
 * cheap the budget is larger: a run that is cut later makes fuller groups. */
#ifndef RF_BUDGET_H
#define RF_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

enum {
    BUDGET_ENTRIES = 4096,        /* about 12 ms of plain sends */
    BUDGET_COPIES = 32768,        /* about 23 ms where the kernel segments */
    BUDGET_CHEAP_COPIES = 131072, /* in BUDGET_CHEAP_NS: where segments pass the interface whole */
    BUDGET_CHEAP_NS = 20000000,
};

struct budget {
    uint64_t entries, copies; /* that what was admitted will come to, roughly */
    uint64_t most;            /* copies at a time */
    uint64_t timed;           /* copies that were sent since the caller read its clock; 0: unknown */
};

static inline void budget_init(struct budget *b)
{
    *b = (struct budget){.most = BUDGET_COPIES};
}

/* A packet was admitted; `opens_group`: it takes a send entry of its own for each subscriber. */
static inline void budget_charge(struct budget *b, uint32_t subscribers, bool opens_group)
{
    b->copies += subscribers;
    if (opens_group)
        b->entries += subscribers;
}

static inline bool budget_is_spent(const struct budget *b)
{
    return b->entries >= BUDGET_ENTRIES || b->copies >= b->most;
}

/* All was sent. `turn_goes_on`: budget_learn will tell how long that took. */
static inline void budget_renew(struct budget *b, bool turn_goes_on)
{
    b->timed = turn_goes_on ? b->copies : 0;
    b->entries = b->copies = 0;
}

static inline void budget_learn(struct budget *b, uint64_t took_ns)
{
    if (b->timed == 0)
        return;
    bool cheap = took_ns * BUDGET_CHEAP_COPIES <= BUDGET_CHEAP_NS * b->timed;

    b->most = cheap ? BUDGET_CHEAP_COPIES : BUDGET_COPIES;
    b->timed = 0;
}

#endif
