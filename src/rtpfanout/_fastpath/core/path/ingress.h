/* recvmmsg with UDP_GRO into fixed buffers, and what comes with each.
 *
 * A buffer is in hand from when the kernel fills it until ingress_settle says that what was in it
 * has left or was dropped. The buffers may lie in memory that outlives the process: then what one
 * that dies had in hand is there for the next. The kernel itself notes what it has filled
 * (msg_flags), so there is no moment at which a datagram is out of the socket's queue and nowhere. To
 * which of our ports it came is noted before. */
#ifndef RF_INGRESS_H
#define RF_INGRESS_H

#include <stddef.h>

#include "side_ports.h"

enum {
    INGRESS_BATCH = 64,
    /* No UDP datagram is longer (RFC 768), so one that is cut short was never whole. */
    INGRESS_DATAGRAM = 65536,
    /* What so many processes died of that tried it again is not tried any more. */
    INGRESS_RECOVERIES = 2,
    INGRESS_SLICE = 64, /* packets that are tried together; one buffer may hold as many */
};

struct ingress;

/* What one buffer holds: a datagram, or several of one flow that the kernel put together
 * (UDP_GRO): each `segment` bytes long, the last may be shorter. They need not share an
 * SSRC. `data` is valid until ingress_receive fills the buffer again. */
struct datagram {
    uint8_t *data;
    uint32_t len;
    uint32_t segment; /* not 0; at least `len` when there is one datagram */
    bool truncated;
    uint8_t tos; /* or traffic class, as it came; 0 where sock_tell_tos wasn't asked for */
    enum port_kind kind; /* of the port that it came to; its reader sets it */
    uint16_t port;       /* its number; 0: the main one */
    struct rf_addr source;
    /* CLOCK_REALTIME, by the kernel; 0 when it gave none. Of the first packets after no socket
     * of the host had stamps it is the time of reading: the kernel begins to stamp later. */
    uint64_t received_ns;
    /* Which of our addresses it came to; all zero where the socket is bound to one, see
     * sock_tell_local. */
    uint8_t local[16];
};

/* How many packets that is: 1 of one that was cut short, or has no byte. */
uint32_t datagram_packets(const struct datagram *d);

/* Bytes of one ingress. */
size_t ingress_size(void);
/* Turns UDP_GRO on where the kernel has it. `memory`: ingress_size() bytes on a cache line, all
 * zero, or with what an ingress of this very program left there; NULL: its own. 0 or -ENOMEM. */
int ingress_new(int fd, void *memory, struct ingress **out);
void ingress_free(struct ingress *in);
bool ingress_has_gro(const struct ingress *in);

/* What is queued, up to INGRESS_BATCH buffers, without waiting: the number filled, 0 when
 * there is nothing, or -errno. A zero-length datagram counts like any other. */
int ingress_receive(struct ingress *in);
/* The same into the buffers behind the `used` ones, which keep what they have. */
int ingress_receive_behind(struct ingress *in, unsigned used);
/* The same from another socket, of our port `port`, and at most so many. */
int ingress_receive_by(struct ingress *in, unsigned used, unsigned most, int fd, uint16_t port);
/* Puts together what comes to that socket, too, where the kernel does it. */
void ingress_use_gro(int fd);
/* `kind` is left to the caller. */
void ingress_datagram(const struct ingress *in, unsigned i, struct datagram *out);
/* Nothing of the buffers from `begin` to before `end` is needed any more; each is settled before it is
 * received into again. */
void ingress_settle(struct ingress *in, unsigned begin, unsigned end);

/* Some of what was in hand when the process before died: the buffers from `begin` to before `end`. */
struct slice {
    unsigned begin, end;
    bool again; /* they are to be tried; else INGRESS_RECOVERIES processes have died of them */
};

/* Before the first receive: the next slice, in the order of arrival; false when nothing is left.
 * Each is settled before the next is asked for, and has its tries anew: what is given up is what a
 * process died of and nothing behind it. For that a slice is a single buffer once a process has died
 * of one. */
bool ingress_recover(struct ingress *in, struct slice *out);

#endif
