#include "sock.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <unistd.h>

static bool is_ipv6_wildcard(const struct rf_addr *a)
{
    static const uint8_t zero[16];

    return memcmp(a->ip, zero, sizeof zero) == 0;
}

/* The FORCE variant needs CAP_NET_ADMIN; the other is cut to net.core.{r,w}mem_max. */
static int set_buffer(int fd, int force_option, int option, uint32_t bytes)
{
    int value = bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (int)bytes;

    if (setsockopt(fd, SOL_SOCKET, force_option, &value, sizeof value) == 0)
        return 0;
    return setsockopt(fd, SOL_SOCKET, option, &value, sizeof value);
}

static int configure(const struct sock *s, uint32_t receive_buffer, uint32_t send_buffer)
{
    int on = 1, v6only = !s->dual_stack;

    if (s->family == AF_INET6 &&
        setsockopt(s->fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only))
        return -errno;
    if (setsockopt(s->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) ||
        set_buffer(s->fd, SO_RCVBUFFORCE, SO_RCVBUF, receive_buffer) ||
        set_buffer(s->fd, SO_SNDBUFFORCE, SO_SNDBUF, send_buffer))
        return -errno;
    return 0;
}

int sock_open(struct sock *out, const struct rf_addr *bind_to, uint32_t receive_buffer,
              uint32_t send_buffer)
{
    struct sock s = {
        .family = addr_is_ipv4(bind_to) ? AF_INET : AF_INET6,
        .dual_stack = is_ipv6_wildcard(bind_to),
    };
    union sockaddr_any name;
    socklen_t len = addr_to_sockaddr(&name, bind_to, s.family);
    int rc;

    s.fd = socket(s.family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (s.fd < 0)
        return -errno;
    rc = configure(&s, receive_buffer, send_buffer);
    if (rc == 0 &&
        (bind(s.fd, &name.any, len) || (len = sizeof name, getsockname(s.fd, &name.any, &len))))
        rc = -errno;
    if (rc) {
        close(s.fd);
        return rc;
    }
    addr_from_sockaddr(&s.bound, &name);
    *out = s;
    return 0;
}

void sock_close(struct sock *s)
{
    close(s->fd);
    s->fd = -1;
}

uint32_t sock_buffer_size(const struct sock *s, int option)
{
    int value = 0;
    socklen_t len = sizeof value;

    return getsockopt(s->fd, SOL_SOCKET, option, &value, &len) == 0 ? (uint32_t)value : 0;
}

uint32_t sock_drops(const struct sock *s)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t len = sizeof info;

    return getsockopt(s->fd, SOL_SOCKET, SO_MEMINFO, info, &len) == 0 ? info[SK_MEMINFO_DROPS] : 0;
}
