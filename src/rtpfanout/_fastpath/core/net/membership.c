#include "membership.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

/* Room for a group_filter with all its sources. */
union filter {
    struct group_filter head;
    char bytes[GROUP_FILTER_SIZE(RF_GROUP_SOURCES)];
};

static int family_of(const struct rf_addr *a)
{
    return addr_is_ipv4(a) ? AF_INET : AF_INET6;
}

static int level_of(const struct rf_addr *group)
{
    return addr_is_ipv4(group) ? IPPROTO_IP : IPPROTO_IPV6;
}

static void store(struct sockaddr_storage *out, const struct rf_addr *a)
{
    union sockaddr_any name;
    socklen_t len = addr_to_sockaddr(&name, a, family_of(a));

    memset(out, 0, sizeof *out);
    memcpy(out, &name, len);
}

static int with_group(const struct sock *s, int option, const struct rf_addr *group,
                      uint32_t interface)
{
    struct group_req request = {.gr_interface = interface};

    store(&request.gr_group, group);
    return setsockopt(s->fd, level_of(group), option, &request, sizeof request) ? -errno : 0;
}

static int join_from(const struct sock *s, const struct rf_addr *group,
                     const struct rf_addr *source, uint32_t interface)
{
    struct group_source_req request = {.gsr_interface = interface};

    store(&request.gsr_group, group);
    store(&request.gsr_source, source);
    return setsockopt(s->fd, level_of(group), MCAST_JOIN_SOURCE_GROUP, &request, sizeof request)
               ? -errno
               : 0;
}

/* The whole list of sources at once; it has to be a member already. */
static int set_sources(const struct sock *s, const struct rf_addr *group,
                       const struct rf_addr *sources, uint32_t count, uint32_t interface)
{
    union filter f = {.head = {.gf_interface = interface,
                               .gf_fmode = count ? MCAST_INCLUDE : MCAST_EXCLUDE,
                               .gf_numsrc = count}};

    store(&f.head.gf_group, group);
    for (uint32_t i = 0; i < count; i++)
        store(&f.head.gf_slist[i], &sources[i]);
    socklen_t size = (socklen_t)GROUP_FILTER_SIZE(count);

    return setsockopt(s->fd, level_of(group), MCAST_MSFILTER, &f, size) ? -errno : 0;
}

int membership_set(const struct sock *s, const struct rf_addr *group,
                   const struct rf_addr *sources, uint32_t count, uint32_t interface)
{
    if (count > RF_GROUP_SOURCES)
        return -EINVAL;
    /* So that a group which has sources never is asked for without. */
    int rc = count ? join_from(s, group, &sources[0], interface)
                   : with_group(s, MCAST_JOIN_GROUP, group, interface);

    /* It was a member: with other sources, with this one, of any. */
    if (rc && rc != -EADDRINUSE && rc != -EADDRNOTAVAIL && rc != -EINVAL)
        return rc;
    return set_sources(s, group, sources, count, interface);
}

int membership_end(const struct sock *s, const struct rf_addr *group, uint32_t interface)
{
    return with_group(s, MCAST_LEAVE_GROUP, group, interface);
}
