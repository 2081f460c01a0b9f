/* A UDP endpoint in one form for both families: IPv4 as ::ffff:a.b.c.d. */
#ifndef RF_ADDR_H
#define RF_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "core.h"

/* What a socket of one family takes and gives as an address. */
union sockaddr_any {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Of the loopback interface: what it has beyond 127.0.0.0/8 and ::1 is as good on any. */
enum { LOOPBACK_INDEX = 1 };

bool ip_is_ipv4(const uint8_t ip[16]);
/* Loopback or link-local: nobody elsewhere would know it for ours. */
bool ip_is_of_here(const uint8_t ip[16]);
bool addr_is_ipv4(const struct rf_addr *a);
bool addr_equal(const struct rf_addr *a, const struct rf_addr *b);

/* An address of another family than AF_INET and AF_INET6 becomes all zero. */
void addr_from_sockaddr(struct rf_addr *out, const union sockaddr_any *in);

/* For a socket of `family`: AF_INET6 reaches IPv4 as a mapped address. Returns the
 * length, or 0 when an AF_INET socket is asked to reach an IPv6 address. */
socklen_t addr_to_sockaddr(union sockaddr_any *out, const struct rf_addr *in, int family);

/* Whether a datagram can be meant for it: it has a port, and is neither unspecified nor link-local
 * without interface. */
bool sockaddr_is_definite(const union sockaddr_any *name);

/* Room for what says which of our own addresses a datagram came to, or is to leave from. */
enum { LOCAL_CONTROL = CMSG_SPACE(sizeof(struct in6_pktinfo)) };

static inline bool ip_is_known(const uint8_t ip[16])
{
    static const uint8_t unknown[16];

    return memcmp(ip, unknown, sizeof unknown) != 0;
}

/* :: or 0.0.0.0: all addresses of a host. */
static inline bool ip_is_wildcard(const uint8_t ip[16])
{
    static const uint8_t none_v4[16] = {[10] = 0xff, [11] = 0xff};

    return !ip_is_known(ip) || memcmp(ip, none_v4, sizeof none_v4) == 0;
}

/* `ip` is of one of our own addresses, as in rf_addr; left as it is when the message says nothing of
 * that, or names a group. */
void addr_from_control(uint8_t ip[16], const struct cmsghdr *c);
/* Room for how packets are to be marked, in both families' words: the kernel heeds that of the
 * destination's (net/ipv4/ip_sockglue.c ip_cmsg_send, net/ipv6/datagram.c ip6_datagram_send_ctl). */
enum { TOS_CONTROL = 2 * CMSG_SPACE(sizeof(int)) };

/* Whether it says so of what was received. */
bool tos_from_control(uint8_t *tos, const struct cmsghdr *c);
/* Writes TOS_CONTROL bytes. */
void tos_to_control(char *control, uint8_t tos);
/* Whether a send that was told to leave from an address may have failed since this host doesn't have
 * it, or has no route from it: EINVAL, EADDRNOTAVAIL, ENETUNREACH, EHOSTUNREACH. */
bool addr_may_be_gone(int error);
/* Writes up to LOCAL_CONTROL bytes; returns how many. For a socket of `family`. */
size_t addr_to_control(struct cmsghdr *c, const uint8_t ip[16], int family);

#endif
