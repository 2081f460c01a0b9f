/* fanout.c: which copies, in which order, and what they are counted as. No sockets. */
#include "fanout.h"

#include "endpoints.h"

enum { MOST = 1000 };

static struct session_pool pool;
static struct session *session;
static struct packet packets[8];
static struct batch batch;
static struct worker_counters counters;
static struct latency_histogram latency;

static void setup(uint32_t subscribers)
{
    static struct rf_addr addrs[MOST];
    static bool added[MOST];
    struct rf_addr source = address("192.0.2.1", 1);
    struct subscriber_list *old, *list;

    CHECK_EQ(session_pool_init(&pool, 1), 0);
    CHECK_EQ(session_new(&pool, &source, 1, 0, &session), 0);
    for (uint32_t i = 0; i < subscribers; i++)
        addrs[i] = address("127.0.0.1", (uint16_t)(1 + i));
    old = load_rlx(&session->subscribers);
    CHECK_EQ(subscriber_list_add(old, addrs, subscribers, AF_INET, MOST, added, &list), 0);
    if (list != old)
        free(old);
    store_rlx(&session->subscribers, list);
    memset(packets, 0, sizeof packets);
    memset(&batch, 0, sizeof batch);
    memset(&counters, 0, sizeof counters);
    memset(&latency, 0, sizeof latency);
}

/* A run of these packets of the turn, in this order. */
static void run_of(const uint32_t *at, uint32_t n)
{
    session->run = (struct run){at[0], at[n - 1], n};
    for (uint32_t i = 0; i < n; i++) {
        packets[at[i]].bytes.iov_len = 100 + at[i];
        packets[at[i]].next = i + 1 < n ? at[i + 1] : 0;
    }
}

/* Every copy of the fan-out, in order, checked: packet by packet, each to all. */
static unsigned check_all(const uint32_t *at, uint32_t n, uint32_t subscribers)
{
    struct fanout f;
    unsigned copies = 0, batches = 0;
    bool through;

    fanout_start(&f, session, packets, sizeof(struct sockaddr_in));
    do {
        through = fanout_fill(&f, &batch);
        CHECK(through || batch.used == EGRESS_BATCH);
        batches += batch.used > 0;
        for (unsigned i = 0; i < batch.used; i++, copies++) {
            struct copy *c = &batch.copy[i];
            struct msghdr *m = &batch.header[i].msg_hdr;

            CHECK(c->session == session);
            CHECK(c->packet == &packets[at[copies / subscribers]]);
            CHECK_EQ(ntohs(c->subscriber->name.v4.sin_port), 1 + copies % subscribers);
            CHECK_EQ(c->last, copies % subscribers == subscribers - 1);
            CHECK(m->msg_name == &c->subscriber->name && m->msg_iov == &c->packet->bytes);
            c->outcome = SENT;
        }
        fanout_account(&batch, &counters, &latency, 0);
        CHECK_EQ(batch.used, 0);
    } while (!through);
    CHECK_EQ(copies, n * subscribers);
    return batches;
}

static void test_batch_boundaries(void)
{
    static const struct {
        uint32_t subscribers, packets;
        unsigned batches;
    } cases[] = {{1, 1, 1},   {1, 3, 1},   {2, 1, 1},    {255, 1, 1},  {256, 1, 1}, {257, 1, 2},
                 {128, 2, 1}, {129, 2, 2}, {256, 3, 3},  {255, 3, 3},  {511, 1, 2}, {512, 1, 2},
                 {513, 1, 3}, {86, 3, 2},  {1000, 8, 32}};
    static const uint32_t order[8] = {3, 1, 0, 7, 5, 2, 4, 6}; /* a chain through the turn */

    for (unsigned i = 0; i < COUNT(cases); i++) {
        uint64_t bytes = 0;

        setup(cases[i].subscribers);
        run_of(order, cases[i].packets);
        CHECK_EQ(check_all(order, cases[i].packets, cases[i].subscribers), cases[i].batches);
        for (uint32_t p = 0; p < cases[i].packets; p++)
            bytes += cases[i].subscribers * (100 + order[p]);
        CHECK_EQ(load_rlx(&counters.bytes_sent), bytes);
        session_pool_destroy(&pool);
    }
}

static void test_no_subscribers_no_copies(void)
{
    static const uint32_t order[] = {0, 1};
    struct fanout f;

    setup(0);
    run_of(order, 2);
    fanout_start(&f, session, packets, sizeof(struct sockaddr_in));
    CHECK(fanout_fill(&f, &batch));
    CHECK_EQ(batch.used, 0);
    session_pool_destroy(&pool);
}

/* The runs of two sessions share a batch. */
static void test_joins_a_batch_in_use(void)
{
    static const uint32_t order[] = {0};
    struct fanout f;

    setup(10);
    run_of(order, 1);
    for (unsigned round = 1; round <= 26; round++) {
        fanout_start(&f, session, packets, sizeof(struct sockaddr_in));
        CHECK_EQ(fanout_fill(&f, &batch), round <= 25);
        CHECK_EQ(batch.used, round <= 25 ? 10 * round : EGRESS_BATCH);
    }
    batch.used = 0;
    CHECK(fanout_fill(&f, &batch)); /* the four that had no room */
    CHECK_EQ(batch.used, 4);
    CHECK_EQ(ntohs(batch.copy[0].subscriber->name.v4.sin_port), 7);
    session_pool_destroy(&pool);
}

static void test_accounts_by_worker_session_and_subscriber(void)
{
    static const uint32_t order[] = {0, 1};
    struct subscriber_list *list;
    struct rf_stats sum = {0};
    struct fanout f;

    setup(8);
    run_of(order, 2); /* 100 and 101 bytes */
    fanout_start(&f, session, packets, sizeof(struct sockaddr_in));
    CHECK(fanout_fill(&f, &batch));
    for (unsigned i = 0; i < 16; i++) /* subscriber 7 gets both, the others one failure each */
        batch.copy[i].outcome = i < 7 ? (enum send_failure)i : SENT;
    fanout_account(&batch, &counters, &latency, 0);
    stats_sum(&sum, &counters);
    CHECK_EQ(sum.copies_attempted, 16);
    CHECK_EQ(sum.packets_sent, 9);
    CHECK_EQ(sum.bytes_sent, 100 + 8 * 101);
#define X(name) CHECK_EQ(sum.failed_##name, 1);
    RF_SEND_FAILURES(X)
#undef X
    CHECK_EQ(load_rlx(&session->counters.copies_attempted), 16);
    CHECK_EQ(load_rlx(&session->counters.packets_sent), 9);
    CHECK_EQ(load_rlx(&session->counters.bytes_sent), 100 + 8 * 101);
    CHECK_EQ(load_rlx(&session->counters.send_failures), 7);
    list = load_rlx(&session->subscribers);
    for (unsigned i = 0; i < 8; i++) {
        CHECK_EQ(load_rlx(&list->item[i]->packets_sent), i < 7 ? 1 : 2);
        CHECK_EQ(load_rlx(&list->item[i]->send_failures), i < 7 ? 1 : 0);
    }
    session_pool_destroy(&pool);
}

static uint64_t observations(void)
{
    struct rf_latency sum = {{0}};
    uint64_t n = 0;

    latency_sum(&sum, &latency);
    for (size_t i = 0; i < COUNT(sum.count); i++)
        n += sum.count[i];
    return n;
}

/* Once a packet, with its last copy, sent or not; never without a time stamp. */
static void test_latency_once_a_packet(void)
{
    static const uint32_t order[] = {0, 1, 2};
    struct rf_latency sum = {{0}};
    struct fanout f;

    setup(300);
    run_of(order, 3);
    packets[0].received_ns = 1000000;
    packets[1].received_ns = 0;       /* the kernel gave none */
    packets[2].received_ns = 9000000; /* in the future: the clock was set back */
    fanout_start(&f, session, packets, sizeof(struct sockaddr_in));
    CHECK(!fanout_fill(&f, &batch));
    fanout_account(&batch, &counters, &latency, 5000000);
    CHECK_EQ(observations(), 0);
    CHECK(!fanout_fill(&f, &batch));
    for (unsigned i = 0; i < batch.used; i++)
        batch.copy[i].outcome = FAILED_no_buffer;
    fanout_account(&batch, &counters, &latency, 5000000);
    CHECK_EQ(observations(), 1);
    CHECK(!fanout_fill(&f, &batch));
    fanout_account(&batch, &counters, &latency, 5000000);
    CHECK(fanout_fill(&f, &batch));
    fanout_account(&batch, &counters, &latency, 5000000);
    CHECK_EQ(observations(), 2);
    latency_sum(&sum, &latency);
    CHECK_EQ(sum.sum_ns, 4000000);
    CHECK_EQ(sum.count[0], 1);
    CHECK_EQ(sum.count[latency_bucket(4000000)], 1);
    session_pool_destroy(&pool);
}

int main(void)
{
    RUN(test_batch_boundaries);
    RUN(test_no_subscribers_no_copies);
    RUN(test_joins_a_batch_in_use);
    RUN(test_accounts_by_worker_session_and_subscriber);
    RUN(test_latency_once_a_packet);
    return 0;
}
