/* Packets that reach another worker than their session's: handed over, forwarded once and in order
 * for each source, whoever is busy, stops, begins late or changes owners meanwhile.
 * wraps: sendmmsg poll */
#include <pthread.h>

#include "identities.h"
#include "loops.h"
#include "random.h"
#include "sessions.h"
#include "worker.h"

enum { SSRC = 7, LEN = 64, WORKERS = 2, MOST_SOURCES = 12 };

/* What is sent goes to no kernel, but is looked at here: by one worker at a time, or the thread
 * sanitizer would say so. */
static struct {
    uint32_t next[MOST_SOURCES]; /* at least; behind the RTP header of each packet */
    uint64_t sent, skipped;
    _Atomic uint64_t total;
    _Atomic bool held, waiting, removed;
    _Atomic unsigned slow_ms; /* each send takes that long */
} wire;

int __wrap_sendmmsg(int fd, struct mmsghdr *h, unsigned n, int flags);

static void look_at(const uint8_t *p)
{
    uint32_t label[2]; /* source, number */

    memcpy(label, p + 12, sizeof label);
    CHECK(label[0] < MOST_SOURCES);
    CHECK(label[1] >= wire.next[label[0]]); /* in order, and so only once */
    wire.skipped += label[1] - wire.next[label[0]];
    wire.next[label[0]] = label[1] + 1;
    wire.sent++;
}

int __wrap_sendmmsg(int fd, struct mmsghdr *h, unsigned n, int flags)
{
    (void)fd, (void)flags;
    while (load_seq(&wire.held)) {
        store_seq(&wire.waiting, true);
        sleep_ms(1);
    }
    if (load_seq(&wire.slow_ms) > 0)
        sleep_ms(load_seq(&wire.slow_ms));
    CHECK(!load_seq(&wire.removed));
    for (unsigned i = 0; i < n; i++) {
        const struct msghdr *m = &h[i].msg_hdr;

        for (size_t k = 0; k < m->msg_iovlen; k++) {
            for (size_t at = 0; at < m->msg_iov[k].iov_len; at += LEN)
                look_at((const uint8_t *)m->msg_iov[k].iov_base + at);
        }
    }
    store_rls(&wire.total, wire.sent);
    return (int)n;
}

int __real_poll(struct pollfd *p, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);

/* A worker sleeps until it is woken; no bound on the sleep helps one that is not. */
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout)
{
    return __real_poll(p, n, n == 2 ? -1 : timeout);
}

static void wire_clear(void)
{
    memset(wire.next, 0, sizeof wire.next);
    wire.sent = wire.skipped = 0;
    store_seq(&wire.total, 0);
    store_seq(&wire.held, false), store_seq(&wire.waiting, false), store_seq(&wire.removed, false);
    store_seq(&wire.slow_ms, 0);
}

/* Two workers of a table of their own, each with a socket of its own port, and a session of which
 * worker 0 has had the first packet. */
static struct {
    struct qsbr qsbr;
    struct session_pool pool;
    struct table table;
    struct sock sock[WORKERS];
    struct worker worker[WORKERS], *crew[WORKERS];
    pthread_t thread[WORKERS];
    struct session *session;
    struct rf_addr camera;
    int from;
    uint32_t number;
} bench;

static void *bench_run(void *worker)
{
    worker_run(worker);
    return NULL;
}

static void bench_start(unsigned i)
{
    CHECK(pthread_create(&bench.thread[i], NULL, bench_run, &bench.worker[i]) == 0);
}

static void send_rtp(int fd, const struct rf_addr *to, uint32_t source, uint32_t number, size_t len)
{
    uint8_t p[2048];
    uint32_t label[] = {source, number};

    rtp_make(p, len, SSRC, (uint16_t)number);
    memcpy(p + 12, label, sizeof label);
    send_to(fd, to, p, len);
}

static void bench_send(unsigned worker)
{
    send_rtp(bench.from, &bench.sock[worker].bound, 0, bench.number++, LEN);
}

static void await(counter *c, uint64_t value)
{
    for (unsigned ms = 0; load_acq(c) < value; ms++) {
        CHECK(ms < 60000);
        sleep_ms(1);
    }
    CHECK_EQ(load_acq(c), value);
}

static void await_true(_Atomic bool *what)
{
    for (unsigned ms = 0; !load_seq(what); ms++) {
        CHECK(ms < 60000);
        sleep_ms(1);
    }
}

static void bench_setup(void)
{
    struct rf_addr at = address("127.0.0.1", 0), viewer = address("127.0.0.1", 9);

    wire_clear();
    memset(&bench, 0, sizeof bench);
    qsbr_init(&bench.qsbr);
    CHECK_EQ(session_pool_init(&bench.pool, 16), 0);
    CHECK_EQ(table_init(&bench.table, &bench.pool, &bench.qsbr), 0);
    bench.from = endpoint("127.0.0.1", &bench.camera);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct worker_options options = {.index = i, .receives = true, .split_threshold = 256};

        CHECK_EQ(sock_open(&bench.sock[i], &at, 4 << 20, 4 << 20), 0);
        CHECK_EQ(worker_init(&bench.worker[i], &options, &bench.sock[i], &bench.table, &bench.qsbr,
                             bench.crew, WORKERS),
                 0);
        bench.crew[i] = &bench.worker[i];
    }
    bench.session = session_make(&bench.pool, bench.camera, SSRC, &viewer, 1);
    CHECK_EQ(table_insert(&bench.table, bench.session), 0);
    bench_start(0);
    bench_send(0);
    await(&wire.total, 1);
}

static void bench_join(unsigned i)
{
    CHECK(pthread_join(bench.thread[i], NULL) == 0);
}

/* All have ended; what was forwarded has been sent. */
static struct rf_stats bench_end(void)
{
    struct rf_stats sum;

    memset(&sum, 0, sizeof sum);
    for (unsigned i = 0; i < WORKERS; i++) {
        stats_sum(&sum, &bench.worker[i].counters);
        worker_destroy(&bench.worker[i]);
        sock_close(&bench.sock[i]);
    }
    check_identities(&sum);
    CHECK_EQ(sum.packets_forwarded, wire.sent);
    CHECK_EQ(load_rlx(&bench.session->counters.packets_received), wire.sent);
    CHECK_EQ(load_rlx(&bench.session->counters.packets_sent), wire.sent);
    table_destroy(&bench.table);
    session_pool_destroy(&bench.pool);
    qsbr_destroy(&bench.qsbr);
    close(bench.from);
    return sum;
}

/* Worker 0 is at a send that does not return; worker 1 hands that many packets over. */
static void hand_over_to_a_busy_one(unsigned packets)
{
    store_seq(&wire.held, true);
    bench_send(0);
    await_true(&wire.waiting);
    for (unsigned i = 1; i <= packets; i++) {
        bench_send(1);
        if (i % 100 == 0) /* as much as its socket has room for at any rate */
            await(&bench.worker[1].counters.packets_received, i);
    }
    await(&bench.worker[1].counters.packets_received, packets);
}

/* The owner is woken for each of them: nobody else comes, and it sleeps in between. */
static void test_one_at_a_time(void)
{
    struct rf_stats sum;

    bench_setup();
    bench_start(1);
    for (unsigned i = 0; i < 200; i++) {
        bench_send(1);
        await(&wire.total, i + 2);
    }
    worker_stop(&bench.worker[0]), worker_stop(&bench.worker[1]);
    bench_join(0), bench_join(1);
    sum = bench_end();
    CHECK_EQ(sum.handed_over, 200);
    CHECK_EQ(sum.packets_forwarded, 201);
    CHECK_EQ(wire.skipped, 0);
}

static void test_what_finds_no_room_is_misrouted(void)
{
    enum { MORE = 50 };
    struct rf_stats sum;

    bench_setup();
    bench_start(1);
    hand_over_to_a_busy_one(INBOX_SLOTS + MORE);
    await(&bench.worker[1].counters.packets_received, INBOX_SLOTS + MORE);
    await(&bench.worker[1].counters.dropped_misrouted, MORE);
    store_seq(&wire.held, false);
    await(&wire.total, INBOX_SLOTS + 2);
    bench.number += 1000;
    bench_send(1); /* now there is room again */
    await(&wire.total, INBOX_SLOTS + 3);
    worker_stop(&bench.worker[0]), worker_stop(&bench.worker[1]);
    bench_join(0), bench_join(1);
    sum = bench_end();
    CHECK_EQ(sum.handed_over, INBOX_SLOTS + 1);
    CHECK_EQ(sum.dropped_misrouted, MORE);
    CHECK_EQ(wire.skipped, MORE + 1000);
}

/* Asked to leave while there are packets in its inbox, and more come until all have been asked. */
enum { IN_THE_INBOX = 1500 };

static struct rf_stats leave_with_packets_in_the_inbox(void (*leave)(struct worker *),
                                                       unsigned slow_ms)
{
    enum { N = IN_THE_INBOX };
    struct rf_stats sum;
    uint8_t left[LEN];

    bench_setup();
    bench_start(1);
    hand_over_to_a_busy_one(N);
    leave(&bench.worker[0]);
    bench_send(1); /* it still receives */
    await(&bench.worker[1].counters.packets_received, N + 1);
    leave(&bench.worker[1]);
    for (unsigned ms = 0; load_seq(&bench.worker[1].inbox->phase) == INBOX_OPEN; ms++) {
        CHECK(ms < 60000);
        sleep_ms(1);
    }
    bench_send(1); /* it waits for worker 0, and receives no more */
    store_seq(&wire.slow_ms, slow_ms);
    store_seq(&wire.held, false);
    bench_join(0), bench_join(1);
    CHECK_EQ(recv(bench.sock[1].fd, left, sizeof left, MSG_DONTWAIT), LEN);
    sum = bench_end();
    CHECK_EQ(sum.handed_over, N + 1);
    CHECK_EQ(sum.packets_forwarded + sum.dropped_overload, N + 3);
    CHECK_EQ(wire.skipped, 0); /* what is dropped is the end of it */
    return sum;
}

static void test_the_next_engine_misses_nothing(void)
{
    for (unsigned round = 0; round < 10; round++)
        CHECK_EQ(leave_with_packets_in_the_inbox(worker_leave, 0).dropped_overload, 0);
    CHECK_EQ(leave_with_packets_in_the_inbox(worker_leave, 250).dropped_overload, 0);
}

/* It has 200 ms, which the first turn's send takes: the second is too late. The first may have ended
 * early, on a busy machine. */
static void test_a_drain_counts_what_it_drops(void)
{
    uint64_t dropped = leave_with_packets_in_the_inbox(worker_stop, 250).dropped_overload;

    CHECK(dropped >= IN_THE_INBOX + 1 - INBOX_TURN && dropped <= IN_THE_INBOX);
}

/* Who begins when the owner has ended has its sessions. */
static void test_a_late_one_takes_over(void)
{
    struct rf_stats sum;

    bench_setup();
    worker_stop(&bench.worker[0]);
    bench_join(0);
    for (unsigned i = 0; i < 10; i++)
        bench_send(1);
    worker_stop(&bench.worker[1]);
    bench_start(1);
    bench_join(1);
    sum = bench_end();
    CHECK_EQ(sum.handed_over, 0);
    CHECK_EQ(sum.packets_forwarded, 11);
    CHECK_EQ(wire.skipped, 0);
}

/* What was handed over to it before it lost the session, it must not forward: by the time another
 * worker may have sent what that source sent later. */
static void test_who_lost_the_session_does_not_forward(void)
{
    struct rf_stats sum;

    bench_setup();
    bench_start(1);
    hand_over_to_a_busy_one(10);
    await(&bench.worker[1].counters.handed_over, 10); /* received is counted earlier */
    uint16_t owner = load_acq(&bench.session->owner);

    store_rls(&bench.session->owner, (uint16_t)((owner | OWNER_MASK) + 1)); /* as a move does */
    store_seq(&wire.held, false);
    await(&bench.worker[0].counters.dropped_misrouted, 10);
    await(&wire.total, 2);
    store_seq(&wire.held, false); /* which the next sender reads: all so far is seen by it */
    bench_send(1);
    await(&wire.total, 3);
    worker_stop(&bench.worker[0]), worker_stop(&bench.worker[1]);
    bench_join(0), bench_join(1);
    CHECK_EQ(load_rlx(&bench.worker[1].counters.packets_forwarded), 1);
    sum = bench_end();
    CHECK_EQ(sum.handed_over, 10);
    CHECK_EQ(sum.dropped_misrouted, 10);
    CHECK_EQ(wire.skipped, 10);
}

/* A whole engine of three workers, fed by a network. */
static struct rf_engine *engine;
static struct rf_addr bound;
static uint64_t handle;
static _Atomic bool finished;
static struct loops loops;

static struct rf_source by_network(enum rf_source_policy policy)
{
    return (struct rf_source){policy, .network = {address("127.0.0.0", 0), 104}};
}

static bool engine_start(void)
{
    struct rf_config config = {address("127.0.0.1", 0), 20, 4, 65536, .workers = 3};
    struct rf_source source = by_network(RF_NETWORK);
    struct rf_addr viewer = address("127.0.0.1", 9);
    struct rf_socket_info info;
    bool added;

    wire_clear();
    store_seq(&finished, false);
    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = info.bound;
    CHECK_EQ(rf_session_add(engine, &source, SSRC, 0, &handle), 0);
    CHECK_EQ(subscribers_add(engine, handle, &viewer, 1, 0, &added), 0);
    loops_start(&loops, engine, config.workers);
    return info.receiving > 1;
}

static struct rf_stats engine_end(void)
{
    struct rf_stats s;

    rf_engine_stop(engine);
    loops_join(&loops);
    rf_engine_stats(engine, &s);
    check_identities(&s);
    CHECK_EQ(s.packets_sent, wire.sent);
    rf_engine_free(engine);
    return s;
}

enum { FEEDERS = 3, PACKETS = 4000 };

static void *feed(void *argument)
{
    uint32_t first = (uint32_t)(uintptr_t)argument;
    int fd[MOST_SOURCES / FEEDERS];
    struct rf_addr own;

    for (unsigned i = 0; i < COUNT(fd); i++)
        fd[i] = endpoint("127.0.0.1", &own);
    for (uint32_t number = 0; number < PACKETS; number++) {
        for (uint32_t i = 0; i < COUNT(fd); i++)
            send_rtp(fd[i], &bound, first + i, number, LEN);
        if (number % 8 == 0)
            sleep_ms(1);
    }
    for (unsigned i = 0; i < COUNT(fd); i++)
        close(fd[i]);
    return NULL;
}

/* The session loses its source, and with it its owner, and has it again. */
static void *change_owners(void *unused)
{
    struct rf_source latch = by_network(RF_LATCH), network = by_network(RF_NETWORK);
    struct rf_notice n;
    uint64_t random = 3;

    while (!load_acq(&finished)) {
        CHECK_EQ(rf_session_move(engine, handle, &latch, 0), 0);
        CHECK_EQ(rf_session_move(engine, handle, &network, 0), 0);
        while (rf_notices(engine, RF_QUEUE_KNOWN, &n, 1) == 1)
            CHECK(n.kind == RF_NOTICE_SOURCE);
        sleep_ms(1 + random_below(&random, 5));
    }
    return unused;
}

/* Others of the SSRC: more specific networks that hold none of the sources, and wider ones. */
static void *come_and_go(void *unused)
{
    uint64_t random = 11, other[12] = {0};

    while (!load_acq(&finished)) {
        unsigned i = random_below(&random, COUNT(other));
        struct rf_source source = {i % 2 ? RF_LATCH : RF_NETWORK,
                                   .network = {address(i % 2 ? "127.0.0.0" : "127.9.0.0", 0),
                                               (uint8_t)(i % 2 ? 96 + i / 2 : 112 + i)}};

        if (other[i]) {
            CHECK_EQ(rf_session_remove(engine, other[i]), 0);
            other[i] = 0;
        } else {
            CHECK_EQ(rf_session_add(engine, &source, SSRC, 0, &other[i]), 0);
        }
    }
    return unused;
}

static void feed_from_many(void *(*meanwhile)(void *))
{
    pthread_t feeder[FEEDERS], control[2];
    struct rf_session_stats session;
    bool several = engine_start();

    CHECK(pthread_create(&control[0], NULL, come_and_go, NULL) == 0);
    if (meanwhile)
        CHECK(pthread_create(&control[1], NULL, meanwhile, NULL) == 0);
    for (uintptr_t i = 0; i < FEEDERS; i++)
        CHECK(pthread_create(&feeder[i], NULL, feed, (void *)(i * MOST_SOURCES / FEEDERS)) == 0);
    for (unsigned i = 0; i < FEEDERS; i++)
        CHECK(pthread_join(feeder[i], NULL) == 0);
    store_rls(&finished, true);
    CHECK(pthread_join(control[0], NULL) == 0);
    if (meanwhile)
        CHECK(pthread_join(control[1], NULL) == 0);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &session), 0);
    struct rf_stats s;

    do { /* a stop leaves what it has no time for */
        sleep_ms(1);
        rf_engine_stats(engine, &s);
    } while (s.packets_received + s.kernel_drops < MOST_SOURCES * PACKETS);
    s = engine_end();
    CHECK_EQ(s.packets_received + s.kernel_drops, MOST_SOURCES * PACKETS);
    CHECK(!several || s.handed_over > 0);
    if (!meanwhile) /* else they are dropped while it has no source */
        CHECK_EQ(s.packets_received,
                 s.packets_forwarded + s.dropped_misrouted + s.dropped_overload);
    printf("  forwarded %" PRIu64 ", handed over %" PRIu64 ", misrouted %" PRIu64 "\n",
           s.packets_forwarded, s.handed_over, s.dropped_misrouted);
}

static void test_many_sources(void)
{
    feed_from_many(NULL);
}

static void test_owners_change(void)
{
    feed_from_many(change_owners);
}

static uint64_t handed_over(void)
{
    struct rf_stats s;

    rf_engine_stats(engine, &s);
    return s.handed_over;
}

static void *remove_session(void *unused)
{
    CHECK_EQ(rf_session_remove(engine, handle), 0);
    store_seq(&wire.removed, true);
    return unused;
}

/* What is still in the inbox when a removal is answered never leaves. */
static void test_removal_holds_for_inboxes(void)
{
    struct rf_addr own;
    int first = endpoint("127.0.0.1", &own), fd[32];
    struct rf_session_stats stats;
    unsigned count = 0;
    pthread_t remover;

    if (!engine_start()) {
        engine_end();
        close(first);
        return;
    }
    send_rtp(first, &bound, 0, 0, LEN);
    await(&wire.total, 1);
    while (handed_over() == 0) { /* a source of another worker's */
        CHECK(count < COUNT(fd));
        fd[count] = endpoint("127.0.0.1", &own);
        send_rtp(fd[count], &bound, 1, count, LEN);
        await(&wire.total, ++count + 1);
    }
    store_seq(&wire.held, true);
    send_rtp(first, &bound, 0, 1, LEN);
    await_true(&wire.waiting);
    for (uint64_t i = 0; i < 100; i++)
        send_rtp(fd[count - 1], &bound, 1, count + (uint32_t)i, LEN);
    for (unsigned ms = 0; handed_over() < 101; ms++) {
        CHECK(ms < 60000);
        sleep_ms(1);
    }
    CHECK(pthread_create(&remover, NULL, remove_session, NULL) == 0);
    while (rf_session_stats(engine, handle, 0, &stats) == 0) /* it waits for the busy one now */
        sleep_ms(1);
    store_seq(&wire.held, false);
    CHECK(pthread_join(remover, NULL) == 0);
    struct rf_stats s = engine_end();

    CHECK_EQ(s.packets_received, count + 102);
    CHECK_EQ(s.packets_forwarded, count + 2);
    CHECK_EQ(s.dropped_unknown_ssrc, 100);
    close(first);
    while (count > 0)
        close(fd[--count]);
}

int main(void)
{
    RUN(test_one_at_a_time);
    RUN(test_what_finds_no_room_is_misrouted);
    RUN(test_the_next_engine_misses_nothing);
    RUN(test_a_drain_counts_what_it_drops);
    RUN(test_a_late_one_takes_over);
    RUN(test_who_lost_the_session_does_not_forward);
    RUN(test_many_sources);
    RUN(test_owners_change);
    RUN(test_removal_holds_for_inboxes);
    return 0;
}
