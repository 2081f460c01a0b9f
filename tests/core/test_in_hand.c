/* worker_recover.c, worker_room.c: what a process had in hand when it died is sent by the next one that has its memory.
 * wraps: sendmmsg */
#include "egress.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "calls.h"
#include "identities.h"
#include "ingress.h"
#include "random.h"
#include "segments.h"

enum { SSRC = 7, SUBSCRIBERS = 3, MOST = 128, LENGTH = 200, NEVER = 1 << 30 };

/* What a process dies of, and that send is not made. */
static unsigned sends_left = NEVER; /* the one after so many */
static int deadly = -1;             /* the one with this packet */

int __real_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
    bool dies = sends_left-- == 0;

    for (unsigned i = 0; i < n && deadly >= 0; i++) {
        const struct msghdr *h = &headers[i].msg_hdr;

        for (size_t j = 0; j < h->msg_iovlen; j++) {
            const uint8_t *p = h->msg_iov[j].iov_base;

            for (size_t at = 0; at < h->msg_iov[j].iov_len; at += LENGTH)
                dies = dies || (p[at + 2] << 8 | p[at + 3]) == deadly;
        }
    }
    if (dies)
        raise(SIGKILL);
    return __real_sendmmsg(fd, headers, n, flags);
}

/* What outlives the processes. */
static struct {
    int port, in_hand;
    struct rf_addr bound;
    int source, subscriber[SUBSCRIBERS];
    struct rf_addr source_address, subscribers[MOST]; /* the first of them are endpoints */
    unsigned subscribers_count;
    uint16_t sequence;
} scene;

static void scene_setup(void)
{
    struct rf_addr at = address("127.0.0.1", 0);
    union sockaddr_any name;
    socklen_t len = sizeof name;
    int on = 1;

    memset(&scene, 0, sizeof scene);
    CHECK_EQ(rf_sockets_open(&at, 1, 4096, &scene.port), 1);
    /* From the first packet on, as when a server has been there. */
    CHECK(setsockopt(scene.port, IPPROTO_UDP, UDP_GRO, &on, sizeof on) == 0);
    scene.in_hand = rf_in_hand_open(1);
    CHECK(scene.in_hand >= 0);
    CHECK(getsockname(scene.port, &name.any, &len) == 0);
    addr_from_sockaddr(&scene.bound, &name);
    scene.source = endpoint("127.0.0.1", &scene.source_address);
    for (unsigned i = 0; i < SUBSCRIBERS; i++)
        scene.subscriber[i] = endpoint("127.0.0.1", &scene.subscribers[i]);
    scene.subscribers_count = SUBSCRIBERS;
    for (unsigned i = SUBSCRIBERS; i < MOST; i++) {
        scene.subscribers[i] = address("127.1.0.1", 9);
        scene.subscribers[i].ip[15] = (uint8_t)i;
    }
}

static void scene_teardown(void)
{
    close(scene.port);
    close(scene.in_hand);
    close(scene.source);
    for (unsigned i = 0; i < SUBSCRIBERS; i++)
        close(scene.subscriber[i]);
}

static struct rf_engine *engine_here(void)
{
    struct rf_config config = {
        .bind = scene.bound,
        .max_sessions = 4,
        .max_subscribers = MOST,
        .receive_queue_packets = 4096,
        .workers = 1,
        .sockets = &scene.port,
        .socket_count = 1,
        .in_hand = &scene.in_hand,
        .no_segmentation = scene.subscribers_count > SUBSCRIBERS,
    };
    bool added[MOST];
    struct rf_engine *e;
    uint64_t handle;

    CHECK_EQ(rf_engine_new(&config, &e), 0);
    CHECK_EQ(session_add(e, &scene.source_address, SSRC, 0, &handle), 0);
    CHECK_EQ(subscribers_add(e, handle, scene.subscribers, scene.subscribers_count, 0,
                                added), 0);
    return e;
}

/* A process that runs the engine, and dies instead of its send number `sends`. */
static pid_t start_process(unsigned sends)
{
    pid_t pid = fork();

    CHECK(pid >= 0);
    if (pid > 0)
        return pid;
    sends_left = sends;
    rf_engine_run(engine_here(), 0);
    _exit(1);
}

static void await_death(pid_t pid)
{
    int status;

    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void *run(void *engine)
{
    CHECK_EQ(rf_engine_run(engine, 0), 0);
    return NULL;
}

static struct rf_reception reception; /* of who took over last */

/* An engine of this process takes over, until nothing is queued any more. */
static struct rf_stats take_over(void)
{
    struct rf_engine *e = engine_here();
    struct rf_stats stats;
    pthread_t loop;

    CHECK(pthread_create(&loop, NULL, run, e) == 0);
    rf_engine_stop(e); /* forwards what is queued */
    pthread_join(loop, NULL);
    rf_engine_stats(e, &stats);
    check_identities(&stats);
    CHECK_EQ(rf_sessions_reception(e, 0, &reception, 1), 1);
    rf_engine_free(e);
    return stats;
}

static void packet(uint8_t *p)
{
    rtp_make(p, LENGTH, SSRC, scene.sequence++);
}

static void send_one(void)
{
    uint8_t p[LENGTH];

    packet(p);
    send_to(scene.source, &scene.bound, p, sizeof p);
}

static void send_burst(unsigned n)
{
    static uint8_t burst[64][LENGTH];

    for (unsigned i = 0; i < n; i++)
        packet(burst[i]);
    send_segments(scene.source, &scene.bound, burst, n * LENGTH, LENGTH);
}

/* The sequence number of subscriber i's next packet, which is as it was sent; -1: there is none. */
static int next_of(unsigned i)
{
    uint8_t got[2 * LENGTH], sent[LENGTH];
    ssize_t n = receive(scene.subscriber[i], got, sizeof got, 0);

    if (n < 0)
        return -1;
    CHECK_EQ(n, LENGTH);
    rtp_make(sent, LENGTH, SSRC, (uint16_t)(got[2] << 8 | got[3]));
    CHECK(memcmp(got, sent, LENGTH) == 0);
    return got[2] << 8 | got[3];
}

/* Everybody got the numbers from `first` to before `end`, each once and in order, and nothing more. */
static void check_received(int first, int end)
{
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        for (int number = first; number < end; number++)
            CHECK_EQ(next_of(i), number);
        CHECK_EQ(next_of(i), -1);
    }
}

static void test_what_was_in_hand_goes_first(void)
{
    struct rf_stats stats;

    scene_setup();
    send_one();
    send_burst(14); /* in one buffer: the next process has to know how it is cut */
    send_to(scene.source, &scene.bound, "", 0);
    send_to(scene.source, &scene.bound, "no RTP", 6);
    send_one();
    await_death(start_process(0));
    check_received(0, 0);
    send_burst(5); /* while there is no process */
    send_one();
    stats = take_over();
    check_received(0, 22);
    CHECK_EQ(stats.packets_recovered, 18);
    CHECK_EQ(stats.packets_received, 18 + 6);
    CHECK_EQ(stats.packets_forwarded, 22);
    CHECK_EQ(stats.dropped_not_rtp + stats.dropped_malformed, 2);
    CHECK_EQ(reception.expected, 22); /* nothing is missing between the two */
    CHECK_EQ(reception.lost + reception.reordered + reception.duplicates, 0);
    scene_teardown();
}

static void test_what_had_left_is_not_sent_again(void)
{
    scene_setup();
    pid_t pid = start_process(1);

    send_burst(3);
    for (unsigned i = 0; i < SUBSCRIBERS; i++)
        for (int number = 0; number < 3; number++) {
            struct pollfd p = {.fd = scene.subscriber[i], .events = POLLIN};

            CHECK(poll(&p, 1, 20000) == 1);
            CHECK_EQ(next_of(i), number);
        }
    send_one(); /* of this it dies */
    await_death(pid);
    CHECK_EQ(take_over().packets_recovered, 1);
    check_received(3, 4);
    CHECK_EQ(take_over().packets_recovered, 0);
    check_received(0, 0);
    scene_teardown();
}

/* As many buffers as there are, of which the last holds nothing. */
static void test_a_full_batch(void)
{
    struct rf_stats stats;

    scene_setup();
    for (unsigned i = 0; i < INGRESS_BATCH - 1; i++)
        send_one();
    send_to(scene.source, &scene.bound, "", 0);
    await_death(start_process(0));
    stats = take_over();
    CHECK_EQ(stats.packets_recovered, INGRESS_BATCH);
    CHECK_EQ(stats.packets_received, INGRESS_BATCH);
    CHECK_EQ(stats.dropped_malformed, 1);
    check_received(0, INGRESS_BATCH - 1);
    scene_teardown();
}

/* Everything that takes a send entry of its own: 32 packets at a time leave by 16 sends. */
enum { WIDE = 128, SENDS = WIDE * 32 / EGRESS_BATCH };

/* Of a batch of single packets half had left: it is not counted by the next process, neither as
 * received nor as recovered nor as dropped. */
static void test_half_of_a_batch_had_left(void)
{
    struct rf_stats stats;

    scene_setup();
    scene.subscribers_count = WIDE;
    for (unsigned i = 0; i < INGRESS_BATCH; i++)
        send_one();
    await_death(start_process(SENDS));
    check_received(0, 32);
    stats = take_over();
    check_received(32, 64);
    CHECK_EQ(stats.packets_recovered, 32);
    CHECK_EQ(stats.packets_received, 32);
    CHECK_EQ(stats.bytes_received, 32 * LENGTH);
    CHECK_EQ(stats.packets_forwarded, 32);
    CHECK_EQ(stats.receives, 32);
    scene_teardown();
}

/* The same when it is given up: one packet, of which three processes died. */
static void test_what_had_left_is_not_given_up(void)
{
    struct rf_stats stats;

    scene_setup();
    scene.subscribers_count = WIDE;
    for (unsigned i = 0; i < INGRESS_BATCH; i++)
        send_one();
    await_death(start_process(SENDS));
    check_received(0, 32);
    for (unsigned i = 0; i < INGRESS_RECOVERIES; i++)
        await_death(start_process(0));
    stats = take_over();
    check_received(33, 64);
    CHECK_EQ(stats.packets_recovered, 32);
    CHECK_EQ(stats.dropped_abandoned, 1);
    CHECK_EQ(stats.packets_forwarded, 31);
    CHECK_EQ(stats.packets_received, 32);
    CHECK_EQ(stats.bytes_received, 32 * LENGTH);
    scene_teardown();
}

/* Buffers of 40 packets leave 32 packets at a time: what had left whole is out of hand though the
 * next one had begun. */
static void test_a_buffer_is_out_of_hand_when_it_has_left(void)
{
    struct rf_stats stats;

    scene_setup();
    scene.subscribers_count = WIDE;
    for (unsigned i = 0; i < 3; i++)
        send_burst(40);
    await_death(start_process(2 * SENDS));
    check_received(0, 64);
    stats = take_over();
    CHECK_EQ(stats.packets_recovered, 80);
    CHECK_EQ(stats.packets_received, 80);
    check_received(40, 120);
    scene_teardown();
}

/* A process dies of the first, and each that follows of what it comes to: nothing that one has sent is
 * tried again, so they get through though none gets through with all. */
static void test_slices_are_progress(void)
{
    enum { BURSTS = 12, DEATHS = 8 };
    struct rf_stats stats;

    scene_setup();
    for (unsigned i = 0; i < BURSTS; i++)
        send_burst(64);
    await_death(start_process(0));
    for (unsigned i = 1; i <= DEATHS; i++)
        await_death(start_process(1));
    check_received(0, DEATHS * 64);
    stats = take_over();
    check_received(DEATHS * 64, BURSTS * 64);
    CHECK_EQ(stats.packets_recovered, (BURSTS - DEATHS) * 64);
    CHECK_EQ(stats.dropped_abandoned, 0);
    scene_teardown();
}

/* What is in hand when a process dies of one packet: those before it and behind it get through. */
static void test_only_what_kills_is_given_up(void)
{
    enum { BEFORE = 10, BEHIND = 10 };
    struct rf_stats stats;

    scene_setup();
    for (unsigned i = 0; i < BEFORE + 1 + BEHIND; i++)
        send_one();
    deadly = BEFORE;
    for (unsigned i = 0; i < 2 + INGRESS_RECOVERIES; i++) /* with all, with a slice, twice alone */
        await_death(start_process(NEVER));
    stats = take_over(); /* would die, too, if it tried */
    deadly = -1;
    CHECK_EQ(stats.packets_recovered, 1 + BEHIND);
    CHECK_EQ(stats.dropped_abandoned, 1);
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        for (int number = 0; number < BEFORE; number++)
            CHECK_EQ(next_of(i), number);
        for (int number = BEFORE + 1; number < BEFORE + 1 + BEHIND; number++)
            CHECK_EQ(next_of(i), number);
        CHECK_EQ(next_of(i), -1);
    }
    scene_teardown();
}

static void test_what_kills_is_given_up(void)
{
    struct rf_stats stats;

    scene_setup();
    send_burst(3);
    send_to(scene.source, &scene.bound, "x", 1); /* behind it, and innocent */
    for (unsigned i = 0; i < 1 + INGRESS_RECOVERIES; i++)
        await_death(start_process(0));
    send_one();
    stats = take_over();
    check_received(3, 4);
    CHECK_EQ(stats.packets_recovered, 4);
    CHECK_EQ(stats.dropped_abandoned, 3);
    CHECK_EQ(stats.dropped_malformed + stats.dropped_not_rtp, 1);
    CHECK_EQ(stats.packets_received, 5);
    CHECK_EQ(stats.bytes_received, 4 * LENGTH + 1);
    /* It has its tries anew with what is in hand next. */
    for (unsigned i = 0; i < INGRESS_RECOVERIES; i++) {
        if (i == 0)
            send_one();
        await_death(start_process(0));
    }
    stats = take_over();
    CHECK_EQ(stats.packets_recovered, 1);
    CHECK_EQ(stats.dropped_abandoned, 0);
    check_received(4, 5);
    scene_teardown();
}

/* Killed at any moment, under packets: nobody misses one, and what comes twice is what came last. */
static void test_random_deaths(void)
{
    enum { DEATHS = 40 };
    uint64_t random = 1;
    int newest[SUBSCRIBERS];

    scene_setup();
    for (unsigned i = 0; i < SUBSCRIBERS; i++)
        newest[i] = -1;
    for (unsigned deaths = 0; deaths <= DEATHS; deaths++) {
        pid_t pid = start_process(NEVER);

        for (unsigned sent = 0, n = 200 + random_below(&random, 400); sent < n; sent++) {
            send_one();
            if (random_below(&random, 8) == 0)
                sleep_ms(1);
            for (unsigned i = 0; i < SUBSCRIBERS; i++) {
                int number;

                while ((number = next_of(i)) >= 0) {
                    CHECK(number <= newest[i] + 1);
                    CHECK(number > newest[i] - INGRESS_BATCH);
                    if (number > newest[i])
                        newest[i] = number;
                }
            }
        }
        kill(pid, SIGKILL);
        await_death(pid);
    }
    take_over();
    for (unsigned i = 0; i < SUBSCRIBERS; i++) {
        for (int number; (number = next_of(i)) >= 0;) {
            CHECK(number <= newest[i] + 1);
            if (number > newest[i])
                newest[i] = number;
        }
        CHECK_EQ(newest[i], scene.sequence - 1);
    }
    scene_teardown();
}

static void test_memory_for_other_sockets(void)
{
    struct rf_engine *none = NULL;

    CHECK_EQ(rf_in_hand_open(0), -EINVAL);
    CHECK_EQ(rf_in_hand_open(RF_MAX_WORKERS + 1), -EINVAL);
    scene_setup();
    int other = rf_in_hand_open(2), files = open_files();
    struct rf_config config = {
        .bind = scene.bound,
        .max_sessions = 1,
        .max_subscribers = 1,
        .receive_queue_packets = 64,
        .workers = 1,
        .sockets = &scene.port,
        .socket_count = 1,
        .in_hand = &other,
    };

    CHECK(other >= 0);
    CHECK_EQ(rf_engine_new(&config, &none), -EINVAL);
    CHECK(none == NULL);
    CHECK_EQ(open_files(), files);
    close(other);
    other = -1;
    CHECK_EQ(rf_engine_new(&config, &none), -EBADF);
    CHECK_EQ(open_files(), files - 1);
    scene_teardown();
}

int main(void)
{
    RUN(test_what_was_in_hand_goes_first);
    RUN(test_what_had_left_is_not_sent_again);
    RUN(test_a_full_batch);
    RUN(test_half_of_a_batch_had_left);
    RUN(test_what_had_left_is_not_given_up);
    RUN(test_a_buffer_is_out_of_hand_when_it_has_left);
    RUN(test_slices_are_progress);
    RUN(test_what_kills_is_given_up);
    RUN(test_only_what_kills_is_given_up);
    RUN(test_random_deaths);
    RUN(test_memory_for_other_sockets);
    return 0;
}
