#include "addr.h"

#include <arpa/inet.h>
#include <string.h>

static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

bool addr_is_ipv4(const struct rf_addr *a)
{
    return memcmp(a->ip, mapped_prefix, sizeof mapped_prefix) == 0;
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
