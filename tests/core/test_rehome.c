/* A network's sources, which the kernel steers to different workers, while the session changes its
 * owner all the time: no packet is forwarded twice, the session's counters have one writer, and
 * whoever owns it at last has them all. Sessions of the same SSRC come and go before and behind it
 * in the chain, and it is found all the same. */
#include <pthread.h>

#include "atomic.h"
#include "core.h"
#include "endpoints.h"
#include "random.h"

enum { SSRC = 7, SOURCES = 6, LEN = 64, WORKERS = 3, PACKETS = 8000, HEARD_BYTES = 65536 / 8 };

static struct rf_engine *engine;
static struct rf_addr bound;
static uint64_t handle;
static _Atomic bool finished, silent;
static counter heard, rehomed;

static void *run_loop(void *index)
{
    CHECK_EQ(rf_engine_run(engine, (uint32_t)(uintptr_t)index), 0);
    return NULL;
}

static void *feed(void *argument)
{
    uint32_t source = (uint32_t)(uintptr_t)argument;
    struct rf_addr own;
    int fd = endpoint("127.0.0.1", &own);
    uint8_t data[LEN];

    for (uint32_t i = 0; i < PACKETS; i++) {
        rtp_make(data, sizeof data, SSRC, (uint16_t)i);
        memcpy(data + 12, &source, sizeof source);
        send_to(fd, &bound, data, sizeof data);
        if (i % 16 == 0)
            sleep_ms(1);
    }
    close(fd);
    return NULL;
}

static void *view(void *argument)
{
    static uint8_t seen[SOURCES][HEARD_BYTES];
    int fd = *(int *)argument;
    uint8_t data[LEN];

    while (!load_acq(&silent)) {
        uint32_t source;

        if (receive(fd, data, sizeof data, 20) < 0)
            continue;
        uint16_t sequence = (uint16_t)(data[2] << 8 | data[3]);
        uint8_t bit = (uint8_t)(1 << sequence % 8);

        memcpy(&source, data + 12, sizeof source);
        CHECK(source < SOURCES);
        CHECK(!(seen[source][sequence / 8] & bit));
        seen[source][sequence / 8] |= bit;
        counter_add(&heard, 1);
    }
    return NULL;
}

/* More specific ones that hold none of the sources, and wider ones that do. */
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
            CHECK_EQ(rf_session_add_from(engine, &source, SSRC, 0, &other[i]), 0);
        }
    }
    return unused;
}

static void *rehome(void *unused)
{
    uint64_t random = 3;
    struct rf_notice n;

    while (!load_acq(&finished)) {
        bool asked = rf_notices(engine, &n, 1) == 1;

        if (asked)
            CHECK(n.kind == RF_NOTICE_MISROUTED && n.handle == handle);
        if (asked || random_below(&random, 4) == 0) {
            CHECK_EQ(rf_session_rehome(engine, handle), 0);
            counter_add(&rehomed, 1);
        }
        sleep_ms(1);
    }
    return unused;
}

static void test_owners_change(void)
{
    struct rf_config config = {address("0.0.0.0", 0), 20, 4, 65536, .workers = WORKERS};
    struct rf_source source = {RF_NETWORK, .network = {address("127.0.0.0", 0), 104}};
    struct rf_socket_info info;
    struct rf_session_stats session;
    struct rf_stats s;
    struct rf_addr viewer;
    pthread_t loop[WORKERS], feeder[SOURCES], watcher, control, bustle;
    int fd = endpoint("127.0.0.1", &viewer);
    bool added;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = address("127.0.0.1", info.bound.port);
    CHECK_EQ(rf_session_add_from(engine, &source, SSRC, 0, &handle), 0);
    CHECK_EQ(rf_subscribers_add(engine, handle, &viewer, 1, 0, &added), 0);
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&loop[i], NULL, run_loop, (void *)i) == 0);
    CHECK(pthread_create(&watcher, NULL, view, &fd) == 0);
    CHECK(pthread_create(&control, NULL, rehome, NULL) == 0);
    CHECK(pthread_create(&bustle, NULL, come_and_go, NULL) == 0);
    for (uintptr_t i = 0; i < SOURCES; i++)
        CHECK(pthread_create(&feeder[i], NULL, feed, (void *)i) == 0);
    for (unsigned i = 0; i < SOURCES; i++)
        pthread_join(feeder[i], NULL);
    store_rls(&finished, true);
    pthread_join(control, NULL);
    pthread_join(bustle, NULL);
    rf_engine_stop(engine);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(loop[i], NULL);
    sleep_ms(50);
    store_rls(&silent, true);
    pthread_join(watcher, NULL);

    rf_engine_stats(engine, &s);
    CHECK_EQ(rf_session_stats(engine, handle, 0, &session), 0);
    CHECK_EQ(s.packets_received, s.packets_forwarded + s.dropped_misrouted + s.dropped_overload);
    CHECK_EQ(s.packets_received + s.kernel_drops, SOURCES * PACKETS);
    CHECK_EQ(session.packets_received, s.packets_forwarded); /* none was lost to a second writer */
    CHECK_EQ(session.packets_sent, s.packets_sent);
    CHECK(info.receiving < 2 || s.dropped_misrouted > 0);
    printf("  %" PRIu64 " changes; forwarded %" PRIu64 ", misrouted %" PRIu64 "\n",
           (uint64_t)load_rlx(&rehomed), s.packets_forwarded, s.dropped_misrouted);
    rf_engine_free(engine);
    close(fd);
}

int main(void)
{
    RUN(test_owners_change);
    return 0;
}
