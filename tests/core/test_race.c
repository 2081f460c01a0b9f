/* A whole engine at work while sessions and subscribers come and go: what reaches a viewer is
 * its own sessions' alone, whole, and of the right source; and the counts are exact.
 *
 * Cameras send segments of several sessions in one UDP_SEGMENT send, among them some of no
 * session and of other cameras' sessions. A few seconds; with RTPFANOUT_TORTURE=full
 * a minute, or RTPFANOUT_TORTURE_SECONDS. */
#include <netinet/in.h>
#include <pthread.h>

#include "atomic.h"
#include "identities.h"
#include "loops.h"
#include "random.h"
#include "segments.h"
#include "sessions.h"

enum {
    WORKERS = 4,
    CAMERAS = 4,
    SLOTS = 16, /* SSRC i: a session of camera i % CAMERAS, for viewer i % VIEWERS alone */
    STRANGE = 4, /* SSRCs beyond, of no session */
    VIEWERS = 8,
    CONTROLS = 2,
    ADDRESSES = 80, /* of each viewer */
    SEGMENT = 150,
};

/* What a packet says behind its RTP header. */
struct label {
    uint32_t ssrc, camera;
    uint64_t number; /* rises with each packet of the SSRC by this camera */
};

static struct rf_engine *engine;
static struct rf_addr bound, camera_address[CAMERAS];
static int camera_fd[CAMERAS], viewer_fd[VIEWERS];
static uint16_t viewer_port[VIEWERS];
static _Atomic bool finished, silent;
static counter sent_by[CAMERAS], heard_by[VIEWERS], late[VIEWERS], changes[CONTROLS];

/* Every byte after the payload's own is made of it, so a mixture of two packets shows. */
static uint8_t filling(const struct label *p, size_t i)
{
    return (uint8_t)(p->ssrc * 7 + p->camera * 31 + p->number * 13 + i);
}

static void packet_make(uint8_t *p, size_t len, const struct label *payload)
{
    rtp_make(p, len, payload->ssrc, (uint16_t)payload->number);
    memcpy(p + 12, payload, sizeof *payload);
    for (size_t i = 12 + sizeof *payload; i < len; i++)
        p[i] = filling(payload, i);
}

static void *send_bursts(void *argument)
{
    unsigned camera = (unsigned)(uintptr_t)argument;
    uint64_t random = 1000 + camera, number[SLOTS + STRANGE] = {0};
    uint8_t burst[64 * SEGMENT];

    while (!load_acq(&finished)) {
        unsigned n = 1 + random_below(&random, random_below(&random, 8) ? 8 : 64);
        size_t last = 12 + sizeof(struct label) + random_below(&random, SEGMENT - 40);

        for (unsigned i = 0; i < n; i++) {
            struct label p = {.camera = camera};

            /* mostly its own */
            p.ssrc = random_below(&random, 8) ? CAMERAS * random_below(&random, SLOTS / CAMERAS) + camera
                                              : random_below(&random, SLOTS + STRANGE);
            p.number = ++number[p.ssrc];
            packet_make(burst + i * SEGMENT, i + 1 < n ? SEGMENT : last, &p);
        }
        if (try_send_segments(camera_fd[camera], &bound, burst, (n - 1) * SEGMENT + last, SEGMENT))
            counter_add(&sent_by[camera], n);
        if (random_below(&random, 8) > 0) /* so that workers are idle at times, and help */
            sleep_ms(2 + random_below(&random, 10));
    }
    return NULL;
}

/* The newest number seen by each address of a viewer from each of its sessions. */
struct seen {
    uint64_t newest[ADDRESSES][SLOTS];
};

static void check_packet(unsigned viewer, struct seen *seen, uint32_t to, const uint8_t *data,
                         size_t len)
{
    struct label p;

    CHECK(len >= 12 + sizeof p && len <= SEGMENT);
    memcpy(&p, data + 12, sizeof p);
    CHECK(p.ssrc < SLOTS);
    CHECK_EQ(p.ssrc % VIEWERS, viewer);      /* no other viewer's session */
    CHECK_EQ(p.camera, p.ssrc % CAMERAS);    /* no packet by another source */
    CHECK_EQ(data[11], p.ssrc);
    CHECK_EQ(data[2] << 8 | data[3], p.number & 0xffff);
    for (size_t i = 12 + sizeof p; i < len; i++)
        CHECK_EQ(data[i], filling(&p, i));
    uint32_t at = (to >> 8 & 0xff) * 250 + (to & 0xff) - 1;

    CHECK(at < ADDRESSES);
    CHECK(p.number != seen->newest[at][p.ssrc]); /* not twice */
    if (p.number > seen->newest[at][p.ssrc])
        seen->newest[at][p.ssrc] = p.number;
    else
        counter_add(&late[viewer], 1);
    counter_add(&heard_by[viewer], 1);
}

static uint32_t destination(struct msghdr *msg)
{
    struct in_pktinfo info;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            memcpy(&info, CMSG_DATA(c), sizeof info);
            return ntohl(info.ipi_addr.s_addr);
        }
    }
    CHECK(false);
    return 0;
}

static void *view(void *argument)
{
    unsigned viewer = (unsigned)(uintptr_t)argument;
    struct seen *seen = calloc(1, sizeof *seen);
    uint8_t data[2048], control[128];
    struct pollfd p = {.fd = viewer_fd[viewer], .events = POLLIN};

    CHECK(seen != NULL);
    while (!load_acq(&silent) || poll(&p, 1, 50) > 0) {
        struct iovec iov = {data, sizeof data};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
        ssize_t n = poll(&p, 1, 20) > 0 ? recvmsg(p.fd, &msg, MSG_DONTWAIT) : -1;

        if (n >= 0)
            check_packet(viewer, seen, destination(&msg), data, (size_t)n);
    }
    free(seen);
    return NULL;
}

struct slot {
    uint64_t handle; /* 0: no session */
    unsigned count;
    bool member[ADDRESSES];
};

static void toggle_session(struct slot *s, unsigned ssrc)
{
    const struct rf_addr *camera = &camera_address[ssrc % CAMERAS];

    if (s->handle) {
        CHECK_EQ(rf_session_remove(engine, s->handle), 0);
        *s = (struct slot){0};
    } else {
        CHECK_EQ(session_add(engine, camera, ssrc, clock_now(CLOCK_MONOTONIC), &s->handle), 0);
    }
}

static void add_many(struct slot *s, unsigned viewer, uint64_t *random)
{
    struct rf_addr addrs[ADDRESSES];
    unsigned n = 1 + random_below(random, ADDRESSES);
    bool added[ADDRESSES];

    for (unsigned i = 0; i < n; i++)
        addrs[i] = loopback_address(i, viewer_port[viewer]);
    CHECK_EQ(subscribers_add(engine, s->handle, addrs, n, clock_now(CLOCK_MONOTONIC), added), 0);
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(added[i], !s->member[i]);
        s->count += added[i];
        s->member[i] = true;
    }
}

/* One, or at times many, of whom some are no subscribers. */
static void remove_some(struct slot *s, unsigned viewer, uint64_t *random)
{
    unsigned n = random_below(random, 8) ? 1 : 1 + random_below(random, ADDRESSES);
    unsigned first = random_below(random, ADDRESSES + 1 - n);
    struct rf_addr addrs[ADDRESSES];
    bool found[ADDRESSES];

    for (unsigned i = 0; i < n; i++)
        addrs[i] = loopback_address(first + i, viewer_port[viewer]);
    CHECK_EQ(rf_subscribers_remove(engine, s->handle, addrs, n, found), 0);
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(found[i], s->member[first + i]);
        s->count -= found[i];
        s->member[first + i] = false;
    }
}

/* Page by page, each member once and no other. */
static void list_all(const struct slot *s, unsigned viewer)
{
    struct rf_subscriber_stats page[16];
    bool seen[ADDRESSES] = {false};
    uint64_t after = 0;
    size_t count, total = 0;

    do {
        CHECK_EQ(rf_subscribers(engine, s->handle, after, page, COUNT(page), &count), 0);
        for (size_t i = 0; i < count; i++) {
            unsigned at = page[i].addr.ip[14] * 250u + page[i].addr.ip[15] - 1u;

            CHECK(page[i].since_ns > after);
            after = page[i].since_ns;
            CHECK_EQ(page[i].addr.port, viewer_port[viewer]);
            CHECK(at < ADDRESSES && s->member[at] && !seen[at]);
            seen[at] = true;
            total++;
        }
    } while (count == COUNT(page));
    CHECK_EQ(total, s->count);
}

static void look(const struct slot *s, unsigned viewer)
{
    static _Thread_local struct rf_latency first, last;
    struct rf_session_stats stats, all[SLOTS];
    struct rf_stats sum;
    uint64_t idle[SLOTS];

    CHECK_EQ(rf_session_stats(engine, s->handle, clock_now(CLOCK_MONOTONIC), &stats), 0);
    CHECK_EQ(stats.subscribers, s->count);
    list_all(s, viewer);
    CHECK_EQ(rf_session_latency(engine, s->handle, &first, &last), 0);
    CHECK(rf_sessions_stats(engine, 0, all, SLOTS) <= SLOTS);
    rf_engine_stats(engine, &sum);
    rf_engine_latency(engine, &first, &last);
    rf_engine_tick(engine, clock_now(CLOCK_MONOTONIC), 0, idle, SLOTS);
}

/* Each control thread has every second slot to itself. */
static void *control(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    uint64_t random = 99 + me;
    struct slot *slots = calloc(SLOTS, sizeof *slots);

    CHECK(slots != NULL);
    while (!load_acq(&finished)) {
        unsigned ssrc = CONTROLS * random_below(&random, SLOTS / CONTROLS) + me;
        unsigned what = random_below(&random, 20), viewer = ssrc % VIEWERS;
        struct slot *s = &slots[ssrc];

        if (!s->handle || what == 0)
            toggle_session(s, ssrc);
        else if (what < 6)
            add_many(s, viewer, &random);
        else if (what < 17)
            remove_some(s, viewer, &random);
        else
            look(s, viewer);
        counter_add(&changes[me], 1);
    }
    free(slots);
    return NULL;
}

static void start(pthread_t *thread, void *(*function)(void *), uintptr_t n)
{
    for (uintptr_t i = 0; i < n; i++)
        CHECK(pthread_create(&thread[i], NULL, function, (void *)i) == 0);
}

static void join(const pthread_t *thread, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        pthread_join(thread[i], NULL);
}

static void open_all(void)
{
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = SLOTS,
        .max_subscribers = ADDRESSES,
        .receive_queue_packets = 4096,
        .workers = WORKERS,
        .split_threshold = 32,
        .check_padding = true,
    };
    struct rf_socket_info info;
    int on = 1;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = info.bound;
    for (unsigned i = 0; i < CAMERAS; i++)
        camera_fd[i] = endpoint("127.0.0.1", &camera_address[i]);
    for (unsigned i = 0; i < VIEWERS; i++) {
        struct rf_addr at;

        viewer_fd[i] = endpoint("0.0.0.0", &at);
        viewer_port[i] = at.port;
        CHECK(setsockopt(viewer_fd[i], IPPROTO_IP, IP_PKTINFO, &on, sizeof on) == 0);
    }
}

static uint64_t total(counter *c, unsigned n)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n; i++)
        sum += load_rlx(&c[i]);
    return sum;
}

/* All that was sent is received, but for what the socket queues had no room for. */
static void await_the_last(void)
{
    uint64_t sent = total(sent_by, CAMERAS), received = 0;
    struct rf_stats s;

    for (unsigned still_ms = 0; received < sent; still_ms++, sleep_ms(1)) {
        rf_engine_stats(engine, &s);
        if (s.packets_received != received)
            still_ms = 0;
        received = s.packets_received;
        CHECK(received <= sent);
        if (s.kernel_drops > 0 && still_ms > 2000)
            return;
        CHECK(still_ms < 20000);
    }
}

static void check_and_tell(void)
{
    uint64_t heard = total(heard_by, VIEWERS);
    struct rf_stats s;

    rf_engine_stats(engine, &s);
    check_identities(&s);
    CHECK_EQ(s.dropped_misrouted, 0);
    CHECK(s.dropped_wrong_source > 0 && s.dropped_unknown_ssrc > 0);
    CHECK(heard > 0 && heard <= s.packets_sent);
    printf("  %" PRIu64 " segments in, %" PRIu64 " copies out, %" PRIu64 " tasks shared, %" PRIu64
           " changes; viewers took %" PRIu64 ", %" PRIu64 " of them late\n",
           s.packets_received, s.packets_sent, s.tasks_shared, total(changes, CONTROLS), heard,
           total(late, VIEWERS));
}

static unsigned duration_ms(void)
{
    const char *amount = getenv("RTPFANOUT_TORTURE");
    const char *seconds = getenv("RTPFANOUT_TORTURE_SECONDS");

    if (!amount || strcmp(amount, "full") != 0)
        return 3000;
    return 1000 * (seconds ? (unsigned)strtoul(seconds, NULL, 10) : 60);
}

static void test_no_leak_while_all_changes(void)
{
    pthread_t cameras[CAMERAS], viewers[VIEWERS], controls[CONTROLS];
    struct loops loops;

    open_all();
    start(viewers, view, VIEWERS);
    loops_start(&loops, engine, WORKERS);
    start(controls, control, CONTROLS);
    start(cameras, send_bursts, CAMERAS);
    sleep_ms(duration_ms());
    store_rls(&finished, true);
    join(cameras, CAMERAS);
    join(controls, CONTROLS);
    await_the_last();
    rf_engine_stop(engine);
    loops_join(&loops);
    store_rls(&silent, true);
    join(viewers, VIEWERS);
    check_and_tell();
    rf_engine_free(engine);
    for (unsigned i = 0; i < CAMERAS; i++)
        close(camera_fd[i]);
    for (unsigned i = 0; i < VIEWERS; i++)
        close(viewer_fd[i]);
}

int main(void)
{
    RUN(test_no_leak_while_all_changes);
    return 0;
}
