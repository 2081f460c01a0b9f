/* recvmmsg with UDP_GRO into fixed buffers, and what comes with each. */
#ifndef RF_INGRESS_H
#define RF_INGRESS_H

#include <stddef.h>

#include "addr.h"

enum {
    INGRESS_BATCH = 64,
    /* No UDP datagram is longer (RFC 768), so one that is cut short was never whole. */
    INGRESS_DATAGRAM = 65536,
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
    struct rf_addr source;
    /* CLOCK_REALTIME, by the kernel; 0 when it gave none. Of the first packets after no socket
     * of the host had stamps it is the time of reading: the kernel begins to stamp later. */
    uint64_t received_ns;
};

/* Turns UDP_GRO on where the kernel has it. 0 or -ENOMEM. */
int ingress_new(int fd, struct ingress **out);
void ingress_free(struct ingress *in);
bool ingress_has_gro(const struct ingress *in);

/* What is queued, up to INGRESS_BATCH buffers, without waiting: the number filled, 0 when
 * there is nothing, or -errno. A zero-length datagram counts like any other. */
int ingress_receive(struct ingress *in);
/* The same into the buffers behind the `used` ones, which keep what they have. */
int ingress_receive_behind(struct ingress *in, unsigned used);
void ingress_datagram(struct ingress *in, unsigned i, struct datagram *out);

#endif
