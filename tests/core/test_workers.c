/* worker_fanout.c, several workers: one session has one owner, wide turns are shared, nothing is lost at the stop.
 * wraps: sendmmsg poll job_take job_task_done */
#include <pthread.h>

#include "identities.h"
#include "sessions.h"
#include "worker.h"

static int owner_fd = -1;
static _Atomic bool help_needed; /* the owner's sends wait for another's */

int __real_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __real_poll(struct pollfd *p, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
    if (fd != owner_fd)
        store_seq(&help_needed, false);
    for (unsigned ms = 0; load_seq(&help_needed); ms++) {
        CHECK(ms < 20000);
        sleep_ms(1);
    }
    return __real_sendmmsg(fd, headers, n, flags);
}

/* A worker sleeps until it is woken; no bound on the sleep helps one that is not. */
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout)
{
    return __real_poll(p, n, n == 2 ? -1 : timeout);
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
    }
}

static _Thread_local struct worker *self;

bool __real_job_take(struct job *j, uint32_t *task);
bool __wrap_job_take(struct job *j, uint32_t *task);
void __real_job_task_done(struct job *j);
void __wrap_job_task_done(struct job *j);

/* Whoever has, or may be about to have, a task of another worker says so: that one waits. */
static void check_it_says_whom_it_helps(const struct job *j)
{
    for (unsigned i = 0; self && i < CREW; i++) {
        if (j == &bench.worker[i].job)
            CHECK_EQ(load_rlx(&self->helps), self == &bench.worker[i] ? 0 : i + 1);
    }
}

bool __wrap_job_take(struct job *j, uint32_t *task)
{
    check_it_says_whom_it_helps(j);
    return __real_job_take(j, task);
}

void __wrap_job_task_done(struct job *j)
{
    check_it_says_whom_it_helps(j);
    __real_job_task_done(j);
}

static void *bench_run(void *worker)
{
    self = worker;
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

/* A flow that reaches two workers: the second hands its part over, and the session's run and
 * counters stay the first one's. Other sessions of that source are free for it. */
static void test_a_session_has_one_owner(void)
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
    await(&s->counters.packets_sent, 301); /* it is woken for them */
    await(&t->counters.packets_sent, 1);
    bench_stop(&sum);
    CHECK_EQ(load_rlx(&bench.worker[0].counters.packets_received), 151);
    CHECK_EQ(load_rlx(&bench.worker[0].counters.packets_forwarded), 1);
    CHECK_EQ(load_rlx(&bench.worker[0].counters.handed_over), 150);
    CHECK_EQ(load_rlx(&bench.worker[1].counters.packets_received), 151);
    CHECK_EQ(load_rlx(&bench.worker[1].counters.packets_forwarded), 301);
    CHECK_EQ(sum.handed_over, 150);
    CHECK_EQ(sum.bytes_received, 302 * sizeof p);
    CHECK_EQ(load_rlx(&s->counters.packets_received), 301);
    for (unsigned i = 0; i < 302; i++)
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
        CHECK_EQ(sum.packets_forwarded, 10);
        CHECK_EQ(sum.handed_over, 5);
        CHECK_EQ(load_rlx(&s->counters.packets_received), 10);
        close(from);
        close(to);
        bench_teardown();
    }
}

static void await_idle(unsigned worker)
{
    for (unsigned ms = 0; !load_seq(&bench.worker[worker].idle); ms++) {
        CHECK(ms < 20000);
        sleep_ms(1);
    }
}

/* One receives, two help: each time one of them is woken and sends through its own socket, and
 * each subscriber gets each packet once. */
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

    owner_fd = bench.sock[0].fd;
    bench_start();
    for (uint16_t i = 0; i < PACKETS; i++) {
        await_idle(1);
        await_idle(2);
        store_seq(&help_needed, true);
        rtp_make(p, sizeof p, 1, i);
        send_to(from, &bench.sock[0].bound, p, sizeof p);
        await(&s->counters.packets_sent, SUBSCRIBERS * (i + 1u));
        while (recv(to, p, sizeof p, MSG_DONTWAIT) > 0)
            CHECK_EQ(p[3], i);
    }
    bench_stop(&sum);
    CHECK_EQ(sum.copies_attempted, SUBSCRIBERS * PACKETS);
    CHECK_EQ(sum.packets_sent, SUBSCRIBERS * PACKETS);
    CHECK(sum.tasks_shared >= PACKETS);
    CHECK_EQ(load_rlx(&bench.worker[0].counters.tasks_shared), 0);
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

enum { WAVE_SESSIONS = 16, WAVE_SUBSCRIBERS = 1000, WAVE_EACH = 4 };

/* All is queued before the worker begins. The turns that took; the copies are exact. */
static uint64_t turns_of_what_is_queued(void)
{
    struct rf_addr camera;
    struct rf_stats sum;
    uint8_t p[40];
    uint16_t port;

    bench_setup(1, 64);
    int from = endpoint("127.0.0.1", &camera), to = wide_receiver(&port);
    struct session *s[WAVE_SESSIONS];

    for (uint32_t i = 0; i < WAVE_SESSIONS; i++)
        s[i] = bench_session(camera, i, WAVE_SUBSCRIBERS, port);
    for (uint16_t i = 0; i < WAVE_EACH * WAVE_SESSIONS; i++) {
        rtp_make(p, sizeof p - i % 7, i % WAVE_SESSIONS, i);
        send_to(from, &bench.sock[0].bound, p, sizeof p - i % 7);
    }
    bench_start();
    for (unsigned i = 0; i < WAVE_SESSIONS; i++)
        await(&s[i]->counters.copies_attempted, WAVE_SUBSCRIBERS * WAVE_EACH);
    bench_stop(&sum);
    CHECK_EQ(sum.copies_attempted, WAVE_SESSIONS * WAVE_SUBSCRIBERS * WAVE_EACH);
    close(from);
    close(to);
    bench_teardown();
    return sum.turns;
}

/* A turn of very many sessions needs more shares than there is room for: it goes in waves. A busy
 * kernel may deliver some of the packets later, for another turn; not each time. */
static void test_a_turn_in_waves(void)
{
    unsigned tries = 100;

    while (turns_of_what_is_queued() != 1)
        CHECK(--tries > 0);
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

int main(void)
{
    RUN(test_a_session_has_one_owner);
    RUN(test_a_race_for_a_session_has_one_winner);
    RUN(test_a_wide_turn_is_shared);
    RUN(test_below_the_threshold_nobody_helps);
    RUN(test_a_turn_in_waves);
    RUN(test_stop_with_shared_work_in_flight);
    return 0;
}
