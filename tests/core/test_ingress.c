/* ingress.c over loopback: lengths, sources, time stamps, batches.
 * wraps: recvmmsg setsockopt */
#include "ingress.h"

#include <netinet/udp.h>

#include "endpoints.h"
#include "segments.h"
#include "sock.h"

static int injected;
static size_t cut_to;
static bool without_gro;

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    if (without_gro && level == IPPROTO_UDP && name == UDP_GRO) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return __real_setsockopt(fd, level, name, value, len);
}

int __real_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);
int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);

int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t)
{
    CHECK(flags & MSG_DONTWAIT);
    CHECK(t == NULL);
    if (injected) {
        errno = injected;
        return -1;
    }
    if (cut_to) /* the kernel's own cutting, with less room than a datagram can need */
        h[0].msg_hdr.msg_iov->iov_len = cut_to;
    int got = __real_recvmmsg(fd, h, n, flags, t);

    if (cut_to)
        h[0].msg_hdr.msg_iov->iov_len = INGRESS_DATAGRAM;
    return got;
}

static struct sock sock;
static struct ingress *in;

static void setup(const char *ip)
{
    struct rf_addr at = address(ip, 0);

    CHECK_EQ(sock_open(&sock, &at, 4 << 20, 1 << 20), 0);
    CHECK_EQ(ingress_new(sock.fd, NULL, &in), 0);
}

static void teardown(void)
{
    ingress_free(in);
    sock_close(&sock);
}

static void test_nothing_and_errors(void)
{
    setup("127.0.0.1");
    CHECK_EQ(ingress_receive(in), 0);
    injected = EINTR;
    CHECK_EQ(ingress_receive(in), 0);
    injected = ENOMEM;
    CHECK_EQ(ingress_receive(in), -ENOMEM);
    injected = ECONNREFUSED;
    CHECK_EQ(ingress_receive(in), -ECONNREFUSED);
    injected = 0;
    CHECK_EQ(ingress_receive(in), 0);
    teardown();
}

static void test_every_length(void)
{
    static const size_t lengths[] = {0, 1, 11, 12, 1472, 9000, 65506, 65507};
    static uint8_t bytes[65507];
    struct rf_addr from;
    struct datagram d;

    setup("127.0.0.1");
    int fd = endpoint("127.0.0.1", &from);

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    for (unsigned i = 0; i < COUNT(lengths); i++)
        send_to(fd, &sock.bound, bytes, lengths[i]);
    CHECK_EQ(ingress_receive(in), COUNT(lengths)); /* a zero length ends nothing */
    for (unsigned i = 0; i < COUNT(lengths); i++) {
        ingress_datagram(in, i, &d);
        CHECK_EQ(d.len, lengths[i]);
        CHECK(memcmp(d.data, bytes, d.len) == 0);
        CHECK(!d.truncated);
        CHECK(addr_equal(&d.source, &from));
    }
    close(fd);
    teardown();
}

/* One datagram, read a while after it was sent: true if its stamp is from before the read. */
static bool stamped_on_arrival(int fd)
{
    uint64_t before = clock_now(CLOCK_REALTIME), after;
    struct datagram d;

    send_to(fd, &sock.bound, "x", 1);
    after = clock_now(CLOCK_REALTIME);
    sleep_ms(2); /* reading later changes nothing */
    CHECK_EQ(ingress_receive(in), 1);
    ingress_datagram(in, 0, &d);
    ingress_settle(in, 0, 1);
    CHECK(d.received_ns >= before);
    return d.received_ns <= after;
}

static void test_time_stamps_are_the_kernels(void)
{
    struct rf_addr from;

    setup("127.0.0.1");
    int fd = endpoint("127.0.0.1", &from);

    /* The kernel begins to stamp from a work queue: until that has run, the read stamps. */
    for (unsigned tries = 0; tries < 1000 && !stamped_on_arrival(fd); tries++)
        ;
    for (unsigned round = 0; round < 3; round++) /* the control room is given back each time */
        CHECK(stamped_on_arrival(fd));
    close(fd);
    teardown();
}

static void test_no_time_stamp_is_zero(void)
{
    struct rf_addr from;
    struct datagram d;
    int off = 0, on = 1;

    setup("127.0.0.1");
    int fd = endpoint("127.0.0.1", &from);

    CHECK(setsockopt(sock.fd, SOL_SOCKET, SO_TIMESTAMPNS, &off, sizeof off) == 0);
    send_to(fd, &sock.bound, "x", 1);
    CHECK_EQ(ingress_receive(in), 1);
    ingress_datagram(in, 0, &d);
    CHECK_EQ(d.received_ns, 0);
    CHECK(addr_equal(&d.source, &from));
    ingress_settle(in, 0, 1);
    CHECK(setsockopt(sock.fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) == 0);
    send_to(fd, &sock.bound, "x", 1);
    CHECK_EQ(ingress_receive(in), 1);
    ingress_datagram(in, 0, &d);
    CHECK(d.received_ns != 0); /* the room for it was given back */
    close(fd);
    teardown();
}

static void test_truncation_is_told(void)
{
    uint8_t bytes[100] = {0};
    struct rf_addr from;
    struct datagram d;

    setup("127.0.0.1");
    int fd = endpoint("127.0.0.1", &from);

    send_to(fd, &sock.bound, bytes, 100);
    send_to(fd, &sock.bound, bytes, 100);
    cut_to = 60;
    CHECK_EQ(ingress_receive(in), 2);
    cut_to = 0;
    ingress_datagram(in, 0, &d);
    CHECK(d.truncated && d.len == 60);
    ingress_datagram(in, 1, &d);
    CHECK(!d.truncated && d.len == 100);
    ingress_settle(in, 0, 2);
    send_to(fd, &sock.bound, bytes, 100); /* the flag does not stick */
    CHECK_EQ(ingress_receive(in), 1);
    ingress_datagram(in, 0, &d);
    CHECK(!d.truncated && d.len == 100);
    close(fd);
    teardown();
}

static void test_more_than_a_batch_in_order(void)
{
    enum { N = 2 * INGRESS_BATCH + 5 };
    struct rf_addr from;
    struct datagram d;
    unsigned seen = 0;

    setup("127.0.0.1");
    int fd = endpoint("127.0.0.1", &from);

    for (uint8_t i = 0; i < N; i++)
        send_to(fd, &sock.bound, &i, 1);
    for (int n, round = 0; (n = ingress_receive(in)) > 0; round++) {
        CHECK_EQ(n, round < 2 ? INGRESS_BATCH : 5);
        for (unsigned i = 0; i < (unsigned)n; i++) {
            ingress_datagram(in, i, &d);
            CHECK_EQ(d.data[0], seen++);
        }
        ingress_settle(in, 0, (unsigned)n);
    }
    CHECK_EQ(seen, N);
    close(fd);
    teardown();
}

/* One buffer of `n` bytes in segments, by a real UDP_SEGMENT send over loopback. */
static void receive_segments(int fd, const uint8_t *data, size_t n, uint16_t segment)
{
    struct datagram d;

    send_segments(fd, &sock.bound, data, n, segment);
    CHECK_EQ(ingress_receive(in), 1);
    ingress_datagram(in, 0, &d);
    CHECK_EQ(d.len, n);
    CHECK(memcmp(d.data, data, n) == 0);
    CHECK(n > segment ? d.segment == segment : d.segment >= n);
    CHECK(!d.truncated && d.received_ns != 0);
    ingress_settle(in, 0, 1);
}

static void test_segments_come_in_one_buffer(void)
{
    static uint8_t data[65000];
    struct rf_addr from;

    setup("127.0.0.1");
    CHECK(ingress_has_gro(in));
    int fd = endpoint("127.0.0.1", &from);

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 13 + i / 251);
    receive_segments(fd, data, 2 * 1200, 1200);
    receive_segments(fd, data, 2 * 1200 + 1, 1200); /* the last is shorter */
    receive_segments(fd, data, 1200, 1200);         /* no segmentation: no control message */
    receive_segments(fd, data, 64 * 12, 12);
    receive_segments(fd, data, 64 * 1000, 1000);
    receive_segments(fd, data, 100, 1200); /* an earlier buffer's segment size does not stick */
    close(fd);
    teardown();
}

static void test_without_gro_one_by_one(void)
{
    static uint8_t data[10 * 500];
    struct rf_addr from;
    struct datagram d;

    without_gro = true;
    setup("127.0.0.1");
    without_gro = false;
    CHECK(!ingress_has_gro(in));
    int fd = endpoint("127.0.0.1", &from);

    send_segments(fd, &sock.bound, data, sizeof data, 500);
    CHECK_EQ(ingress_receive(in), 10);
    for (unsigned i = 0; i < 10; i++) {
        ingress_datagram(in, i, &d);
        CHECK_EQ(d.len, 500);
        CHECK(d.segment >= 500);
    }
    close(fd);
    teardown();
}

static void test_both_families_on_a_dual_stack(void)
{
    static const char *const ips[] = {"127.0.0.1", "::1"};
    struct rf_addr from, to;
    struct datagram d;

    if (!ipv6_here())
        return;
    setup("::");
    for (unsigned i = 0; i < 4; i++) {
        int fd = endpoint(ips[i % 2], &from);

        to = address(ips[i % 2], sock.bound.port);
        send_to(fd, &to, "x", 1);
        CHECK_EQ(ingress_receive(in), 1);
        ingress_datagram(in, 0, &d);
        CHECK(addr_equal(&d.source, &from));
        CHECK_EQ(addr_is_ipv4(&d.source), i % 2 == 0);
        ingress_settle(in, 0, 1);
        close(fd);
    }
    teardown();
}

int main(void)
{
    RUN(test_nothing_and_errors);
    RUN(test_every_length);
    RUN(test_time_stamps_are_the_kernels);
    RUN(test_no_time_stamp_is_zero);
    RUN(test_truncation_is_told);
    RUN(test_more_than_a_batch_in_order);
    RUN(test_segments_come_in_one_buffer);
    RUN(test_without_gro_one_by_one);
    RUN(test_both_families_on_a_dual_stack);
    return 0;
}
