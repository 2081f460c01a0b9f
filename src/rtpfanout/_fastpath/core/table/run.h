/* The packets that go out together, and where they are cut into groups: neighbours that leave to
 * each subscriber by one send entry. All of a group are equally long, but the last may be shorter, and
 * marked alike. */
#ifndef RF_RUN_H
#define RF_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    GROUP_PACKETS = 64,  /* UDP_MAX_SEGMENTS of the first kernels with UDP_SEGMENT */
    GROUP_BYTES = 65000, /* with the headers it must fit one 64 KiB IP packet */
    MARKED = 0x100,
    MARK_COPY = 0x200, /* of a session: as its packets came; never of a packet */
    MARK_DSCP = 0xfc,  /* of the byte; the others are ECN's (RFC 3168), each hop's own */
};

/* A packet that leaves: received bytes and when the kernel received them. */
struct packet {
    struct iovec bytes;
    uint64_t received_ns; /* CLOCK_REALTIME, 0: not known */
    struct packet *next;  /* of the same run */
    /* Of its group up to here: bytes, packets (1: it opens one), and the length of the first. */
    uint32_t group_bytes;
    uint16_t group_packets, segment;
    /* How it is marked on its way: MARKED with the TOS or traffic class byte; 0: as the socket does. */
    uint16_t mark;
};

/* Of one session, in order of arrival. */
struct run {
    struct packet *first, *last;
};

/* Whether it opens a group; without `gso` every packet does. */
static inline bool run_append(struct run *r, struct packet *p, bool gso)
{
    const struct packet *last = r->last;
    uint32_t len = (uint32_t)p->bytes.iov_len;
    bool joins = gso && last && last->mark == p->mark && last->bytes.iov_len == last->segment && len <= last->segment &&
                 last->group_packets < GROUP_PACKETS && last->group_bytes + len <= GROUP_BYTES;

    p->next = NULL;
    p->group_bytes = len + (joins ? last->group_bytes : 0);
    p->group_packets = (uint16_t)(1 + (joins ? last->group_packets : 0));
    p->segment = joins ? last->segment : (uint16_t)len;
    if (last)
        r->last->next = p;
    else
        r->first = p;
    r->last = p;
    return !joins;
}

#endif
