/* engine.c, subscription.c, figures.c: the facade, from outside, over loopback.
 * wraps: qsbr_synchronize */
#include "core.h"

#include <pthread.h>

#include "atomic.h"
#include "calls.h"
#include "endpoints.h"
#include "grace.h"
#include "identities.h"
#include "loops.h"
#include "sock.h"

static struct rf_engine *engine;
static struct rf_addr bound;
static struct loops loops;

static void setup(uint32_t max_sessions, uint32_t max_subscribers)
{
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = max_sessions,
        .max_subscribers = max_subscribers,
        .receive_queue_packets = 4096,
        .workers = 1,
        .check_padding = true,
    };
    struct rf_socket_info info;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = info.bound;
}

static void start(void)
{
    loops_start(&loops, engine, 1);
}

static void stop(void)
{
    rf_engine_stop(engine);
    loops_join(&loops);
}

static uint64_t session(struct rf_addr source, uint32_t ssrc)
{
    uint64_t handle;

    CHECK_EQ(session_add(engine, &source, ssrc, 0, &handle), 0);
    return handle;
}

static void remove_subscriber(uint64_t handle, struct rf_addr a)
{
    bool found;

    CHECK_EQ(rf_subscribers_remove(engine, handle, &a, 1, &found), 0);
    CHECK(found);
}

static void test_limits(void)
{
    struct rf_config good = {address("127.0.0.1", 0), 1, 1, 1, .workers = 1}, bad;
    struct rf_engine *none = NULL;

    bad = good, bad.max_sessions = 0;
    CHECK_EQ(rf_engine_new(&bad, &none), -EINVAL);
    bad = good, bad.max_sessions = RF_MAX_SESSIONS + 1;
    CHECK_EQ(rf_engine_new(&bad, &none), -EINVAL);
    bad = good, bad.max_subscribers = 0;
    CHECK_EQ(rf_engine_new(&bad, &none), -EINVAL);
    bad = good, bad.receive_queue_packets = 0;
    CHECK_EQ(rf_engine_new(&bad, &none), -EINVAL);
    bad = good, bad.workers = 0;
    CHECK_EQ(rf_engine_new(&bad, &none), -EINVAL);
    bad = good, bad.workers = RF_MAX_WORKERS + 1;
    CHECK_EQ(rf_engine_new(&bad, &none), -EINVAL);
    CHECK(none == NULL);
    rf_engine_free(NULL);
}

static void test_socket_info(void)
{
    static const struct {
        const char *ip;
        bool ipv4, ipv6;
    } cases[] = {{"127.0.0.1", true, false}, {"::1", false, true}, {"::", true, true}};

    for (unsigned i = 0; i < COUNT(cases); i++) {
        if (cases[i].ipv6 && !ipv6_here())
            continue;
        struct rf_config config = {address(cases[i].ip, 0), 1, 1, 100, .workers = 1};
        struct rf_socket_info info;
        struct rf_engine *e, *second = NULL;

        CHECK_EQ(rf_engine_new(&config, &e), 0);
        rf_engine_socket(e, &info);
        CHECK(info.bound.port != 0);
        CHECK_EQ(info.sends_ipv4, cases[i].ipv4);
        CHECK_EQ(info.sends_ipv6, cases[i].ipv6);
        CHECK(info.receive_buffer > 0 && info.send_buffer > 0);
        config.bind = info.bound;
        CHECK_EQ(rf_engine_new(&config, &second), -EADDRINUSE);
        CHECK(second == NULL);
        rf_engine_free(e);
    }
}

static void test_session_errors_and_handles(void)
{
    struct rf_addr a = address("127.0.0.1", 1), b = address("127.0.0.1", 2);
    struct rf_session_stats stats;
    uint64_t handle = 7, first;

    setup(2, 1);
    first = session(a, 0);
    CHECK_EQ(session_add(engine, &a, 0, 0, &handle), -EEXIST);
    session(b, 0);
    CHECK_EQ(session_add(engine, &a, 0, 0, &handle), -EEXIST); /* also when there is no room */
    CHECK_EQ(session_add(engine, &a, 1, 0, &handle), -EAGAIN);
    CHECK_EQ(handle, 7);
    CHECK_EQ(rf_session_remove(engine, first), 0);
    CHECK_EQ(rf_session_remove(engine, first), -ENOENT);
    CHECK_EQ(rf_session_remove(engine, UINT64_MAX), -ENOENT);
    CHECK_EQ(rf_session_stats(engine, first, 0, &stats), -ENOENT);
    handle = session(a, 0);
    CHECK(handle != first);
    CHECK_EQ(rf_session_stats(engine, first, 0, &stats), -ENOENT);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &stats), 0);
    CHECK_EQ(stats.handle, handle);
    rf_engine_free(engine);
}

static void test_subscriber_errors(void)
{
    struct rf_addr a = address("127.0.0.1", 1), b[3], other = address("::1", 1);
    struct rf_subscriber_stats out[3];
    bool added[3], found[4];
    size_t count = 99;

    setup(2, 2);
    for (uint16_t i = 0; i < 3; i++)
        b[i] = address("127.0.0.1", (uint16_t)(10 + i));
    uint64_t handle = session(a, 5);

    CHECK_EQ(subscribers_add(engine, handle + 1, b, 1, 0, added), -ENOENT);
    CHECK_EQ(subscribers_add(engine, handle, b, 3, 0, added), -EAGAIN);
    CHECK_EQ(subscribers_add(engine, handle, &other, 1, 0, added), -EAFNOSUPPORT);
    CHECK_EQ(rf_subscribers(engine, handle, 0, out, 3, &count), 0);
    CHECK_EQ(count, 0);
    CHECK_EQ(subscribers_add(engine, handle, b, 2, 0, added), 0);
    CHECK(added[0] && added[1]);
    CHECK_EQ(subscribers_add(engine, handle, b, 2, 0, added), 0);
    CHECK(!added[0] && !added[1]);
    CHECK_EQ(rf_subscribers(engine, handle, 0, NULL, 0, &count), 0);
    CHECK_EQ(count, 0);
    out[1].since_ns = 77;
    CHECK_EQ(rf_subscribers(engine, handle, 0, out, 1, &count), 0);
    CHECK_EQ(count, 1);
    CHECK_EQ(out[1].since_ns, 77); /* no more was written than there was room for */
    CHECK_EQ(rf_subscribers(engine, handle, 0, out, 3, &count), 0);
    CHECK_EQ(count, 2);
    CHECK(addr_equal(&out[0].addr, &b[0]) && addr_equal(&out[1].addr, &b[1]));
    CHECK_EQ(rf_subscribers(engine, handle + 1, 0, out, 3, &count), -ENOENT);
    CHECK_EQ(rf_subscribers_remove(engine, handle + 1, b, 1, found), -ENOENT);
    struct rf_addr leaving[] = {b[2], other, b[0], b[0]};

    CHECK_EQ(rf_subscribers_remove(engine, handle, leaving, 4, found), 0);
    CHECK(!found[0] && !found[1] && found[2] && !found[3]);
    CHECK_EQ(rf_subscribers_remove(engine, handle, leaving, 4, found), 0);
    CHECK(!found[0] && !found[1] && !found[2] && !found[3]);
    CHECK_EQ(rf_subscribers(engine, handle, 0, out, 3, &count), 0);
    CHECK(count == 1 && addr_equal(&out[0].addr, &b[1]));
    CHECK_EQ(rf_session_remove(engine, handle), 0);
    CHECK_EQ(rf_subscribers(engine, handle, 0, out, 3, &count), -ENOENT);
    rf_engine_free(engine);
}

/* What the socket can send to, and nothing else, can subscribe. */
static void test_families(void)
{
    static const struct {
        const char *ip;
        int ipv4, ipv6;
    } cases[] = {{"127.0.0.1", 0, -EAFNOSUPPORT}, {"::1", -EAFNOSUPPORT, 0}, {"::", 0, 0}};

    for (unsigned i = 0; i < COUNT(cases); i++) {
        if (cases[i].ipv6 == 0 && !ipv6_here())
            continue;
        struct rf_config config = {address(cases[i].ip, 0), 1, 2, 100, .workers = 1};
        struct rf_addr four = address("192.0.2.1", 5), six = address("2001:db8::1", 5);
        struct rf_addr both[] = {four, six};
        struct rf_session_stats stats;
        bool flags[2];

        CHECK_EQ(rf_engine_new(&config, &engine), 0);
        uint64_t handle = session(four, 1);

        CHECK_EQ(subscribers_add(engine, handle, both, 2, 0, flags),
                 cases[i].ipv4 ? cases[i].ipv4 : cases[i].ipv6);
        CHECK_EQ(rf_session_stats(engine, handle, 0, &stats), 0);
        CHECK_EQ(stats.subscribers, cases[i].ipv4 || cases[i].ipv6 ? 0 : 2);
        CHECK_EQ(subscribers_add(engine, handle, &four, 1, 0, flags), cases[i].ipv4);
        CHECK_EQ(subscribers_add(engine, handle, &six, 1, 0, flags), cases[i].ipv6);
        CHECK_EQ(rf_subscribers_remove(engine, handle, both, 2, flags), 0);
        CHECK_EQ(flags[0], cases[i].ipv4 == 0);
        CHECK_EQ(flags[1], cases[i].ipv6 == 0);
        rf_engine_free(engine);
    }
}

/* A thousand leave in the time that one needs; nobody leaving is no wait at all. */
static void test_removal_of_many_waits_once(void)
{
    enum { N = 1000 };
    static struct rf_addr addrs[N];
    static bool flags[N];
    struct rf_session_stats stats;

    setup(1, N);
    uint64_t handle = session(address("127.0.0.1", 1), 5);

    for (uint16_t i = 0; i < N; i++)
        addrs[i] = address("127.0.0.1", i);
    grace_periods = 0;
    CHECK_EQ(subscribers_add(engine, handle, addrs, N, 0, flags), 0);
    CHECK_EQ(grace_periods, 0);
    CHECK_EQ(rf_subscribers_remove(engine, handle, addrs, N - 1, flags), 0);
    CHECK_EQ(grace_periods, 1);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &stats), 0);
    CHECK_EQ(stats.subscribers, 1);
    CHECK_EQ(rf_subscribers_remove(engine, handle, addrs, N - 1, flags), 0);
    CHECK_EQ(rf_subscribers_remove(engine, handle, addrs, 0, flags), 0);
    CHECK_EQ(grace_periods, 1);
    rf_engine_free(engine);
}

/* Reads all pages of `capacity`; between two of them `between` changes the list. Those that
 * were there all the time are seen once each, in order. */
static void read_pages(uint64_t handle, size_t capacity, void (*between)(uint64_t, unsigned),
                       unsigned *seen)
{
    struct rf_subscriber_stats page[7];
    uint64_t after = 0;
    size_t count;

    for (unsigned number = 0;; number++) {
        CHECK_EQ(rf_subscribers(engine, handle, after, page, capacity, &count), 0);
        CHECK(count <= capacity);
        for (size_t i = 0; i < count; i++) {
            CHECK(page[i].since_ns > after);
            after = page[i].since_ns;
            seen[page[i].addr.port]++;
        }
        if (count < capacity)
            return;
        between(handle, number);
    }
}

static void leave_it(uint64_t handle, unsigned page)
{
    (void)handle, (void)page;
}

/* Takes away ports 3k, of pages to come and of such as were read, and adds ports from 100 on. */
static void come_and_go(uint64_t handle, unsigned page)
{
    struct rf_addr gone[] = {address("127.0.0.1", (uint16_t)(30 - 3 * page)),
                             address("127.0.0.1", (uint16_t)(3 * page + 3))};
    struct rf_addr new = address("127.0.0.1", (uint16_t)(100 + page));
    bool flags[2];

    CHECK_EQ(rf_subscribers_remove(engine, handle, gone, 2, flags), 0);
    if (page < 20)
        CHECK_EQ(subscribers_add(engine, handle, &new, 1, 5, flags), 0);
}

static void test_paging_while_others_come_and_go(void)
{
    enum { N = 40 };
    struct rf_addr a = address("127.0.0.1", 1), addrs[N];
    bool added[N];

    for (size_t capacity = 1; capacity <= 7; capacity++) {
        unsigned still[200] = {0}, moving[200] = {0};

        setup(1, 100);
        uint64_t handle = session(a, 5);

        for (uint16_t i = 0; i < N; i++)
            addrs[i] = address("127.0.0.1", i);
        CHECK_EQ(subscribers_add(engine, handle, addrs, N, 1000, added), 0);
        read_pages(handle, capacity, leave_it, still);
        read_pages(handle, capacity, come_and_go, moving);
        for (unsigned port = 0; port < 200; port++) {
            CHECK_EQ(still[port], port < N);
            CHECK(moving[port] <= 1);
            CHECK(moving[port] == 1 || port >= N || (port > 0 && port % 3 == 0));
        }
        rf_engine_free(engine);
    }
}

static void test_all_sessions_in_one_pass(void)
{
    struct rf_session_stats stats[8];
    struct rf_addr a = address("127.0.0.1", 1);
    uint64_t handle[5];

    setup(10, 1);
    for (uint32_t i = 0; i < 5; i++)
        handle[i] = session(a, i);
    CHECK_EQ(rf_session_remove(engine, handle[1]), 0);
    CHECK_EQ(rf_sessions_stats(engine, 0, NULL, 0), 4);
    stats[2].handle = 99;
    CHECK_EQ(rf_sessions_stats(engine, 0, stats, 2), 4);
    CHECK_EQ(stats[2].handle, 99);
    CHECK_EQ(rf_sessions_stats(engine, 0, stats, 8), 4);
    CHECK(stats[0].handle == handle[0] && stats[3].handle == handle[4]);
    rf_engine_free(engine);
}

static void test_tick_finds_the_idle(void)
{
    struct rf_addr a = address("127.0.0.1", 1);
    uint64_t idle[8], handle[3];

    setup(10, 1);
    for (uint32_t i = 0; i < 3; i++)
        CHECK_EQ(session_add(engine, &a, i, 1000 * i, &handle[i]), 0);
    CHECK_EQ(rf_engine_tick(engine, 5000, 0, idle, 8), 0); /* 0: never */
    CHECK_EQ(rf_engine_tick(engine, 999, 1000, idle, 8), 0);
    CHECK_EQ(rf_engine_tick(engine, 1000, 1000, idle, 8), 1);
    CHECK_EQ(idle[0], handle[0]);
    CHECK_EQ(rf_engine_tick(engine, 9000, 1000, idle, 2), 2); /* the rest with the next call */
    CHECK_EQ(rf_engine_tick(engine, 9000, 1000, idle, 8), 3);
    rf_engine_free(engine);
}

static void test_a_session_has_a_timeout_of_its_own(void)
{
    struct rf_addr a = address("127.0.0.1", 1);
    uint64_t idle[4], handle[4], gone;

    setup(4, 1);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQ(session_add(engine, &a, i, 1000, &handle[i]), 0);
    CHECK_EQ(rf_session_idle_timeout(engine, handle[1], 50), 0);
    CHECK_EQ(rf_session_idle_timeout(engine, handle[2], RF_IDLE_FOREVER), 0);
    CHECK_EQ(rf_session_idle_timeout(engine, handle[3], 5000), 0);
    CHECK_EQ(rf_engine_tick(engine, 1049, 100, idle, 4), 0);
    CHECK_EQ(rf_engine_tick(engine, 1050, 0, idle, 4), 1); /* also where others never end */
    CHECK_EQ(idle[0], handle[1]);
    CHECK_EQ(rf_engine_tick(engine, 1100, 100, idle, 4), 2);
    CHECK(idle[0] == handle[0] && idle[1] == handle[1]);
    CHECK_EQ(rf_engine_tick(engine, 6000, 100, idle, 4), 3);
    CHECK_EQ(idle[2], handle[3]);
    CHECK_EQ(rf_session_idle_timeout(engine, handle[2], 0), 0); /* as all */
    CHECK_EQ(rf_engine_tick(engine, 6000, 100, idle, 4), 4);
    /* Another session in its place has nothing of it. */
    CHECK_EQ(rf_session_remove(engine, handle[1]), 0);
    CHECK_EQ(rf_session_idle_timeout(engine, handle[1], 1), -ENOENT);
    CHECK_EQ(session_add(engine, &a, 9, 6000, &gone), 0);
    CHECK_EQ(rf_engine_tick(engine, 6099, 100, idle, 4), 3);
    CHECK_EQ(rf_engine_tick(engine, 6100, 100, idle, 4), 4);
    rf_engine_free(engine);
}

static void test_one_loop_at_a_time(void)
{
    struct rf_addr from, viewer;
    uint8_t p[20];
    bool added;

    setup(2, 2);
    int camera = endpoint("127.0.0.1", &from), to = endpoint("127.0.0.1", &viewer);
    uint64_t handle = session(from, 1);

    CHECK_EQ(subscribers_add(engine, handle, &viewer, 1, 0, &added), 0);
    start();
    rtp_make(p, sizeof p, 1, 1);
    send_to(camera, &bound, p, sizeof p);
    CHECK_EQ(receive(to, p, sizeof p, 20000), 20); /* it runs */
    CHECK_EQ(rf_engine_run(engine, 0), -EBUSY);
    CHECK_EQ(rf_engine_run(engine, 1), -EINVAL); /* there is no second worker */
    send_to(camera, &bound, p, sizeof p); /* and wasn't hurt */
    CHECK_EQ(receive(to, p, sizeof p, 20000), 20);
    stop();
    CHECK_EQ(rf_engine_run(engine, 0), 0); /* it has ended: returns */
    rf_engine_free(engine);
    close(camera);
    close(to);
}

/* Virtual time: to whoever asks years later, a sleeper has not woken for years. */
static void test_a_sleeper_that_does_not_wake_is_not_alive(void)
{
    const uint64_t second = 1000000000, began = clock_now(CLOCK_MONOTONIC), years = began << 8;
    struct rf_health health;

    setup(1, 1);
    CHECK_EQ(rf_engine_health(engine, 0, began, &health), 0);
    CHECK_EQ(health.alive_ns, 0);
    start();
    do {
        sleep_ms(1);
        CHECK_EQ(rf_engine_health(engine, 0, began + second / 2, &health), 0);
    } while (health.alive_ns != began + second / 2); /* it sleeps */
    CHECK_EQ(rf_engine_health(engine, 0, years, &health), 0);
    CHECK(health.alive_ns > began);
    CHECK(health.alive_ns <= clock_now(CLOCK_MONOTONIC) + second);
    stop();
    rf_engine_free(engine);
}

static _Atomic bool sending;
static struct rf_addr camera_address;
static int camera_fd;

static void *send_always(void *unused)
{
    uint8_t p[200];

    for (uint32_t i = 0; load_acq(&sending); i++) {
        rtp_make(p, sizeof p, i % 4, (uint16_t)i);
        send_to(camera_fd, &bound, p, sizeof p);
        if (i % 32 == 0)
            sleep_ms(1);
    }
    return unused;
}

static uint64_t copies_sent(void)
{
    struct rf_stats stats;

    rf_engine_stats(engine, &stats);
    return stats.packets_sent;
}

/* After the reply no copy leaves, whatever comes in. */
static void check_silence(void)
{
    uint64_t sent = copies_sent();

    sleep_ms(2);
    CHECK_EQ(copies_sent(), sent);
}

/* What the viewer's own queue had no room for, on a machine too busy to empty it. */
static unsigned lost_by(int fd)
{
    struct sock s = {.fd = fd};

    return sock_queue(&s).drops;
}

static unsigned heard_by(int fd)
{
    uint8_t p[200];
    unsigned n = 0;

    while (recv(fd, p, sizeof p, MSG_DONTWAIT) > 0)
        n++;
    return n;
}

static void test_removal_under_traffic(void)
{
    enum { ROUNDS = 100 };
    struct rf_addr viewer[4];
    struct rf_stats stats;
    unsigned heard = 0;
    uint64_t handle[4];
    pthread_t sender;
    int fd[4];
    bool added;

    setup(8, 8);
    camera_fd = endpoint("127.0.0.1", &camera_address);
    for (unsigned i = 0; i < 4; i++)
        fd[i] = endpoint("127.0.0.1", &viewer[i]);
    store_rls(&sending, true);
    start();
    CHECK(pthread_create(&sender, NULL, send_always, NULL) == 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned i = round % 4;

        handle[i] = session(camera_address, i);
        CHECK_EQ(subscribers_add(engine, handle[i], &viewer[i], 1, 0, &added), 0);
        for (uint64_t before = heard; heard == before; heard += heard_by(fd[i]))
            sleep_ms(1);
        if (round % 2)
            remove_subscriber(handle[i], viewer[i]);
        else
            CHECK_EQ(rf_session_remove(engine, handle[i]), 0);
        check_silence();
        heard += heard_by(fd[i]);
        if (round % 2)
            CHECK_EQ(rf_session_remove(engine, handle[i]), 0);
        rf_engine_tick(engine, round, 0, NULL, 0);
    }
    store_rls(&sending, false);
    pthread_join(sender, NULL);
    stop();
    for (unsigned i = 0; i < 4; i++)
        heard += heard_by(fd[i]) + lost_by(fd[i]);
    rf_engine_stats(engine, &stats);
    check_identities(&stats);
    CHECK_EQ(stats.packets_sent, heard);
    printf("  %u packets in %d removals\n", heard, ROUNDS);
    rf_engine_free(engine);
    close(camera_fd);
    for (unsigned i = 0; i < 4; i++)
        close(fd[i]);
}

static uint64_t sent_of(uint64_t handle)
{
    struct rf_session_stats stats;

    CHECK_EQ(rf_session_stats(engine, handle, 0, &stats), 0);
    return stats.packets_sent;
}

/* With a heavy session in the same turns, a copy that is in the batch waits long for its
 * flush: the removal has to wait for it as well. */
static void test_subscriber_removal_in_long_turns(void)
{
    enum { ROUNDS = 60, CROWD = 200 };
    struct rf_addr viewer, crowd_port, crowd[CROWD];
    bool added[CROWD];
    pthread_t sender;
    uint64_t heard = 0;

    setup(4, CROWD);
    camera_fd = endpoint("127.0.0.1", &camera_address);
    int fd = endpoint("127.0.0.1", &viewer), crowd_fd = endpoint("0.0.0.0", &crowd_port);
    uint64_t handle = session(camera_address, 0), heavy = session(camera_address, 1);

    for (unsigned i = 0; i < CROWD; i++) {
        crowd[i] = address("127.0.1.1", crowd_port.port);
        crowd[i].ip[15] = (uint8_t)(1 + i);
    }
    CHECK_EQ(subscribers_add(engine, heavy, crowd, CROWD, 0, added), 0);
    store_rls(&sending, true);
    start();
    CHECK(pthread_create(&sender, NULL, send_always, NULL) == 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        CHECK_EQ(subscribers_add(engine, handle, &viewer, 1, 0, added), 0);
        for (uint64_t before = heard; heard == before; heard += heard_by(fd))
            sleep_ms(1);
        remove_subscriber(handle, viewer);
        uint64_t sent = sent_of(handle);

        sleep_ms(3);
        CHECK_EQ(sent_of(handle), sent);
        heard += heard_by(fd);
    }
    store_rls(&sending, false);
    pthread_join(sender, NULL);
    stop();
    heard += heard_by(fd) + lost_by(fd);
    CHECK_EQ(sent_of(handle), heard);
    rf_engine_free(engine);
    close(camera_fd);
    close(fd);
    close(crowd_fd);
}

int main(void)
{
    RUN(test_limits);
    RUN(test_socket_info);
    RUN(test_session_errors_and_handles);
    RUN(test_subscriber_errors);
    RUN(test_families);
    RUN(test_removal_of_many_waits_once);
    RUN(test_paging_while_others_come_and_go);
    RUN(test_all_sessions_in_one_pass);
    RUN(test_tick_finds_the_idle);
    RUN(test_a_session_has_a_timeout_of_its_own);
    RUN(test_one_loop_at_a_time);
    RUN(test_a_sleeper_that_does_not_wake_is_not_alive);
    RUN(test_removal_under_traffic);
    RUN(test_subscriber_removal_in_long_turns);
    return 0;
}
