/* sendmmsg of a batch of copies with UDP_SEGMENT, and the errno policy. */
#ifndef RF_EGRESS_H
#define RF_EGRESS_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "session.h"

enum {
    EGRESS_BATCH = 256,
    EGRESS_LANES = 64,
};

/* A group of a run (run.h). All subscribers share its iovecs and its control message. */
struct group {
    struct session *session;
    struct packet *first; /* `packets` of them by `next` */
    uint32_t packets;
    uint32_t bytes;
    uint16_t segment; /* length of each but the last */
    struct iovec *iov;
    uint32_t iov_count;
    /* CLOCK_REALTIME when the first and the last subscriber served had it. */
    uint64_t first_ns, last_ns;
    uint32_t control_len;
    /* UDP_SEGMENT, which a single packet goes without; behind it how they are marked, if they are. */
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(uint16_t)) + TOS_CONTROL];
    } control;
};

enum { SEGMENT_CONTROL = CMSG_SPACE(sizeof(uint16_t)) };

struct local_set;

/* What came of some of a session's copies. */
struct tally {
    uint64_t packets_sent, bytes_sent, packets_failed, packets_withheld;
};

/* What goes with a copy that is told from which address to leave: what goes with its group, and the
 * address behind that. */
union told {
    struct cmsghdr align;
    char bytes[SEGMENT_CONTROL + TOS_CONTROL + LOCAL_CONTROL];
};

/* One send entry: a whole group, or one packet of it where segments don't pass. */
struct copy {
    struct tally *tally;
    struct subscriber *subscriber;
    struct group *group;
    struct packet *packet; /* NULL: the whole group */
    const union sockaddr_any *name; /* it goes to */
    struct delivery *delivery; /* that says from which IP address it is to leave; NULL: none does */
    const uint8_t *from;       /* NULL: the kernel chooses, as it hasn't got that one */
    uint8_t lane;          /* it leaves by */
    bool first, last;      /* to the first, the last subscriber served with this group */
};

struct batch {
    unsigned lanes; /* to choose from; 0 counts as 1 */
    const struct local_set *local; /* our addresses; NULL: not known */
    unsigned used;
    struct mmsghdr header[EGRESS_BATCH];
    struct copy copy[EGRESS_BATCH];
    /* Neighbours that leave from the same address with the same group share one. */
    unsigned told_used;
    union told told[EGRESS_BATCH];
};

/* Sockets of one port to send by. What waits for a dead neighbour or in a slow queue holds room in
 * the send buffer of the socket it was sent by, and a full one takes nothing more. One lane
 * does where the kernel grants a buffer that is never full (engine.c); else subscribers
 * are spread over lanes, so that a bad one can starve only those of its own. */
struct egress {
    unsigned lanes;
    int fd[EGRESS_LANES];
    uint32_t impatient_until[EGRESS_LANES]; /* seconds: waiting for room was in vain */
};

/* Its segments' length, and how its packets are marked (packet.mark). */
void group_tell(struct group *g, uint16_t mark);

/* The caller has seen that the batch is not full. `name_len` is the socket family's. */
void batch_add(struct batch *b, const struct copy *copy, socklen_t name_len);

/* May the group go to this subscriber by UDP_SEGMENT? Lifts an expired limit. */
bool egress_may_segment(struct subscriber *s, const struct group *g, uint32_t now_secs);

/* The errno policy, applied to the one entry that failed:
 *
 *   EINTR                      again, a bounded number of times
 *   EAGAIN, EWOULDBLOCK        wait for room, up to `wait_ms` in all for this batch; then
 *                              would_block, and no more waiting on this lane for a second,
 *                              so that what is stuck can't stop the others
 *   ENOBUFS, ENOMEM            no_buffer: a queue discipline or the kernel is short
 *   ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN, ENODEV, ENXIO, EADDRNOTAVAIL,
 *   ECONNREFUSED               unreachable
 *   EPERM, EACCES              denied: packet filter, policy route, broadcast
 *   EMSGSIZE                   too_big
 *   EAFNOSUPPORT, EDESTADDRREQ   invalid
 *   EINVAL                     unreachable where the destination is a definite one: then it is a
 *                              blackhole route (net/ipv4/fib_semantics.c, fib_props); else
 *                              invalid
 *   all others                 other
 *
 * What is told from which address to leave and fails as if this host had not got it, or no route
 * from it, goes again without, by the kernel's choice. For a second nothing of that delivery is
 * told then.
 *
 * But EINVAL, EMSGSIZE and EIO on a segmented entry speak of the segmentation, not of the
 * destination, unless the first packet by itself is refused by EINVAL too: its packets are sent one by one at once, nothing is lost, and segments
 * that long (after EIO, all) are not tried again for this subscriber for 60 s.
 *
 * sendmmsg stops at the first entry that fails and tells its errno only to the next call
 * (net/socket.c, __sys_sendmmsg), so the entry after the last one sent is at fault: it
 * is settled and skipped, and those behind it go on. */
enum send_failure egress_failure(int error);

/* Sends every entry once and counts each of its packets, by worker, tally and subscriber, as
 * sent or failed; there is no error to return. */
void egress_flush(struct egress *e, struct batch *b, struct worker_counters *counters, int wait_ms,
                  uint32_t now_secs);

/* Whether the kernel has UDP_SEGMENT. */
bool egress_has_gso(int fd);

#endif
