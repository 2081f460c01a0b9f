/* side_ports.c, side_reader.c, ports.c: the RTCP port, and ports that are a session's own.
 * wraps: sendmmsg */
#include "side_reader.h"

#include <signal.h>
#include <sys/wait.h>

#include "calls.h"
#include "endpoints.h"
#include "identities.h"
#include "loops.h"
#include "random.h"

enum { LENGTH = 60, WORKERS = 2 };

static bool deadly; /* the next send is not made */

int __real_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
    if (deadly)
        raise(SIGKILL);
    return __real_sendmmsg(fd, headers, n, flags);
}

static struct rf_engine *e;
static struct loops loops;
static struct rf_addr bound;

static struct rf_engine *engine_new(const char *ip, uint32_t workers, const int *sock,
                                    const int *in_hand)
{
    struct rf_config config = {
        .bind = address(ip, 0),
        .max_sessions = 64,
        .max_subscribers = 64,
        .receive_queue_packets = 4096,
        .workers = workers,
        .sockets = sock,
        .socket_count = sock != NULL,
        .in_hand = in_hand,
    };
    struct rf_engine *made;

    CHECK_EQ(rf_engine_new(&config, &made), 0);
    return made;
}

static void setup(const char *ip, uint32_t workers)
{
    struct rf_socket_info info;

    e = engine_new(ip, workers, NULL, NULL);
    rf_engine_socket(e, &info);
    bound = info.bound;
}

static struct rf_stats stats_now(void)
{
    struct rf_stats stats;

    rf_engine_stats(e, &stats);
    return stats;
}

/* All that is queued is forwarded or dropped; then it can't go on. */
static struct rf_stats drain(void)
{
    rf_engine_stop(e);
    loops_join(&loops);
    struct rf_stats stats = stats_now();

    check_identities(&stats);
    return stats;
}

static void teardown(void)
{
    rf_engine_free(e);
}

/* A socket at a free port of the engine's address, and the address that others send to. */
static int port_open_at(const char *ip, struct rf_addr *at)
{
    struct rf_addr any = address(ip, 0);
    union sockaddr_any name;
    socklen_t len = sizeof name;
    int fd = rf_socket_open(&any, 1024);

    CHECK(fd >= 0);
    CHECK(getsockname(fd, &name.any, &len) == 0);
    addr_from_sockaddr(at, &name);
    *at = address("127.0.0.1", at->port);
    return fd;
}

static void send_rtp(int fd, const struct rf_addr *to, uint32_t ssrc, uint16_t sequence)
{
    uint8_t packet[LENGTH];

    rtp_make(packet, sizeof packet, ssrc, sequence);
    send_to(fd, to, packet, sizeof packet);
}

static struct rf_source exact(const struct rf_addr *source)
{
    return (struct rf_source){.policy = RF_EXACT, .exact = *source, .own_port = true};
}

static struct rf_source anybody(enum rf_source_policy policy)
{
    return (struct rf_source){
        .policy = policy, .network = {.anybody = true}, .own_port = true};
}

/* A session at a port of its own, with one subscriber. */
struct own {
    uint64_t handle;
    struct rf_addr rtp, rtcp;
    int subscriber;
};

static void give_ports(struct own *o, const char *ip)
{
    int rtp = port_open_at(ip, &o->rtp), rtcp = port_open_at(ip, &o->rtcp);

    CHECK_EQ(rf_session_ports(e, o->handle, rtp, rtcp), 0);
    close(rtp);
    close(rtcp);
}

static struct own own_new(const char *ip, struct rf_source source, uint32_t ssrc)
{
    struct own o;
    struct rf_addr to;
    bool added;

    CHECK_EQ(rf_session_add(e, &source, ssrc, 1, &o.handle), 0);
    o.subscriber = endpoint("127.0.0.1", &to);
    CHECK_EQ(subscribers_add(e, o.handle, &to, 1, 1, &added), 0);
    give_ports(&o, ip);
    return o;
}

static unsigned received(int fd)
{
    uint8_t packet[2 * LENGTH];
    unsigned n = 0;

    while (receive(fd, packet, sizeof packet, 0) == LENGTH)
        n++;
    return n;
}

static void test_rtcp_port(void)
{
    static const uint8_t report[] = {0x80, 201, 0, 1, 0, 0, 0, 7};
    struct rf_addr at, source;

    setup("127.0.0.1", WORKERS);
    int fd = port_open_at("127.0.0.1", &at), from = endpoint("127.0.0.1", &source);
    int files = open_files();

    CHECK_EQ(rf_rtcp_port(e, fd), 0);
    CHECK_EQ(rf_rtcp_port(e, fd), -EEXIST);
    CHECK_EQ(open_files(), files + 1);
    loops_start(&loops, e, WORKERS);
    send_to(from, &at, report, sizeof report);
    send_rtp(from, &at, 7, 1);             /* no RTP there */
    send_to(from, &at, "RFO\1", 4);       /* nor anything else */
    send_to(from, &at, "", 0);
    struct rf_stats stats = drain();

    CHECK_EQ(stats.packets_received, 4);
    CHECK_EQ(stats.dropped_rtcp, 1);
    CHECK_EQ(stats.dropped_malformed, 2);
    CHECK_EQ(stats.dropped_not_rtp, 1);
    close(fd);
    close(from);
    teardown();
}

static void test_refused_sockets(void)
{
    struct rf_addr elsewhere = address("127.0.0.2", 0), source = address("127.0.0.1", 9), at;
    uint64_t handle;
    struct rf_source from = exact(&source);

    setup("127.0.0.1", 1);
    int files = open_files(), tcp = socket(AF_INET, SOCK_STREAM, 0), other = rf_socket_open(&elsewhere, 9);
    int one = port_open_at("127.0.0.1", &at), two = port_open_at("127.0.0.1", &at);

    CHECK_EQ(rf_socket_open(&at, 9), -EADDRINUSE);
    CHECK_EQ(rf_socket_open(&at, 0), -EINVAL);
    CHECK_EQ(rf_rtcp_port(e, tcp), -EINVAL);
    CHECK_EQ(rf_rtcp_port(e, other), -EINVAL);
    CHECK_EQ(rf_rtcp_port(e, -1), -EBADF);
    CHECK_EQ(rf_session_ports(e, 77, one, two), -ENOENT);
    CHECK_EQ(session_add(e, &source, 7, 1, &handle), 0);
    CHECK_EQ(rf_session_ports(e, handle, one, two), -EINVAL); /* it is fed by the main port */
    CHECK_EQ(rf_session_add(e, &from, 7, 1, &handle), 0);
    CHECK_EQ(rf_session_ports(e, handle, one, other), -EINVAL);
    CHECK_EQ(rf_session_ports(e, handle, one, one), -EEXIST);
    CHECK_EQ(open_files(), files + 4);
    CHECK_EQ(rf_session_ports(e, handle, one, two), 0); /* nothing was left of it */
    CHECK_EQ(open_files(), files + 6);
    CHECK_EQ(rf_session_remove(e, handle), 0);
    CHECK_EQ(open_files(), files + 4);
    close(tcp);
    close(other);
    close(one);
    close(two);
    teardown();
}

static void test_fed_by_its_port_alone(const char *ip)
{
    struct rf_addr source, stranger;
    int from = endpoint("127.0.0.1", &source), other = endpoint("127.0.0.1", &stranger);

    setup(ip, WORKERS);
    struct own a = own_new(ip, exact(&source), 7), b = own_new(ip, exact(&source), 7);
    struct rf_addr main_port = address("127.0.0.1", bound.port);

    loops_start(&loops, e, WORKERS);
    for (uint16_t i = 0; i < 10; i++)
        send_rtp(from, &a.rtp, i % 2 ? 7 : 1000 + i, i); /* whatever the SSRC */
    for (uint16_t i = 0; i < 5; i++)
        send_rtp(from, &b.rtp, 7, i);
    send_rtp(from, &main_port, 7, 1);
    send_rtp(other, &a.rtp, 7, 1);
    send_to(from, &b.rtp, "RFO\1", 4);
    struct rf_stats stats = drain();
    struct rf_session_stats s;

    CHECK_EQ(stats.packets_forwarded, 15);
    CHECK_EQ(stats.dropped_unknown_ssrc, 1);
    CHECK_EQ(stats.dropped_wrong_source, 1);
    CHECK_EQ(stats.dropped_not_rtp, 1);
    CHECK_EQ(received(a.subscriber), 10);
    CHECK_EQ(received(b.subscriber), 5);
    CHECK_EQ(rf_session_stats(e, a.handle, 2, &s), 0);
    CHECK_EQ(s.packets_received, 10);
    CHECK_EQ(s.dropped_wrong_source, 1);
    CHECK_EQ(rf_session_stats(e, b.handle, 2, &s), 0);
    CHECK_EQ(s.dropped_wrong_source, 0); /* though of the same SSRC */
    close(from);
    close(other);
    close(a.subscriber);
    close(b.subscriber);
    teardown();
}

/* Until that many were dropped so. */
#define AWAIT(field, n) \
    do { \
        for (int tries = 0; stats_now().field < (n) && tries < 5000; tries++) \
            sleep_ms(1); \
        CHECK_EQ(stats_now().field, (n)); \
    } while (0)

static void test_latches_on_and_moves(void)
{
    struct rf_addr source;
    struct rf_notice notice;
    int from = endpoint("127.0.0.1", &source);

    setup("127.0.0.1", WORKERS);
    struct own o = own_new("127.0.0.1", anybody(RF_LATCH), 7);
    struct own n = own_new("127.0.0.1", anybody(RF_NETWORK), 7); /* the very same network */
    struct rf_source pinned = exact(&source), gone = exact(&o.rtp);

    loops_start(&loops, e, WORKERS);
    send_rtp(from, &o.rtp, 1, 1);
    AWAIT(dropped_latching, 1);
    CHECK_EQ(rf_notices(e, RF_QUEUE_KNOWN, &notice, 1), 1);
    CHECK_EQ(notice.handle, o.handle);
    CHECK(addr_equal(&notice.source, &source));
    CHECK_EQ(rf_session_move(e, o.handle, &pinned, 2), 0);
    send_rtp(from, &o.rtp, 1, 2);
    send_rtp(from, &n.rtp, 1, 3);
    AWAIT(packets_forwarded, 2);
    CHECK_EQ(rf_session_move(e, o.handle, &gone, 3), 0);
    send_rtp(from, &o.rtp, 1, 4);
    AWAIT(dropped_wrong_source, 1);
    drain();
    CHECK_EQ(received(o.subscriber), 1);
    CHECK_EQ(received(n.subscriber), 1);
    close(from);
    close(o.subscriber);
    close(n.subscriber);
    teardown();
}

/* Another source has another SSRC, and perhaps a payload type that was not seen before. */
static void test_follows_whom_it_is_moved_to(void)
{
    struct rf_addr source, other;
    uint8_t packet[LENGTH];
    int from = endpoint("127.0.0.1", &source), next = endpoint("127.0.0.1", &other);

    setup("127.0.0.1", 1);
    struct rf_source first = exact(&source), second = exact(&other);
    struct rf_session_stats stats;

    first.ssrc_policy = second.ssrc_policy = RF_SSRC_FOLLOW;
    struct own o = own_new("127.0.0.1", first, 0);

    loops_start(&loops, e, 1);
    send_rtp(from, &o.rtp, 1, 1);
    AWAIT(packets_forwarded, 1);
    CHECK_EQ(rf_session_move(e, o.handle, &first, 2), 0); /* the same: nothing begins anew */
    send_rtp(from, &o.rtp, 2, 1);
    AWAIT(dropped_probation, 1);
    CHECK_EQ(rf_session_stats(e, o.handle, 2, &stats), 0);
    CHECK_EQ(stats.dropped_probation, 1);
    CHECK_EQ(rf_session_move(e, o.handle, &second, 3), 0);
    rtp_make(packet, sizeof packet, 3, 1);
    packet[1] = 97;
    send_to(next, &o.rtp, packet, sizeof packet);
    AWAIT(packets_forwarded, 2);
    drain();
    CHECK_EQ(received(o.subscriber), 2);
    close(from);
    close(next);
    close(o.subscriber);
    teardown();
}

/* An exact source that was silent for long gives way to whom the network holds. */
static void test_relatches(void)
{
    struct rf_addr source, other;
    struct rf_notice notice;
    int from = endpoint("127.0.0.1", &source), next = endpoint("127.0.0.1", &other);

    setup("127.0.0.1", 1);
    struct rf_source pinned = exact(&source);

    pinned.network.anybody = true;
    pinned.relatch_after_ns = 1;
    struct own o = own_new("127.0.0.1", pinned, 7);

    loops_start(&loops, e, 1);
    send_rtp(from, &o.rtp, 1, 1);
    AWAIT(packets_forwarded, 1);
    send_rtp(next, &o.rtp, 1, 1);
    AWAIT(dropped_latching, 1);
    CHECK_EQ(rf_notices(e, RF_QUEUE_KNOWN, &notice, 1), 1);
    CHECK(addr_equal(&notice.source, &other));
    drain();
    close(from);
    close(next);
    close(o.subscriber);
    teardown();
}

static void test_from_the_main_port_and_back(void)
{
    struct rf_addr source, to;
    int from = endpoint("127.0.0.1", &source), fd = endpoint("127.0.0.1", &to);
    struct rf_source at_port = exact(&source), at_main = exact(&source);
    uint64_t other;
    bool added;

    at_main.own_port = false;
    setup("127.0.0.1", WORKERS);
    struct own o = {.subscriber = fd};

    CHECK_EQ(session_add(e, &source, 7, 1, &o.handle), 0);
    CHECK_EQ(subscribers_add(e, o.handle, &to, 1, 1, &added), 0);
    loops_start(&loops, e, WORKERS);
    send_rtp(from, &bound, 7, 1);
    AWAIT(packets_forwarded, 1);
    CHECK_EQ(rf_session_move(e, o.handle, &at_port, 2), 0);
    send_rtp(from, &bound, 7, 2);
    AWAIT(dropped_unknown_ssrc, 1);
    give_ports(&o, "127.0.0.1");
    struct rf_addr before = o.rtp;

    send_rtp(from, &o.rtp, 8, 3);
    AWAIT(packets_forwarded, 2);
    give_ports(&o, "127.0.0.1"); /* others */
    send_rtp(from, &o.rtp, 8, 4);
    AWAIT(packets_forwarded, 3);
    int again = rf_socket_open(&before, 9); /* those of before are free */

    CHECK(again >= 0);
    close(again);
    CHECK_EQ(session_add(e, &source, 7, 1, &other), 0);
    CHECK_EQ(rf_session_move(e, o.handle, &at_main, 3), -EEXIST);
    send_rtp(from, &o.rtp, 8, 5);
    AWAIT(packets_forwarded, 4);
    CHECK_EQ(rf_session_remove(e, other), 0);
    CHECK_EQ(rf_session_move(e, o.handle, &at_main, 3), 0);
    send_rtp(from, &bound, 7, 6);
    AWAIT(packets_forwarded, 5);
    drain();
    CHECK_EQ(received(fd), 5);
    close(from);
    close(fd);
    teardown();
}

/* What leaves one of our ports is not taken at another. */
static void test_loops_are_dropped(void)
{
    setup("127.0.0.1", WORKERS);
    struct own a = own_new("127.0.0.1", anybody(RF_NETWORK), 7);
    struct own b = own_new("127.0.0.1", anybody(RF_NETWORK), 7);
    struct rf_addr source;
    int from = endpoint("127.0.0.1", &source);
    bool added;

    CHECK_EQ(subscribers_add(e, a.handle, &b.rtp, 1, 2, &added), 0);
    CHECK_EQ(subscribers_add(e, b.handle, &a.rtp, 1, 2, &added), 0);
    loops_start(&loops, e, WORKERS);
    send_rtp(from, &a.rtp, 1, 1);
    AWAIT(dropped_loop, 1);
    CHECK_EQ(drain().packets_forwarded, 1);
    close(from);
    close(a.subscriber);
    close(b.subscriber);
    teardown();
}

/* However much is queued at one port, the others get their turn, and a stop forwards it all. */
static void test_nobody_is_left_out(void)
{
    enum { PORTS_HERE = 40, EACH = 30 };
    struct rf_addr source;
    struct own own[PORTS_HERE];
    uint64_t handle;
    int from = endpoint("127.0.0.1", &source);

    setup("127.0.0.1", WORKERS);
    CHECK_EQ(session_add(e, &source, 7, 1, &handle), 0);
    for (unsigned i = 0; i < PORTS_HERE; i++)
        own[i] = own_new("127.0.0.1", exact(&source), i);
    for (uint16_t n = 0; n < EACH; n++) {
        for (unsigned i = 0; i < PORTS_HERE; i++)
            send_rtp(from, &own[i].rtp, 1, n);
        send_rtp(from, &bound, 7, n);
    }
    loops_start(&loops, e, WORKERS);
    CHECK_EQ(drain().packets_forwarded, (PORTS_HERE + 1) * EACH);
    for (unsigned i = 0; i < PORTS_HERE; i++) {
        CHECK_EQ(received(own[i].subscriber), EACH);
        close(own[i].subscriber);
    }
    close(from);
    teardown();
}

/* Sessions at their own ports come and go while packets do. */
static void test_churn(void)
{
    struct rf_addr source;
    int from = endpoint("127.0.0.1", &source);

    setup("127.0.0.1", WORKERS);
    loops_start(&loops, e, WORKERS);
    int files = open_files();

    for (unsigned i = 0; i < 200; i++) {
        struct own o = own_new("127.0.0.1", exact(&source), 7);

        for (uint16_t n = 0; n < 5; n++) {
            send_rtp(from, &o.rtp, n, n);
            send_rtp(from, &o.rtcp, n, n);
        }
        CHECK_EQ(rf_session_remove(e, o.handle), 0);
        close(o.subscriber);
    }
    CHECK_EQ(open_files(), files);
    struct rf_stats stats = drain();

    CHECK(stats.packets_received <= 2000);
    close(from);
    teardown();
}

static void test_drops_are_counted(void)
{
    struct rf_addr source, at;
    int from = endpoint("127.0.0.1", &source);

    setup("127.0.0.1", 1);
    int fd = port_open_at("127.0.0.1", &at), small = 1;

    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
    CHECK_EQ(rf_rtcp_port(e, fd), 0);
    for (uint16_t i = 0; i < 100; i++)
        send_rtp(from, &at, 1, i);
    uint64_t dropped = stats_now().kernel_drops;

    CHECK(dropped > 0 && dropped < 100);
    CHECK_EQ(stats_now().kernel_drops, dropped); /* once */
    loops_start(&loops, e, 1);
    CHECK_EQ(drain().packets_received, 100 - dropped);
    close(fd);
    close(from);
    teardown();
}

/* What came to a session's port and was in hand when the process died. */
static void test_in_hand(void)
{
    struct rf_addr any = address("127.0.0.1", 0), at, behind, source, to;
    int sock, in_hand = rf_in_hand_open(1), status;
    int from = endpoint("127.0.0.1", &source), fd = endpoint("127.0.0.1", &to);
    int rtp = port_open_at("127.0.0.1", &at), rtcp = port_open_at("127.0.0.1", &behind);
    struct rf_source exactly = exact(&source);

    CHECK_EQ(rf_sockets_open(&any, 1, 4096, &sock), 1);
    for (unsigned life = 0; life < 2; life++) {
        pid_t pid = life == 0 ? fork() : 0;

        if (pid > 0) {
            for (uint16_t i = 0; i < 20; i++)
                send_rtp(from, &at, 1, i);
            CHECK(waitpid(pid, &status, 0) == pid);
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            continue;
        }
        uint64_t handle;
        bool added;

        e = engine_new("127.0.0.1", 1, &sock, &in_hand);
        CHECK_EQ(rf_session_add(e, &exactly, 7, 1, &handle), 0);
        CHECK_EQ(subscribers_add(e, handle, &to, 1, 1, &added), 0);
        CHECK_EQ(rf_session_ports(e, handle, rtp, rtcp), 0);
        deadly = life == 0;
        if (deadly)
            rf_engine_run(e, 0);
    }
    loops_start(&loops, e, 1);
    struct rf_stats stats = drain();

    CHECK(stats.packets_recovered > 0);
    CHECK_EQ(stats.packets_forwarded, 20);
    CHECK_EQ(received(fd), 20);
    rf_engine_free(e);
    int all[] = {sock, in_hand, from, fd, rtp, rtcp};

    for (unsigned i = 0; i < COUNT(all); i++)
        close(all[i]);
}

int main(void)
{
    int files = open_files();

    test_in_hand(); /* it forks: before there are threads */
    test_rtcp_port();
    test_refused_sockets();
    test_fed_by_its_port_alone("127.0.0.1");
    test_fed_by_its_port_alone("0.0.0.0");
    if (ipv6_here())
        test_fed_by_its_port_alone("::");
    test_latches_on_and_moves();
    test_follows_whom_it_is_moved_to();
    test_relatches();
    test_from_the_main_port_and_back();
    test_loops_are_dropped();
    test_nobody_is_left_out();
    test_churn();
    test_drops_are_counted();
    CHECK_EQ(open_files(), files);
    return 0;
}
