/* drops.c, snmp.c, steer.c, port.c: what didn't come into a queue is counted once, and told apart;
 * what the kernel gives to all sockets of a port one of them takes.
 * wraps: setsockopt */
#include <net/if.h>
#include <sched.h>

#include "drops.h"
#include "endpoints.h"
#include "port.h"
#include "steer.h"

enum { GROUP = 4 };

static bool is_old_kernel; /* without IPV6_MULTICAST_ALL */

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    if (is_old_kernel && level == IPPROTO_IPV6 && name == 29) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return __real_setsockopt(fd, level, name, value, len);
}

static const char SNMP[] =
    "Ip: Forwarding DefaultTTL\nIp: 1 64\n"
    "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors "
    "IgnoredMulti MemErrors\n"
    "Udp: 857834 870483 468385 1689457 400 1 20 3 5\n"
    "UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors\nUdpLite: 7 7 7 7 7\n";
static const char OLD_SNMP[] = "Ip: A\nIp: 1\nUdp: InErrors RcvbufErrors\nUdp: 9 4\n";
static const char SNMP6[] = "Ip6InReceives\t\t8\nUdp6RcvbufErrors                \t1000\n"
                            "Udp6InCsumErrors                \t300\nUdp6MemErrors\t0\n"
                            "UdpLite6RcvbufErrors\t77\n";

static void test_the_hosts_figures(void)
{
    struct udp_errors e = {0};

    snmp_parse(SNMP, &e);
    CHECK_EQ(e.full, 405);
    CHECK_EQ(e.checksum, 20);
    snmp_parse6(SNMP6, &e);
    CHECK_EQ(e.full, 1405);
    CHECK_EQ(e.checksum, 320);
    e = (struct udp_errors){0};
    snmp_parse(OLD_SNMP, &e);
    CHECK_EQ(e.full, 4);
    CHECK_EQ(e.checksum, 0);
    for (size_t len = 0; len < sizeof SNMP; len++) { /* cut short anywhere */
        char *part = strndup(SNMP, len);

        e = (struct udp_errors){0};
        snmp_parse(part, &e);
        snmp_parse6(part, &e);
        CHECK(e.full <= 405 && e.checksum <= 20);
        free(part);
    }
}

static void test_this_host_tells(void)
{
    struct udp_errors e = {1, 1};
    struct snmp s;
    int files = open_files();

    snmp_open(&s);
    CHECK_EQ(snmp_read(&s, &e), 0);
    snmp_close(&s);
    CHECK_EQ(open_files(), files);
    CHECK_EQ(snmp_read(&s, &e), -ENOENT);
}

static void test_reasons(void)
{
    static const struct {
        uint64_t dropped;
        struct udp_errors host;
        bool near_full;
        uint64_t full;
    } cases[] = {
        {100, {100, 0}, false, 100},   /* a full queue, read empty since */
        {100, {0, 100}, false, 0},     /* wrong checksums */
        {100, {0, 100}, true, 0},      /* the same beside a full queue that lost nothing */
        {100, {60, 40}, false, 60},    /* both, and nobody else's */
        {100, {60, 40}, true, 60},
        {100, {5000, 0}, false, 100},  /* others overflow, too */
        {100, {5000, 100}, false, 0},  /* and every error may be ours: our queue has room */
        {100, {5000, 100}, true, 100},
        {100, {5000, 30}, false, 70},
        {100, {0, 5000}, true, 0},     /* others get wrong checksums, too */
        {100, {0, 0}, true, 0},        /* a filter, or a policy */
        {100, {UINT64_MAX, UINT64_MAX}, false, 0}, /* the host doesn't tell */
        {100, {UINT64_MAX, UINT64_MAX}, true, 100},
    };

    for (unsigned i = 0; i < COUNT(cases); i++)
        CHECK_EQ(drops_of_full_queue(cases[i].dropped, &cases[i].host, cases[i].near_full),
                 cases[i].full);
}

static uint16_t open_port(struct sock s[GROUP], struct sock *deaf, unsigned count, uint32_t buffer)
{
    struct rf_addr any = address("0.0.0.0", 0);

    CHECK_EQ(port_open(s, &any, count, buffer, deaf), count);
    return s[0].bound.port;
}

static void close_port(struct sock s[GROUP], struct sock *deaf, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        sock_close(&s[i]);
    if (deaf->fd >= 0)
        sock_close(deaf);
}

static int caster(void)
{
    struct rf_addr at;
    int fd = endpoint("127.0.0.1", &at), on = 1;

    CHECK(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) == 0);
    return fd;
}

/* How many are queued; the socket's own queue is empty then. */
static unsigned drain(const struct sock *s)
{
    uint8_t bytes[64];
    unsigned n = 0;

    while (recv(s->fd, bytes, sizeof bytes, MSG_DONTWAIT) >= 0)
        n++;
    return n;
}

/* Until `wanted` have come, to whichever: on a busy machine that is after the send has returned. */
static void collect(const struct sock *s, unsigned count, unsigned wanted, unsigned got[GROUP])
{
    unsigned all = 0;

    memset(got, 0, GROUP * sizeof *got);
    for (unsigned waits = 0; all < wanted && waits < 20000; waits++) {
        if (waits)
            sleep_ms(1);
        for (unsigned i = 0; i < count; i++) {
            unsigned n = drain(&s[i]);

            got[i] += n;
            all += n;
        }
    }
    CHECK_EQ(all, wanted);
}

/* Until each that was sent is in a queue, or counted; how many are in queues. */
static unsigned account(struct drops *d, const struct sock *s, const struct sock *deaf,
                        uint64_t sent)
{
    unsigned queued = 0;

    for (unsigned waits = 0; d->full + d->other + queued < sent && waits < 20000; waits++) {
        if (waits)
            sleep_ms(1);
        drops_take(d, s, GROUP, deaf, NULL, 0);
        for (unsigned i = 0; i < GROUP; i++)
            queued += drain(&s[i]);
    }
    CHECK_EQ(d->full + d->other + queued, sent);
    return queued;
}

/* Each source's broadcasts come once, to the socket that its unicast comes to. */
static void test_a_broadcast_comes_once(void)
{
    enum { SOURCES = 40, EACH = 5 };
    struct sock s[GROUP], deaf, lane;
    struct drops d;

    for (unsigned count = 1; count <= GROUP; count++) {
        uint16_t port = open_port(s, &deaf, count, 1 << 20);
        struct rf_addr one = address("127.0.0.1", port), all = address("127.255.255.255", port);
        unsigned used = 0;

        CHECK_EQ(deaf.fd >= 0, count > 1);
        CHECK_EQ(sock_open_deaf(&lane, &s[0], 100000), 0);
        if (count == 1)
            CHECK_EQ(steer_by_source(s[0].fd, 1), 0);
        drops_begin(&d, s, count, false);
        for (unsigned i = 0; i < SOURCES; i++) {
            int fd = caster();
            unsigned got[GROUP];

            send_to(fd, &one, "u", 1);
            for (unsigned k = 0; k < EACH; k++)
                send_to(fd, &all, "b", 1);
            collect(s, count, 1 + EACH, got);
            for (unsigned k = 0; k < count; k++) {
                CHECK(got[k] == 0 || got[k] == 1 + EACH);
                used |= (got[k] > 0) << k;
            }
            CHECK_EQ(drain(&lane), 0);
            close(fd);
            drops_take(&d, s, count, deaf.fd >= 0 ? &deaf : NULL, NULL, 0);
        }
        CHECK_EQ(used, (1u << count) - 1);
        CHECK_EQ(d.full, 0);
        CHECK_EQ(d.other, 0);
        drops_end(&d);
        sock_close(&lane);
        close_port(s, &deaf, count);
    }
}

/* A host of its own with an interface that multicast comes by; false where that may not be made. */
static bool unshare_host(void)
{
    return unshare(CLONE_NEWNET) == 0 &&
           system("ip link set lo up && ip link add m0 type veth peer name m1 && "
                  "ip link set m1 addrgenmode none && ip link set m1 up && ip link set m0 up && "
                  "ip address add fd00::1/64 dev m0 nodad && "
                  "timeout 60 sh -c 'until ip link show m0 | grep -q \"state UP\"; do :; done' && "
                  "echo 1 >/proc/sys/net/ipv6/conf/m1/disable_ipv6") == 0;
}

/* Multicast that the host takes anyway, beside unicast: of several sockets one takes it. */
static void cast_ipv6(void)
{
    enum { SOURCES = 150 };
    struct rf_addr any = address("::", 0), at;
    struct sock s[GROUP], deaf;
    struct drops d;
    unsigned used = 0;

    CHECK_EQ(port_open(s, &any, GROUP, 1 << 20, &deaf), GROUP);
    drops_begin(&d, s, GROUP, false);
    for (unsigned i = 0; i < SOURCES; i++) {
        struct rf_addr one = address("fd00::1", s[0].bound.port), all = address("ff02::1", one.port);
        unsigned got[GROUP];
        int fd = endpoint("fd00::1", &at);

        all.scope = if_nametoindex("m0");
        send_to(fd, &one, "u", 1);
        send_to(fd, &all, "m", 1);
        collect(s, GROUP, 2, got);
        for (unsigned k = 0; k < GROUP; k++)
            used |= (got[k] > 0) << k;
        close(fd);
    }
    CHECK_EQ(used, (1u << GROUP) - 1);
    drops_take(&d, s, GROUP, &deaf, NULL, 0);
    CHECK_EQ(d.full, 0);
    CHECK_EQ(d.other, 0);
    drops_end(&d);
    close_port(s, &deaf, GROUP);
}

static void test_ipv6_multicast_comes_once(void)
{
    if (!ipv6_here() || !unshare_host())
        return;
    cast_ipv6();
    is_old_kernel = true;
    cast_ipv6();
    is_old_kernel = false;
}

/* What the others refuse is told from what one has no room for. */
static void test_broadcasts_beyond_the_queue(void)
{
    enum { SENT = 300 };
    struct sock s[GROUP], deaf;
    uint16_t port = open_port(s, &deaf, GROUP, 4096);
    struct rf_addr all = address("127.255.255.255", port);
    struct drops d;
    int fd = caster();

    drops_begin(&d, s, GROUP, false);
    for (unsigned i = 0; i < SENT; i++)
        send_to(fd, &all, "b", 1);
    unsigned queued = account(&d, s, &deaf, SENT);

    CHECK(queued > 0 && queued < SENT);
    drops_take(&d, s, GROUP, &deaf, NULL, 0);
    CHECK_EQ(d.full + d.other, SENT - queued);
    drops_end(&d);
    close(fd);
    close_port(s, &deaf, GROUP);
}

/* The sockets know how much of it was counted, so it is counted once in all. */
static void test_the_next_one_counts_the_rest(void)
{
    struct sock s[GROUP], deaf, mine[GROUP], my_deaf;
    uint16_t port = open_port(s, &deaf, GROUP, 4096);
    struct rf_addr one = address("127.0.0.1", port), all = address("127.255.255.255", port);
    int fds[GROUP + 1], fd = caster();
    struct drops sum = {0};
    uint64_t sent = 0;

    for (unsigned i = 0; i <= GROUP; i++)
        fds[i] = i < GROUP ? s[i].fd : deaf.fd;
    CHECK_EQ(port_receiving(fds, GROUP + 1), GROUP);
    CHECK_EQ(port_receiving(fds, GROUP), GROUP);
    for (unsigned life = 0; life < 5; life++) {
        struct drops d;

        for (unsigned i = 0; i < 200; i++, sent++)
            send_to(fd, i % 3 ? &one : &all, "b", 1);
        CHECK_EQ(port_adopt(mine, fds, GROUP + 1, &my_deaf), 0);
        CHECK_EQ(port_share(mine, GROUP, &my_deaf), 0);
        drops_begin(&d, mine, GROUP, true);
        drops_take(&d, mine, GROUP, &my_deaf, NULL, 0);
        sum.full += d.full;
        sum.other += d.other;
        drops_end(&d);
        close_port(mine, &my_deaf, GROUP);
    }
    CHECK(sum.full > 0);
    snmp_open(&sum.snmp);
    account(&sum, s, &deaf, sent);
    drops_end(&sum);
    close(fd);
    close_port(s, &deaf, GROUP);
}

/* A kept number is modulo 2^30, a socket's count modulo 2^32. */
static void test_notes(void)
{
    struct rf_addr at = address("127.0.0.1", 0);
    struct sock s;

    CHECK_EQ(sock_open(&s, &at, 100000, 100000), 0);
    CHECK_EQ(sock_note(&s), 0);
    sock_set_note(&s, UINT32_MAX);
    CHECK_EQ(sock_note(&s), SOCK_NOTE_MAX);
    struct sock same;

    CHECK_EQ(sock_adopt(&same, s.fd), 0);
    CHECK_EQ(sock_note(&same), SOCK_NOTE_MAX);
    sock_close(&same);
    sock_close(&s);
}

int main(void)
{
    RUN(test_the_hosts_figures);
    RUN(test_this_host_tells);
    RUN(test_reasons);
    RUN(test_a_broadcast_comes_once);
    RUN(test_broadcasts_beyond_the_queue);
    RUN(test_the_next_one_counts_the_rest);
    RUN(test_notes);
    RUN(test_ipv6_multicast_comes_once); /* the last, for the host it leaves */
    return 0;
}
