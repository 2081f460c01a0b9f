/* recvmmsg into fixed buffers, and what comes with each datagram. */
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

/* One received datagram; `data` is valid until the next ingress_receive. */
struct datagram {
    uint8_t *data;
    uint32_t len;
    bool truncated;
    struct rf_addr source;
    uint64_t received_ns; /* CLOCK_REALTIME, by the kernel; 0 when it gave none */
};

int ingress_new(int fd, struct ingress **out);
void ingress_free(struct ingress *in);

/* What is queued, up to INGRESS_BATCH, without waiting: the number of datagrams, 0 when
 * there is none, or -errno. A zero-length datagram counts like any other. */
int ingress_receive(struct ingress *in);
void ingress_datagram(struct ingress *in, unsigned i, struct datagram *out);

#endif
