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
 * What the kernel gives to all of them (broadcast) one of them takes; `deaf` counts those, its fd
 * is -1 where there is one socket. Returns how many, or -errno: then none is left open. */
int port_open(struct sock *socks, const struct rf_addr *bind, uint32_t workers,
              uint32_t receive_buffer, struct sock *deaf);
/* Duplicates of sockets that port_open opened, here or in another process: port_receiving of them to
 * `socks`. -EINVAL (not bound to one and the same UDP port); on errors none is left open. */
int port_adopt(struct sock *socks, const int *fds, uint32_t count, struct sock *deaf);
/* Whoever opened them: each takes its share. Opens `deaf` if its fd is -1 and there are several. 0
 * or -errno. */
int port_share(const struct sock *socks, uint32_t count, struct sock *deaf);
/* How many of them are to receive by: the last may be the deaf one. */
uint32_t port_receiving(const int *fds, uint32_t count);

#endif
