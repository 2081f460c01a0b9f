/* sock.c: what the socket is and isn't, by asking the kernel. */
#include "sock.h"

#include "endpoints.h"

static int option(const struct sock *s, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;

    CHECK(getsockopt(s->fd, level, name, &value, &len) == 0);
    return value;
}

static struct sock opened(const char *ip)
{
    struct rf_addr at = address(ip, 0);
    struct sock s;

    CHECK_EQ(sock_open(&s, &at, 100000, 100000), 0);
    return s;
}

static void test_families(void)
{
    static const struct {
        const char *ip;
        int family;
        bool dual_stack;
    } cases[] = {{"127.0.0.1", AF_INET, false},
                 {"0.0.0.0", AF_INET, false},
                 {"::ffff:127.0.0.1", AF_INET, false},
                 {"::", AF_INET6, true},
                 {"::1", AF_INET6, false}};

    for (unsigned i = 0; i < COUNT(cases); i++) {
        if (cases[i].family == AF_INET6 && !ipv6_here())
            continue;
        struct rf_addr asked = address(cases[i].ip, 0);
        struct sock s = opened(cases[i].ip);

        CHECK_EQ(s.family, cases[i].family);
        CHECK_EQ(s.dual_stack, cases[i].dual_stack);
        CHECK(s.bound.port != 0);
        CHECK(memcmp(s.bound.ip, asked.ip, 16) == 0);
        CHECK_EQ(option(&s, SOL_SOCKET, SO_TIMESTAMPNS), 1);
        CHECK_EQ(option(&s, IPPROTO_IP, IP_RECVERR), 0);
        if (s.family == AF_INET6) {
            CHECK_EQ(option(&s, IPPROTO_IPV6, IPV6_V6ONLY), !s.dual_stack);
            CHECK_EQ(option(&s, IPPROTO_IPV6, IPV6_RECVERR), 0);
        }
        sock_close(&s);
        CHECK_EQ(s.fd, -1);
    }
}

static void test_the_kernels_errors(void)
{
    struct sock first = opened("127.0.0.1"), s = {.fd = -7};
    struct rf_addr elsewhere = address("192.0.2.1", 0);
    int files = open_files();

    CHECK_EQ(sock_open(&s, &first.bound, 100000, 100000), -EADDRINUSE);
    CHECK_EQ(sock_open(&s, &elsewhere, 100000, 100000), -EADDRNOTAVAIL);
    CHECK_EQ(s.fd, -7); /* written only on success */
    CHECK_EQ(open_files(), files);
    sock_close(&first);
}

static void test_buffers(void)
{
    struct sock s = opened("127.0.0.1");

    CHECK_EQ(sock_buffer_size(&s, SO_RCVBUF), 200000);
    CHECK_EQ(sock_buffer_size(&s, SO_SNDBUF), 200000);
    sock_close(&s);
    struct rf_addr at = address("127.0.0.1", 0);

    CHECK_EQ(sock_open(&s, &at, UINT32_MAX, UINT32_MAX), 0); /* cut, not refused */
    CHECK(sock_buffer_size(&s, SO_RCVBUF) > 200000);
    sock_close(&s);
}

static void test_drops_are_those_of_the_queue(void)
{
    struct rf_addr at = address("127.0.0.1", 0), from;
    uint8_t bytes[1000] = {0};
    unsigned queued = 0;
    struct sock s;

    CHECK_EQ(sock_open(&s, &at, 4096, 4096), 0);
    CHECK_EQ(sock_drops(&s), 0);
    int fd = endpoint("127.0.0.1", &from);

    for (unsigned i = 0; i < 100; i++)
        send_to(fd, &s.bound, bytes, sizeof bytes);
    while (recv(s.fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        queued++;
    CHECK(queued > 0 && queued < 100);
    CHECK_EQ(sock_drops(&s), 100 - queued);
    close(fd);
    sock_close(&s);
}

int main(void)
{
    RUN(test_families);
    RUN(test_the_kernels_errors);
    RUN(test_buffers);
    RUN(test_drops_are_those_of_the_queue);
    return 0;
}
