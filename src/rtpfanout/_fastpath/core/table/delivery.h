/* How copies leave to some of a session's subscribers, which name it by number: for now, from which
 * of our own addresses. A table of a few is shared by all lists of a session until it changes. */
#ifndef RF_DELIVERY_H
#define RF_DELIVERY_H

#include "addr.h"
#include "qsbr.h"

enum {
    DELIVERY_USUAL = 0, /* from the address that the kernel chooses */
    DELIVERIES = 32,    /* as many as five bits tell apart */
};

struct delivery {
    /* Not 0: from the address that the session's source speaks to, if that is one of this
     * interface. Else from `from`. */
    uint32_t interface;
    bool ipv4; /* so are those it is for */
    uint8_t from[16];
    /* Seconds of CLOCK_MONOTONIC, by any worker: the kernel doesn't have that address, so it is
     * left the choice until then. */
    _Atomic uint32_t lame_until;
};

/* Immutable but for `lame_until`; a change makes another and retires this one. */
struct delivery_table {
    struct qsbr_retired retired;
    uint32_t count;
    struct delivery item[]; /* the first is not used */
};

/* The number of a delivery like `wanted`; DELIVERY_USUAL when there is none. */
unsigned delivery_find(const struct delivery_table *table, const struct delivery *wanted);
/* A table that has `wanted` too, by its number. One without its bit in `used` may be given away;
 * DELIVERY_USUAL, and no table, when all are in use. -ENOMEM. */
int delivery_add(const struct delivery_table *old, uint32_t used, const struct delivery *wanted,
                 struct delivery_table **table);

/* NULL for DELIVERY_USUAL, and for a number that a later table has. */
static inline struct delivery *delivery_at(struct delivery_table *table, unsigned number)
{
    return table && number != DELIVERY_USUAL && number < table->count ? &table->item[number] : NULL;
}

#endif
