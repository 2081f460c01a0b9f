/* Packets that reached another worker than their session's, on their way to it.
 *
 * A bounded queue of each worker, without a lock: any worker posts, its owner alone takes (the
 * sequence numbers by slot are D. Vyukov's). Posts of one worker are taken in their order. Slots
 * are mapped once, with room for any datagram; what was never used of them holds no memory. */
#ifndef RF_INBOX_H
#define RF_INBOX_H

#include <stdalign.h>

#include "atomic.h"
#include "ingress.h"

enum { INBOX_SLOTS = 2048 };

/* What its owner is at, written by the owner alone. A new and a closed inbox take nothing. */
enum inbox_phase {
    INBOX_NEW,
    INBOX_OPEN,     /* the owner takes, and posts to others */
    INBOX_SETTLING, /* it takes, but posts no more */
    INBOX_CLOSING,  /* about to be closed, or to settle on */
    INBOX_CLOSED,   /* for ever: what its owner had is free to be had by others */
};

struct parcel {
    struct datagram datagram; /* one packet */
    uint16_t owner;           /* session.owner as it was */
};

struct inbox_slot {
    /* Of a position, twice its lap: free for it; one more: filled. */
    alignas(CACHE_LINE) _Atomic uint64_t state;
    struct parcel parcel; /* of `bytes` */
    alignas(CACHE_LINE) uint8_t bytes[INGRESS_DATAGRAM];
};

struct inbox {
    alignas(CACHE_LINE) _Atomic uint32_t phase;
    alignas(CACHE_LINE) _Atomic uint64_t posted; /* positions; counts for ever */
    alignas(CACHE_LINE) uint64_t taken;          /* the owner's */
    uint64_t released;                           /* the owner's */
    struct inbox_slot slot[INBOX_SLOTS];
};

/* NULL when there is no memory. */
struct inbox *inbox_new(void);
void inbox_free(struct inbox *in);

/* Any worker with an open inbox of its own. Copies p->datagram and counts it in `count`, before
 * it can be taken; false when there is no room. */
bool inbox_post(struct inbox *in, const struct parcel *p, counter *count);

/* The owner. The next packet, or NULL; it stays where it is until inbox_release, which gives
 * back all that was taken. */
struct parcel *inbox_take(struct inbox *in);
void inbox_release(struct inbox *in);
static inline uint32_t inbox_held(const struct inbox *in)
{
    return (uint32_t)(in->taken - in->released);
}
/* Whether there is something to take. seq_cst: after a store to say that it will sleep, the
 * owner sees what was posted, or the poster sees that store. */
bool inbox_waits(struct inbox *in);

/* The owner's life, among all `count` inboxes of the crew. It opens its own before it posts
 * anything, which fails when it was closed; settles when it will never post again; and goes on
 * taking until inbox_close succeeds: then nothing is in there, and nobody will post to it. */
bool inbox_open(struct inbox *own, struct inbox *const *all, unsigned count);
void inbox_settle(struct inbox *own);
bool inbox_close(struct inbox *own, struct inbox *const *all, unsigned count);

/* The acquire pairs with the release in inbox_close: all that its owner did is seen. */
static inline bool inbox_is_closed(struct inbox *in)
{
    return load_acq(&in->phase) == INBOX_CLOSED;
}

#endif
