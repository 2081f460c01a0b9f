/* table.c, word.h: keys, clashes, growth and the tale of the SSRC. */
#include "table.h"

#include "endpoints.h"
#include "sessions.h"

static struct qsbr qsbr;
static struct session_pool pool;
static struct table table;

static void setup(uint32_t max)
{
    qsbr_init(&qsbr);
    CHECK_EQ(session_pool_init(&pool, max), 0);
    CHECK_EQ(table_init(&table, &pool, &qsbr), 0);
}

static void teardown(void)
{
    table_destroy(&table);
    session_pool_destroy(&pool);
    qsbr_destroy(&qsbr);
}

static struct rf_addr source_of(uint32_t i)
{
    struct rf_addr a = address("10.0.0.0", (uint16_t)(1 + i % 60000));

    a.ip[14] = (uint8_t)(i >> 8);
    a.ip[15] = (uint8_t)i;
    return a;
}

static struct session *put(uint32_t ssrc, struct rf_addr source)
{
    struct session *s;

    CHECK_EQ(session_new(&pool, &source, ssrc, 0, &s), 0);
    CHECK_EQ(table_insert(&table, s), 0);
    return s;
}

static void take(struct session *s)
{
    table_remove(&table, s);
    session_release(&pool, s);
    qsbr_reclaim(&qsbr);
}

static struct session *find(uint32_t ssrc, struct rf_addr source)
{
    bool unused;

    return find_session(&table, ssrc, &source, &unused);
}

static bool known(uint32_t ssrc)
{
    struct rf_addr stranger = address("203.0.113.9", 9);
    bool ssrc_known = false;

    CHECK(find_session(&table, ssrc, &stranger, &ssrc_known) == NULL);
    return ssrc_known;
}

static void test_extreme_ssrcs_are_ordinary(void)
{
    const uint32_t ssrc[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    struct session *s[COUNT(ssrc)];

    setup(10);
    for (unsigned i = 0; i < COUNT(ssrc); i++) {
        CHECK(!known(ssrc[i]));
        s[i] = put(ssrc[i], source_of(1));
    }
    for (unsigned i = 0; i < COUNT(ssrc); i++) {
        CHECK(find(ssrc[i], source_of(1)) == s[i]);
        CHECK(known(ssrc[i]));
        CHECK(find(ssrc[i], source_of(2)) == NULL);
        take(s[i]);
        CHECK(find(ssrc[i], source_of(1)) == NULL && !known(ssrc[i]));
    }
    teardown();
}

/* Address, port and scope are all of the key. */
static void test_every_part_of_the_source_counts(void)
{
    struct rf_addr a = address("fe80::1", 7), other;

    setup(10);
    a.scope = 2;
    struct session *s = put(5, a);

    CHECK(find(5, a) == s);
    other = a, other.scope = 3;
    CHECK(find(5, other) == NULL);
    other = a, other.port = 8;
    CHECK(find(5, other) == NULL);
    other = a, other.ip[15] = 2;
    CHECK(find(5, other) == NULL);
    /* Whatever lies in the padding of struct rf_addr is no part of it. */
    memset(&other, 0xff, sizeof other);
    memcpy(other.ip, a.ip, sizeof a.ip);
    other.port = a.port;
    other.scope = a.scope;
    CHECK(find(5, other) == s);
    teardown();
}

static void test_clash_changes_nothing(void)
{
    struct rf_addr source = source_of(3);
    struct session *twin;

    setup(10);
    struct session *s = put(5, source);

    CHECK_EQ(session_new(&pool, &source, 5, 0, &twin), 0);
    CHECK_EQ(table_insert(&table, twin), -EEXIST);
    CHECK(find(5, source) == s);
    session_release(&pool, twin);
    take(s);
    CHECK(!known(5));
    s = put(5, source);
    CHECK(find(5, source) == s);
    teardown();
}

/* Removing head, middle and tail of the chain of one SSRC, in every order. */
static void test_one_ssrc_many_sources(void)
{
    static const uint8_t orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2},
                                        {2, 3, 0, 1}, {1, 2, 0, 3}, {3, 0, 2, 1}};

    for (unsigned o = 0; o < COUNT(orders); o++) {
        struct session *s[4];

        setup(4);
        for (uint32_t i = 0; i < 4; i++)
            s[i] = put(77, source_of(i));
        for (unsigned n = 0; n < 4; n++) {
            CHECK(known(77));
            take(s[orders[o][n]]);
            for (unsigned m = 0; m < 4; m++)
                CHECK((find(77, source_of(orders[o][m])) != NULL) == (m > n));
        }
        CHECK(!known(77));
        teardown();
    }
}

static uint32_t slots_of(struct table_index *index)
{
    return load_rlx(&index->slots)->mask + 1;
}

static void check_room(void)
{
    CHECK(2 * (uint64_t)table.by_source.filled <= slots_of(&table.by_source));
    CHECK(2 * (uint64_t)table.by_ssrc.filled <= slots_of(&table.by_ssrc));
}

static void test_growth_keeps_everybody(void)
{
    enum { N = 10000 };
    static struct session *s[N];

    setup(N);
    for (uint32_t i = 0; i < N; i++) {
        s[i] = put(i % 2 ? i : 1, source_of(i)); /* half of them share SSRC 1 */
        check_room();
        CHECK(find(1, source_of(0)) == s[0]);
    }
    for (uint32_t i = 0; i < N; i++)
        CHECK(find(i % 2 ? i : 1, source_of(i)) == s[i]);
    CHECK(!known(N + 1));
    for (uint32_t i = 0; i < N; i += 3)
        take(s[i]);
    for (uint32_t i = 0; i < N; i++)
        CHECK(find(i % 2 ? i : 1, source_of(i)) == (i % 3 ? s[i] : NULL));
    teardown();
}

/* The tags in the words are short: of a million strangers, some share slot and tag with a session. */
static void test_a_tag_is_not_a_key(void)
{
    enum { N = 8000, STRANGERS = 1000000 };
    static struct session *s[N];
    unsigned alike = 0;

    setup(N);
    for (uint32_t i = 0; i < N; i++)
        s[i] = put(i, source_of(i));
    struct table_slots *slots = load_rlx(&table.by_source.slots);

    for (uint32_t i = N; i < N + STRANGERS; i++) {
        struct rf_addr source = source_of(0);
        uint64_t hash = table_key(&table, i, &source).hash;
        uint32_t word = load_rlx(&slots->word[(uint32_t)hash & slots->mask]);

        if (word == 0 || (word ^ (uint32_t)(hash >> 32)) > RF_MAX_SESSIONS)
            continue;
        alike++;
        CHECK(find(i, source_of(0)) == NULL);
    }
    CHECK(alike > 0);
    for (uint32_t i = 0; i < N; i++)
        CHECK(find(i, source_of(i)) == s[i]);
    teardown();
}

/* Sessions that come and go don't fill the table with what they leave behind. */
static void test_churn_stays_small(void)
{
    setup(4);
    struct session *standing = put(1, source_of(1));

    for (uint32_t i = 0; i < 20000; i++) {
        struct session *s = put(1000 + i, source_of(i));

        check_room();
        take(s);
        CHECK(find(1, source_of(1)) == standing);
    }
    CHECK_EQ(slots_of(&table.by_source), 64);
    CHECK_EQ(table.by_source.live, 1);
    CHECK_EQ(table.by_ssrc.live, 1);
    teardown();
}

static void test_old_slots_live_as_long_as_a_reader(void)
{
    setup(200);
    qsbr_online(&qsbr, 0);
    for (uint32_t i = 0; i < 100; i++)
        put(i, source_of(i));
    CHECK(qsbr.oldest != NULL);
    qsbr_reclaim(&qsbr);
    CHECK(qsbr.oldest != NULL);
    qsbr_offline(&qsbr, 0);
    qsbr_reclaim(&qsbr);
    CHECK(qsbr.oldest == NULL);
    teardown();
}

int main(void)
{
    RUN(test_extreme_ssrcs_are_ordinary);
    RUN(test_every_part_of_the_source_counts);
    RUN(test_clash_changes_nothing);
    RUN(test_one_ssrc_many_sources);
    RUN(test_growth_keeps_everybody);
    RUN(test_a_tag_is_not_a_key);
    RUN(test_churn_stays_small);
    RUN(test_old_slots_live_as_long_as_a_reader);
    return 0;
}
