/* Packets that wait: what came of another SSRC than a session follows, until that has passed, or has
 * not; and what came from where a session may latch on to a source, until it has, or has not. Copies,
 * in blocks of one worker that were mapped once; nobody's wait longer than HOLD_NS, and no session has
 * more than is left for the others. */
#ifndef RF_HOLD_H
#define RF_HOLD_H

#include <stdalign.h>

#include "ingress.h"
#include "session.h"

enum {
    HOLD_BLOCKS = 128,
    HOLD_BLOCK = 16384,
    HOLD_BLOCKS_EACH = 16,
    HOLD_PACKETS_EACH = 256,
    /* Anybody may knock at a latch, by as many addresses as he likes: of each latch so many sources
     * wait, and never in the last blocks. */
    HOLD_SOURCES_EACH = 8,
    HOLD_BLOCKS_SPARED = 32,
    HOLD_ROWS = 64,
};
#define HOLD_NS UINT64_C(1000000000)

struct held {
    struct held *next;
    struct datagram datagram; /* one packet, of `bytes` */
    uint8_t bytes[];
};

struct hold_block {
    struct hold_block *next;
    uint32_t used;
    alignas(CACHE_LINE) uint8_t bytes[HOLD_BLOCK];
};

/* What is held for a session of one source. */
struct hold {
    struct session *session; /* only to be told apart: it may have gone */
    uint64_t handle;         /* 0: free */
    struct rf_addr source;
    bool latches;       /* its session may latch on to it; else it is of the session's source */
    uint8_t row_next;   /* where it latches: 1 + the next of its row, 0: none */
    uint32_t since;     /* session.changes as it began */
    uint64_t due_ns;    /* when it has waited too long: since the first where it latches, else the last */
    struct held *first, *last;
    struct hold_block *block, *oldest; /* the newest, and the last of that list */
    uint32_t packets, blocks;
};

struct holding {
    struct hold_block *memory, *free, *leaving;
    uint32_t fresh, free_blocks; /* blocks that were ever used, and that are free */
    uint32_t used, latching;     /* holds, and those of latches */
    uint64_t swept_ns;
    uint8_t row[HOLD_ROWS]; /* by session: 1 + the first of its latch, 0: none */
    struct hold hold[HOLD_BLOCKS];
};

/* -ENOMEM. */
int holding_init(struct holding *h);
void holding_destroy(struct holding *h);

static inline bool hold_fits(uint32_t len)
{
    return sizeof(struct held) + len <= HOLD_BLOCK;
}

/* A copy for `s`, of which `d->source` has another SSRC than it follows; false when there is no room. */
bool hold_add(struct holding *h, struct session *s, const struct datagram *d, const uint8_t *data,
              uint32_t len, uint64_t now);
/* What is held so for `s` is none of its candidate's any more: the hold, or NULL. */
struct hold *hold_part(struct holding *h, struct session *s);

/* What is held of a source that `s` may latch on to, or NULL. */
struct hold *hold_of_latch(struct holding *h, const struct session *s, const struct rf_addr *source);
/* The one that `s` has longest, or NULL. */
struct hold *hold_oldest(struct holding *h, const struct session *s);
/* Begins one; NULL when there is no room. */
struct hold *hold_latch(struct holding *h, struct session *s, const struct rf_addr *source,
                        uint64_t now);
/* One more copy in it; false when there is no room. */
bool hold_append(struct holding *h, struct hold *hold, const struct datagram *d, const uint8_t *data,
                 uint32_t len);
/* Its packets, of which those that are kept are put back, in order; it is of no latch any more. */
struct held *hold_release(struct holding *h, struct hold *hold);
void hold_put_back(struct hold *hold, struct held *p);
/* Behind those of `hold` come those of `other`, which ends. */
void hold_join(struct holding *h, struct hold *hold, struct hold *other);

/* 1 + its place, and back. */
static inline uint8_t hold_number(const struct holding *h, const struct hold *hold)
{
    return (uint8_t)(hold - h->hold + 1);
}
static inline struct hold *hold_at(struct holding *h, uint8_t number)
{
    return &h->hold[number - 1];
}

/* Its packets, in order of arrival, which stay where they are until holding_left; it ends. */
struct held *hold_take(struct holding *h, struct hold *hold);
/* One that has waited too long (`all`: any), or NULL; it is free when its packets have been
 * counted, by hold_give_up. */
struct hold *hold_overdue(struct holding *h, uint64_t now, bool all);
void hold_give_up(struct holding *h, struct hold *hold);
/* What was taken has been sent. */
void holding_left(struct holding *h);

#endif
