#include "addr.h"

#include <arpa/inet.h>
#include <errno.h>

static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

bool ip_is_ipv4(const uint8_t ip[16])
{
    return memcmp(ip, mapped_prefix, sizeof mapped_prefix) == 0;
}

bool ip_is_of_here(const uint8_t ip[16])
{
    const struct in6_addr *v6 = (const struct in6_addr *)ip;

    if (ip_is_ipv4(ip))
        return ip[12] == 127 || (ip[12] == 169 && ip[13] == 254);
    return IN6_IS_ADDR_LOOPBACK(v6) || IN6_IS_ADDR_LINKLOCAL(v6);
}

bool addr_is_ipv4(const struct rf_addr *a)
{
    return ip_is_ipv4(a->ip);
}

bool addr_equal(const struct rf_addr *a, const struct rf_addr *b)
{
    return memcmp(a->ip, b->ip, sizeof a->ip) == 0 && a->port == b->port && a->scope == b->scope;
}

void addr_from_sockaddr(struct rf_addr *out, const union sockaddr_any *in)
{
    memset(out, 0, sizeof *out);
    switch (in->any.sa_family) {
    case AF_INET:
        memcpy(out->ip, mapped_prefix, sizeof mapped_prefix);
        memcpy(out->ip + 12, &in->v4.sin_addr, 4);
        out->port = ntohs(in->v4.sin_port);
        break;
    case AF_INET6:
        memcpy(out->ip, &in->v6.sin6_addr, 16);
        out->port = ntohs(in->v6.sin6_port);
        out->scope = in->v6.sin6_scope_id;
        break;
    default:
        break;
    }
}

socklen_t addr_to_sockaddr(union sockaddr_any *out, const struct rf_addr *in, int family)
{
    memset(out, 0, sizeof *out);
    if (family == AF_INET) {
        if (!addr_is_ipv4(in))
            return 0;
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(in->port);
        memcpy(&out->v4.sin_addr, in->ip + 12, 4);
        return sizeof out->v4;
    }
    out->v6.sin6_family = AF_INET6;
    out->v6.sin6_port = htons(in->port);
    out->v6.sin6_scope_id = in->scope;
    memcpy(&out->v6.sin6_addr, in->ip, 16);
    return sizeof out->v6;
}

bool sockaddr_is_definite(const union sockaddr_any *name)
{
    const struct in6_addr *ip = &name->v6.sin6_addr;

    switch (name->any.sa_family) {
    case AF_INET:
        return name->v4.sin_port != 0 && ntohl(name->v4.sin_addr.s_addr) >> 24 != 0;
    case AF_INET6:
        if (IN6_IS_ADDR_V4MAPPED(ip) && ip->s6_addr[12] == 0)
            return false;
        return name->v6.sin6_port != 0 && !IN6_IS_ADDR_UNSPECIFIED(ip) &&
               (!IN6_IS_ADDR_LINKLOCAL(ip) || name->v6.sin6_scope_id != 0);
    default:
        return false;
    }
}

/* ipi_spec_dst is an address to answer from, also of what came to a broadcast address or a group. */
void addr_from_control(uint8_t ip[16], const struct cmsghdr *c)
{
    struct in_pktinfo v4;
    struct in6_pktinfo v6;

    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
        memcpy(&v4, CMSG_DATA(c), sizeof v4);
        memcpy(ip, mapped_prefix, sizeof mapped_prefix);
        memcpy(ip + 12, &v4.ipi_spec_dst, 4);
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
        memcpy(&v6, CMSG_DATA(c), sizeof v6);
        bool is_group = IN6_IS_ADDR_MULTICAST(&v6.ipi6_addr) ||
                        (IN6_IS_ADDR_V4MAPPED(&v6.ipi6_addr) && v6.ipi6_addr.s6_addr[12] >= 224);

        if (!is_group)
            memcpy(ip, &v6.ipi6_addr, 16);
    }
}

/* IPv4's is a byte, IPv6's a number. */
bool tos_from_control(uint8_t *tos, const struct cmsghdr *c)
{
    int value;

    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) {
        memcpy(tos, CMSG_DATA(c), 1);
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) {
        memcpy(&value, CMSG_DATA(c), sizeof value);
        *tos = (uint8_t)value;
    } else {
        return false;
    }
    return true;
}

void tos_to_control(char *control, uint8_t tos)
{
    const struct cmsghdr how[] = {
        {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_TOS},
        {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_TCLASS}};
    int value = tos;

    memset(control, 0, TOS_CONTROL);
    for (unsigned i = 0; i < 2; i++) {
        struct cmsghdr *c = (struct cmsghdr *)(control + i * CMSG_SPACE(sizeof value));

        *c = how[i];
        memcpy(CMSG_DATA(c), &value, sizeof value);
    }
}

bool addr_may_be_gone(int error)
{
    return error == EINVAL || error == EADDRNOTAVAIL || error == ENETUNREACH ||
           error == EHOSTUNREACH;
}

/* Without interface: that is the route's business, or the destination's scope's. */
size_t addr_to_control(struct cmsghdr *c, const uint8_t ip[16], int family)
{
    struct in_pktinfo v4 = {.ipi_ifindex = 0};
    struct in6_pktinfo v6 = {.ipi6_ifindex = 0};

    if (family == AF_INET) {
        memcpy(&v4.ipi_spec_dst, ip + 12, 4);
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof v4),
                              .cmsg_level = IPPROTO_IP,
                              .cmsg_type = IP_PKTINFO};
        memcpy(CMSG_DATA(c), &v4, sizeof v4);
        return CMSG_SPACE(sizeof v4);
    }
    memcpy(&v6.ipi6_addr, ip, 16);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof v6),
                          .cmsg_level = IPPROTO_IPV6,
                          .cmsg_type = IPV6_PKTINFO};
    memcpy(CMSG_DATA(c), &v6, sizeof v6);
    return CMSG_SPACE(sizeof v6);
}
