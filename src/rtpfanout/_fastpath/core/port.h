/* The ingress sockets of one port: opened as one group, or adopted from whoever opened them. */
#ifndef RF_PORT_H
#define RF_PORT_H

#include "sock.h"

enum {
    /* Large enough that what waits for dead neighbours (212,992 bytes each, the sysctl
     * unres_qlen_bytes) and in slow queues never fills it: those queues then drop their own
     * tail, and a good subscriber beside them loses nothing. */
    SEND_BUFFER = 512 << 20,
};

/* SO_RCVBUF for so many packets. */
uint32_t port_receive_buffer(uint32_t packets);

/* One socket per worker where the kernel can steer by source address, else one for all: `socks`
 * has room for `workers`. It is the group's first sockets, which the program that steers
 * chooses from, so what joins and leaves the group later never changes where a source goes.
 * Returns how many, or -errno: then none is left open. */
int port_open(struct sock *socks, const struct rf_addr *bind, uint32_t workers,
              uint32_t receive_buffer);
/* Duplicates of sockets that port_open opened, here or in another process. -EINVAL (not bound to
 * one and the same UDP port); on errors none is left open. */
int port_adopt(struct sock *socks, const int *fds, uint32_t count);

#endif
