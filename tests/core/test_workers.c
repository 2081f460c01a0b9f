/* Several workers: one session has one receiver, wide turns are shared, nothing is lost at the
 * stop. At the level of worker.c, where a flow can be sent to two of them, and of engine.c.
 * wraps: setsockopt sendmmsg */
#include <pthread.h>

#include "random.h"
#include "segments.h"
#include "sessions.h"
#include "worker.h"

static bool no_steering;
static _Atomic unsigned sends_by[256]; /* calls, by descriptor */
static _Atomic bool slow_sends;

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __real_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    if (no_steering && level == SOL_SOCKET && name == SO_ATTACH_REUSEPORT_CBPF) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return __real_setsockopt(fd, level, name, value, len);
}

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
    if (fd < 256)
        fetch_add_seq(&sends_by[fd], 1);
    if (load_seq(&slow_sends))
        sleep_ms(1);
    return __real_sendmmsg(fd, headers, n, flags);
}

/* Checks both identities. */
static uint64_t check_identities(const struct rf_stats *s)
{
    uint64_t dropped = 0, failed = 0;

#define X(name) dropped += s->dropped_##name;
    RF_DROP_REASONS(X)
#undef X
#define X(name) failed += s->failed_##name;
    RF_SEND_FAILURES(X)
#undef X
    CHECK_EQ(s->packets_received, s->packets_forwarded + dropped);
    CHECK_EQ(s->copies_attempted, s->packets_sent + failed);
    return failed;
}

/* A receiver of all subscribers: one port of every loopback address. */
static int wide_receiver(uint16_t *port)
{
    struct rf_addr bound;
    int fd = endpoint("0.0.0.0", &bound), room = 64 << 20;

    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) == 0 ||
          setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room) == 0);
    *port = bound.port;
    return fd;
}

/* Workers of a table of their own, each with a socket of its own port. */
enum { CREW = 3 };

static struct {
    struct qsbr qsbr;
    struct session_pool pool;
    struct table table;
    struct sock sock[CREW];
    struct worker worker[CREW], *crew[CREW];
    pthread_t thread[CREW];
} bench;

static void bench_setup(unsigned receiving, uint32_t split_threshold)
{
    struct rf_addr at = address("127.0.0.1", 0);

    qsbr_init(&bench.qsbr);
    CHECK_EQ(session_pool_init(&bench.pool, 16), 0);
    CHECK_EQ(table_init(&bench.table, &bench.pool, &bench.qsbr), 0);
    for (unsigned i = 0; i < CREW; i++) {
        struct worker_options options = {
            .index = i, .receives = i < receiving, .split_threshold = split_threshold};

        CHECK_EQ(sock_open(&bench.sock[i], &at, 4 << 20, 64 << 20), 0);
        CHECK_EQ(worker_init(&bench.worker[i], &options, &bench.sock[i], &bench.table, &bench.qsbr,
                             bench.crew, CREW),
                 0);
        bench.crew[i] = &bench.worker[i];
        store_seq(&sends_by[bench.sock[i].fd], 0);
    }
}

static void *bench_run(void *worker)
{
    worker_run(worker);
    return NULL;
}

static void bench_start(void)
{
    for (unsigned i = 0; i < CREW; i++)
        CHECK(pthread_create(&bench.thread[i], NULL, bench_run, &bench.worker[i]) == 0);
}

static void bench_stop(struct rf_stats *sum)
{
    memset(sum, 0, sizeof *sum);
    for (unsigned i = 0; i < CREW; i++)
        worker_stop(&bench.worker[i]);
    for (unsigned i = 0; i < CREW; i++) {
        pthread_join(bench.thread[i], NULL);
        stats_sum(sum, &bench.worker[i].counters);
        CHECK_EQ(load_seq(&bench.qsbr.readers[i].seen), QSBR_OFFLINE);
    }
    check_identities(sum);
}

static void bench_teardown(void)
{
    for (unsigned i = 0; i < CREW; i++) {
        worker_destroy(&bench.worker[i]);
        sock_close(&bench.sock[i]);
    }
    table_destroy(&bench.table);
    session_pool_destroy(&bench.pool);
    qsbr_destroy(&bench.qsbr);
}

static struct session *bench_session(struct rf_addr source, uint32_t ssrc, uint32_t n,
                                     uint16_t port)
{
    static struct rf_addr subscribers[1000];
    struct session *s;

    for (uint32_t i = 0; i < n; i++)
        subscribers[i] = loopback_address(i, port);
    s = session_make(&bench.pool, source, ssrc, subscribers, n);
    CHECK_EQ(table_insert(&bench.table, s), 0);
    return s;
}

static void await(counter *c, uint64_t value)
{
    for (unsigned i = 0; i < 20000 && load_rlx(c) < value; i++)
        sleep_ms(1);
    CHECK_EQ(load_rlx(c), value);
}

/* A flow that reaches two workers: the second drops its part, and the session's run and
 * counters stay the first one's. Other sessions of that source are free for it. */
static void test_a_session_has_one_receiver(void)
{
    struct rf_addr camera;
    struct rf_stats sum;
    uint8_t p[100];
    uint16_t port;

    bench_setup(2, 256);
    int from = endpoint("127.0.0.1", &camera), to = wide_receiver(&port);
    struct session *s = bench_session(camera, 1, 1, port), *t = bench_session(camera, 2, 1, port);

    bench_start();
    rtp_make(p, sizeof p, 1, 0);
    send_to(from, &bench.sock[1].bound, p, sizeof p);
    await(&bench.worker[1].counters.packets_forwarded, 1);
    for (uint16_t i = 1; i <= 300; i++) { /* both at once */
        rtp_make(p, sizeof p, 1, i);
        send_to(from, &bench.sock[i % 2].bound, p, sizeof p);
    }
    rtp_make(p, sizeof p, 2, 0);
    send_to(from, &bench.sock[0].bound, p, sizeof p);
    await(&bench.worker[0].counters.packets_received, 151);
    await(&bench.worker[1].counters.packets_received, 151);
    bench_stop(&sum);
    CHECK_EQ(load_rlx(&bench.worker[0].counters.dropped_misrouted), 150);
    CHECK_EQ(load_rlx(&bench.worker[1].counters.dropped_misrouted), 0);
    CHECK_EQ(load_rlx(&s->counters.packets_received), 151);
    CHECK_EQ(load_rlx(&s->counters.packets_sent), 151);
    CHECK_EQ(load_rlx(&t->counters.packets_received), 1);
    for (unsigned i = 0; i < 152; i++)
        CHECK_EQ(receive(to, p, sizeof p, 5000), sizeof p);
    CHECK_EQ(receive(to, p, sizeof p, 20), -1);
    close(from);
    close(to);
    bench_teardown();
}

/* Both race for a session that nobody owns yet: one wins, for good. */
static void test_a_race_for_a_session_has_one_winner(void)
{
    struct rf_addr camera;
    struct rf_stats sum;
    uint16_t port;
    uint8_t p[50];

    for (unsigned round = 0; round < 50; round++) {
        bench_setup(2, 256);
        int from = endpoint("127.0.0.1", &camera), to = wide_receiver(&port);
        struct session *s = bench_session(camera, 1, 1, port);

        rtp_make(p, sizeof p, 1, 0);
        for (unsigned i = 0; i < 10; i++)
            send_to(from, &bench.sock[i % 2].bound, p, sizeof p);
        bench_start();
        await(&bench.worker[0].counters.packets_received, 5);
        await(&bench.worker[1].counters.packets_received, 5);
        bench_stop(&sum);
        CHECK_EQ(sum.packets_forwarded, 5);
        CHECK_EQ(sum.dropped_misrouted, 5);
        CHECK_EQ(load_rlx(&s->counters.packets_received), 5);
        close(from);
        close(to);
        bench_teardown();
    }
}

/* One receives, two help: all three send, and each subscriber gets each packet once. */
static void test_a_wide_turn_is_shared(void)
{
    enum { SUBSCRIBERS = 600, PACKETS = 20 };
    struct rf_addr camera;
    struct rf_stats sum;
    uint8_t p[100];
    uint16_t port;

    bench_setup(1, 64);
    int from = endpoint("127.0.0.1", &camera), to = wide_receiver(&port);
    struct session *s = bench_session(camera, 1, SUBSCRIBERS, port);

    store_seq(&slow_sends, true); /* so that helpers have the time to wake */
    bench_start();
    for (uint16_t i = 0; i < PACKETS; i++) {
        rtp_make(p, sizeof p, 1, i);
        send_to(from, &bench.sock[0].bound, p, sizeof p);
        await(&s->counters.packets_sent, SUBSCRIBERS * (i + 1u));
        while (recv(to, p, sizeof p, MSG_DONTWAIT) > 0)
            CHECK_EQ(p[3], i);
    }
    bench_stop(&sum);
    store_seq(&slow_sends, false);
    CHECK_EQ(sum.copies_attempted, SUBSCRIBERS * PACKETS);
    CHECK_EQ(sum.packets_sent, SUBSCRIBERS * PACKETS);
    CHECK(sum.tasks_shared > 0);
    CHECK_EQ(load_rlx(&bench.worker[0].counters.tasks_shared), 0);
    for (unsigned i = 0; i < CREW; i++)
        CHECK(load_seq(&sends_by[bench.sock[i].fd]) > 0);
    struct subscriber_list *list = load_rlx(&s->subscribers);

    for (unsigned i = 0; i < SUBSCRIBERS; i++)
        CHECK_EQ(load_rlx(&list->item[i]->packets_sent), PACKETS);
    close(from);
    close(to);
    bench_teardown();
}

static void test_below_the_threshold_nobody_helps(void)
{
    struct rf_addr camera;
    struct rf_stats sum;
    uint8_t p[100];
    uint16_t port;

    bench_setup(1, 201);
    int from = endpoint("127.0.0.1", &camera), to = wide_receiver(&port);
    struct session *s = bench_session(camera, 1, 200, port);

    bench_start();
    for (uint16_t i = 0; i < 10; i++) {
        rtp_make(p, sizeof p, 1, i);
        send_to(from, &bench.sock[0].bound, p, sizeof p);
        await(&s->counters.packets_sent, 200 * (i + 1u));
    }
    bench_stop(&sum);
    CHECK_EQ(sum.tasks_shared, 0);
    close(from);
    close(to);
    bench_teardown();
}

/* A turn of very many sessions needs more shares than there is room for: it goes in waves. */
static void test_a_turn_in_waves(void)
{
    enum { SESSIONS = 16, SUBSCRIBERS = 1000, EACH = 4 };
    struct rf_addr camera;
    struct rf_stats sum;
    uint8_t p[40];
    uint16_t port;

    bench_setup(1, 64);
    int from = endpoint("127.0.0.1", &camera), to = wide_receiver(&port);
    struct session *s[SESSIONS];

    for (uint32_t i = 0; i < SESSIONS; i++)
        s[i] = bench_session(camera, i, SUBSCRIBERS, port);
    for (uint16_t i = 0; i < EACH * SESSIONS; i++) { /* one turn: all is queued beforehand */
        rtp_make(p, sizeof p - i % 7, i % SESSIONS, i);
        send_to(from, &bench.sock[0].bound, p, sizeof p - i % 7);
    }
    bench_start();
    for (unsigned i = 0; i < SESSIONS; i++)
        await(&s[i]->counters.copies_attempted, SUBSCRIBERS * EACH);
    bench_stop(&sum);
    CHECK_EQ(sum.turns, 1);
    CHECK_EQ(sum.copies_attempted, SESSIONS * SUBSCRIBERS * EACH);
    close(from);
    close(to);
    bench_teardown();
}

/* What was received before the stop is sent, by all who still help, and counted. */
static void test_stop_with_shared_work_in_flight(void)
{
    enum { SUBSCRIBERS = 500 };
    struct rf_addr camera;
    struct rf_stats sum;
    uint8_t p[100];
    uint16_t port;

    for (unsigned round = 0; round < 40; round++) {
        bench_setup(1 + round % CREW, 64);
        int from = endpoint("127.0.0.1", &camera), to = wide_receiver(&port);
        struct session *s = bench_session(camera, 1, SUBSCRIBERS, port);

        bench_start();
        for (uint16_t i = 0; i < 5; i++) {
            rtp_make(p, sizeof p, 1, i);
            send_to(from, &bench.sock[0].bound, p, sizeof p);
        }
        for (uint64_t now = clock_now(CLOCK_MONOTONIC), end = now + round * 50000; now < end;)
            now = clock_now(CLOCK_MONOTONIC);
        bench_stop(&sum);
        CHECK_EQ(sum.packets_forwarded, 5);
        CHECK_EQ(sum.copies_attempted, 5 * SUBSCRIBERS);
        CHECK_EQ(load_rlx(&s->counters.copies_attempted), 5 * SUBSCRIBERS);
        close(from);
        close(to);
        bench_teardown();
    }
}

/* From here on by way of the facade. */
static struct {
    struct rf_engine *engine;
    struct rf_socket_info info;
    uint32_t workers;
    pthread_t thread[4];
} server;

static void *server_run(void *worker)
{
    CHECK_EQ(rf_engine_run(server.engine, (uint32_t)(uintptr_t)worker), 0);
    return NULL;
}

static void server_start(const char *bind_to, uint32_t workers)
{
    struct rf_config config = {
        .bind = address(bind_to, 0),
        .max_sessions = 200,
        .max_subscribers = 1000,
        .receive_queue_packets = 65536,
        .workers = workers,
        .split_threshold = 64,
        .busy_poll_ns = workers == 4 ? 200000 : 0,
    };

    CHECK_EQ(rf_engine_new(&config, &server.engine), 0);
    rf_engine_socket(server.engine, &server.info);
    CHECK_EQ(server.info.receiving, no_steering ? 1 : workers);
    server.workers = workers;
    for (uintptr_t i = 0; i < workers; i++)
        CHECK(pthread_create(&server.thread[i], NULL, server_run, (void *)i) == 0);
}

static void server_stop(struct rf_stats *sum)
{
    rf_engine_stop(server.engine);
    for (uint32_t i = 0; i < server.workers; i++)
        pthread_join(server.thread[i], NULL);
    rf_engine_stats(server.engine, sum);
    check_identities(sum);
    for (uint32_t i = 0; i < server.workers; i++)
        CHECK_EQ(rf_engine_run(server.engine, i), 0); /* stopped: drains, and returns */
    rf_engine_free(server.engine);
}

enum { FLOWS = 40, SSRCS = 2, BURSTS = 10, SEGMENTS = 12, SEGMENT = 200 };

/* Each flow carries two sessions, mixed within one segmented send; the last is shorter. */
static void send_burst(int fd, unsigned flow, unsigned burst, const struct rf_addr *to)
{
    static uint8_t p[SEGMENTS * SEGMENT];

    for (unsigned i = 0; i < SEGMENTS; i++)
        rtp_make(p + i * SEGMENT, SEGMENT, flow * SSRCS + i % SSRCS,
                 (uint16_t)(burst * SEGMENTS + i));
    send_segments(fd, to, p, sizeof p - 50, SEGMENT);
}

static void await_received(uint64_t packets)
{
    struct rf_stats sum;

    for (unsigned i = 0; i < 20000; i++, sleep_ms(1)) {
        rf_engine_stats(server.engine, &sum);
        if (sum.packets_received >= packets)
            break;
    }
    CHECK_EQ(sum.kernel_drops, 0);
    CHECK_EQ(sum.packets_received, packets);
}

static void forward_flows(const char *bind_to, const char *from_ip, uint32_t workers)
{
    enum { VIEWERS = 3 };
    struct rf_addr camera[FLOWS], viewers[VIEWERS], to;
    uint64_t handle[FLOWS * SSRCS], received = 0, packets = 0;
    int fd[FLOWS], viewer[VIEWERS];
    struct rf_session_stats session;
    struct rf_stats sum;
    bool added[VIEWERS];

    server_start(bind_to, workers);
    to = address(from_ip, server.info.bound.port);
    for (unsigned i = 0; i < VIEWERS; i++)
        viewer[i] = endpoint(from_ip, &viewers[i]);
    for (unsigned i = 0; i < FLOWS * SSRCS; i++) {
        if (i % SSRCS == 0)
            fd[i / SSRCS] = endpoint(from_ip, &camera[i / SSRCS]);
        CHECK_EQ(rf_session_add(server.engine, &camera[i / SSRCS], i, 0, &handle[i]), 0);
        CHECK_EQ(rf_subscribers_add(server.engine, handle[i], viewers, VIEWERS, added), 0);
    }
    for (unsigned burst = 0; burst < BURSTS; burst++) {
        for (unsigned i = 0; i < FLOWS; i++, packets += SEGMENTS)
            send_burst(fd[i], i, burst, &to);
        await_received(packets);
    }
    for (unsigned i = 0; i < FLOWS * SSRCS; i++) {
        CHECK_EQ(rf_session_stats(server.engine, handle[i], 0, &session), 0);
        received += session.packets_received;
        CHECK_EQ(session.packets_received, BURSTS * SEGMENTS / SSRCS);
    }
    server_stop(&sum);
    CHECK_EQ(sum.dropped_misrouted, 0);
    CHECK_EQ(sum.packets_forwarded, packets);
    CHECK_EQ(received, packets);
    CHECK_EQ(sum.copies_attempted, packets * VIEWERS);
    CHECK_EQ(sum.packets_sent, packets * VIEWERS);
    CHECK_EQ(sum.receives, BURSTS * FLOWS); /* UDP_GRO: a burst is one buffer */
    CHECK(workers > 1 || sum.tasks_shared == 0);
    for (unsigned i = 0; i < FLOWS; i++)
        close(fd[i]);
    for (unsigned i = 0; i < VIEWERS; i++)
        close(viewer[i]);
}

static void test_many_flows(void)
{
    for (uint32_t workers = 1; workers <= 4; workers *= 2) {
        forward_flows("127.0.0.1", "127.0.0.1", workers);
        if (!ipv6_here())
            continue;
        forward_flows("::1", "::1", workers);
        forward_flows("::", "::1", workers);
        forward_flows("::", "127.0.0.1", workers);
    }
}

/* Then one receives for all and the others help; nothing is misrouted either. */
static void test_many_flows_without_steering(void)
{
    no_steering = true;
    for (uint32_t workers = 2; workers <= 4; workers *= 2)
        forward_flows("127.0.0.1", "127.0.0.1", workers);
    no_steering = false;
}

int main(void)
{
    RUN(test_a_session_has_one_receiver);
    RUN(test_a_race_for_a_session_has_one_winner);
    RUN(test_a_wide_turn_is_shared);
    RUN(test_below_the_threshold_nobody_helps);
    RUN(test_a_turn_in_waves);
    RUN(test_stop_with_shared_work_in_flight);
    RUN(test_many_flows);
    RUN(test_many_flows_without_steering);
    return 0;
}
