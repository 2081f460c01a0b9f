#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <string.h>
#include <unistd.h>

#include "steer.h"

#ifndef IPV6_MULTICAST_ALL
#define IPV6_MULTICAST_ALL 29 /* Linux 4.20 */
#endif

/* Why a socket is opened. */
enum purpose { FIRST, MEMBER, DEAF };

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

bool sock_take_joined_only(const struct sock *s, bool only)
{
    int all = !only;

    (void)setsockopt(s->fd, IPPROTO_IP, IP_MULTICAST_ALL, &all, sizeof all);
    return s->family == AF_INET ||
           setsockopt(s->fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, &all, sizeof all) == 0;
}

/* Before it is bound: from then on it would take something. */
static int join_port(const struct sock *s, enum purpose purpose)
{
    int on = 1;

    if (purpose == FIRST)
        return 0;
    (void)sock_take_joined_only(s, true);
    if (purpose == DEAF && steer_take_nothing(s->fd) != 0)
        return -errno;
    return setsockopt(s->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) ? -errno : 0;
}

static int open_bound(struct sock *s, enum purpose purpose, uint32_t receive_buffer,
                      uint32_t send_buffer)
{
    union sockaddr_any name;
    socklen_t len = addr_to_sockaddr(&name, &s->bound, s->family);
    int rc;

    s->fd = socket(s->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
    if (s->fd < 0)
        return -errno;
    rc = configure(s, receive_buffer, send_buffer);
    if (rc == 0)
        rc = join_port(s, purpose);
    if (rc == 0 && (bind(s->fd, &name.any, len) ||
                    (len = sizeof name, getsockname(s->fd, &name.any, &len))))
        rc = -errno;
    if (rc) {
        close(s->fd);
        return rc;
    }
    addr_from_sockaddr(&s->bound, &name);
    return 0;
}

int sock_open(struct sock *out, const struct rf_addr *bind_to, uint32_t receive_buffer,
              uint32_t send_buffer)
{
    struct sock s = {
        .family = addr_is_ipv4(bind_to) ? AF_INET : AF_INET6,
        .dual_stack = !ip_is_known(bind_to->ip), /* :: */
        .bound = *bind_to,
    };
    int rc = open_bound(&s, FIRST, receive_buffer, send_buffer);

    if (rc == 0)
        *out = s;
    return rc;
}

static int open_beside(struct sock *out, const struct sock *first, enum purpose purpose,
                       uint32_t receive_buffer, uint32_t send_buffer)
{
    struct sock s = *first;
    int on = 1, rc;

    if (setsockopt(first->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on))
        return -errno;
    rc = open_bound(&s, purpose, receive_buffer, send_buffer);
    if (rc == 0)
        *out = s;
    return rc;
}

int sock_open_another(struct sock *out, const struct sock *first, uint32_t receive_buffer,
                      uint32_t send_buffer)
{
    return open_beside(out, first, MEMBER, receive_buffer, send_buffer);
}

int sock_open_deaf(struct sock *out, const struct sock *first, uint32_t send_buffer)
{
    return open_beside(out, first, DEAF, 0, send_buffer);
}

static bool is_option(int fd, int level, int option, int wanted)
{
    int value = 0;
    socklen_t len = sizeof value;

    return getsockopt(fd, level, option, &value, &len) == 0 && value == wanted;
}

/* What it is and where, by its own word; `fd` is set. */
static int recognise(struct sock *s)
{
    union sockaddr_any name;
    socklen_t len = sizeof name;
    int on = 1;

    memset(&name, 0, sizeof name);
    if (getsockname(s->fd, &name.any, &len))
        return -errno;
    addr_from_sockaddr(&s->bound, &name);
    s->family = name.any.sa_family;
    s->dual_stack = s->family == AF_INET6 && is_option(s->fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (s->bound.port == 0 || !is_option(s->fd, SOL_SOCKET, SO_PROTOCOL, IPPROTO_UDP))
        return -EINVAL;
    return setsockopt(s->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) ? -errno : 0;
}

int sock_adopt(struct sock *out, int fd)
{
    struct sock s = {.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)};
    int rc;

    if (s.fd < 0)
        return -errno;
    rc = recognise(&s);
    if (rc)
        close(s.fd);
    else
        *out = s;
    return rc;
}

/* A socket of [::] sends IPv4 too, by IPv4's option. */
int sock_set_path_mtu(const struct sock *s, bool discover)
{
    int v4 = discover ? IP_PMTUDISC_WANT : IP_PMTUDISC_OMIT;
    int v6 = discover ? IPV6_PMTUDISC_WANT : IPV6_PMTUDISC_OMIT;

    if (s->family == AF_INET6 &&
        setsockopt(s->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &v6, sizeof v6))
        return -errno;
    if (sock_sends_ipv4(s) && setsockopt(s->fd, IPPROTO_IP, IP_MTU_DISCOVER, &v4, sizeof v4))
        return -errno;
    return 0;
}

int sock_send(const struct sock *s, const struct rf_addr *to, const uint8_t *from, const void *data,
              size_t len)
{
    union {
        struct cmsghdr align;
        char bytes[LOCAL_CONTROL];
    } control;
    union sockaddr_any name;
    struct iovec iov = {(void *)data, len};
    struct msghdr msg = {
        .msg_name = &name,
        .msg_namelen = addr_to_sockaddr(&name, to, s->family),
        .msg_iov = &iov,
        .msg_iovlen = 1,
    };

    if (msg.msg_namelen == 0)
        return -EAFNOSUPPORT;
    if (from && ip_is_known(from)) {
        msg.msg_control = &control;
        msg.msg_controllen = addr_to_control(&control.align, from, s->family);
        if (sendmsg(s->fd, &msg, MSG_DONTWAIT) >= 0)
            return 0;
        if (!addr_may_be_gone(errno))
            return -errno;
        msg.msg_control = NULL;
        msg.msg_controllen = 0;
    }
    return sendmsg(s->fd, &msg, MSG_DONTWAIT) < 0 ? -errno : 0;
}

bool sock_is_wildcard(const struct sock *s)
{
    return ip_is_wildcard(s->bound.ip);
}

int sock_tell_local(const struct sock *s)
{
    int on = 1;
    int rc = s->family == AF_INET
                 ? setsockopt(s->fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on)
                 : setsockopt(s->fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);

    return rc ? -errno : 0;
}

void sock_tell_tos(const struct sock *s, bool on)
{
    int value = on;

    if (s->family == AF_INET6)
        (void)setsockopt(s->fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &value, sizeof value);
    if (sock_sends_ipv4(s))
        (void)setsockopt(s->fd, IPPROTO_IP, IP_RECVTOS, &value, sizeof value);
}

int sock_open_probe(int family)
{
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP);

    return fd < 0 ? -errno : fd;
}

/* Nothing is sent. Disconnected first, or it would keep the address of before (net/ipv4/datagram.c). */
int sock_probe(int fd, const union sockaddr_any *to, struct rf_addr *from)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    union sockaddr_any name;
    socklen_t len = sizeof name;
    socklen_t to_len = to->any.sa_family == AF_INET ? sizeof to->v4 : sizeof to->v6;

    memset(&name, 0, sizeof name);
    (void)connect(fd, &none, sizeof none);
    if (connect(fd, &to->any, to_len) || getsockname(fd, &name.any, &len))
        return -errno;
    addr_from_sockaddr(from, &name);
    return 0;
}

void sock_close_probe(int fd)
{
    close(fd);
}

void sock_close(struct sock *s)
{
    close(s->fd);
    s->fd = -1;
}

bool sock_sends_ipv4(const struct sock *s)
{
    return s->family == AF_INET || s->dual_stack;
}

bool sock_sends_ipv6(const struct sock *s)
{
    return s->family == AF_INET6;
}

uint32_t sock_buffer_size(const struct sock *s, int option)
{
    int value = 0;
    socklen_t len = sizeof value;

    return getsockopt(s->fd, SOL_SOCKET, option, &value, &len) == 0 ? (uint32_t)value : 0;
}

struct sock_queue sock_queue(const struct sock *s)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t len = sizeof info;

    if (getsockopt(s->fd, SOL_SOCKET, SO_MEMINFO, info, &len) != 0)
        return (struct sock_queue){0};
    return (struct sock_queue){.drops = info[SK_MEMINFO_DROPS],
                               .used = info[SK_MEMINFO_RMEM_ALLOC],
                               .size = info[SK_MEMINFO_RCVBUF]};
}

/* UDP has no use for SO_RCVLOWAT, which is 1 unless somebody says otherwise. */
uint32_t sock_note(const struct sock *s)
{
    int value = 1;
    socklen_t len = sizeof value;

    return getsockopt(s->fd, SOL_SOCKET, SO_RCVLOWAT, &value, &len) == 0 && value > 0
               ? (uint32_t)value - 1
               : 0;
}

void sock_set_note(const struct sock *s, uint32_t note)
{
    int value = (int)(note & SOCK_NOTE_MAX) + 1;

    (void)setsockopt(s->fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof value);
}
