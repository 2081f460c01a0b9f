/* How much leaves at a time.
 *
 * What was admitted is sent before it comes to much more than CUT_ENTRIES or so many copies: other
 * sessions and whoever waits for a grace period wait no longer than that. Where copies are
 * cheap more of them go at a time: a run that is cut later makes fuller groups. */
#ifndef RF_CUT_H
#define RF_CUT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CUT_ENTRIES = 4096,        /* about 12 ms of plain sends */
    CUT_COPIES = 32768,        /* about 23 ms where the kernel segments */
    CUT_CHEAP_COPIES = 131072, /* in CUT_CHEAP_NS: where segments pass the interface whole */
    CUT_CHEAP_NS = 20000000,
};

struct cut {
    uint64_t entries, copies; /* that what was admitted will come to, roughly */
    uint64_t most;            /* copies at a time */
    uint64_t timed;           /* copies that were sent and not learnt from; 0: none */
};

void cut_init(struct cut *c);
/* A packet was admitted; `opens_group`: it takes a send entry of its own for each subscriber. */
void cut_add(struct cut *c, uint32_t subscribers, bool opens_group);
/* Whether it is time to send. */
bool cut_due(const struct cut *c);
/* All is about to be sent, within a turn that goes on: cut_learn will tell how long that took. */
void cut_begin(struct cut *c);
void cut_learn(struct cut *c, uint64_t took_ns);
/* All was sent. */
void cut_done(struct cut *c);
/* A turn begins: what went before tells nothing. */
void cut_forget(struct cut *c);

#endif
