/* gate_wait.c, hold.c, sources.c at work: latches that are pinned to whom the workers tell of, moved, paused,
 * removed and looked at, while cameras start anew from other ports and strangers knock. What a
 * stranger sent never leaves, and a camera's packets leave in order, and once. */
#include <pthread.h>

#include "atomic.h"
#include "core_senders.h"
#include "identities.h"
#include "loops.h"
#include "random.h"
#include "sessions.h"

enum { WORKERS = 3, CAMERAS = 3, SECONDS = 3, LEN = 60, STARTS = 4096, STRANGER = STARTS };

/* Behind the RTP header of each packet. */
struct label {
    uint32_t camera, start, number;
};

static struct rf_engine *engine;
static struct rf_addr bound, stranger[CAMERAS];
static int viewer_fd[CAMERAS], stranger_fd[CAMERAS];
static struct rf_addr viewer[CAMERAS];
static _Atomic bool finished;
static counter heard[CAMERAS], first_heard[CAMERAS];

static void camera_ip(unsigned camera, char ip[16])
{
    snprintf(ip, 16, "127.0.0.%u", 10 + camera);
}

static void send_some(int fd, struct label *l, unsigned packets)
{
    uint8_t data[LEN];
    union sockaddr_any to;
    socklen_t len = addr_to_sockaddr(&to, &bound, AF_INET);

    for (unsigned i = 0; i < packets; i++, l->number++) {
        rtp_make(data, sizeof data, 100 + l->camera, (uint16_t)l->number);
        memcpy(data + 12, l, sizeof *l);
        (void)sendto(fd, data, sizeof data, 0, &to.any, len);
    }
}

static void *play(void *argument)
{
    unsigned camera = (unsigned)(uintptr_t)argument;
    uint64_t random = 77 + camera;
    char ip[16];

    camera_ip(camera, ip);
    for (uint32_t start = 0; !load_acq(&finished) && start < STARTS; start++) {
        struct label l = {camera, start, 0}, strange = {camera, STRANGER, 0};
        struct rf_addr at;
        int fd = endpoint(ip, &at);

        for (unsigned n = 0; n < 12 && !load_acq(&finished); n++) {
            send_some(fd, &l, 4);
            if (random_below(&random, 3) == 0)
                send_some(stranger_fd[camera], &strange, 2);
            sleep_ms(random_below(&random, 8));
        }
        close(fd);
    }
    return NULL;
}

static void *watch(void *argument)
{
    static uint32_t next[CAMERAS][STARTS];
    unsigned camera = (unsigned)(uintptr_t)argument;
    uint8_t data[2048];
    struct label l;

    while (!load_acq(&finished)) {
        if (receive(viewer_fd[camera], data, sizeof data, 50) != LEN)
            continue;
        memcpy(&l, data + 12, sizeof l);
        CHECK_EQ(l.camera, camera);
        CHECK(l.start < STARTS);
        CHECK(l.number >= next[camera][l.start]);
        if (l.number == 0)
            counter_add(&first_heard[camera], 1);
        next[camera][l.start] = l.number + 1;
        counter_add(&heard[camera], 1);
    }
    return NULL;
}

static struct rf_source latch_of(unsigned camera, uint64_t *random)
{
    char ip[16];
    struct rf_source s = {.policy = RF_LATCH,
                          .ssrc_policy = (enum rf_ssrc_policy)random_below(random, 3)};

    camera_ip(camera, ip);
    s.network = (struct rf_network){address(ip, 0), 128};
    return s;
}

static uint64_t add(unsigned camera, uint64_t *random)
{
    struct rf_source s = latch_of(camera, random);
    uint64_t handle;

    CHECK_EQ(rf_session_add(engine, &s, 100 + camera, clock_now(CLOCK_MONOTONIC), &handle), 0);
    CHECK_EQ(subscribers_add(engine, handle, &viewer[camera], 1, 1, (bool[1]){false}), 0);
    return handle;
}

/* As the control plane does, which may be late. */
static void pin_those_who_knock(const uint64_t handle[CAMERAS], uint64_t *random)
{
    struct rf_notice n[16];
    size_t count = rf_notices(engine, RF_QUEUE_KNOWN, n, COUNT(n));

    for (size_t i = 0; i < count; i++) {
        for (unsigned camera = 0; camera < CAMERAS; camera++) {
            struct rf_source s = latch_of(camera, random);

            if (n[i].kind != RF_NOTICE_SOURCE || n[i].handle != handle[camera] ||
                addr_equal(&n[i].source, &stranger[camera]))
                continue;
            s.policy = RF_EXACT;
            s.exact = n[i].source;
            s.pins = true;
            s.relatch_after_ns = 10000000;
            CHECK_EQ(rf_session_move(engine, handle[camera], &s, clock_now(CLOCK_MONOTONIC)), 0);
        }
    }
}

static void change(uint64_t handle[CAMERAS], uint64_t *random)
{
    unsigned camera = random_below(random, CAMERAS);
    struct rf_source s = latch_of(camera, random);
    struct rf_session_stats stats;

    switch (random_below(random, 24)) {
    case 0:
        CHECK_EQ(rf_session_remove(engine, handle[camera]), 0);
        handle[camera] = add(camera, random);
        break;
    case 1:
        CHECK_EQ(rf_session_move(engine, handle[camera], &s, clock_now(CLOCK_MONOTONIC)), 0);
        break;
    case 2:
        CHECK_EQ(rf_session_pause(engine, handle[camera], true), 0);
        CHECK_EQ(rf_session_pause(engine, handle[camera], false), 0);
        break;
    case 3: sleep_ms(random_below(random, 100)); break;
    default: CHECK_EQ(rf_session_stats(engine, handle[camera], 1, &stats), 0);
    }
    pin_those_who_knock(handle, random);
}

int main(void)
{
    struct rf_config config = {
        .bind = address("0.0.0.0", 0), .max_sessions = 20, .max_subscribers = 10,
        .receive_queue_packets = 4096, .workers = WORKERS, .check_padding = true};
    struct rf_socket_info info;
    struct loops loops;
    pthread_t thread[2 * CAMERAS];
    uint64_t handle[CAMERAS], random = 4711, end;
    struct rf_stats stats;
    char ip[16];

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = address("127.0.0.1", info.bound.port);
    for (unsigned i = 0; i < CAMERAS; i++) {
        camera_ip(i, ip);
        viewer_fd[i] = endpoint("127.0.0.1", &viewer[i]);
        stranger_fd[i] = endpoint(ip, &stranger[i]);
        handle[i] = add(i, &random);
    }
    loops_start(&loops, engine, WORKERS);
    for (uintptr_t i = 0; i < CAMERAS; i++) {
        CHECK_EQ(pthread_create(&thread[2 * i], NULL, play, (void *)i), 0);
        CHECK_EQ(pthread_create(&thread[2 * i + 1], NULL, watch, (void *)i), 0);
    }
    for (end = clock_now(CLOCK_MONOTONIC) + SECONDS * UINT64_C(1000000000);
         clock_now(CLOCK_MONOTONIC) < end;) {
        change(handle, &random);
        sleep_ms(random_below(&random, 5));
    }
    store_rls(&finished, true);
    for (unsigned i = 0; i < COUNT(thread); i++)
        pthread_join(thread[i], NULL);
    rf_engine_stop(engine);
    loops_join(&loops);
    rf_engine_stats(engine, &stats);
    check_identities(&stats);
    uint64_t firsts = 0;

    for (unsigned i = 0; i < CAMERAS; i++) {
        CHECK(load_rlx(&heard[i]) > 0);
        firsts += load_rlx(&first_heard[i]);
        close(viewer_fd[i]);
        close(stranger_fd[i]);
    }
    CHECK(firsts > 0 && stats.dropped_latching > 0);
    rf_engine_free(engine);
    printf("  %d starts whose first packet left, %d packets given up\n", (int)firsts,
           (int)stats.dropped_latching);
    return 0;
}
