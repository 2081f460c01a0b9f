/* A UDP endpoint in one form for both families: IPv4 as ::ffff:a.b.c.d. */
#ifndef RF_ADDR_H
#define RF_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core.h"

/* What a socket of one family takes and gives as an address. */
union sockaddr_any {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

bool addr_is_ipv4(const struct rf_addr *a);
bool addr_equal(const struct rf_addr *a, const struct rf_addr *b);

/* An address of another family than AF_INET and AF_INET6 becomes all zero. */
void addr_from_sockaddr(struct rf_addr *out, const union sockaddr_any *in);

/* For a socket of `family`: AF_INET6 reaches IPv4 as a mapped address. Returns the
 * length, or 0 when an AF_INET socket is asked to reach an IPv6 address. */
socklen_t addr_to_sockaddr(union sockaddr_any *out, const struct rf_addr *in, int family);

#endif
