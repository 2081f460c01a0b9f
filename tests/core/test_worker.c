/* worker.c, worker_admit.c, gate.c over loopback: gating by reason, order, errors borne, stop and drain.
 * wraps: recvmmsg qsbr_quiescent clock_gettime */
#include <pthread.h>

#include "identities.h"
#include "one_worker.h"
#include "segments.h"
#include "sessions.h"
#include "still.h"

static _Atomic int errors_to_come;
static _Atomic bool cut_short;

int __real_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);
int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);

int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t)
{
    if (load_rlx(&errors_to_come) > 0) {
        store_rlx(&errors_to_come, load_rlx(&errors_to_come) - 1);
        errno = ENOMEM;
        return -1;
    }
    int got = __real_recvmmsg(fd, h, n, flags, t);

    if (load_rlx(&cut_short) && got > 0)
        h[0].msg_hdr.msg_flags |= MSG_TRUNC;
    return got;
}

static pthread_t thread;

static void setup(bool check_padding)
{
    struct worker_options options = {
        .receives = true, .check_padding = check_padding, .split_threshold = 256};

    worker_open(&options);
}

static void *run(void *unused)
{
    worker_run(&worker);
    return unused;
}

static void start(void)
{
    CHECK(pthread_create(&thread, NULL, run, NULL) == 0);
}

static struct session *session_with(uint32_t ssrc, struct rf_addr source, struct rf_addr subscriber)
{
    struct session *s = session_make(&pool, source, ssrc, &subscriber, 1);

    CHECK_EQ(table_insert(&table, s), 0);
    return s;
}

static void await(counter *c, uint64_t value)
{
    for (unsigned i = 0; i < 20000 && load_rlx(c) < value; i++)
        sleep_ms(1);
    CHECK_EQ(load_rlx(c), value);
}

static void stop_and_check_identities(struct rf_stats *sum)
{
    worker_stop(&worker);
    pthread_join(thread, NULL);
    memset(sum, 0, sizeof *sum);
    stats_sum(sum, &worker.counters);
    check_identities(sum);
    CHECK_EQ(sum->dropped_misrouted + sum->tasks_shared, 0); /* it is alone */
    CHECK_EQ(load_rlx(&qsbr.readers[0].seen), QSBR_OFFLINE);
}

/* Each datagram sent has exactly one fate, and only the one good packet reaches anyone. */
static void gate_each_kind(bool check_padding)
{
    struct rf_addr camera, stranger, viewer;
    struct rf_stats sum;
    uint8_t p[64], got[64];

    setup(check_padding);
    int from = endpoint("127.0.0.1", &camera), other = endpoint("127.0.0.1", &stranger);
    int to = endpoint("127.0.0.1", &viewer);
    struct session *s = session_with(0xffffffff, camera, viewer);

    start();
    rtp_make(p, sizeof p, 0xffffffff, 1);
    send_to(other, &sock.bound, p, sizeof p); /* wrong_source */
    send_to(from, &sock.bound, p, 11);        /* malformed */
    send_to(from, &sock.bound, p, 0);         /* malformed */
    p[1] = 200;
    send_to(from, &sock.bound, p, sizeof p); /* rtcp */
    p[1] = 96;
    p[0] = 0;
    send_to(from, &sock.bound, p, sizeof p); /* not_rtp */
    p[0] = 0xa0;
    p[63] = 0;
    send_to(from, &sock.bound, p, sizeof p); /* padding of no bytes */
    rtp_make(p, sizeof p, 0, 2);
    send_to(from, &sock.bound, p, sizeof p); /* unknown_ssrc */
    rtp_make(p, sizeof p, 0xffffffff, 3);
    send_to(from, &sock.bound, p, sizeof p);
    await(&worker.counters.packets_received, 8);
    stop_and_check_identities(&sum);
    CHECK_EQ(sum.dropped_wrong_source, 1);
    CHECK_EQ(sum.dropped_malformed, check_padding ? 3 : 2);
    CHECK_EQ(sum.dropped_rtcp, 1);
    CHECK_EQ(sum.dropped_not_rtp, 1);
    CHECK_EQ(sum.dropped_unknown_ssrc, 1);
    CHECK_EQ(sum.packets_forwarded, check_padding ? 1 : 2);
    CHECK_EQ(sum.bytes_received, 6 * 64 + 11);
    CHECK_EQ(sum.bytes_sent, check_padding ? 64 : 128);
    CHECK_EQ(load_rlx(&s->counters.packets_received), sum.packets_forwarded);
    CHECK(load_rlx(&s->last_packet_ns) != 0);
    if (!check_padding)
        CHECK_EQ(receive(to, got, sizeof got, 1000), 64);
    CHECK_EQ(receive(to, got, sizeof got, 1000), 64);
    CHECK(memcmp(p, got, 64) == 0);
    CHECK_EQ(receive(to, got, sizeof got, 20), -1);
    close(from);
    close(other);
    close(to);
    worker_close();
}

static void test_gate_by_reason(void)
{
    gate_each_kind(true);
    gate_each_kind(false);
}

/* Two sessions' packets, mixed within turns, each in order at its own subscriber. */
static void test_sessions_in_one_turn_stay_apart(void)
{
    enum { N = 200 };
    struct rf_addr camera, viewer[2];
    struct rf_stats sum;
    uint8_t p[100], got[100];
    int to[2];

    setup(true);
    int from = endpoint("127.0.0.1", &camera);

    for (uint32_t i = 0; i < 2; i++) {
        to[i] = endpoint("127.0.0.1", &viewer[i]);
        session_with(i, camera, viewer[i]);
    }
    for (uint16_t i = 0; i < N; i++) {
        rtp_make(p, sizeof p, i * 5 % 7 % 2, i);
        send_to(from, &sock.bound, p, sizeof p); /* all queued before the loop starts */
    }
    start();
    await(&worker.counters.packets_received, N);
    stop_and_check_identities(&sum);
    CHECK_EQ(sum.turns, (N + INGRESS_BATCH - 1) / INGRESS_BATCH);
    CHECK_EQ(sum.packets_sent, N);
    for (uint16_t i = 0; i < N; i++) {
        rtp_make(p, sizeof p, i * 5 % 7 % 2, i);
        CHECK_EQ(receive(to[i * 5 % 7 % 2], got, sizeof got, 1000), sizeof p);
        CHECK(memcmp(p, got, sizeof p) == 0);
    }
    close(from);
    close(to[0]);
    close(to[1]);
    worker_close();
}

static void test_receive_errors_are_borne(void)
{
    struct rf_addr camera, viewer;
    struct rf_stats sum;
    uint8_t p[20];

    setup(true);
    int from = endpoint("127.0.0.1", &camera), to = endpoint("127.0.0.1", &viewer);

    session_with(1, camera, viewer);
    store_rlx(&errors_to_come, 5);
    start();
    rtp_make(p, sizeof p, 1, 1);
    send_to(from, &sock.bound, p, sizeof p);
    await(&worker.counters.packets_sent, 1);
    stop_and_check_identities(&sum);
    CHECK_EQ(sum.receive_errors, 5);
    close(from);
    close(to);
    worker_close();
}

static void test_truncated_goes_nowhere(void)
{
    struct rf_addr camera, viewer;
    struct rf_stats sum;
    uint8_t p[20];

    setup(true);
    int from = endpoint("127.0.0.1", &camera), to = endpoint("127.0.0.1", &viewer);

    session_with(1, camera, viewer);
    rtp_make(p, sizeof p, 1, 1);
    store_rlx(&cut_short, true);
    start();
    send_to(from, &sock.bound, p, sizeof p);
    await(&worker.counters.packets_received, 1);
    store_rlx(&cut_short, false);
    stop_and_check_identities(&sum);
    CHECK_EQ(sum.dropped_truncated, 1);
    CHECK_EQ(sum.copies_attempted, 0);
    close(from);
    close(to);
    worker_close();
}

static void test_stop_forwards_what_is_queued(void)
{
    enum { N = 3 * INGRESS_BATCH + 1 };
    struct rf_addr camera, viewer;
    struct rf_stats sum;
    uint8_t p[20];

    setup(true);
    int from = endpoint("127.0.0.1", &camera), to = endpoint("127.0.0.1", &viewer);

    session_with(1, camera, viewer);
    for (uint16_t i = 0; i < N; i++) {
        rtp_make(p, sizeof p, 1, i);
        send_to(from, &sock.bound, p, sizeof p);
    }
    worker_stop(&worker);
    start();
    stop_and_check_identities(&sum);
    CHECK_EQ(sum.packets_sent, N);
    close(from);
    close(to);
    worker_close();
}

/* More segments than a turn has room for: it sends in between, from the same buffers. What the
 * viewer's own queue has no room for it does not see; the rest is whole and in order. */
static void test_more_segments_than_a_turn_holds(void)
{
    enum { LENGTH = 40, MOST = 128 };
    uint8_t p[MOST * LENGTH], got[LENGTH + 1];
    struct rf_addr camera, viewer;
    struct rf_stats sum;
    unsigned n = MOST, sends; /* UDP_MAX_SEGMENTS since Linux 6.10, 64 before */
    int next = 0;

    setup(true);
    int from = endpoint("127.0.0.1", &camera), to = endpoint("127.0.0.1", &viewer);

    session_with(1, camera, viewer);
    for (sends = 0; sends < INGRESS_BATCH; sends++) {
        for (uint16_t i = 0; i < n; i++)
            rtp_make(p + i * LENGTH, LENGTH, 1, (uint16_t)(sends * n + i));
        if (!try_send_segments(from, &sock.bound, p, n * LENGTH, LENGTH)) {
            CHECK(n == MOST && sends == 0);
            n = 64;
            send_segments(from, &sock.bound, p, n * LENGTH, LENGTH);
        }
    }
    start();
    await(&worker.counters.packets_sent, sends * n);
    stop_and_check_identities(&sum);
    CHECK_EQ(sum.turns, 1);
    CHECK_EQ(sum.receives, INGRESS_BATCH);
    CHECK_EQ(sum.packets_forwarded, sends * n);
    while (receive(to, got, sizeof got, 20) == LENGTH) {
        CHECK((got[2] << 8 | got[3]) >= next);
        next = (got[2] << 8 | got[3]) + 1;
        rtp_make(p, LENGTH, 1, (uint16_t)(next - 1));
        CHECK(memcmp(got, p, LENGTH) == 0);
    }
    CHECK(next > 64);
    close(from);
    close(to);
    worker_close();
}

/* Copies between two quiescent states of the worker, at the most. */
static uint64_t most_between, seen_before;

void __real_qsbr_quiescent(struct qsbr *q, unsigned reader);
void __wrap_qsbr_quiescent(struct qsbr *q, unsigned reader)
{
    uint64_t now = load_rlx(&worker.counters.copies_attempted);

    if (now - seen_before > most_between)
        most_between = now - seen_before;
    seen_before = now;
    __real_qsbr_quiescent(q, reader);
}

/* However much one receive brings, other sessions and grace periods wait for a part of it. */
static void test_fan_outs_are_bounded(void)
{
    enum { SUBSCRIBERS = 1000, N = INGRESS_BATCH + 40 };
    static struct rf_addr subscribers[SUBSCRIBERS];
    struct rf_addr camera;
    struct rf_stats sum;
    uint8_t p[200];

    setup(true);
    int from = endpoint("127.0.0.1", &camera);

    for (uint32_t i = 0; i < SUBSCRIBERS; i++)
        subscribers[i] = loopback_address(i, 9);
    CHECK_EQ(table_insert(&table, session_make(&pool, camera, 1, subscribers, SUBSCRIBERS)), 0);
    for (uint16_t i = 0; i < N; i++) { /* each longer than the last: no two in a group */
        rtp_make(p, sizeof p, 1, i);
        send_to(from, &sock.bound, p, 20 + i);
    }
    most_between = seen_before = 0;
    start();
    await(&worker.counters.packets_received, N);
    stop_and_check_identities(&sum);
    CHECK_EQ(sum.copies_attempted, N * SUBSCRIBERS);
    CHECK_EQ(sum.turns, 2);
    CHECK_EQ(most_between, GATE_BLOCK * SUBSCRIBERS);
    close(from);
    worker_close();
}

/* Else every removal of a quiet server would take as long as the wait. */
static void test_idle_worker_is_offline(void)
{
    struct rf_addr stranger;
    struct rf_stats sum;
    unsigned i = 0;

    setup(true);
    int fd = endpoint("127.0.0.1", &stranger);

    start();
    send_to(fd, &sock.bound, "x", 1);
    await(&worker.counters.turns, 1); /* it runs */
    while (i++ < 20000 && load_seq(&qsbr.readers[0].seen) != QSBR_OFFLINE)
        sleep_ms(1);
    CHECK_EQ(load_seq(&qsbr.readers[0].seen), QSBR_OFFLINE);
    stop_and_check_identities(&sum);
    close(fd);
    worker_close();
}

int main(void)
{
    RUN(test_gate_by_reason);
    RUN(test_sessions_in_one_turn_stay_apart);
    RUN(test_receive_errors_are_borne);
    RUN(test_truncated_goes_nowhere);
    RUN(test_stop_forwards_what_is_queued);
    RUN(test_more_segments_than_a_turn_holds);
    RUN(test_fan_outs_are_bounded);
    RUN(test_idle_worker_is_offline);
    return 0;
}
