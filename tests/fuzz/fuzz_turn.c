/* Buffers of one or more datagrams through whole turns of the worker, with the kernel
 * replaced: each datagram is counted once, under the reason naive_kind leads to; what leaves
 * is what came, byte by byte and in order, to the right subscribers and to no other, whatever
 * the kernel answers to a send; and every counter says so.
 * wraps: recvmmsg sendmmsg sendmsg clock_gettime epoll_wait poll
 *
 * The input is a row of buffers (input.h), to the main port and to others. An odd length of the input makes
 * the worker one of two, so that turns are split. */
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <time.h>

#include "worker.h"
#include "calls.h"
#include "controls.h"
#include "endpoints.h"
#include "side.h"
#include "still.h"

enum { MOST = 4096, SESSIONS = 5, VIEWERS = 3 };

/* What the kernel can answer, and the counter its copies then go to. EAGAIN and EINTR pass. */
#define ANSWERS(X)         \
    X(0, other) X(EINVAL, unreachable) X(EMSGSIZE, too_big) X(EIO, other) X(EPERM, denied) \
    X(ENETUNREACH, unreachable) X(ENOBUFS, no_buffer) X(ECONNREFUSED, unreachable)         \
    X(EAGAIN, would_block) X(EINTR, other)

enum { PASSING_ERRORS = 2 }; /* of one batch: as many as the worker has to bear */

struct viewer {
    const uint8_t *data[MOST / RTP_HEADER_LEN];
    size_t len[MOST / RTP_HEADER_LEN];
    unsigned expected, settled; /* packets it is to get; those that were sent or failed */
    unsigned group, group_end;  /* the packets at hand that can leave together */
    uint64_t sent, failed;
    bool limited; /* segments longer than `limit` don't pass to it, said the kernel */
    size_t limit;
    bool was_limited; /* when the batch at hand was made */
    size_t was_limit;
};

/* SSRC, who feeds it, and how many watch. Two share their SSRC; the last one is at a port of its own. */
static const struct {
    uint32_t ssrc;
    bool stranger;
    unsigned viewers;
} plan[SESSIONS] = {{0, false, 1}, {0xffffffff, true, 2}, {0x01020304, false, 3}, {0x01020304, true, 0},
            {0, false, 2}};
enum { AT_OWN_PORT = SESSIONS - 1 };

static struct rf_addr sources[2];
static struct sock sock;
static struct qsbr qsbr;
static struct session_pool pool;
static struct table table;
static struct worker worker, helper; /* the helper never runs */
static struct worker *crew[] = {&worker, &helper};
static struct session *sessions[SESSIONS];

/* What is known of all that came and left since the beginning. */
static struct viewer viewers[SESSIONS][VIEWERS];
static struct rf_stats expected;
static struct rf_session_stats expected_of[SESSIONS];
static uint64_t expected_latencies, expected_latencies_of[SESSIONS];

/* Of the input at hand. */
static struct {
    int error; /* 0: none */
    unsigned every, entries;
    unsigned passing; /* in this batch */
    bool due;         /* the error goes to the next call, as the kernel has it */
    const struct mmsghdr *again; /* the entry whose error passed: it must come next */
    struct viewer *singly; /* its packets must come next, one by one */
    unsigned singles;
    bool in_doubt; /* refused by EINVAL; if the first by itself is too, it's not segmentation, */
    size_t limit;  /* and this is still its limit */
} trouble;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);
int __wrap_sendmmsg(int fd, struct mmsghdr *h, unsigned n, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);

static void expect_copies(unsigned i, bool stamped, const uint8_t *data, size_t len)
{
    expected.packets_forwarded++;
    expected_of[i].packets_received++;
    expected_of[i].bytes_received += len;
    expected.copies_due += plan[i].viewers;
    if (stamped && plan[i].viewers > 0) {
        expected_latencies++;
        expected_latencies_of[i]++;
    }
    for (unsigned v = 0; v < plan[i].viewers; v++) {
        struct viewer *to = &viewers[i][v];

        to->data[to->expected] = data;
        to->len[to->expected++] = len;
    }
}

/* Which session admits the packet; SESSIONS: none, which is counted. */
static unsigned admits(unsigned port, uint32_t ssrc, bool stranger)
{
    bool ssrc_known = port == OWN_PORT;

    for (unsigned i = 0; i < SESSIONS; i++) {
        if ((i == AT_OWN_PORT) != (port == OWN_PORT) || (port == MAIN_PORT && plan[i].ssrc != ssrc))
            continue;
        ssrc_known = true;
        if (plan[i].stranger == stranger)
            return i;
    }
    expected.dropped_wrong_source += ssrc_known;
    expected.dropped_unknown_ssrc += !ssrc_known;
    return SESSIONS;
}

static void expect_datagram(unsigned port, uint8_t flags, const uint8_t *data, size_t len)
{
    uint32_t ssrc;
    unsigned i;

    expected.packets_received++;
    switch (kind_at(port, naive_kind(data, len, true, &ssrc))) {
    case RTP_PACKET:
        i = admits(port, ssrc, flags & FROM_STRANGER);
        if (i < SESSIONS)
            expect_copies(i, !(flags & NO_STAMP), data, len);
        break;
    case RTP_CONTROL:
        expected.dropped_rtcp++;
        break;
    case RTP_FOREIGN:
        if (port == MAIN_PORT)
            expect_foreign(&expected, flags & FROM_STRANGER, data, len);
        else
            expected.dropped_not_rtp++;
        break;
    case RTP_MALFORMED:
        expected.dropped_malformed++;
        break;
    }
}

static void expect(unsigned port, uint8_t flags, const uint8_t *data, size_t len, size_t segment)
{
    expected.receives++;
    expected.bytes_received += len;
    if (flags & CUT_SHORT) {
        expected.packets_received++;
        expected.dropped_truncated++;
        return;
    }
    if (len == 0 || segment == 0)
        expect_datagram(port, flags, data, len);
    for (; segment > 0 && len > segment; data += segment, len -= segment)
        expect_datagram(port, flags, data, segment);
    if (segment > 0 && len > 0)
        expect_datagram(port, flags, data, len);
}

static void make_trouble(uint8_t what)
{
    static const int errors[] = {
#define X(error, reason) error,
        ANSWERS(X)
#undef X
    };

    trouble.error = errors[(what & 15) % COUNT(errors)];
    trouble.every = 1u + (what >> 4);
}

/* For the subscribers' limits, whose ends are the only times of day that matter here. */
static void pass_a_minute(void)
{
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned v = 0; v < plan[i].viewers; v++) {
            if (viewers[i][v].limited)
                load_rlx(&sessions[i]->subscribers)->item[v]->probe_at -= 60;
            viewers[i][v].limited = false;
        }
    }
}

static void put_control(struct msghdr *msg, int level, int type, const void *data, size_t len)
{
    struct cmsghdr *c = (struct cmsghdr *)((uint8_t *)msg->msg_control + msg->msg_controllen);

    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(c), data, len);
    msg->msg_controllen += CMSG_SPACE(len);
}

/* One buffer, as recvmmsg fills it; its flags. */
static uint8_t fill(struct mmsghdr *h)
{
    struct msghdr *msg = &h->msg_hdr;
    struct timespec now;
    unsigned port = next_port();
    uint8_t flags = take();

    if (flags & TO_PORT)
        take();
    size_t len = take_two(), segment = flags & SEGMENTS ? take_two() : 0;
    int as_int = (int)segment;

    if (flags & A_MINUTE)
        pass_a_minute();
    if (flags & TROUBLE)
        make_trouble(take());
    len = len < input_left ? len : input_left;
    CHECK(msg->msg_iov->iov_len >= len);
    CHECK(msg->msg_controllen >= CMSG_SPACE(sizeof now) + CMSG_SPACE(sizeof as_int));
    CHECK(msg->msg_namelen >= sizeof(struct sockaddr_in6));
    expect(port, flags, input, len, segment);
    memcpy(msg->msg_iov->iov_base, input, len);
    h->msg_len = (unsigned)len;
    msg->msg_flags = flags & CUT_SHORT ? MSG_TRUNC : 0;
    msg->msg_controllen = 0;
    clock_gettime(CLOCK_REALTIME, &now);
    if (!(flags & NO_STAMP))
        put_control(msg, SOL_SOCKET, SCM_TIMESTAMPNS, &now, sizeof now);
    if (flags & SEGMENTS)
        put_control(msg, IPPROTO_UDP, UDP_GRO, &as_int, sizeof as_int);
    msg->msg_namelen = addr_to_sockaddr(msg->msg_name, &sources[flags & FROM_STRANGER], AF_INET);
    input += len;
    input_left -= len;
    return flags;
}

int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t)
{
    unsigned got = 0, port = port_of_socket(fd);

    (void)flags, (void)t;
    while (got < n && input_left > 0 && next_port() == port && !(fill(&h[got++]) & LAST))
        ;
    expected.turns += opens_turn(port, got);
    if (got > 0)
        return (int)got;
    if (input_left == 0 && port == MAIN_PORT)
        worker_stop(&worker);
    errno = EAGAIN;
    return -1;
}

/* A viewer's port tells the session and which of its viewers it is. */
static struct viewer *viewer_of(const struct msghdr *msg)
{
    const struct sockaddr_in *name = msg->msg_name;

    CHECK_EQ(msg->msg_namelen, sizeof *name);
    CHECK_EQ(ntohl(name->sin_addr.s_addr), 0xc0000209);
    return &viewers[ntohs(name->sin_port) / 10 - 1][ntohs(name->sin_port) % 10];
}

/* The bytes of a send entry are those of the viewer's next packets, cut by UDP_SEGMENT as the
 * kernel would; how many they are, and how long all but the last. */
static unsigned read_entry(const struct viewer *to, const struct msghdr *msg, size_t *segment)
{
    static uint8_t bytes[65536];
    size_t len = 0, at = 0;
    uint16_t size = 0;
    unsigned n = 0;

    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        CHECK(len + msg->msg_iov[i].iov_len <= 65507);
        memcpy(bytes + len, msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len);
        len += msg->msg_iov[i].iov_len;
    }
    if (msg->msg_controllen > 0) {
        const struct cmsghdr *c = msg->msg_control;

        CHECK(c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_SEGMENT);
        CHECK_EQ(c->cmsg_len, CMSG_LEN(sizeof size));
        CHECK_EQ(msg->msg_controllen, CMSG_SPACE(sizeof size));
        memcpy(&size, CMSG_DATA(c), sizeof size);
        CHECK(size > 0);
    }
    *segment = size ? size : len;
    do {
        size_t left = len - at, one = left < *segment ? left : *segment;

        CHECK(to->settled + n < to->expected);
        CHECK_EQ(one, to->len[to->settled + n]);
        CHECK(memcmp(bytes + at, to->data[to->settled + n], one) == 0);
        at += one;
        n++;
    } while (at < len);
    CHECK(n <= 64);
    CHECK(n == 1 || size > 0);
    return n;
}

/* Where the packets that can leave together end: all as long as the first, but the last. */
static unsigned end_of_group(const struct viewer *v, unsigned first)
{
    size_t segment = v->len[first], len = segment;
    unsigned end = first + 1;

    while (end < v->expected && v->len[end - 1] == segment && v->len[end] <= segment &&
           end - first < 64 && len + v->len[end] <= 65000)
        len += v->len[end++];
    return end;
}

/* One entry is a whole group, or a single packet of one whose segments don't pass. */
static void check_grouping(struct viewer *to, unsigned n)
{
    if (to->settled >= to->group_end) {
        to->group = to->settled;
        to->group_end = end_of_group(to, to->group);
    }
    if (to->was_limited && to->len[to->group] > to->was_limit) {
        CHECK_EQ(n, 1);
    } else {
        CHECK_EQ(to->settled, to->group);
        CHECK_EQ(to->settled + n, to->group_end);
    }
}

/* At its first send a batch is as the limits of that moment had it. */
static void begin_batch(void)
{
    trouble.passing = 0;
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned v = 0; v < plan[i].viewers; v++) {
            viewers[i][v].was_limited = viewers[i][v].limited;
            viewers[i][v].was_limit = viewers[i][v].limit;
        }
    }
}

static void settle_sent(struct viewer *to, unsigned n)
{
    struct rf_session_stats *s = &expected_of[(to - &viewers[0][0]) / VIEWERS];

    expected.sends++;
    expected.packets_sent += n;
    s->packets_sent += n;
    to->sent += n;
    for (; n > 0; n--, to->settled++) {
        expected.bytes_sent += to->len[to->settled];
        s->bytes_sent += to->len[to->settled];
    }
}

static void settle_failed(struct viewer *to, unsigned n, int error)
{
    switch (error) {
#define X(code, reason) case code: expected.failed_##reason += n; break;
        ANSWERS(X)
#undef X
    }
    expected_of[(to - &viewers[0][0]) / VIEWERS].send_failures += n;
    to->failed += n;
    to->settled += n;
}

/* An error that speaks of the segmentation costs nothing: the packets come again. */
static void settle_error(struct viewer *to, unsigned n, size_t segment, int error)
{
    if (n == 1 || (error != EINVAL && error != EMSGSIZE && error != EIO)) {
        settle_failed(to, n, error);
        return;
    }
    size_t limit = error == EIO ? 0 : segment - 1;

    expected.gso_fallback_invalid += error == EINVAL;
    expected.gso_fallback_too_big += error == EMSGSIZE;
    expected.gso_fallback_io += error == EIO;
    trouble.in_doubt = error == EINVAL;
    trouble.limit = to->limited ? to->limit : SIZE_MAX;
    to->limit = to->limited && to->limit < limit ? to->limit : limit;
    to->limited = true;
    trouble.singly = to;
    trouble.singles = n;
}

/* Whether the entry at hand fails, and with what. */
static int answer(void)
{
    if (trouble.error == 0 || ++trouble.entries % trouble.every != 0)
        return 0;
    if (trouble.error == EAGAIN || trouble.error == EINTR) {
        if (trouble.passing == PASSING_ERRORS)
            return 0;
        trouble.passing++;
    }
    return trouble.error;
}

static bool passes(int error)
{
    return error == EAGAIN || error == EINTR;
}

/* Like the kernel: up to the first entry that fails, whose errno is the next call's. */
int __wrap_sendmmsg(int fd, struct mmsghdr *h, unsigned n, int flags)
{
    bool begins = h == worker.batch.header && !trouble.again;

    CHECK_EQ(fd, sock.fd);
    CHECK(flags & MSG_DONTWAIT);
    CHECK(n > 0 && n <= EGRESS_BATCH);
    CHECK_EQ(trouble.singles, 0);
    CHECK(!trouble.again || trouble.again == h);
    trouble.again = NULL;
    if (begins)
        begin_batch();
    for (unsigned i = 0; i < n; i++) {
        struct viewer *to = viewer_of(&h[i].msg_hdr);
        size_t segment;
        unsigned packets = read_entry(to, &h[i].msg_hdr, &segment);
        int error = trouble.due ? trouble.error : answer();

        check_grouping(to, packets);
        trouble.due = false;
        if (error && i > 0) {
            trouble.due = true;
            return (int)i;
        }
        if (error) {
            if (passes(error))
                trouble.again = h;
            else
                settle_error(to, packets, segment, error);
            errno = error;
            return -1;
        }
        settle_sent(to, packets);
    }
    return (int)n;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct viewer *to = viewer_of(msg);
    size_t segment;

    CHECK_EQ(fd, sock.fd);
    CHECK(flags & MSG_DONTWAIT);
    CHECK(trouble.singles > 0 && trouble.singly == to);
    CHECK_EQ(msg->msg_controllen, 0);
    CHECK_EQ(read_entry(to, msg, &segment), 1);
    int error = answer();

    errno = error;
    if (passes(error))
        return -1;
    if (trouble.in_doubt && error == EINVAL) {
        expected.gso_fallback_invalid--;
        to->limited = (to->limit = trouble.limit) != SIZE_MAX;
        settle_failed(to, trouble.singles, error);
        trouble.singles = 1;
    } else if (error) {
        settle_failed(to, 1, error);
    } else {
        settle_sent(to, 1);
    }
    trouble.in_doubt = false;
    trouble.singles--;
    return error ? -1 : (ssize_t)segment;
}

static void setup_sessions(void)
{
    struct rf_addr addrs[VIEWERS];
    struct subscriber_list *old, *list;
    bool added[VIEWERS];

    for (unsigned i = 0; i < SESSIONS; i++) {
        struct session *s;

        for (unsigned v = 0; v < VIEWERS; v++)
            addrs[v] = address("192.0.2.9", (uint16_t)(10 * (i + 1) + v));
        CHECK_EQ(session_new(&pool, &sources[plan[i].stranger], plan[i].ssrc, 0, &s), 0);
        old = load_rlx(&s->subscribers);
        CHECK_EQ(subscriber_list_add(old, addrs, plan[i].viewers,
                                     &(struct joining){AF_INET, VIEWERS, 0, &usual_terms}, added,
                                     &list),
                 0);
        store_rlx(&s->subscribers, list);
        if (list != old)
            free(old);
        if (i == AT_OWN_PORT)
            put_at_own_port(s, &sources[plan[i].stranger]);
        else
            CHECK_EQ(table_insert(&table, s), 0);
        sessions[i] = s;
    }
}

static void setup(void)
{
    struct worker_options options = {
        .receives = true, .check_padding = true, .split_threshold = 1};
    struct rf_addr at = address("127.0.0.1", 0);

    sources[0] = address("192.0.2.1", 1);
    sources[1] = address("192.0.2.2", 1);
    qsbr_init(&qsbr);
    CHECK_EQ(session_pool_init(&pool, SESSIONS), 0);
    CHECK_EQ(table_init(&table, &pool, &qsbr), 0);
    CHECK_EQ(sock_open(&sock, &at, 4096, 4096), 0);
    CHECK_EQ(worker_init(&worker, &options, &sock, &table, &qsbr, crew, 2), 0);
    options.index = 1;
    CHECK_EQ(worker_init(&helper, &options, &sock, &table, &qsbr, crew, 2), 0);
    set_proofs(&worker.gate, sources);
    setup_sessions();
    open_side_ports(&worker, &sock, sessions[AT_OWN_PORT]);
}

static uint64_t observations(struct latency_histogram *h)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < COUNT(h->count); i++)
        sum += load_rlx(&h->count[i]);
    return sum;
}

static void check_session(unsigned i)
{
    struct rf_session_stats s = {0};

    session_counters_read(&s, &sessions[i]->counters);
    expected_of[i].copies_attempted = expected_of[i].packets_sent + expected_of[i].send_failures;
#define X(name, help) CHECK_EQ(s.name, expected_of[i].name);
    RF_SESSION_FIELDS(X)
#undef X
    for (unsigned v = 0; v < plan[i].viewers; v++) {
        struct subscriber *subscriber = load_rlx(&sessions[i]->subscribers)->item[v];

        CHECK_EQ(viewers[i][v].settled, viewers[i][v].expected);
        CHECK_EQ(load_rlx(&subscriber->packets_sent), viewers[i][v].sent);
        CHECK_EQ(load_rlx(&subscriber->send_failures), viewers[i][v].failed);
    }
    CHECK_EQ(observations(&sessions[i]->latency->first), expected_latencies_of[i]);
    CHECK_EQ(observations(&sessions[i]->latency->last), expected_latencies_of[i]);
}

static void check_worker(void)
{
    struct rf_stats sum = {0};

    expected.copies_attempted = expected.packets_sent;
#define X(reason) expected.copies_attempted += expected.failed_##reason;
    RF_SEND_FAILURES(X)
#undef X
    stats_sum(&sum, &worker.counters);
    expect_rtcp(&expected, &sum);
#define X(name, help) CHECK_EQ(sum.name, expected.name);
    RF_WORKER_FIELDS(X)
#undef X
    CHECK_EQ(observations(&worker.latency_first), expected_latencies);
    CHECK_EQ(observations(&worker.latency_last), expected_latencies);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!worker.sock)
        setup();
    if (size > MOST)
        return 0;
    input = data;
    input_left = size;
    memset(&trouble, 0, sizeof trouble);
    pass_a_minute(); /* no input depends on those before */
    for (unsigned i = 0; i < SESSIONS * VIEWERS; i++) {
        struct viewer *v = &viewers[i / VIEWERS][i % VIEWERS];

        v->expected = v->settled = v->group = v->group_end = 0;
    }
    worker.crew_size = 1 + size % 2;
    store_rlx(&worker.stopping, false);
    store_rlx(&worker.inbox->phase, INBOX_NEW); /* or it would run for the first input only */
    worker_run(&worker);
    CHECK_EQ(input_left, 0);
    CHECK_EQ(trouble.singles, 0);
    check_mailbox(worker.gate.mailbox, sources);
    for (unsigned i = 0; i < SESSIONS; i++)
        check_session(i);
    check_worker();
    return 0;
}
