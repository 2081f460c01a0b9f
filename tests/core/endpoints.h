/* Addresses and loopback sockets for test programs. */
#ifndef TEST_ENDPOINTS_H
#define TEST_ENDPOINTS_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "addr.h"
#include "check.h"

/* How many file descriptors this process has. */
static inline int open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    CHECK(dir != NULL);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

/* From text; IPv4 becomes ::ffff:a.b.c.d. */
static inline struct rf_addr address(const char *ip, uint16_t port)
{
    union sockaddr_any name;
    struct rf_addr a;

    memset(&name, 0, sizeof name);
    if (inet_pton(AF_INET, ip, &name.v4.sin_addr) == 1) {
        name.v4.sin_family = AF_INET;
        name.v4.sin_port = htons(port);
    } else {
        CHECK(inet_pton(AF_INET6, ip, &name.v6.sin6_addr) == 1);
        name.v6.sin6_family = AF_INET6;
        name.v6.sin6_port = htons(port);
    }
    addr_from_sockaddr(&a, &name);
    return a;
}

/* A UDP socket bound to a free port of the loopback address. */
static inline int endpoint(const char *ip, struct rf_addr *bound)
{
    struct rf_addr any = address(ip, 0);
    union sockaddr_any name;
    int family = addr_is_ipv4(&any) ? AF_INET : AF_INET6;
    socklen_t len = addr_to_sockaddr(&name, &any, family);
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), room = 1 << 20;

    CHECK(fd >= 0);
    CHECK(bind(fd, &name.any, len) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room) == 0);
    len = sizeof name;
    CHECK(getsockname(fd, &name.any, &len) == 0);
    addr_from_sockaddr(bound, &name);
    return fd;
}

/* False where the machine has no IPv6 at all, as in many containers. */
static inline bool ipv6_here(void)
{
    struct sockaddr_in6 name = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool here = fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof name) == 0;
    const char *all = getenv("RTPFANOUT_REQUIRE_ALL");

    if (fd >= 0)
        close(fd);
    CHECK(here || !all || strcmp(all, "1") != 0);
    return here;
}

static inline void send_to(int fd, const struct rf_addr *to, const void *data, size_t size)
{
    union sockaddr_any name;
    socklen_t len = addr_to_sockaddr(&name, to, addr_is_ipv4(to) ? AF_INET : AF_INET6);

    CHECK_EQ(sendto(fd, data, size, 0, &name.any, len), size);
}

/* The next datagram's length, or -1 when none comes within `wait_ms`. */
static inline ssize_t receive(int fd, void *data, size_t size, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (poll(&p, 1, wait_ms) <= 0)
        return -1;
    return recv(fd, data, size, MSG_DONTWAIT);
}

/* A valid RTP packet of `len` >= 12 bytes, whose payload tells its sequence number. */
static inline void rtp_make(uint8_t *p, size_t len, uint32_t ssrc, uint16_t sequence)
{
    memset(p, (int)(sequence * 31 & 0xff), len);
    p[0] = 0x80;
    p[1] = 96;
    p[2] = (uint8_t)(sequence >> 8);
    p[3] = (uint8_t)sequence;
    for (int i = 0; i < 4; i++)
        p[8 + i] = (uint8_t)(ssrc >> (24 - 8 * i));
}

static inline uint64_t clock_now(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static inline void sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

#endif
