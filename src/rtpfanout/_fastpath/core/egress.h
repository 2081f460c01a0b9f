/* sendmmsg of a batch of copies, with the errno policy. */
#ifndef RF_EGRESS_H
#define RF_EGRESS_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "session.h"

enum { EGRESS_BATCH = 256 };

/* A packet that leaves: received bytes and when the kernel received them. */
struct packet {
    struct iovec bytes;
    uint64_t received_ns; /* CLOCK_REALTIME, 0: not known */
    uint32_t next;        /* of the same run */
};

/* Whose copy it is, and what became of it. */
struct copy {
    struct session *session;
    struct subscriber *subscriber;
    struct packet *packet;
    bool last; /* no further copy of this packet follows */
    enum send_failure outcome; /* SENT, or why not; set by egress_flush */
};

struct batch {
    unsigned used;
    struct mmsghdr header[EGRESS_BATCH];
    struct copy copy[EGRESS_BATCH];
};

/* The caller has seen that the batch is not full. `name_len` is the socket family's. */
void batch_add(struct batch *b, struct copy copy, socklen_t name_len);

/* The errno policy, applied to the one entry that failed:
 *
 *   EINTR                      again, a bounded number of times
 *   EAGAIN, EWOULDBLOCK        wait for room, up to `wait_ms` in all for this batch; then
 *                              would_block, so that a stuck device can't stop ingress
 *   ENOBUFS, ENOMEM            no_buffer: a queue discipline or the kernel is short
 *   ENETUNREACH, EHOSTUNREACH, ENETDOWN, EHOSTDOWN, ENODEV, ENXIO, EADDRNOTAVAIL,
 *   ECONNREFUSED               unreachable
 *   EPERM, EACCES              denied: packet filter, policy route, broadcast
 *   EMSGSIZE                   too_big
 *   EINVAL, EAFNOSUPPORT, EDESTADDRREQ   invalid
 *   all others                 other
 *
 * sendmmsg stops at the first entry that fails and tells its errno only to the next call
 * (net/socket.c, __sys_sendmmsg), so the entry after the last one sent is at fault: it
 * is marked and skipped, and those behind it go on. */
enum send_failure egress_failure(int error);

/* Sends every entry of the batch once and sets its outcome; there is no error to return. */
void egress_flush(int fd, struct batch *b, int wait_ms);

#endif
