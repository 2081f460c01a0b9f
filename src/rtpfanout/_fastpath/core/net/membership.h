/* Which multicast groups a socket takes (RFC 3678), by interface. */
#ifndef RF_MEMBERSHIP_H
#define RF_MEMBERSHIP_H

#include "sock.h"

/* From these sources alone, up to RF_GROUP_SOURCES; from any, if there are none. Whatever it took of
 * the group there before. 0 or -errno: -EINVAL (sources), -ENODEV (no such interface), -ENOBUFS
 * (net.ipv4.igmp_max_memberships, igmp_max_msf; net.ipv6.mld_max_msf). */
int membership_set(const struct sock *s, const struct rf_addr *group,
                   const struct rf_addr *sources, uint32_t count, uint32_t interface);
/* Also where the interface has gone. 0, -EADDRNOTAVAIL (it is no member) or -errno. */
int membership_end(const struct sock *s, const struct rf_addr *group, uint32_t interface);

#endif
