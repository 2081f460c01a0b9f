/* sock.c: what the socket is and isn't, by asking the kernel. */
#include "sock.h"
#include "steer.h"

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
    CHECK_EQ(sock_queue(&s).drops, 0);
    int fd = endpoint("127.0.0.1", &from);

    for (unsigned i = 0; i < 100; i++)
        send_to(fd, &s.bound, bytes, sizeof bytes);
    while (recv(s.fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        queued++;
    CHECK(queued > 0 && queued < 100);
    CHECK_EQ(sock_queue(&s).drops, 100 - queued);
    close(fd);
    sock_close(&s);
}

/* A group of four on one port, steered. */
static void open_group(struct sock s[4], const char *ip)
{
    struct rf_addr at = address(ip, 0);

    CHECK_EQ(sock_open(&s[0], &at, 1 << 20, 1 << 20), 0);
    for (unsigned i = 1; i < 4; i++) {
        CHECK_EQ(sock_open_another(&s[i], &s[0], 1 << 20, 1 << 20), 0);
        CHECK(addr_equal(&s[i].bound, &s[0].bound));
        CHECK_EQ(s[i].family, s[0].family);
        CHECK_EQ(s[i].dual_stack, s[0].dual_stack);
        CHECK_EQ(steer_by_source(s[0].fd, i + 1), 0);
    }
}

static void close_group(struct sock s[4])
{
    for (unsigned i = 0; i < 4; i++)
        sock_close(&s[i]);
}

/* Which of the group holds the datagram that was sent; on a busy machine loopback delivers it
 * later than the send returns. */
static unsigned arrived_at(struct sock s[4])
{
    struct pollfd p[4];
    unsigned at = 4;
    uint8_t bytes[64];

    for (unsigned i = 0; i < 4; i++)
        p[i] = (struct pollfd){.fd = s[i].fd, .events = POLLIN};
    CHECK(poll(p, 4, 20000) > 0);
    for (unsigned i = 0; i < 4; i++) {
        if (recv(s[i].fd, bytes, sizeof bytes, MSG_DONTWAIT) >= 0) {
            CHECK_EQ(at, 4);
            at = i;
        }
    }
    CHECK(at < 4);
    return at;
}

/* A flow's datagrams, whatever is in them, arrive at one socket; many flows use all four. */
static void steer(const char *bind_to, const char *from_ip)
{
    unsigned flows[4] = {0};
    struct sock s[4];

    open_group(s, bind_to);
    for (unsigned flow = 0; flow < 200; flow++) {
        struct rf_addr from, to = address(from_ip, s[0].bound.port);
        int fd = endpoint(from_ip, &from);
        unsigned at = 4;

        for (uint8_t i = 0; i < 5; i++) {
            uint8_t bytes[64];

            memset(bytes, i * 50 + (int)flow, sizeof bytes);
            send_to(fd, &to, bytes, i == 4 ? 0 : 1 + 12u * i);
            CHECK(i == 0 || arrived_at(s) == at);
            if (i == 0)
                flows[at = arrived_at(s)]++;
        }
        close(fd);
    }
    for (unsigned i = 0; i < 4; i++)
        CHECK(flows[i] >= 20); /* 50 of each were even */
    close_group(s);
}

static void test_flows_stay_with_one_socket(void)
{
    steer("127.0.0.1", "127.0.0.1");
    if (!ipv6_here())
        return;
    steer("::1", "::1");
    steer("::", "::1");
    steer("::", "127.0.0.1"); /* IPv4 on an IPv6 socket: the program sees an IPv4 header */
}

/* The usual plans: hosts with one port, hosts each with a port of its own. */
static void spread_hosts(unsigned port_step)
{
    unsigned hosts[4] = {0};
    struct sock s[4];

    open_group(s, "127.0.0.1");
    for (unsigned host = 1; host <= 200; host++) {
        char ip[16];

        snprintf(ip, sizeof ip, "127.0.1.%u", host);
        struct rf_addr from = address(ip, (uint16_t)(5000 + port_step * host));
        union sockaddr_any name;
        socklen_t len = addr_to_sockaddr(&name, &from, AF_INET);
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        CHECK(fd >= 0);
        CHECK(bind(fd, &name.any, len) == 0);
        send_to(fd, &s[0].bound, "x", 1);
        hosts[arrived_at(s)]++;
        close(fd);
    }
    for (unsigned i = 0; i < 4; i++)
        CHECK(hosts[i] >= 30); /* 50 of each were even */
    close_group(s);
}

static void test_hosts_are_spread(void)
{
    spread_hosts(0);
    spread_hosts(1);
    spread_hosts(2);
}

/* The port is shared inside the server only; when it is gone the port is free. */
static void test_a_second_server_finds_the_port_in_use(void)
{
    struct sock s[4], second;
    struct rf_addr at;

    open_group(s, "127.0.0.1");
    at = s[0].bound;
    CHECK_EQ(sock_open(&second, &at, 100000, 100000), -EADDRINUSE);
    close_group(s);
    CHECK_EQ(sock_open(&second, &at, 100000, 100000), 0);
    sock_close(&second);
}

int main(void)
{
    RUN(test_families);
    RUN(test_the_kernels_errors);
    RUN(test_buffers);
    RUN(test_drops_are_those_of_the_queue);
    RUN(test_flows_stay_with_one_socket);
    RUN(test_hosts_are_spread);
    RUN(test_a_second_server_finds_the_port_in_use);
    return 0;
}
