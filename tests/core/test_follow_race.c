/* known.c, follow.c, hold.c, gate_admit.c at work: cameras that start anew all the time, from other
 * ports with other SSRCs, while their sessions are moved, retuned, paused, removed and looked at, and a
 * stranger sends what they send. Nobody gets another camera's packets. */
#include <pthread.h>

#include "atomic.h"
#include "core_senders.h"
#include "identities.h"
#include "loops.h"
#include "random.h"
#include "sessions.h"

enum { WORKERS = 3, CAMERAS = 3, SECONDS = 3, LEN = 60, STRANGER = 99 };

static struct rf_engine *engine;
static struct rf_addr bound;
static int viewer_fd[CAMERAS];
static struct rf_addr viewer[CAMERAS];
static _Atomic bool finished;
static counter heard[CAMERAS], restarts;

static void camera_ip(unsigned camera, char ip[16])
{
    snprintf(ip, 16, "127.0.0.%u", 10 + camera);
}

static void send_frame(int fd, uint32_t ssrc, uint16_t *sequence, uint32_t camera)
{
    uint8_t data[LEN];
    union sockaddr_any to;
    socklen_t len = addr_to_sockaddr(&to, &bound, AF_INET);

    for (unsigned i = 0; i < 6; i++) {
        rtp_make(data, sizeof data, ssrc, (*sequence)++);
        memcpy(data + 12, &camera, sizeof camera);
        (void)sendto(fd, data, sizeof data, 0, &to.any, len);
    }
}

static void *play(void *argument)
{
    unsigned camera = (unsigned)(uintptr_t)argument;
    uint64_t random = 77 + camera;
    char ip[16];

    camera_ip(camera, ip);
    while (!load_acq(&finished)) {
        struct rf_addr at;
        int fd = endpoint(ip, &at);
        uint32_t ssrc = 1 + random_below(&random, 1000);
        uint16_t sequence = (uint16_t)random_below(&random, 65536);

        for (unsigned n = 0; n < 30 && !load_acq(&finished); n++) {
            send_frame(fd, ssrc, &sequence, camera);
            sleep_ms(10);
        }
        close(fd);
        fetch_add_rlx(&restarts, 1);
        sleep_ms(random_below(&random, 2) ? 0 : 220);
    }
    return NULL;
}

static void *intrude(void *unused)
{
    struct rf_addr at;
    int fd = endpoint("127.0.0.9", &at);
    uint64_t random = 5;
    uint16_t sequence = 0;

    while (!load_acq(&finished)) {
        send_frame(fd, 1 + random_below(&random, 1000), &sequence, STRANGER);
        sleep_ms(1);
    }
    close(fd);
    return unused;
}

static void *watch(void *argument)
{
    unsigned camera = (unsigned)(uintptr_t)argument;
    uint8_t data[2048];

    while (!load_acq(&finished)) {
        uint32_t of;

        if (receive(viewer_fd[camera], data, sizeof data, 50) != LEN)
            continue;
        memcpy(&of, data + 12, sizeof of);
        CHECK_EQ(of, camera);
        counter_add(&heard[camera], 1);
    }
    return NULL;
}

static struct rf_source source_of(unsigned camera, uint64_t *random)
{
    char ip[16];
    struct rf_source s = {.ssrc_policy = random_below(random, 4) ? RF_SSRC_FOLLOW : RF_SSRC_ANY};

    camera_ip(camera, ip);
    s.exact = address(ip, 0);
    if (random_below(random, 4) == 0) {
        s.policy = RF_NETWORK;
        s.network = (struct rf_network){address(ip, 0), 128};
    }
    return s;
}

static uint64_t add(unsigned camera, uint64_t *random)
{
    struct rf_source s = source_of(camera, random);
    uint64_t handle;

    CHECK_EQ(rf_session_add(engine, &s, 0, clock_now(CLOCK_MONOTONIC), &handle), 0);
    CHECK_EQ(subscribers_add(engine, handle, &viewer[camera], 1, 1, (bool[1]){false}), 0);
    return handle;
}

static void look(uint64_t handle)
{
    struct rf_source_ssrc seen[RF_SOURCE_SSRCS];
    static struct rf_knock knocks[RF_KNOCKS];
    struct rf_notice notices[16];
    struct rf_addr wrong;

    CHECK(rf_session_ssrcs(engine, handle, seen) >= 0);
    CHECK_EQ(rf_session_wrong_source(engine, handle, &wrong), 0);
    CHECK(rf_knocks(engine, knocks, RF_KNOCKS) >= 0);
    rf_notices(engine, RF_QUEUE_KNOWN, notices, COUNT(notices));
}

static void change(uint64_t handle[CAMERAS], uint64_t *random)
{
    unsigned camera = random_below(random, CAMERAS);
    struct rf_source s = source_of(camera, random);
    uint64_t now = clock_now(CLOCK_MONOTONIC);

    switch (random_below(random, 7)) {
    case 0:
        CHECK_EQ(rf_session_remove(engine, handle[camera]), 0);
        handle[camera] = add(camera, random);
        break;
    case 1: CHECK_EQ(rf_session_move(engine, handle[camera], &s, now), 0); break;
    case 2:
        CHECK_EQ(rf_session_retune(engine, handle[camera], &s, random_below(random, 2), now), 0);
        break;
    case 3:
        CHECK_EQ(rf_session_pause(engine, handle[camera], true), 0);
        CHECK_EQ(rf_session_pause(engine, handle[camera], false), 0);
        break;
    default: look(handle[camera]);
    }
}

int main(void)
{
    struct rf_config config = {
        .bind = address("0.0.0.0", 0), .max_sessions = 20, .max_subscribers = 10,
        .receive_queue_packets = 4096, .workers = WORKERS, .check_padding = true};
    struct rf_socket_info info;
    struct loops loops;
    pthread_t thread[2 * CAMERAS + 1];
    uint64_t handle[CAMERAS], random = 4711, end;
    struct rf_stats stats;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = address("127.0.0.1", info.bound.port);
    for (unsigned i = 0; i < CAMERAS; i++) {
        viewer_fd[i] = endpoint("127.0.0.1", &viewer[i]);
        handle[i] = add(i, &random);
    }
    loops_start(&loops, engine, WORKERS);
    for (uintptr_t i = 0; i < CAMERAS; i++) {
        CHECK_EQ(pthread_create(&thread[2 * i], NULL, play, (void *)i), 0);
        CHECK_EQ(pthread_create(&thread[2 * i + 1], NULL, watch, (void *)i), 0);
    }
    CHECK_EQ(pthread_create(&thread[2 * CAMERAS], NULL, intrude, NULL), 0);
    for (end = clock_now(CLOCK_MONOTONIC) + SECONDS * UINT64_C(1000000000);
         clock_now(CLOCK_MONOTONIC) < end;) {
        change(handle, &random);
        sleep_ms(random_below(&random, 20));
    }
    store_rls(&finished, true);
    for (unsigned i = 0; i < COUNT(thread); i++)
        pthread_join(thread[i], NULL);
    rf_engine_stop(engine);
    loops_join(&loops);
    rf_engine_stats(engine, &stats);
    check_identities(&stats);
    for (unsigned i = 0; i < CAMERAS; i++) {
        CHECK(load_rlx(&heard[i]) > 0);
        close(viewer_fd[i]);
    }
    CHECK(stats.dropped_unknown_ssrc > 0);
    rf_engine_free(engine);
    printf("  %d restarts\n", (int)load_rlx(&restarts));
    return 0;
}
