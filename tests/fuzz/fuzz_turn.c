/* Datagrams through whole turns of the worker, with the kernel replaced: each is counted
 * once, under the reason naive_kind leads to, and what leaves is what came, in order, at the
 * right subscribers and at no other.
 * wraps: recvmmsg sendmmsg
 *
 * The input is a row of datagrams: a byte (bit 0: from a stranger, bit 1: cut short by the
 * kernel), the length in two bytes, the bytes. */
#include <errno.h>
#include <string.h>

#include "endpoints.h"
#include "naive.h"
#include "worker.h"

enum { MOST = 4096, SESSIONS = 4, VIEWERS = 3 };

struct sent_to {
    const uint8_t *data[MOST];
    size_t len[MOST];
    unsigned expected, seen;
};

/* SSRC, who feeds it, and how many watch. The last two share their SSRC. */
static const struct {
    uint32_t ssrc;
    bool stranger;
    unsigned viewers;
} plan[SESSIONS] = {{0, false, 1}, {0xffffffff, true, 2}, {0x01020304, false, 3}, {0x01020304, true, 0}};

static struct rf_addr sources[2];
static struct sent_to sent[SESSIONS][VIEWERS];
static struct sock sock;
static struct qsbr qsbr;
static struct session_pool pool;
static struct table table;
static struct worker worker;
static struct rf_stats expected;
static const uint8_t *input;
static size_t input_left;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);
int __wrap_sendmmsg(int fd, struct mmsghdr *h, unsigned n, int flags);

static void expect_copies(uint32_t ssrc, bool stranger, const uint8_t *data, size_t len)
{
    bool ssrc_known = false;

    for (unsigned i = 0; i < SESSIONS; i++) {
        if (plan[i].ssrc != ssrc)
            continue;
        ssrc_known = true;
        if (plan[i].stranger != stranger)
            continue;
        expected.packets_forwarded++;
        expected.bytes_forwarded += len;
        for (unsigned v = 0; v < plan[i].viewers; v++) {
            struct sent_to *to = &sent[i][v];

            to->data[to->expected] = data;
            to->len[to->expected++] = len;
            expected.copies_attempted++;
            expected.packets_sent++;
            expected.bytes_sent += len;
        }
        return;
    }
    expected.dropped_wrong_source += ssrc_known;
    expected.dropped_unknown_ssrc += !ssrc_known;
}

static void expect(uint8_t flags, const uint8_t *data, size_t len)
{
    uint32_t ssrc;

    expected.packets_received++;
    expected.bytes_received += len;
    if (flags & 2) {
        expected.dropped_truncated++;
        return;
    }
    switch (naive_kind(data, len, true, &ssrc)) {
    case RTP_PACKET:
        expect_copies(ssrc, flags & 1, data, len);
        break;
    case RTP_CONTROL:
        expected.dropped_rtcp++;
        break;
    case RTP_FOREIGN:
        expected.dropped_not_rtp++;
        break;
    case RTP_MALFORMED:
        expected.dropped_malformed++;
        break;
    }
}

int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t)
{
    unsigned got = 0;

    (void)fd, (void)flags, (void)t;
    for (; got < n && input_left > 0; got++) {
        uint8_t head[3] = {0};
        size_t head_len = input_left < 3 ? input_left : 3;

        memcpy(head, input, head_len);
        size_t len = head[1] * 256u + head[2], after = input_left - head_len;

        len = len < after ? len : after;
        expect(head[0], input + head_len, len);
        memcpy(h[got].msg_hdr.msg_iov->iov_base, input + head_len, len);
        h[got].msg_len = (unsigned)len;
        h[got].msg_hdr.msg_flags = head[0] & 2 ? MSG_TRUNC : 0;
        h[got].msg_hdr.msg_controllen = 0;
        h[got].msg_hdr.msg_namelen =
            addr_to_sockaddr(h[got].msg_hdr.msg_name, &sources[head[0] & 1], AF_INET);
        input += head_len + len;
        input_left = after - len;
    }
    if (got > 0)
        return (int)got;
    worker_stop(&worker);
    errno = EAGAIN;
    return -1;
}

/* A viewer's port tells the session and which of its viewers it is. */
int __wrap_sendmmsg(int fd, struct mmsghdr *h, unsigned n, int flags)
{
    (void)fd, (void)flags;
    for (unsigned i = 0; i < n; i++) {
        const struct sockaddr_in *name = h[i].msg_hdr.msg_name;
        struct sent_to *to = &sent[ntohs(name->sin_port) / 10 - 1][ntohs(name->sin_port) % 10];

        CHECK(to->seen < to->expected);
        CHECK_EQ(h[i].msg_hdr.msg_iov->iov_len, to->len[to->seen]);
        CHECK(memcmp(h[i].msg_hdr.msg_iov->iov_base, to->data[to->seen], to->len[to->seen]) == 0);
        to->seen++;
    }
    return (int)n;
}

static void setup(void)
{
    struct rf_addr at = address("127.0.0.1", 0), viewers[VIEWERS];
    struct subscriber_list *old, *list;
    struct session *s;
    bool added[VIEWERS];

    sources[0] = address("192.0.2.1", 1);
    sources[1] = address("192.0.2.2", 1);
    qsbr_init(&qsbr);
    CHECK_EQ(session_pool_init(&pool, SESSIONS), 0);
    CHECK_EQ(table_init(&table, &pool, &qsbr), 0);
    CHECK_EQ(sock_open(&sock, &at, 4096, 4096), 0);
    CHECK_EQ(worker_init(&worker, &sock, &table, &qsbr, 0, true), 0);
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned v = 0; v < VIEWERS; v++)
            viewers[v] = address("192.0.2.9", (uint16_t)(10 * (i + 1) + v));
        CHECK_EQ(session_new(&pool, &sources[plan[i].stranger], plan[i].ssrc, 0, &s), 0);
        old = load_rlx(&s->subscribers);
        CHECK_EQ(subscriber_list_add(old, viewers, plan[i].viewers, AF_INET, VIEWERS, added,
                                     &list),
                 0);
        store_rlx(&s->subscribers, list);
        if (list != old)
            free(old);
        CHECK_EQ(table_insert(&table, s), 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rf_stats sum = {0};

    if (!worker.sock)
        setup();
    if (size > MOST)
        return 0;
    input = data;
    input_left = size;
    for (unsigned i = 0; i < SESSIONS * VIEWERS; i++)
        sent[i / VIEWERS][i % VIEWERS].expected = sent[i / VIEWERS][i % VIEWERS].seen = 0;
    store_rlx(&worker.stopping, false);
    worker_run(&worker);
    for (unsigned i = 0; i < SESSIONS * VIEWERS; i++)
        CHECK_EQ(sent[i / VIEWERS][i % VIEWERS].seen, sent[i / VIEWERS][i % VIEWERS].expected);
    stats_sum(&sum, &worker.counters);
    expected.turns = sum.turns;
#define X(name) CHECK_EQ(sum.name, expected.name);
    RF_WORKER_FIELDS(X)
#undef X
    return 0;
}
