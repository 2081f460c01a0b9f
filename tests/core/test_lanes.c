/* Several sockets to send by, where the kernel grants no large send buffer.
 * wraps: setsockopt sendmmsg poll */
#include <pthread.h>

#include "core.h"
#include "egress.h"
#include "segments.h"
#include "sessions.h"

static bool small_buffers;   /* SO_SNDBUFFORCE needs a capability that we don't have */
static int full_fd = -1;     /* this socket's send buffer takes nothing more */
static unsigned waits;       /* for room */
static bool any_fd_will_do;  /* sendmmsg takes all without a socket */

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __real_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __real_poll(struct pollfd *p, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    int small = 100000;

    if (small_buffers && level == SOL_SOCKET && name == SO_SNDBUFFORCE) {
        errno = EPERM;
        return -1;
    }
    if (small_buffers && level == SOL_SOCKET && name == SO_SNDBUF)
        return __real_setsockopt(fd, level, name, &small, sizeof small);
    return __real_setsockopt(fd, level, name, value, len);
}

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
    if (fd == full_fd) {
        errno = EAGAIN;
        return -1;
    }
    return any_fd_will_do ? (int)n : __real_sendmmsg(fd, headers, n, flags);
}

int __wrap_poll(struct pollfd *p, nfds_t n, int timeout)
{
    if (n == 1 && p->events == POLLOUT) {
        waits++;
        return 0;
    }
    return __real_poll(p, n, timeout);
}

/* A batch of `n` single packets that leave by lanes 0, 1, 2, 0, 1, 2 ... */
static void fill(struct batch *b, struct tally *tally, struct subscriber *to, struct group *g,
                 unsigned n)
{
    b->used = 0;
    for (unsigned i = 0; i < n; i++) {
        struct copy c = {.tally = tally,
                         .subscriber = to,
                         .name = &to->name,
                         .group = g,
                         .lane = (uint8_t)(i % 3)};

        batch_add(b, &c, sizeof(struct sockaddr_in));
    }
}

static void test_a_full_lane_fails_only_its_own(void)
{
    static struct batch batch;
    static struct worker_counters counters;
    struct egress egress = {.lanes = 3, .fd = {70, 71, 72}};
    struct tally tally = {0};
    struct subscriber to = {0};
    struct packet packet = {0};
    struct group group = {.first = &packet, .packets = 1, .iov = &packet.bytes, .iov_count = 1};

    any_fd_will_do = true;
    full_fd = 71;
    waits = 0;
    fill(&batch, &tally, &to, &group, 30);
    egress_flush(&egress, &batch, &counters, 2, 100);
    CHECK_EQ(tally.packets_sent, 20);
    CHECK_EQ(tally.packets_failed, 10);
    CHECK_EQ(load_rlx(&counters.failed_would_block), 10);
    CHECK_EQ(waits, 2);

    /* Nobody waits for what is stuck, for a second. */
    fill(&batch, &tally, &to, &group, 30);
    egress_flush(&egress, &batch, &counters, 2, 100);
    CHECK_EQ(waits, 2);
    CHECK_EQ(tally.packets_sent, 40);
    fill(&batch, &tally, &to, &group, 30);
    egress_flush(&egress, &batch, &counters, 2, 101);
    CHECK_EQ(waits, 4);

    /* Room again: nothing is held against the lane. */
    full_fd = -1;
    fill(&batch, &tally, &to, &group, 30);
    egress_flush(&egress, &batch, &counters, 2, 101);
    CHECK_EQ(tally.packets_failed, 30);
    any_fd_will_do = false;
}

static void *run(void *engine)
{
    CHECK_EQ(rf_engine_run(engine, 0), 0);
    return NULL;
}

/* One packet to each of 300 subscribers, all at one receiver: each has one, from the port that
 * RTP comes in at. Whatever still comes in is received, so no lane was steered to. */
static void send_through(struct rf_engine *e, const struct rf_addr *bound)
{
    enum { SUBSCRIBERS = 300, PACKETS = 50 };
    static struct rf_addr subscribers[SUBSCRIBERS];
    static bool added[SUBSCRIBERS];
    struct rf_addr camera, receiver;
    struct rf_stats stats;
    uint64_t handle;
    uint8_t p[100];
    pthread_t thread;
    int from = endpoint("127.0.0.1", &camera), to = endpoint("0.0.0.0", &receiver);

    for (uint32_t i = 0; i < SUBSCRIBERS; i++)
        subscribers[i] = loopback_address(i, receiver.port);
    CHECK_EQ(session_add(e, &camera, 7, 1, &handle), 0);
    CHECK_EQ(subscribers_add(e, handle, subscribers, SUBSCRIBERS, 1, added), 0);
    CHECK(pthread_create(&thread, NULL, run, e) == 0);
    for (uint16_t n = 0; n < PACKETS; n++) {
        rtp_make(p, sizeof p, 7, n);
        send_to(from, bound, p, sizeof p);
        for (unsigned i = 0; i < SUBSCRIBERS; i++) {
            union sockaddr_any name;
            socklen_t len = sizeof name;

            CHECK(recvfrom(to, p, sizeof p, 0, &name.any, &len) == (ssize_t)sizeof p);
            CHECK_EQ(p[2] << 8 | p[3], n);
            CHECK_EQ(ntohs(name.v4.sin_port), bound->port);
        }
    }
    rf_engine_stop(e);
    CHECK(pthread_join(thread, NULL) == 0);
    rf_engine_stats(e, &stats);
    CHECK_EQ(stats.packets_received, PACKETS);
    CHECK_EQ(stats.packets_sent, (uint64_t)PACKETS * SUBSCRIBERS);
    close(from);
    close(to);
}

static void test_lanes_are_opened_where_the_buffer_is_small(void)
{
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = 2,
        .max_subscribers = 300,
        .receive_queue_packets = 1000,
        .workers = 1,
        .split_threshold = 256,
    };
    int files = open_files();

    for (int small = 0; small <= 1; small++) {
        struct rf_socket_info info;
        struct rf_engine *e;

        small_buffers = small;
        CHECK_EQ(rf_engine_new(&config, &e), 0);
        rf_engine_socket(e, &info);
        if (small)
            CHECK_EQ(info.lanes, EGRESS_LANES);
        send_through(e, &info.bound);
        rf_engine_free(e);
        CHECK_EQ(open_files(), files);
    }
    small_buffers = false;
}

int main(void)
{
    RUN(test_a_full_lane_fails_only_its_own);
    RUN(test_lanes_are_opened_where_the_buffer_is_small);
    return 0;
}
