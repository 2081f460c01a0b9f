/* A session that moves between two sources while both of them send without pause: what only the
 * old one may send never leaves once the call has returned, at no moment are both admitted,
 * and both get through in their turns.
 *
 * Beside it sessions of the same SSRC come and go, which are found by networks, and what reaches
 * another worker is handed over. With TORTURE=full for ten seconds each, or RTPFANOUT_TORTURE_SECONDS. */
#include <pthread.h>

#include "atomic.h"
#include "calls.h"
#include "core.h"
#include "endpoints.h"
#include "loops.h"
#include "random.h"

enum { SSRC = 7, SOURCES = 2, LEN = 64 };

/* Behind the RTP header: who sent it, and after how many moves. */
struct label {
    uint64_t epoch;
    uint32_t source;
};

static struct rf_engine *engine;
static struct rf_addr bound, address_of[SOURCES];
static int source_fd[SOURCES], viewer_fd;
static uint64_t handle;
static _Atomic uint64_t begun, done; /* moves; source `moves % 2` is admitted after that many */
static _Atomic bool finished, silent;
static counter sent[SOURCES], heard[SOURCES], switches, others;

static void *feed(void *argument)
{
    uint32_t source = (uint32_t)(uintptr_t)argument;
    uint64_t random = 50 + source;
    uint8_t data[LEN];

    while (!load_acq(&finished)) {
        struct label p = {load_seq(&done), source};

        rtp_make(data, sizeof data, SSRC, (uint16_t)load_rlx(&sent[source]));
        memcpy(data + 12, &p, sizeof p);
        send_to(source_fd[source], &bound, data, sizeof data);
        counter_add(&sent[source], 1);
        if (random_below(&random, 16) == 0)
            sleep_ms(1);
    }
    return NULL;
}

static void *view(void *unused)
{
    uint8_t data[LEN];
    uint32_t last = 0;

    while (!load_acq(&silent)) {
        struct label p;

        if (receive(viewer_fd, data, sizeof data, 20) < 0)
            continue;
        uint64_t begun_by_now = load_seq(&begun);

        memcpy(&p, data + 12, sizeof p);
        /* Sent when another was admitted already, and no later move can have let it in. */
        CHECK(p.epoch % 2 == p.source || begun_by_now > p.epoch);
        if (p.source != last)
            counter_add(&switches, 1);
        last = p.source;
        counter_add(&heard[p.source], 1);
    }
    return unused;
}

/* Sessions of the same SSRC that never have a packet, among them one that latches; and what the
 * control plane does with notices. */
static void *bustle(void *unused)
{
    uint64_t random = 9, other[10] = {0};
    struct rf_notice n;

    while (!load_acq(&finished)) {
        unsigned i = random_below(&random, COUNT(other));
        struct rf_source source = {i < 8 ? RF_NETWORK : RF_LATCH,
                                   .network = {address(i < 8 ? "10.0.0.1" : "127.0.0.0", 0),
                                               (uint8_t)(i < 8 ? 121 + i % 8 : 96 + i)}};

        if (other[i]) {
            CHECK_EQ(rf_session_remove(engine, other[i]), 0);
            other[i] = 0;
        } else {
            CHECK_EQ(rf_session_add(engine, &source, SSRC, 0, &other[i]), 0);
        }
        while (rf_notices(engine, RF_QUEUE_KNOWN, &n, 1) == 1)
            ;
        rf_engine_tick(engine, clock_now(CLOCK_MONOTONIC), 0, NULL, 0);
        counter_add(&others, 1);
    }
    return unused;
}

/* By exact source and by network in turns, so that every kind of move comes up. */
static struct rf_source source_after(uint64_t moves)
{
    const struct rf_addr *a = &address_of[moves % 2];

    if (moves / 2 % 2 == 0)
        return (struct rf_source){RF_EXACT, *a, {address("127.0.0.0", 0), 104}, moves % 3 * 1000000};
    return (struct rf_source){RF_NETWORK, .network = {*a, 128}};
}

static double torture_seconds(void)
{
    const char *seconds = getenv("RTPFANOUT_TORTURE_SECONDS"), *full = getenv("RTPFANOUT_TORTURE");

    return seconds ? atof(seconds) : full && strcmp(full, "full") == 0 ? 10 : 2;
}

static void check_counts(void)
{
    struct rf_stats s;
    uint64_t dropped = 0;

    rf_engine_stats(engine, &s);
#define X(name) dropped += s.dropped_##name;
    RF_DROP_REASONS(X)
#undef X
    CHECK_EQ(s.packets_received, s.packets_forwarded + dropped);
    CHECK_EQ(s.packets_received + s.kernel_drops, load_rlx(&sent[0]) + load_rlx(&sent[1]));
    CHECK_EQ(dropped, s.dropped_wrong_source + s.dropped_latching + s.dropped_misrouted +
                          s.dropped_overload);
    printf("  %" PRIu64 " moves, %" PRIu64 " other sessions; heard %" PRIu64 " and %" PRIu64
           " of %" PRIu64 " and %" PRIu64 "; handed over %" PRIu64 "\n",
           (uint64_t)load_rlx(&done), (uint64_t)load_rlx(&others), (uint64_t)load_rlx(&heard[0]),
           (uint64_t)load_rlx(&heard[1]), (uint64_t)load_rlx(&sent[0]),
           (uint64_t)load_rlx(&sent[1]), s.handed_over);
}

static void move_about(unsigned workers)
{
    struct rf_config config = {address("0.0.0.0", 0), 20, 4, 1000, .workers = workers};
    struct rf_socket_info info;
    struct rf_source source = source_after(0);
    struct rf_addr viewer;
    struct loops loops;
    pthread_t feeder[SOURCES], watcher, bustler;
    bool added;

    store_seq(&begun, 0), store_seq(&done, 0);
    store_rls(&finished, false), store_rls(&silent, false);
    store_rlx(&switches, 0), store_rlx(&others, 0);
    for (unsigned i = 0; i < SOURCES; i++) {
        source_fd[i] = endpoint(i ? "127.0.0.2" : "127.0.0.1", &address_of[i]);
        store_rlx(&sent[i], 0), store_rlx(&heard[i], 0);
    }
    source = source_after(0);
    viewer_fd = endpoint("127.0.0.1", &viewer);
    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = address("127.0.0.1", info.bound.port);
    CHECK_EQ(rf_session_add(engine, &source, SSRC, 0, &handle), 0);
    CHECK_EQ(subscribers_add(engine, handle, &viewer, 1, 0, &added), 0);
    loops_start(&loops, engine, workers);
    CHECK(pthread_create(&watcher, NULL, view, NULL) == 0);
    CHECK(pthread_create(&bustler, NULL, bustle, NULL) == 0);
    for (uintptr_t i = 0; i < SOURCES; i++)
        CHECK(pthread_create(&feeder[i], NULL, feed, (void *)i) == 0);

    uint64_t end = clock_now(CLOCK_MONOTONIC) + (uint64_t)(torture_seconds() * 1e9), random = 77;

    for (uint64_t moves = 1;
         clock_now(CLOCK_MONOTONIC) < end || load_rlx(&heard[0]) == 0 || load_rlx(&heard[1]) == 0;
         moves++) {
        source = source_after(moves);
        store_seq(&begun, moves);
        CHECK_EQ(rf_session_move(engine, handle, &source, clock_now(CLOCK_MONOTONIC)), 0);
        store_seq(&done, moves);
        if (random_below(&random, 2))
            sleep_ms(random_below(&random, 8));
    }
    store_rls(&finished, true);
    for (unsigned i = 0; i < SOURCES; i++)
        pthread_join(feeder[i], NULL);
    pthread_join(bustler, NULL);
    rf_engine_stop(engine);
    loops_join(&loops);
    sleep_ms(50);
    store_rls(&silent, true);
    pthread_join(watcher, NULL);
    if (workers == 1) /* what one worker sends comes in order: each change was a move's */
        CHECK(load_rlx(&switches) <= load_rlx(&done));
    check_counts();
    rf_engine_free(engine);
    for (unsigned i = 0; i < SOURCES; i++)
        close(source_fd[i]);
    close(viewer_fd);
}

static void test_moves_with_one_worker(void)
{
    move_about(1);
}

static void test_moves_with_three_workers(void)
{
    move_about(3);
}

int main(void)
{
    RUN(test_moves_with_one_worker);
    RUN(test_moves_with_three_workers);
    return 0;
}
