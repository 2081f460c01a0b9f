/* When more comes in than can be sent: every session the same share.
 *
 * A queue that stands at the socket for FAIR_PATIENCE windows (in none of them was a packet younger
 * than FAIR_TARGET when it came to the gate; the idea of CoDel, RFC 8289) means that the kernel is
 * about to drop whatever comes, of those as well who send no more than others. From then on a session is admitted `share` copies
 * a window, the same for all, and the rest is dropped at the gate, before the costly part. The
 * share follows the queue (approximate fair dropping; Pan, Breslau, Prabhakar and Shenker,
 * 2003), so pictures also stay fresh: the queue stands at FAIR_TARGET, not at its full length.
 *
 * Where a flood of what no session admits is most of what there is to do, fewer copies would not
 * help: then nobody's share falls. */
#ifndef RF_FAIR_H
#define RF_FAIR_H

#include "session.h"

#define FAIR_WINDOW UINT64_C(100000000) /* ns */
#define FAIR_TARGET UINT64_C(50000000)  /* ns */
#define FAIR_UNLIMITED UINT64_MAX
enum {
    FAIR_PATIENCE = 10, /* a second: what a pause has left behind is not overload */
    FAIR_FLOOD = 4,     /* so many strangers' datagrams for a copy are a flood */
};

struct fair {
    bool watching;        /* shares are counted, and kept if there is a limit */
    uint32_t window;      /* number of this one; 0 is no window */
    uint64_t began;       /* CLOCK_MONOTONIC */
    uint64_t youngest_ns; /* least age of a block of packets in this window */
    uint64_t share;       /* copies that a session may have in a window */
    uint64_t copies;      /* admitted in this window while watching, */
    uint32_t sessions;    /* and of how many sessions */
    uint32_t dropped;     /* packets, in this window */
    uint64_t strangers;   /* datagrams in this window that no session admits; the gate counts them */
    uint32_t calm;        /* windows in a row without a drop */
    uint32_t standing;    /* windows in a row in which the queue stood */
};

void fair_init(struct fair *f);

/* Before a block of packets is admitted: the age of its youngest. */
void fair_block(struct fair *f, uint64_t now, uint64_t age_ns);

bool fair_admits_counted(struct fair *f, struct session *s);

/* May the session have one more packet sent to its subscribers? How many those are is in another
 * cache line than the record, so it is only asked when shares are counted. */
static inline bool fair_admits(struct fair *f, struct session *s)
{
    return !f->watching || fair_admits_counted(f, s);
}

#endif
