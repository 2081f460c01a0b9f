/* What the packet path has to tell the control plane: a bounded mailbox of each worker.
 *
 * The worker is the only one to post, the control plane (under the writer mutex) the only one to
 * take. Slots are allocated once; what finds no room is not posted, and the poster says so. */
#ifndef RF_NOTICE_H
#define RF_NOTICE_H

#include <stdalign.h>
#include <string.h>

#include "addr.h"
#include "atomic.h"

enum {
    NOTICE_SLOTS = 256,
    /* Datagrams leave so many to the other kinds: a flood of them silences nobody. */
    NOTICE_RESERVE = 64,
};

struct mailbox {
    alignas(CACHE_LINE) _Atomic uint32_t posted; /* the worker's; both count for ever, modulo 2^32 */
    alignas(CACHE_LINE) _Atomic uint32_t taken;  /* the control plane's */
    alignas(CACHE_LINE) struct rf_notice slot[NOTICE_SLOTS];
};

/* NULL when there is no memory. By free(). */
struct mailbox *mailbox_new(void);

/* A control datagram of any version 1: "RFO", 1. Its first byte, 0x52, is in none of the ranges
 * of RFC 7983, and as a version of RTP it is 1. */
static inline bool notice_is_control(const uint8_t *p, size_t len)
{
    return len >= 4 && memcmp(p, "RFO\x01", 4) == 0;
}

/* The worker. False when there is no room; a datagram also when it is too long. */
bool mailbox_post_datagram(struct mailbox *m, const struct rf_addr *source,
                           const uint8_t local[16], const uint8_t *data, size_t len);
bool mailbox_post_session(struct mailbox *m, enum rf_notice_kind kind, uint64_t handle,
                          const struct rf_addr *source);

/* The control plane; false when there is none. */
bool mailbox_take(struct mailbox *m, struct rf_notice *out);

#endif
