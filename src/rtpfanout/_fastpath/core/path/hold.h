/* Packets that wait: what came of another SSRC than a session follows, until that has passed, or has
 * not. Copies, in blocks of one worker that were mapped once; nobody's wait longer than HOLD_NS
 * after the last of them, and no session has more than is left for the others. */
#ifndef RF_HOLD_H
#define RF_HOLD_H

#include <stdalign.h>

#include "ingress.h"
#include "session.h"

enum { HOLD_BLOCKS = 128, HOLD_BLOCK = 16384, HOLD_BLOCKS_EACH = 16, HOLD_PACKETS_EACH = 256 };
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

/* What is held for a session. */
struct hold {
    struct session *session; /* only to be told apart: it may have gone */
    uint64_t handle;         /* 0: free */
    struct rf_addr source;
    uint16_t port; /* that it sent to, as datagram.port */
    uint64_t last_ns;
    struct held *first, *last;
    struct hold_block *block; /* the newest */
    uint32_t packets, blocks;
};

struct holding {
    struct hold_block *memory, *free, *leaving;
    uint32_t fresh, free_blocks; /* blocks that were ever used, and that are free */
    uint32_t used;               /* holds */
    uint64_t swept_ns;
    struct hold hold[HOLD_BLOCKS];
};

/* -ENOMEM. */
int holding_init(struct holding *h);
void holding_destroy(struct holding *h);

/* A copy for `s`, whose `hold` it is; false when there is no room. */
bool hold_add(struct holding *h, struct session *s, const struct datagram *d, const uint8_t *data,
              uint32_t len, uint64_t now);
/* What is held for `s`, in order of arrival, or NULL. It stays where it is until holding_left. */
struct held *hold_take(struct holding *h, struct session *s);
/* The same is given up: how many there were. */
uint32_t hold_drop(struct holding *h, struct session *s);
/* One that has waited too long (`all`: any), or NULL; it is free when its packets have been
 * counted, by hold_give_up. */
struct hold *hold_overdue(struct holding *h, uint64_t now, bool all);
void hold_give_up(struct holding *h, struct hold *hold);
/* What was taken has been sent. */
void holding_left(struct holding *h);

#endif
