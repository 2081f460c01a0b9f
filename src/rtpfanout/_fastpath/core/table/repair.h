/* What a session lacks of its source, and when the source is to be asked to send it again (RFC 4585
 * section 6.2.1). No system calls, and no clock: `now` is CLOCK_MONOTONIC. The owner's, and only for
 * sessions that ask. */
#ifndef RF_REPAIR_H
#define RF_REPAIR_H

#include <stdbool.h>
#include <stdint.h>

enum {
    REPAIR_HOLES = 64, /* that are known; of a longer gap nothing is asked for */
    REPAIR_TRIES = 10,
    REPAIR_BEHIND = 3, /* packets that came later: it is no mere disorder, */
    REPAIR_AT_ONCE = 32,
};

#define REPAIR_AFTER_NS UINT64_C(10000000)    /* nor after that time */
#define REPAIR_LONG_NS UINT64_C(2000000000)   /* nobody waits for it any more */
#define REPAIR_LEAST_NS UINT64_C(30000000)    /* between two requests, however near the source is, */
#define REPAIR_GUESS_NS UINT64_C(100000000)   /* and while nobody knows how far it is */

struct hole {
    uint64_t since_ns, asked_ns;
    uint16_t sequence;
    uint8_t tries;
};

struct repair {
    bool begun;
    uint32_t ssrc;
    uint16_t highest; /* sequence number that came */
    unsigned holes;
    uint64_t round_trip_ns; /* from a request to what was asked for, smoothed; 0: not known */
    struct hole hole[REPAIR_HOLES]; /* in order */
};

/* A packet of the session's SSRC, or of that with another last bit, as TR-06-1 repairs. Whether it
 * fills a hole that was asked for. */
bool repair_take(struct repair *r, uint32_t ssrc, uint16_t sequence, uint64_t now);
/* The sequence numbers that are to be asked for now, in order; they count as asked for. */
unsigned repair_ask(struct repair *r, uint16_t sequence[REPAIR_AT_ONCE], uint64_t now);

#endif
