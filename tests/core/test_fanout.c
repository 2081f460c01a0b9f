/* fanout.c, run.h: groups, shares, order and what is counted. No sockets. */
#include "fanout.h"

#include <netinet/in.h>
#include <netinet/udp.h>

#include "random.h"
#include "plans.h"

enum { MOST = 1000, PACKETS = 600, SPLIT_MAX = 64, NAME_LEN = sizeof(struct sockaddr_in) };

static struct packet packets[PACKETS];
static uint8_t bytes[PACKETS * 1000];

static bool gso; /* each test begins with it */

static void setup(uint32_t subscribers)
{
    static struct rf_addr addrs[MOST];

    plans_begin(PACKETS, addrs, subscribers);
    gso = true;
    plan.now_secs = 1000;
    memset(packets, 0, sizeof packets);
}

/* A run of packets of these lengths, `gap` bytes from one to the next. */
static void run_of(const uint32_t *lengths, uint32_t n, uint32_t gap)
{
    uint8_t *at = bytes;

    CHECK(n <= PACKETS);
    session->run = (struct run){NULL, NULL};
    for (uint32_t i = 0; i < n; i++) {
        packets[i].bytes = (struct iovec){at, lengths[i]};
        run_append(&session->run, &packets[i], gso);
        at += lengths[i] + gap;
        CHECK(at <= bytes + sizeof bytes);
    }
}

static void run_of_equal(uint32_t length, uint32_t n)
{
    static uint32_t lengths[PACKETS];

    for (uint32_t i = 0; i < n; i++)
        lengths[i] = length;
    run_of(lengths, n, 0);
}

static struct subscriber *subscriber_at(uint32_t i)
{
    return load_rlx(&session->subscribers)->item[i];
}

static bool may_follow(const struct group *g, const struct packet *last, const struct packet *p)
{
    return last->bytes.iov_len == g->first->bytes.iov_len &&
           p->bytes.iov_len <= last->bytes.iov_len && g->packets < 64 &&
           g->bytes + p->bytes.iov_len <= 65000;
}

static void check_control(const struct group *g)
{
    const struct cmsghdr *c = &g->control.align;
    uint16_t segment;

    memcpy(&segment, CMSG_DATA(c), sizeof segment);
    CHECK_EQ(segment, g->first->bytes.iov_len);
    CHECK_EQ(g->segment, segment);
    CHECK_EQ(c->cmsg_level, IPPROTO_UDP);
    CHECK_EQ(c->cmsg_type, UDP_SEGMENT);
    CHECK_EQ(c->cmsg_len, CMSG_LEN(sizeof segment));
}

/* The iovecs are the packets' bytes in order, and no two that touch. */
static void check_iovecs(const struct group *g, const struct packet *p)
{
    const struct iovec *iov = g->iov;
    size_t at = 0;

    for (uint32_t i = 0; i < g->packets; i++, p = p->next) {
        if (at == iov->iov_len) {
            iov++;
            at = 0;
        }
        CHECK((uint8_t *)iov->iov_base + at == (uint8_t *)p->bytes.iov_base);
        at += p->bytes.iov_len;
        CHECK(at <= iov->iov_len);
    }
    CHECK(iov == &g->iov[g->iov_count - 1] && at == iov->iov_len);
    for (uint32_t i = 1; i < g->iov_count; i++)
        CHECK((uint8_t *)g->iov[i - 1].iov_base + g->iov[i - 1].iov_len != g->iov[i].iov_base);
}

/* The groups are the run, cut where the rules say and nowhere else. */
static void check_groups(uint32_t n, bool gso)
{
    struct packet *p = packets, *last = NULL;
    uint32_t seen = 0;

    for (uint32_t i = 0; i < plan.groups_used; i++) {
        struct group *g = &plan.groups[i], so_far = {.first = p};

        CHECK(g->first == p && g->session == session);
        CHECK(i == 0 || !gso || !may_follow(&plan.groups[i - 1], last, p));
        check_iovecs(g, p);
        check_control(g);
        CHECK(gso || g->packets == 1);
        for (uint32_t k = 0; k < g->packets; k++, last = p, p = p->next) {
            CHECK(k == 0 || may_follow(&so_far, last, p));
            so_far.packets++;
            so_far.bytes += (uint32_t)p->bytes.iov_len;
            seen++;
        }
        CHECK_EQ(g->bytes, so_far.bytes);
    }
    CHECK(p == NULL);
    CHECK_EQ(seen, n);
}

static void test_groups_by_the_rules(void)
{
    static const struct {
        uint32_t length, times, then, groups, first;
    } cases[] = {
        {100, 1, 0, 1, 1},      {100, 2, 50, 1, 3},    {100, 1, 101, 2, 1},
        {100, 63, 100, 1, 64},  {100, 64, 100, 2, 64}, {100, 64, 1, 2, 64},
        {1015, 63, 1015, 1, 64}, {1016, 63, 1016, 2, 63}, {1015, 64, 40, 2, 64},
        {32500, 1, 32500, 1, 2}, {32501, 1, 32500, 2, 1}, {32501, 1, 32499, 1, 2},
        {65507, 1, 12, 2, 1},   {65000, 1, 1, 2, 1},   {64999, 1, 1, 1, 2},
    };
    uint32_t lengths[PACKETS];

    for (unsigned i = 0; i < COUNT(cases); i++) {
        uint32_t n = cases[i].times;

        setup(1);
        for (uint32_t k = 0; k < n; k++)
            lengths[k] = cases[i].length;
        if (cases[i].then)
            lengths[n++] = cases[i].then;
        run_of(lengths, n, 0);
        plan_session(&plan, session, false);
        CHECK_EQ(plan.groups_used, cases[i].groups);
        CHECK_EQ(plan.groups[0].packets, cases[i].first);
        check_groups(n, true);
        plans_end();
    }
}

/* Random lengths and distances, against the rules written a second time above. */
static void test_groups_of_random_runs(void)
{
    uint64_t random = 4711;
    uint32_t lengths[PACKETS];

    setup(1);
    for (unsigned round = 0; round < 5000; round++) {
        uint32_t n = 1 + random_below(&random, 200), kinds = 1 + random_below(&random, 4);

        gso = random_below(&random, 8) > 0;
        for (uint32_t i = 0; i < n; i++)
            lengths[i] = 12 + 320 * random_below(&random, kinds) + round % 700;
        run_of(lengths, n, random_below(&random, 3) == 0 ? 16 : 0);
        for (uint32_t i = 1; i < n; i++) { /* some move elsewhere */
            if (random_below(&random, 10) == 0)
                packets[i].bytes.iov_base = bytes + random_below(&random, 1000);
        }
        plan_clear(&plan);
        plan_session(&plan, session, false);
        check_groups(n, gso);
        CHECK_EQ(plan.entries, plan.groups_used);
    }
    plans_end();
}

static void test_neighbours_share_an_iovec(void)
{
    static const uint32_t lengths[] = {100, 100, 100, 100, 60};

    setup(1);
    run_of(lengths, 5, 0);
    plan_session(&plan, session, false);
    CHECK_EQ(plan.groups[0].iov_count, 1);
    CHECK_EQ(plan.groups[0].iov[0].iov_len, 460);

    plan_clear(&plan);
    run_of(lengths, 5, 1); /* a byte between them */
    plan_session(&plan, session, false);
    CHECK_EQ(plan.groups_used, 1);
    CHECK_EQ(plan.groups[0].iov_count, 5);

    plan_clear(&plan);
    run_of(lengths, 5, 0);
    packets[0].next = &packets[2]; /* packet 1 is another session's */
    plan_session(&plan, session, false);
    CHECK_EQ(plan.groups[0].iov_count, 2);
    CHECK_EQ(plan.groups[0].packets, 4);
    plans_end();
}

/* Serves the shares by turns, each in its own batch, and notes who got what. */
static void serve_all(uint64_t *random)
{
    static struct group *next[MOST];
    uint32_t count = load_rlx(&session->subscribers)->count, left = plan.shares_used;
    unsigned copies = 0;

    for (uint32_t i = 0; i < count; i++)
        next[i] = plan.groups;
    while (left > 0) {
        struct share *s = &plan.shares[random_below(random, plan.shares_used)];

        if (s->group == s->groups_end)
            continue;
        left -= share_fill(s, &batch, plan.now_secs, NAME_LEN);
        copies += batch.used;
        for (unsigned i = 0; i < batch.used; i++) {
            struct copy *c = &batch.copy[i];
            uint32_t who = ntohs(c->subscriber->name.v4.sin_port) - 1u;

            CHECK(c->tally == &s->tally && c->packet == NULL);
            CHECK(c->group == next[who]++); /* each group once, in order */
            CHECK(batch.header[i].msg_hdr.msg_name == &c->subscriber->name);
        }
        batch_settle(&batch, 1);
    }
    CHECK_EQ(copies, count * plan.groups_used);
    for (uint32_t i = 0; i < count; i++)
        CHECK(next[i] == &plan.groups[plan.groups_used]);
}

static void test_shares_cover_each_subscriber_once(void)
{
    static const uint32_t counts[] = {1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 999, 1000};
    static const uint32_t runs[] = {1, 2, 3, 64, 65, 127, 128, 129, 300};
    uint64_t random = 1;

    for (unsigned i = 0; i < COUNT(counts) * COUNT(runs) * 2; i++) {
        uint32_t count = counts[i / 2 % COUNT(counts)], groups = runs[i / 2 / COUNT(counts)];
        bool split = i % 2;

        setup(count);
        session->rotation = i * 7919;
        gso = false;
        run_of_equal(100, groups);
        plan_session(&plan, session, split);
        CHECK_EQ(plan.groups_used, groups);
        CHECK_EQ(plan.entries, (uint64_t)groups * count);
        CHECK(plan.shares_used >= 1 && plan.shares_used <= (split ? SPLIT_MAX : 1));
        uint32_t at = 0, width = plan.shares[0].end;
        uint64_t entries = 0;

        for (uint32_t k = 0; k < plan.shares_used; k++) {
            struct share *s = &plan.shares[k];

            CHECK_EQ(s->begin, at);
            CHECK(s->end - s->begin == width || k + 1 == plan.shares_used);
            CHECK_EQ(s->rotation, i * 7919 % count);
            entries += share_entries(s);
            at = s->end;
        }
        CHECK_EQ(at, count);
        CHECK_EQ(entries, plan.entries);
        /* as wide as SHARE_ENTRIES asks for, unless that were too many */
        if (split && width < count && plan.shares_used < SPLIT_MAX / 2)
            CHECK(width * groups >= SHARE_ENTRIES && (width - 1) * groups < SHARE_ENTRIES);
        serve_all(&random);
        plans_end();
    }
}

static void test_who_comes_first_rotates(void)
{
    for (uint32_t count = 1; count < 6; count++) {
        setup(count);
        for (uint32_t run = 0; run < 13; run++) {
            run_of_equal(100, 1);
            plan_session(&plan, session, false);
            CHECK(share_fill(&plan.shares[0], &batch, plan.now_secs, NAME_LEN));
            for (uint32_t i = 0; i < count; i++)
                CHECK(batch.copy[i].subscriber == subscriber_at((run + i) % count));
            batch.used = 0;
            plan_clear(&plan);
        }
        plans_end();
    }
}

/* As packets of before would be sent to one who asks for them: nobody else's turn comes sooner. */
static void test_a_run_to_one_alone(void)
{
    struct run run;

    setup(5);
    run_of_equal(100, 70);
    run = session->run;
    session->run = (struct run){NULL, NULL};
    for (uint32_t i = 0; i < 5; i++) {
        plan_clear(&plan);
        plan_run(&plan, session, &run,
                 (struct audience){load_rlx(&session->subscribers), .rotation = i, .end = 1}, true);
        CHECK_EQ(plan.entries, 2); /* of 64 and 6 packets */
        CHECK_EQ(plan.shares_used, 1);
        CHECK(share_fill(&plan.shares[0], &batch, plan.now_secs, sizeof(struct sockaddr_in)));
        CHECK_EQ(batch.used, 2);
        CHECK(batch.copy[0].subscriber == subscriber_at(i));
        CHECK(batch.copy[1].subscriber == subscriber_at(i) && batch.copy[1].last);
        batch_settle(&batch, 1);
    }
    CHECK_EQ(session->rotation, 0);
    plans_end();
}

static void test_no_subscribers_no_copies(void)
{
    setup(0);
    run_of_equal(100, 3);
    plan_session(&plan, session, true);
    CHECK_EQ(plan.shares_used + plan.groups_used + plan.entries, 0);
    plans_end();
}

/* 256 entries fill a batch wherever its end falls; the shares go on where they were. */
static void test_batch_boundaries(void)
{
    static const struct {
        uint32_t subscribers, groups;
        unsigned batches;
    } cases[] = {{1, 1, 1},   {255, 1, 1}, {256, 1, 1}, {257, 1, 2}, {128, 2, 1}, {129, 2, 2},
                 {256, 3, 3}, {255, 3, 3}, {512, 1, 2}, {513, 1, 3}, {86, 3, 2},  {1000, 8, 32}};

    for (unsigned i = 0; i < COUNT(cases); i++) {
        unsigned batches = 1, copies = 0;

        setup(cases[i].subscribers);
        gso = false;
        run_of_equal(100, cases[i].groups);
        plan_session(&plan, session, false);
        while (!share_fill(&plan.shares[0], &batch, plan.now_secs, NAME_LEN)) {
            CHECK_EQ(batch.used, EGRESS_BATCH);
            copies += batch.used;
            batch.used = 0;
            batches++;
        }
        CHECK_EQ(copies + batch.used, cases[i].subscribers * cases[i].groups);
        CHECK_EQ(batches, cases[i].batches);
        plans_end();
    }
}

/* Subscriber 1 of 3 takes packets one by one, wherever the batch ends between them. */
static void test_singles_for_a_limited_subscriber(void)
{
    for (unsigned before = EGRESS_BATCH - 9; before <= EGRESS_BATCH; before++) {
        unsigned singles = 0, wholes = 0, seen = 0;
        bool through;

        setup(3);
        subscriber_at(1)->segment_limit = 99;
        subscriber_at(1)->probe_at = plan.now_secs + 1;
        run_of_equal(100, 5);
        plan_session(&plan, session, false);
        batch.used = before;
        do {
            unsigned i = batch.used == before && seen == 0 ? before : 0;

            through = share_fill(&plan.shares[0], &batch, plan.now_secs, NAME_LEN);
            for (; i < batch.used; i++, seen++) {
                struct copy *c = &batch.copy[i];
                struct msghdr *m = &batch.header[i].msg_hdr;

                CHECK(c->subscriber == subscriber_at(seen == 0 ? 0 : seen < 6 ? 1 : 2));
                CHECK_EQ(c->first, seen == 0);
                CHECK_EQ(c->last, seen == 6);
                CHECK_EQ(m->msg_control != NULL, c->packet == NULL);
                CHECK_EQ(m->msg_controllen, c->packet ? 0 : CMSG_SPACE(2));
                if (c->packet) {
                    CHECK(c->packet == &packets[singles++]);
                    CHECK(m->msg_iov == &c->packet->bytes && m->msg_iovlen == 1);
                } else {
                    CHECK(m->msg_iov == plan.groups[0].iov);
                    wholes++;
                }
            }
            batch.used = 0;
        } while (!through);
        CHECK_EQ(singles, 5);
        CHECK_EQ(wholes, 2);
        CHECK_EQ(seen, 7);
        plans_end();
    }
}

/* A limit is about the length of segments, ends when its time has come, and a group of one
 * packet has no segments. */
static void test_who_is_limited(void)
{
    setup(1);
    struct subscriber *s = subscriber_at(0);
    struct group g = {.segment = 1200, .packets = 2};

    CHECK(egress_may_segment(s, &g, 5));
    s->segment_limit = 1200;
    CHECK(egress_may_segment(s, &g, 5));
    s->segment_limit = 1199;
    s->probe_at = 3; /* the clock wraps on its way there */
    CHECK(!egress_may_segment(s, &g, UINT32_MAX - 56));
    CHECK(!egress_may_segment(s, &g, UINT32_MAX));
    CHECK(!egress_may_segment(s, &g, 2));
    CHECK_EQ(s->segment_limit, 1199);
    CHECK(egress_may_segment(s, &g, 3));
    CHECK_EQ(s->segment_limit, UINT16_MAX);

    s->segment_limit = 0;
    s->probe_at = plan.now_secs + 60;
    run_of_equal(100, 1);
    plan_session(&plan, session, false);
    CHECK(share_fill(&plan.shares[0], &batch, plan.now_secs, NAME_LEN));
    CHECK_EQ(batch.used, 1);
    CHECK(batch.copy[0].packet == NULL && batch.header[0].msg_hdr.msg_control == NULL);
    plans_end();
}

static uint64_t observations(struct latency_histogram *h, uint64_t *sum_ns)
{
    struct rf_latency sum = {{0}};
    uint64_t n = 0;

    latency_sum(&sum, h);
    for (size_t i = 0; i < COUNT(sum.count); i++)
        n += sum.count[i];
    *sum_ns = sum.sum_ns;
    return n;
}

static void check_latency(struct latency_histogram *worker, struct latency_histogram *of_session,
                          uint64_t n, uint64_t ns)
{
    uint64_t sum;

    CHECK_EQ(observations(worker, &sum), n);
    CHECK_EQ(sum, ns);
    CHECK_EQ(observations(of_session, &sum), n);
    CHECK_EQ(sum, ns);
}

/* Whoever serves them, only the first and the last in serving order set a group's times. */
static void test_latency_of_the_first_and_the_last_served(void)
{
    setup(300);
    run_of_equal(100, 3);
    packets[0].received_ns = 1000;
    packets[1].received_ns = 0;    /* the kernel gave none */
    packets[2].received_ns = 9000; /* in the future: the clock was set back */
    plan_session(&plan, session, true);
    CHECK_EQ(plan.groups_used, 1);
    CHECK_EQ(plan.shares_used, 3);
    for (uint32_t i = 3; i-- > 0;) { /* the last share is served first */
        CHECK(share_fill(&plan.shares[i], &batch, plan.now_secs, NAME_LEN));
        batch_settle(&batch, 5000 + i);
        CHECK_EQ(batch.used, 0);
    }
    CHECK_EQ(plan.groups[0].first_ns, 5000);
    CHECK_EQ(plan.groups[0].last_ns, 5002);
    plan_account(&plan, &counters, &latency_first, &latency_last);
    check_latency(&latency_first, &session->latency->first, 2, 4000);
    check_latency(&latency_last, &session->latency->last, 2, 4002);
    plans_end();
}

static void test_account_sums_the_shares(void)
{
    setup(300);
    run_of_equal(100, 2);
    plan_session(&plan, session, true);
    for (uint32_t i = 0; i < plan.shares_used; i++) {
        plan.shares[i].tally.packets_sent = 10 + i;
        plan.shares[i].tally.bytes_sent = 1000 + i;
        plan.shares[i].tally.packets_failed = i;
    }
    plan_account(&plan, &counters, &latency_first, &latency_last);
    CHECK_EQ(plan.shares_used, 3);
    CHECK_EQ(load_rlx(&session->counters.packets_sent), 33);
    CHECK_EQ(load_rlx(&session->counters.bytes_sent), 3003);
    CHECK_EQ(load_rlx(&session->counters.send_failures), 3);
    CHECK_EQ(load_rlx(&session->counters.copies_attempted), 36);
    plans_end();
}

/* As the worker does it: a session is planned only while there is room; no index overruns. */
static void test_room_for_many_sessions(void)
{
    uint32_t sessions = 0;

    setup(1000);
    for (; plan_has_room(&plan); sessions++) {
        gso = false;
        run_of_equal(100, 5); /* in 39 shares, of which 1024 is no multiple */
        plan_session(&plan, session, true);
        CHECK(plan.shares_used <= PLAN_SHARES);
    }
    CHECK(sessions >= PLAN_SHARES / SPLIT_MAX);
    CHECK_EQ(plan.entries, 5000ull * sessions);
    plan_clear(&plan);
    CHECK(plan_has_room(&plan));
    CHECK_EQ(plan.shares_used + plan.groups_used + plan.iovs_used + plan.entries, 0);
    plans_end();
}

int main(void)
{
    RUN(test_groups_by_the_rules);
    RUN(test_groups_of_random_runs);
    RUN(test_neighbours_share_an_iovec);
    RUN(test_shares_cover_each_subscriber_once);
    RUN(test_who_comes_first_rotates);
    RUN(test_a_run_to_one_alone);
    RUN(test_no_subscribers_no_copies);
    RUN(test_batch_boundaries);
    RUN(test_singles_for_a_limited_subscriber);
    RUN(test_who_is_limited);
    RUN(test_latency_of_the_first_and_the_last_served);
    RUN(test_account_sums_the_shares);
    RUN(test_room_for_many_sessions);
    return 0;
}
