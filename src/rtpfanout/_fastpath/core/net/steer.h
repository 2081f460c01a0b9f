/* Which of the sockets of a port takes a datagram: classic BPF programs, kept by the kernel. */
#ifndef RF_STEER_H
#define RF_STEER_H

#include <stdbool.h>

/* Makes the kernel choose one of the group's `count` sockets by the source address and port of
 * a datagram, so that a flow stays with one worker, whatever its SSRCs and in whatever
 * way UDP_GRO puts its packets together. 0 or -errno. */
int steer_by_source(int fd, unsigned count);
/* The kernel steers unicast only: of a broadcast datagram every socket of the port gets a copy of
 * its own, and with `ipv6_multicast` of those as well. With this, one that is number `index` of `count`
 * takes those that would be steered to it and refuses the others. What it refuses counts among its
 * drops. 0 or -errno. */
int steer_take_share(int fd, unsigned index, unsigned count, bool ipv6_multicast);
/* Refuses all. 0 or -errno. */
int steer_take_nothing(int fd);
bool steer_takes_nothing(int fd);

#endif
