/* worker_health.c: a worker that has much to do looks alive to who asks, and one that is stuck
 * does not. Time is virtual, and passes when something is sent: seconds in a turn, on any machine.
 * wraps: sendmmsg recvmmsg clock_gettime */
#include "egress.h"

#include <signal.h>
#include <sys/wait.h>

#include "calls.h"
#include "identities.h"
#include "segments.h"
#include "worker.h"

enum { SSRC = 7, SUBSCRIBERS = 128, LENGTH = 200, PACKETS = 64, SEND_MS = 300 };

static struct rf_engine *engine;
static uint64_t now_ns, silence_ns; /* the longest that was seen while something was sent */
static unsigned sends;
static bool dies; /* instead of its first send */

int __real_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __real_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);
int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
    struct rf_health health;

    if (dies)
        raise(SIGKILL);
    now_ns += SEND_MS * UINT64_C(1000000);
    CHECK_EQ(rf_engine_health(engine, 0, now_ns, &health), 0);
    if (now_ns - health.alive_ns > silence_ns)
        silence_ns = now_ns - health.alive_ns;
    sends++;
    return __real_sendmmsg(fd, headers, n, flags);
}

/* It ends when nothing comes any more. */
int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t)
{
    int got = __real_recvmmsg(fd, h, n, flags, t);

    if (got <= 0)
        rf_engine_leave(engine);
    return got;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    now_ns += 1000;
    *t = (struct timespec){(time_t)(now_ns / 1000000000), (long)(now_ns % 1000000000)};
    return 0;
}

static int port, in_hand;

/* 64 packets wait: 8,192 send entries, for each is as long as no other. */
static void setup(void)
{
    struct rf_addr at = address("127.0.0.1", 0), camera, bound, to[SUBSCRIBERS];
    union sockaddr_any name;
    socklen_t len = sizeof name;
    uint8_t p[LENGTH];
    bool added[SUBSCRIBERS];
    uint64_t handle;

    now_ns = 1000000000;
    silence_ns = 0;
    sends = 0;
    CHECK_EQ(rf_sockets_open(&at, 1, 4096, &port), 1);
    in_hand = rf_in_hand_open(1);
    CHECK(in_hand >= 0);
    CHECK(getsockname(port, &name.any, &len) == 0);
    addr_from_sockaddr(&bound, &name);
    struct rf_config config = {
        .bind = bound,
        .max_sessions = 1,
        .max_subscribers = SUBSCRIBERS,
        .receive_queue_packets = 4096,
        .workers = 1,
        .sockets = &port,
        .socket_count = 1,
        .in_hand = &in_hand,
    };
    int from = endpoint("127.0.0.1", &camera);

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    CHECK_EQ(session_add(engine, &camera, SSRC, 0, &handle), 0);
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        to[i] = address("127.1.0.1", 9);
        to[i].ip[15] = (uint8_t)i;
    }
    CHECK_EQ(subscribers_add(engine, handle, to, SUBSCRIBERS, 0, added), 0);
    for (uint16_t i = 0; i < PACKETS; i++) {
        rtp_make(p, 100u + i, SSRC, i);
        send_to(from, &bound, p, 100u + i);
    }
    close(from);
}

static void check_sent_alive(uint64_t recovered)
{
    struct rf_stats stats;

    rf_engine_stats(engine, &stats);
    check_identities(&stats);
    CHECK_EQ(stats.copies_attempted, PACKETS * SUBSCRIBERS);
    CHECK_EQ(stats.packets_recovered, recovered);
    CHECK(sends >= PACKETS * SUBSCRIBERS / EGRESS_BATCH);
    CHECK(sends * SEND_MS > 2 * 2000); /* a while for who looks */
    CHECK(silence_ns < (2 * SEND_MS) * UINT64_C(1000000));
    rf_engine_free(engine);
    close(port);
    close(in_hand);
}

static void test_in_a_turn_of_ten_seconds(void)
{
    setup();
    CHECK_EQ(rf_engine_run(engine, 0), 0);
    check_sent_alive(0);
}

static void test_while_it_recovers(void)
{
    int status;

    setup();
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid == 0) {
        dies = true;
        rf_engine_run(engine, 0);
        _exit(1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    CHECK_EQ(rf_engine_run(engine, 0), 0);
    check_sent_alive(PACKETS);
}

static struct sock sock;
static struct qsbr qsbr;
static struct table table;
static struct worker owner, helper, *crew[] = {&owner, &helper};

static uint64_t silence_of(struct worker *w)
{
    struct rf_health health;

    worker_health(w, now_ns, &health);
    return now_ns - health.alive_ns;
}

/* Who waits for a task that another has is as alive as that one; but not who waits for nobody. */
static void test_who_waits_for_its_crew(void)
{
    struct worker_options options = {.index = 0};
    struct rf_addr at = address("127.0.0.1", 0);
    struct rf_health health;

    qsbr_init(&qsbr);
    CHECK_EQ(sock_open(&sock, &at, 1 << 20, 1 << 20), 0);
    for (; options.index < 2; options.index++)
        CHECK_EQ(worker_init(crew[options.index], &options, &sock, &table, &qsbr, crew, 2), 0);
    worker_health(&owner, now_ns, &health);
    CHECK_EQ(health.alive_ns, 0);
    CHECK_EQ(health.cpu_ns, 0);
    worker_note_thread(&owner);
    worker_note_thread(&helper);
    worker_health(&owner, now_ns, &health);
    CHECK(now_ns - health.alive_ns < 1000000);
    CHECK(health.cpu_ns > 0);
    now_ns += 5000000000;
    CHECK(silence_of(&owner) >= 5000000000 && silence_of(&helper) >= 5000000000);
    store_rlx(&owner.awaits, true);
    CHECK(silence_of(&owner) >= 5000000000); /* nobody has anything of its */
    store_rlx(&helper.helps, 1);
    CHECK(silence_of(&owner) < 1000000);
    CHECK(silence_of(&helper) >= 5000000000);
    store_rlx(&owner.awaits, false);
    CHECK(silence_of(&owner) >= 5000000000); /* it is at work itself */
    worker_destroy(&owner);
    worker_destroy(&helper);
    sock_close(&sock);
    qsbr_destroy(&qsbr);
}

int main(void)
{
    RUN(test_who_waits_for_its_crew);
    RUN(test_in_a_turn_of_ten_seconds);
    RUN(test_while_it_recovers);
    return 0;
}
