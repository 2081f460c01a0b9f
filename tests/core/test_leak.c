/* A whole engine between a made-up kernel's two ends: packets of many sessions mixed in every
 * buffer as UDP_GRO may mix them, subscribers and sessions coming and going all the while. Nothing
 * of one session reaches a viewer of another, nothing reaches one whose removal was
 * answered, and those who stay get everything, once and in order. A million packets; with
 * RTPFANOUT_TORTURE=full 10^8 of them (10^7 under a sanitizer) and 10^5 removals.
 * wraps: recvmmsg sendmmsg */
#include <netinet/udp.h>
#include <pthread.h>

#include "atomic.h"
#include "calls.h"
#include "endpoints.h"
#include "loops.h"
#include "random.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { SLOWDOWN = 10 };
#else
enum { SLOWDOWN = 1 };
#endif

enum {
    SESSIONS = 50,
    STANDING = 40,   /* of them never end; the others come and go */
    VIEWERS = 4,     /* of each; the last comes and goes */
    PACKET = 16,     /* bytes */
    SEGMENTS = 64,   /* of a buffer */
    FIRST_PORT = 1000,
};

/* What a viewer is told to expect; changed by the control thread only while it gets nothing. */
static struct {
    _Atomic bool removed;
    bool stands;
    uint16_t next;
    uint64_t got;
} viewer[SESSIONS][VIEWERS];

static struct rf_engine *engine;
static struct rf_addr camera;
static uint64_t handle[SESSIONS];

static _Atomic int receiving_fd = -1;
static uint64_t random_state = 88172645463325252u;
static uint16_t sequence[SESSIONS];
static uint64_t mixed[SESSIONS], unknown, limit;
static _Atomic bool removals_done;
static _Atomic uint64_t received;
static _Atomic bool done;

int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *timeout);
int __wrap_sendmmsg(int fd, struct mmsghdr *h, unsigned n, int flags);

/* 64 packets, each of a session chosen anew, or of none. */
static void fill(uint8_t *p)
{
    for (unsigned i = 0; i < SEGMENTS; i++, p += PACKET) {
        uint32_t ssrc = random_below(&random_state, SESSIONS + 3);
        uint16_t number = 0;

        if (ssrc < SESSIONS) {
            number = sequence[ssrc]++;
            mixed[ssrc]++;
        } else {
            unknown++;
        }
        memset(p, 0, PACKET);
        p[0] = 0x80;
        p[2] = (uint8_t)(number >> 8);
        p[3] = (uint8_t)number;
        p[11] = (uint8_t)ssrc;
        p[15] = (uint8_t)ssrc;
    }
}

static void mark_as_gro(struct msghdr *msg)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    int segment = PACKET;

    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_GRO;
    c->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(c), &segment, sizeof segment);
    msg->msg_controllen = CMSG_SPACE(sizeof segment);
}

/* One worker receives, from one source; the others have nothing and help. */
int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *timeout)
{
    int none = -1;

    (void)flags;
    (void)timeout;
    atomic_compare_exchange_strong(&receiving_fd, &none, fd);
    if (load_rlx(&received) >= limit && load_seq(&removals_done))
        store_seq(&done, true);
    if (fd != load_seq(&receiving_fd) || load_seq(&done)) {
        errno = EAGAIN;
        return -1;
    }
    for (unsigned i = 0; i < n; i++) {
        addr_to_sockaddr(h[i].msg_hdr.msg_name, &camera, AF_INET);
        fill(h[i].msg_hdr.msg_iov->iov_base);
        mark_as_gro(&h[i].msg_hdr);
        h[i].msg_hdr.msg_flags = 0;
        h[i].msg_len = SEGMENTS * PACKET;
    }
    store_rlx(&received, load_rlx(&received) + (uint64_t)n * SEGMENTS);
    return (int)n;
}

static void check_packet(unsigned session, unsigned v, const uint8_t *p)
{
    uint16_t number = (uint16_t)(p[2] << 8 | p[3]);

    CHECK_EQ(p[11], session);
    CHECK_EQ(p[15], session);
    if (viewer[session][v].stands)
        CHECK_EQ(number, viewer[session][v].next);
    viewer[session][v].next = (uint16_t)(number + 1);
    viewer[session][v].got++;
}

int __wrap_sendmmsg(int fd, struct mmsghdr *h, unsigned n, int flags)
{
    (void)fd;
    (void)flags;
    for (unsigned i = 0; i < n; i++) {
        const struct msghdr *msg = &h[i].msg_hdr;
        const struct sockaddr_in *to = msg->msg_name;
        unsigned at = ntohs(to->sin_port) - FIRST_PORT, session = at / VIEWERS, v = at % VIEWERS;

        CHECK(session < SESSIONS);
        CHECK(!load_seq(&viewer[session][v].removed));
        for (size_t k = 0; k < msg->msg_iovlen; k++) {
            CHECK_EQ(msg->msg_iov[k].iov_len % PACKET, 0);
            for (size_t b = 0; b < msg->msg_iov[k].iov_len; b += PACKET)
                check_packet(session, v, (const uint8_t *)msg->msg_iov[k].iov_base + b);
        }
    }
    return (int)n;
}

static struct rf_addr address_of(unsigned session, unsigned v)
{
    return address("127.0.0.1", (uint16_t)(FIRST_PORT + session * VIEWERS + v));
}

static void add_viewers(unsigned session, unsigned first, unsigned end)
{
    for (unsigned v = first; v < end; v++) {
        struct rf_addr a = address_of(session, v);
        bool added;

        store_seq(&viewer[session][v].removed, false);
        CHECK_EQ(subscribers_add(engine, handle[session], &a, 1, 1, &added), 0);
        CHECK(added);
    }
}

static void add_session(unsigned session)
{
    CHECK_EQ(session_add(engine, &camera, session, 1, &handle[session]), 0);
}

/* Every removal is a race with the packets; from its answer on `removed` must hold. */
static void come_and_go(uint64_t *random, unsigned session)
{
    if (session < STANDING) {
        struct rf_addr a = address_of(session, VIEWERS - 1);
        bool found;

        add_viewers(session, VIEWERS - 1, VIEWERS);
        if (random_below(random, 4) == 0)
            sleep_ms(1);
        CHECK_EQ(rf_subscribers_remove(engine, handle[session], &a, 1, &found), 0);
        CHECK(found);
        store_seq(&viewer[session][VIEWERS - 1].removed, true);
        return;
    }
    add_session(session);
    add_viewers(session, 0, VIEWERS);
    CHECK_EQ(rf_session_remove(engine, handle[session]), 0);
    for (unsigned v = 0; v < VIEWERS; v++)
        store_seq(&viewer[session][v].removed, true);
}

static void check_end(const struct rf_stats *s)
{
    uint64_t dropped = 0, copies = 0;

#define X(name) dropped += s->dropped_##name;
    RF_DROP_REASONS(X)
#undef X
    CHECK_EQ(s->packets_received, load_rlx(&received));
    CHECK_EQ(s->packets_received, s->packets_forwarded + dropped);
    CHECK_EQ(s->dropped_misrouted + s->dropped_overload, 0);
    /* Of no session, or of one that was away; one that came and went during a look-up may pass
     * for one with another source. */
    CHECK(s->dropped_unknown_ssrc >= unknown);
    CHECK(s->dropped_wrong_source <= 10);
    for (unsigned session = 0; session < SESSIONS; session++) {
        for (unsigned v = 0; v < VIEWERS; v++) {
            copies += viewer[session][v].got;
            if (viewer[session][v].stands)
                CHECK_EQ(viewer[session][v].got, mixed[session]);
        }
    }
    CHECK_EQ(s->copies_attempted, s->packets_sent);
    CHECK_EQ(s->packets_sent, copies);
}

static void test_no_packet_reaches_a_stranger(uint64_t packets, uint64_t removals)
{
    enum { WORKERS = 2 };
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = SESSIONS,
        .max_subscribers = VIEWERS,
        .receive_queue_packets = 64,
        .workers = WORKERS,
        .split_threshold = 64,
    };
    struct loops loops;
    uint64_t random = 1, rounds = 0;
    struct rf_stats stats;

    limit = packets;
    camera = address("127.0.0.1", 5000);
    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    for (unsigned i = 0; i < STANDING; i++) {
        add_session(i);
        add_viewers(i, 0, VIEWERS - 1);
        for (unsigned v = 0; v < VIEWERS - 1; v++)
            viewer[i][v].stands = true;
    }
    loops_start(&loops, engine, WORKERS);
    while (!load_seq(&done)) {
        come_and_go(&random, (unsigned)(rounds++ % SESSIONS));
        store_seq(&removals_done, rounds >= removals);
    }
    rf_engine_stop(engine);
    loops_join(&loops);
    rf_engine_stats(engine, &stats);
    check_end(&stats);
    rf_engine_free(engine);
    printf("  %" PRIu64 " packets in, %" PRIu64 " copies, %" PRIu64 " removals, %" PRIu64
           " tasks shared\n",
           stats.packets_received, stats.packets_sent, rounds, stats.tasks_shared);
}

int main(void)
{
    const char *amount = getenv("RTPFANOUT_TORTURE");
    bool full = amount && strcmp(amount, "full") == 0;

    test_no_packet_reaches_a_stranger(full ? 100000000 / SLOWDOWN : 1000000 / SLOWDOWN,
                                      full ? 100000 / SLOWDOWN : 500);
    return 0;
}
