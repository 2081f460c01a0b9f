/* sources.c, gate.c: who may feed a session, of a whole engine over loopback.
 * wraps: qsbr_synchronize */
#include "calls.h"
#include "grace.h"
#include "identities.h"
#include "letters.h"
#include "loops.h"
#include "segments.h"

enum { SSRC = 7, LEN = 40 };

static struct rf_engine *engine;
static struct rf_addr bound;
static struct loops loops;

static void setup_at(const char *ip, unsigned count)
{
    struct rf_config config = {
        .bind = address(ip, 0),
        .max_sessions = 100,
        .max_subscribers = 10,
        .receive_queue_packets = 4096,
        .workers = count,
    };
    struct rf_socket_info info;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = address("127.0.0.1", info.bound.port);
    loops_start(&loops, engine, count);
}

static struct rf_stats stats(void)
{
    struct rf_stats s;

    rf_engine_stats(engine, &s);
    return s;
}

static void teardown(void)
{
    rf_engine_stop(engine);
    loops_join(&loops);
    struct rf_stats s = stats();

    check_identities(&s);
    rf_engine_free(engine);
}

/* Until that many packets have passed the gate, or failed to; they are counted in order. */
static void await(uint64_t received)
{
    while (stats().packets_received < received)
        sleep_ms(1);
    for (unsigned i = 0; i < 5000; i++) { /* counted first, then dropped or forwarded */
        struct rf_stats s = stats();
        uint64_t sum = s.packets_forwarded;

#define X(name) sum += s.dropped_##name;
        RF_DROP_REASONS(X)
#undef X
        if (sum == received)
            return;
        sleep_ms(1);
    }
    CHECK(false);
}

static void send_rtp(int fd, uint16_t sequence)
{
    uint8_t data[LEN];
    uint64_t before = stats().packets_received;

    rtp_make(data, sizeof data, SSRC, sequence);
    send_to(fd, &bound, data, sizeof data);
    await(before + 1);
}

/* One that waits, for a second at the most. */
static void knock(int fd, uint16_t sequence)
{
    uint8_t data[LEN];

    rtp_make(data, sizeof data, SSRC, sequence);
    send_to(fd, &bound, data, sizeof data);
}

static struct rf_source exactly(struct rf_addr a)
{
    return (struct rf_source){RF_EXACT, .exact = a};
}

static struct rf_source network(enum rf_source_policy policy, const char *ip, uint8_t prefix)
{
    return (struct rf_source){policy, .network = {address(ip, 0), prefix}};
}

static uint64_t session(struct rf_source source)
{
    uint64_t handle;

    CHECK_EQ(rf_session_add(engine, &source, SSRC, 0, &handle), 0);
    return handle;
}

static void subscribe(uint64_t handle, struct rf_addr a, uint64_t now)
{
    bool added;

    CHECK_EQ(subscribers_add(engine, handle, &a, 1, now, &added), 0);
}

static void move(uint64_t handle, struct rf_source source)
{
    grace_periods = 0;
    CHECK_EQ(rf_session_move(engine, handle, &source, clock_now(CLOCK_MONOTONIC)), 0);
    CHECK(grace_periods > 0);
}

static bool notice_in(enum rf_queue queue, struct rf_notice *n)
{
    struct pollfd p = {.fd = rf_notice_fd(engine, queue), .events = POLLIN};

    while (poll(&p, 1, 5000) == 1) {
        if (rf_notices(engine, queue, n, 1) == 1) /* else there was one, and might have been more */
            return true;
    }
    return false;
}

static bool notice(struct rf_notice *n)
{
    return notice_in(RF_QUEUE_KNOWN, n);
}

static void test_moves_between_all_policies(void)
{
    enum { KINDS = 5 };
    struct rf_addr a, b;
    int fd[2] = {endpoint("127.0.0.1", &a), endpoint("127.0.0.1", &b)};
    struct rf_source source[KINDS] = {
        exactly(a), exactly(b), network(RF_NETWORK, "127.0.0.0", 104),
        network(RF_NETWORK, "127.0.0.1", 128), network(RF_LATCH, "127.0.0.0", 104),
    };
    static const bool admits[KINDS][2] = {{true, false}, {false, true}, {true, true}, {true, true}, {false, false}};

    setup_at("127.0.0.1", 1);
    for (unsigned relatch = 0; relatch < 2; relatch++) {
        source[0].relatch_after_ns = source[1].relatch_after_ns = relatch ? UINT64_MAX / 2 : 0;
        source[0].network = (struct rf_network){address("127.0.0.0", 0), 104};
        source[1].network = (struct rf_network){address("127.0.0.1", 0), 128};
        for (unsigned from = 0; from < KINDS; from++) {
            for (unsigned to = 0; to < KINDS; to++) {
                uint64_t handle = session(source[from]), other;

                for (unsigned step = 0; step < 3; step++) {
                    unsigned now = step == 1 ? to : from;

                    if (step > 0)
                        move(handle, source[now]);
                    bool latches = source[now].policy == RF_LATCH;

                    CHECK_EQ(rf_session_pause(engine, handle, latches), 0); /* then nothing waits */
                    for (unsigned k = 0; k < 2; k++) {
                        struct rf_stats before = stats();

                        send_rtp(fd[k], 1);
                        CHECK_EQ(stats().packets_forwarded - before.packets_forwarded, admits[now][k]);
                        CHECK_EQ(stats().dropped_latching - before.dropped_latching, latches);
                    }
                    CHECK_EQ(rf_session_pause(engine, handle, false), 0);
                    CHECK_EQ(rf_session_add(engine, &source[now], SSRC, 0, &other), -EEXIST);
                }
                CHECK_EQ(rf_session_remove(engine, handle), 0);
            }
        }
    }
    CHECK_EQ(stats().dropped_misrouted, 0);
    teardown();
    close(fd[0]), close(fd[1]);
}

static void test_a_move_that_fails_changes_nothing(void)
{
    struct rf_addr a, b;
    int fd[2] = {endpoint("127.0.0.1", &a), endpoint("127.0.0.1", &b)};
    struct rf_source taken = exactly(b), wide = network(RF_NETWORK, "127.0.0.0", 104), wrong = wide;

    setup_at("127.0.0.1", 1);
    uint64_t handle = session(exactly(a));
    struct rf_session_stats s;

    session(taken);
    session(wide);
    CHECK_EQ(rf_session_move(engine, handle, &taken, 0), -EEXIST);
    CHECK_EQ(rf_session_move(engine, handle, &wide, 0), -EEXIST);
    wrong.network.prefix = 3;
    CHECK_EQ(rf_session_move(engine, handle, &wrong, 0), -EINVAL);
    CHECK_EQ(rf_session_move(engine, handle + 50, &wide, 0), -ENOENT);
    send_rtp(fd[0], 1);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &s), 0);
    CHECK_EQ(s.packets_received, 1);
    move(handle, exactly(a)); /* to where it is */
    send_rtp(fd[0], 2);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &s), 0);
    CHECK_EQ(s.packets_received, 2);
    teardown();
    close(fd[0]), close(fd[1]);
}

static void test_latching_and_relatching(void)
{
    struct rf_addr a, b;
    int fd[2] = {endpoint("127.0.0.1", &a), endpoint("127.0.0.1", &b)};
    struct rf_notice n;

    setup_at("127.0.0.1", 1);
    uint64_t handle = session(network(RF_LATCH, "127.0.0.0", 104));

    for (uint16_t i = 0; i < 5; i++)
        knock(fd[0], i);
    while (stats().packets_received < 5)
        sleep_ms(1);
    CHECK(notice(&n) && n.kind == RF_NOTICE_SOURCE && n.handle == handle && addr_equal(&n.source, &a));
    CHECK_EQ(rf_notices(engine, RF_QUEUE_KNOWN, &n, 1), 0); /* one of them, for all five */
    knock(fd[1], 9);
    CHECK(notice(&n) && addr_equal(&n.source, &b)); /* and another, now that it is gone */

    struct rf_source pinned = exactly(a);

    pinned.relatch_after_ns = 50000000;
    pinned.network = (struct rf_network){address("127.0.0.0", 0), 104};
    move(handle, pinned);
    knock(fd[0], 10);
    await(7); /* the six before it have waited in vain: that was no pin */
    CHECK_EQ(stats().packets_forwarded, 1);
    CHECK_EQ(stats().dropped_latching, 6);
    send_rtp(fd[0], 11);
    sleep_ms(60);
    knock(fd[1], 12);
    CHECK(notice(&n) && n.kind == RF_NOTICE_SOURCE && n.handle == handle && addr_equal(&n.source, &b));
    CHECK_EQ(stats().packets_forwarded, 2);
    /* What waits of a session that is gone is of no interest. */
    sleep_ms(1);
    knock(fd[1], 13);
    CHECK_EQ(rf_session_remove(engine, handle), 0);
    await(10);
    CHECK_EQ(rf_notices(engine, RF_QUEUE_KNOWN, &n, 1), 0);
    teardown();
    close(fd[0]), close(fd[1]);
}

static void test_pause_and_limit(void)
{
    struct rf_addr a;
    int fd = endpoint("127.0.0.1", &a);
    struct rf_session_stats s;

    setup_at("127.0.0.1", 1);
    uint64_t handle = session(exactly(a));

    CHECK_EQ(rf_session_pause(engine, handle + 1, true), -ENOENT);
    CHECK_EQ(rf_session_limit(engine, handle + 1, 1), -ENOENT);
    grace_periods = 0;
    CHECK_EQ(rf_session_pause(engine, handle, true), 0);
    CHECK_EQ(grace_periods, 1);
    send_rtp(fd, 1);
    CHECK_EQ(rf_session_pause(engine, handle, false), 0);
    send_rtp(fd, 2);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &s), 0);
    CHECK(s.dropped_paused == 1 && s.packets_received == 1 && s.last_packet_ns > 0);
    CHECK_EQ(stats().dropped_paused, 1);

    /* A bit a second: 64 KiB at once, then nothing for hours. */
    CHECK_EQ(rf_session_limit(engine, handle, 1), 0);
    for (uint16_t i = 0; i < 1700; i++)
        send_rtp(fd, i);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &s), 0);
    CHECK_EQ(s.packets_received, 1 + 65536 / LEN);
    CHECK_EQ(s.dropped_rate_limit, 1700 - 65536 / LEN);
    CHECK_EQ(stats().dropped_rate_limit, s.dropped_rate_limit);
    /* 8 Tbit/s fill 64 KiB, and the debt of before is no longer than its burst. */
    CHECK_EQ(rf_session_limit(engine, handle, UINT64_C(8000000000000)), 0);
    sleep_ms(120);
    send_rtp(fd, 3);
    CHECK_EQ(rf_session_limit(engine, handle, 0), 0);
    send_rtp(fd, 4);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &s), 0);
    CHECK_EQ(s.packets_received, 3 + 65536 / LEN);
    teardown();
    close(fd);
}

/* What our own port sends comes back to it: by rf_send, in the place of a copy. */
static void send_from_ourselves(void)
{
    uint8_t data[LEN];
    uint64_t before = stats().packets_received;

    rtp_make(data, sizeof data, SSRC, 1);
    CHECK_EQ(rf_send(engine, &bound, NULL, data, sizeof data), 0);
    await(before + 1);
}

static void test_our_own_egress(void)
{
    struct rf_addr local[] = {address("192.0.2.1", 0), address("127.0.0.1", 9)}, a;
    int fd = endpoint("127.0.0.1", &a);

    setup_at("127.0.0.1", 1); /* bound to one address: that is enough to know */
    session(network(RF_NETWORK, "127.0.0.0", 104));
    send_from_ourselves();
    CHECK_EQ(stats().dropped_loop, 1);
    send_rtp(fd, 1);
    CHECK_EQ(stats().packets_forwarded, 1);
    CHECK_EQ(stats().control_sent, 1);
    CHECK(rf_send(engine, &local[0], NULL, local, 65508) < 0); /* longer than UDP has room for */
    CHECK_EQ(stats().control_send_failures, 1);
    teardown();

    setup_at("0.0.0.0", 1);
    session(network(RF_NETWORK, "127.0.0.0", 104));
    send_from_ourselves();
    CHECK_EQ(stats().dropped_loop, 0); /* not told yet */
    CHECK_EQ(rf_local_addresses(engine, local, 1), 0);
    send_from_ourselves();
    CHECK_EQ(stats().dropped_loop, 0);
    CHECK_EQ(rf_local_addresses(engine, local, 2), 0);
    send_from_ourselves();
    CHECK_EQ(stats().dropped_loop, 1);
    send_rtp(fd, 1);
    CHECK_EQ(stats().packets_forwarded, 3);
    teardown();
    close(fd);
}

static void test_a_subscriber_does_not_feed_its_own_session(void)
{
    struct rf_addr a, b;
    int fd[2] = {endpoint("127.0.0.1", &a), endpoint("127.0.0.1", &b)};
    bool found;

    setup_at("127.0.0.1", 1);
    uint64_t handle = session(network(RF_NETWORK, "127.0.0.0", 104));

    send_rtp(fd[1], 1); /* the last source when it subscribes */
    subscribe(handle, b, 10);
    for (uint16_t i = 2; i < 5; i++) {
        send_rtp(fd[1], i);
        send_rtp(fd[0], i);
    }
    CHECK_EQ(stats().dropped_loop, 3);
    CHECK_EQ(stats().packets_forwarded, 4);
    CHECK_EQ(rf_subscribers_remove(engine, handle, &b, 1, &found), 0);
    send_rtp(fd[1], 5);
    CHECK_EQ(stats().packets_forwarded, 5);
    subscribe(handle, b, 20);
    send_rtp(fd[1], 6);
    CHECK_EQ(stats().dropped_loop, 4);
    teardown();
    close(fd[0]), close(fd[1]);
}

static struct rf_session_stats of(uint64_t handle)
{
    struct rf_session_stats s;

    CHECK_EQ(rf_session_stats(engine, handle, 0, &s), 0);
    return s;
}

/* By any worker, and each session of the SSRC from when it came until after the others went. */
static void test_what_came_for_a_session_and_was_refused(void)
{
    struct rf_addr a, b, stranger;
    int fd[] = {endpoint("127.0.0.1", &a), endpoint("127.0.0.1", &b)};
    struct rf_source anybody = {RF_NETWORK, .network = {.anybody = true}};

    setup_at("127.0.0.1", 2);
    uint64_t first = session(exactly(a));

    for (uint16_t i = 0; i < 40; i++) { /* of ports enough that both workers have some */
        int other = endpoint("127.0.0.1", &stranger);

        send_rtp(other, i);
        close(other);
    }
    uint64_t second = session(exactly(b));

    send_rtp(fd[0], 1);
    CHECK_EQ(rf_session_remove(engine, first), 0);
    send_rtp(fd[0], 2); /* a stranger by now */
    CHECK_EQ(of(second).dropped_wrong_source, 1);
    uint64_t third = session(exactly(a));

    send_rtp(fd[0], 3);
    send_rtp(fd[1], 3);
    int other = endpoint("127.0.0.1", &stranger);

    send_rtp(other, 4);
    CHECK(of(second).dropped_wrong_source == 2 && of(third).dropped_wrong_source == 1);
    CHECK(of(second).packets_received == 1 && of(third).packets_received == 1);
    CHECK_EQ(stats().dropped_wrong_source, 42);

    move(third, network(RF_LATCH, "127.0.0.0", 104));
    send_rtp(other, 5);
    CHECK(of(third).dropped_latching == 1 && of(second).dropped_latching == 0);
    move(third, anybody);
    subscribe(third, stranger, 10);
    send_rtp(other, 6);
    send_rtp(fd[1], 7);
    CHECK(of(third).dropped_loop == 1 && of(second).dropped_loop == 0);
    CHECK(of(third).dropped_wrong_source == 1 && of(third).packets_received == 1);
    CHECK_EQ(of(second).packets_received, 2);
    teardown();
    close(fd[0]), close(fd[1]), close(other);
}

/* One buffer by UDP_GRO may mix them. */
static void test_control_datagrams(void)
{
    struct rf_addr a;
    int fd = endpoint("127.0.0.1", &a);
    uint8_t burst[6 * LEN];
    struct rf_notice n;

    setup_at("127.0.0.1", 1);
    session(exactly(a));
    for (uint16_t i = 0; i < 6; i++) {
        rtp_make(burst + i * LEN, LEN, SSRC, i);
        if (i % 2)
            CHECK_EQ(letter_make(burst + i * LEN, RFO_HELLO, i), LEN);
    }
    send_segments(fd, &bound, burst, sizeof burst, LEN);
    await(6);
    CHECK_EQ(stats().dropped_control, 3);
    CHECK_EQ(stats().packets_forwarded, 3);
    for (unsigned i = 1; i < 6; i += 2) {
        CHECK(notice_in(RF_QUEUE_STRANGERS, &n));
        CHECK(n.kind == RF_NOTICE_DATAGRAM && addr_equal(&n.source, &a));
        CHECK(n.len == LEN && memcmp(n.data, burst + i * LEN, LEN) == 0);
    }
    CHECK_EQ(rf_notices(engine, RF_QUEUE_STRANGERS, &n, 1), 0);
    CHECK_EQ(rf_notices(engine, RF_QUEUE_KNOWN, &n, 1), 0);
    /* Nobody takes them: one address gets a fifth of the places, and packets pass all the same. */
    for (unsigned i = 0; i < 300; i++)
        send_to(fd, &bound, burst + LEN, LEN);
    await(306);
    CHECK_EQ(stats().dropped_control, 3 + 52);
    CHECK_EQ(stats().dropped_control_full, 300 - 52);
    send_to(fd, &bound, "RFO\x01", 4);
    await(307);
    CHECK_EQ(stats().dropped_control_malformed, 1);
    send_rtp(fd, 9);
    CHECK_EQ(stats().packets_forwarded, 4);
    teardown();
    close(fd);
}

/* Sent `count` times: how many are handed to the control plane, by that queue. */
static unsigned handed(int fd, const uint8_t *p, size_t len, unsigned count, enum rf_queue queue)
{
    uint64_t before = stats().packets_received;
    struct rf_notice n;
    unsigned got = 0;

    for (unsigned i = 0; i < count; i++)
        send_to(fd, &bound, p, len);
    await(before + count);
    while (rf_notices(engine, queue, &n, 1) == 1) {
        CHECK(n.len == len && memcmp(n.data, p, len) == 0);
        got++;
    }
    CHECK_EQ(rf_notices(engine, !queue, &n, 1), 0);
    return got;
}

/* Of those who prove something more wait, apart from all others and apart from each other. */
static void test_control_datagrams_by_what_they_prove(void)
{
    static const uint8_t key[RF_PROOF_KEY] = "cookies", other_key[RF_PROOF_KEY] = "stamps";
    struct rf_addr a;
    int fd = endpoint("127.0.0.1", &a);
    uint8_t join[RFO_LONGEST], echo[RFO_LONGEST], move[RFO_LONGEST];
    size_t echo_len = letter_make(echo, RFO_ECHO, 1), move_len = letter_make(move, RFO_MOVE, 1);

    setup_at("127.0.0.1", 1);
    letter_make(join, RFO_JOIN, 1);
    CHECK_EQ(handed(fd, join, sizeof join, 300, RF_QUEUE_STRANGERS), 52);
    rf_stamp_make(other_key, join + RFO_CLAIMS);
    rf_cookie_make(key, &a, 1, echo + RFO_ECHO_COOKIE);
    CHECK_EQ(handed(fd, echo, echo_len, 300, RF_QUEUE_STRANGERS), 52); /* with no key set */
    rf_cookie_key(engine, key);
    rf_stamp_key(engine, other_key);
    CHECK_EQ(handed(fd, echo, echo_len, 600, RF_QUEUE_KNOWN), 205);
    CHECK_EQ(handed(fd, move, move_len, 300, RF_QUEUE_STRANGERS), 26);
    CHECK_EQ(handed(fd, join, sizeof join, 300, RF_QUEUE_STRANGERS), 52);
    uint64_t full = stats().dropped_control_full;

    CHECK_EQ(stats().dropped_control_known_full, 600 - 205);
    /* A stamp has a room apart: what strangers leave waiting takes nothing of it. */
    join[RFO_CLAIMS + 20] ^= 1;
    for (unsigned i = 0; i < 300; i++)
        send_to(fd, &bound, join, sizeof join);
    join[RFO_CLAIMS + 20] ^= 1;
    for (unsigned i = 0; i < 300; i++)
        send_to(fd, &bound, join, sizeof join);
    await(stats().packets_forwarded + 1800 + 600);
    CHECK_EQ(stats().dropped_control_full - full, 600 - 2 * 52);
    rf_cookie_make(key, &a, 1, join + RFO_JOIN_COOKIE);
    send_to(fd, &bound, join, sizeof join);
    await(stats().packets_forwarded + 1800 + 601);
    struct rf_notice n;

    CHECK(notice(&n) && n.len == sizeof join); /* and a cookie is worth more than a stamp */
    teardown();
    close(fd);
}

/* A network's second source, steered to the worker that does not own the session: both get
 * through, and so they do after the session had no source for a while. */
static void test_a_network_s_sources_on_two_workers(void)
{
    struct rf_addr a;
    int fd[64];
    unsigned count = 0;
    uint64_t sent = 0;
    struct rf_notice n;
    struct rf_session_stats s;
    struct rf_socket_info info;

    setup_at("127.0.0.1", 2);
    uint64_t handle = session(network(RF_NETWORK, "127.0.0.0", 104));

    rf_engine_socket(engine, &info);
    while (stats().handed_over == 0 && count < COUNT(fd)) {
        fd[count++] = endpoint("127.0.0.1", &a);
        send_rtp(fd[count - 1], (uint16_t)sent++);
    }
    for (unsigned i = 0; i < 20; i++)
        send_rtp(fd[i % 2 ? 0 : count - 1], (uint16_t)sent++);
    CHECK(info.receiving == 1 || stats().handed_over == 11);
    move(handle, network(RF_LATCH, "127.0.0.0", 104));
    move(handle, network(RF_NETWORK, "127.0.0.0", 104));
    for (unsigned i = 0; i < 20; i++) /* the first of them has it now */
        send_rtp(fd[i % 2 ? 0 : count - 1], (uint16_t)sent++);
    CHECK(info.receiving == 1 || stats().handed_over == 21);
    CHECK_EQ(stats().packets_forwarded, sent);
    CHECK_EQ(stats().dropped_misrouted, 0);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &s), 0);
    CHECK_EQ(s.packets_received, sent);
    CHECK_EQ(rf_notices(engine, RF_QUEUE_KNOWN, &n, 1), 0);
    teardown();
    while (count > 0)
        close(fd[--count]);
}

int main(void)
{
    RUN(test_moves_between_all_policies);
    RUN(test_a_move_that_fails_changes_nothing);
    RUN(test_latching_and_relatching);
    RUN(test_pause_and_limit);
    RUN(test_our_own_egress);
    RUN(test_a_subscriber_does_not_feed_its_own_session);
    RUN(test_what_came_for_a_session_and_was_refused);
    RUN(test_control_datagrams);
    RUN(test_control_datagrams_by_what_they_prove);
    RUN(test_a_network_s_sources_on_two_workers);
    return 0;
}
