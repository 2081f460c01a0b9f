/* table.c: sessions that are found by a network, after the exact ones. */
#include "endpoints.h"
#include "table.h"

static struct qsbr qsbr;
static struct session_pool pool;
static struct table table;

enum { SSRC = 5, MANY = 20 };

static void setup(void)
{
    qsbr_init(&qsbr);
    CHECK_EQ(session_pool_init(&pool, 10000), 0);
    CHECK_EQ(table_init(&table, &pool, &qsbr), 0);
}

static void teardown(void)
{
    table_destroy(&table);
    session_pool_destroy(&pool);
    qsbr_destroy(&qsbr);
}

/* A session of SSRC and this source; NULL, and why in `rc`, when the table has no place. */
static struct session *try_put(uint32_t ssrc, const struct rf_source *source, int *rc)
{
    struct source_rule *rule;
    struct session *s;

    CHECK_EQ(rule_new(source, 1000, &rule), 0);
    CHECK_EQ(session_new(&pool, &source->exact, ssrc, 0, &s), 0);
    s->exact = source->policy == RF_EXACT;
    store_rlx(&s->rule, rule);
    *rc = table_insert(&table, s);
    if (*rc == 0)
        return s;
    session_release(&pool, s);
    return NULL;
}

static struct session *put(enum rf_source_policy policy, const char *ip, uint8_t prefix)
{
    struct rf_source source = {policy, address(ip, 1), {address(ip, 0), prefix}, 0};
    int rc;
    struct session *s = try_put(SSRC, &source, &rc);

    CHECK_EQ(rc, 0);
    return s;
}

static int refusal(enum rf_source_policy policy, const char *ip, uint8_t prefix)
{
    struct rf_source source = {policy, address(ip, 1), {address(ip, 0), prefix}, 0};
    int rc;

    CHECK(try_put(SSRC, &source, &rc) == NULL);
    return rc;
}

static void take(struct session *s)
{
    table_remove(&table, s);
    session_release(&pool, s);
}

/* As the gate looks. */
static struct session *find(uint32_t ssrc, const char *ip, uint16_t port, uint64_t now,
                            struct session **latching)
{
    struct rf_addr source = address(ip, port);
    struct table_key key = table_key(&table, ssrc, &source);
    struct session *s = table_find(&table, &key);

    *latching = NULL;
    if (s || !table_namesake(&table, &key, &s) || s)
        return s;
    return table_match(&table, &key, now, latching);
}

static struct session *feeder(const char *ip)
{
    struct session *latching;
    struct session *s = find(SSRC, ip, 4711, 0, &latching);

    CHECK(!latching || !s || load_rlx(&latching->rule)->kind == RULE_RELATCH);
    return s;
}

/* In whatever order they come and go. */
static void test_the_most_specific_network_wins(void)
{
    static const uint8_t prefix[] = {96, 104, 112, 120, 128};
    static const char *const ip[] = {"203.0.113.1", "10.9.9.9", "10.1.9.9", "10.1.2.9", "10.1.2.3"};
    static const uint8_t order[][5] = {{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}, {3, 4, 0, 2, 1}};

    for (unsigned o = 0; o < COUNT(order); o++) {
        for (unsigned r = 0; r < COUNT(order); r++) {
            struct session *s[5] = {NULL};

            setup();
            for (unsigned step = 0; step < 10; step++) {
                unsigned i = step < 5 ? order[o][step] : order[r][step - 5];

                if (step < 5) {
                    s[i] = put(RF_NETWORK, "10.1.2.3", prefix[i]);
                } else {
                    take(s[i]);
                    s[i] = NULL;
                }
                for (unsigned k = 0; k < 5; k++) {
                    struct session *best = NULL;

                    for (unsigned j = 0; j <= k; j++)
                        best = s[j] ? s[j] : best;
                    CHECK(feeder(ip[k]) == best);
                }
            }
            CHECK_EQ(table.by_network.live, 0);
            CHECK_EQ(table.by_ssrc.live, 0);
            teardown();
        }
    }
}

/* Anybody comes last, after the networks of either family, whoever was there first. */
static void test_anybody_is_the_least_specific(void)
{
    struct rf_source anybody = {RF_NETWORK, .network = {.anybody = true}};
    struct session *latching;

    for (unsigned first = 0; first < 2; first++) {
        struct session *all = NULL, *six, *four;
        int rc = 0;

        setup();
        if (first)
            all = try_put(SSRC, &anybody, &rc);
        six = put(RF_NETWORK, "::", 0);
        four = put(RF_NETWORK, "10.0.0.0", 104);
        if (!first)
            all = try_put(SSRC, &anybody, &rc);
        CHECK(all != NULL);
        CHECK(feeder("2001:db8::1") == six);
        CHECK(feeder("10.1.1.1") == four);
        CHECK(feeder("203.0.113.9") == all);
        CHECK(try_put(SSRC, &anybody, &rc) == NULL);
        CHECK_EQ(rc, -EEXIST);
        take(six);
        CHECK(feeder("2001:db8::1") == all);
        take(all);
        CHECK(!find(SSRC, "203.0.113.9", 1, 0, &latching) && !latching);
        teardown();
    }
}

static void test_an_exact_source_goes_first(void)
{
    struct session *latching;

    setup();
    struct session *network = put(RF_NETWORK, "10.0.0.0", 104);
    struct session *exact = put(RF_EXACT, "10.0.0.1", 0);

    CHECK(find(SSRC, "10.0.0.1", 1, 0, &latching) == exact);
    CHECK(find(SSRC, "10.0.0.1", 2, 0, &latching) == network);
    CHECK(find(SSRC + 1, "10.0.0.1", 2, 0, &latching) == NULL);
    take(network);
    CHECK(find(SSRC, "10.0.0.1", 1, 0, &latching) == exact);
    CHECK(find(SSRC, "10.0.0.1", 2, 0, &latching) == NULL);
    teardown();
}

static void test_latching_admits_nobody(void)
{
    struct session *latching;

    setup();
    struct session *latch = put(RF_LATCH, "10.0.0.0", 120);
    struct session *network = put(RF_NETWORK, "10.0.0.0", 104);

    CHECK(find(SSRC, "10.0.0.1", 2, 0, &latching) == NULL && latching == latch);
    CHECK(find(SSRC, "10.0.1.1", 2, 0, &latching) == network && latching == NULL);
    CHECK(find(SSRC, "11.0.0.1", 2, 0, &latching) == NULL && latching == NULL);
    teardown();
}

static void test_relatching_needs_silence(void)
{
    struct rf_source source = {RF_EXACT, address("10.0.0.1", 1), {address("10.0.0.0", 0), 120}, 500};
    struct session *latching;
    int rc;

    setup();
    struct session *s = try_put(SSRC, &source, &rc);

    CHECK(find(SSRC, "10.0.0.1", 1, 9000, &latching) == s);
    CHECK(find(SSRC, "10.0.0.2", 1, 1499, &latching) == NULL && latching == NULL);
    CHECK(find(SSRC, "10.0.0.2", 1, 1500, &latching) == NULL && latching == s);
    CHECK(find(SSRC, "10.0.1.2", 1, 1500, &latching) == NULL && latching == NULL);
    store_rlx(&s->last_packet_ns, 2000);
    CHECK(find(SSRC, "10.0.0.2", 1, 2499, &latching) == NULL && latching == NULL);
    CHECK(find(SSRC, "10.0.0.2", 1, 2500, &latching) == NULL && latching == s);
    /* A second with the same network: whichever is silent; and who is admitted is asked for nobody. */
    source.exact.port = 2;
    struct session *second = try_put(SSRC, &source, &rc);

    store_rlx(&s->last_packet_ns, 5000);
    CHECK(find(SSRC, "10.0.0.2", 1, 5000, &latching) == NULL && latching == second);
    struct session *network = put(RF_NETWORK, "10.0.0.0", 104);

    CHECK(find(SSRC, "10.0.0.2", 1, 9000, &latching) == network);
    teardown();
}

static void test_clashes_and_the_longest_chain(void)
{
    char ip[] = "10.0.0.0";
    struct session *chain[RF_SSRC_NETWORKS], *latching;

    setup();
    for (unsigned i = 0; i < RF_SSRC_NETWORKS; i++) {
        ip[7] = (char)('0' + i % 8);
        chain[i] = put(i % 2 ? RF_LATCH : RF_NETWORK, ip, (uint8_t)(i < 8 ? 128 : 112 - i));
    }
    CHECK_EQ(refusal(RF_NETWORK, "10.0.0.1", 128), -EEXIST);
    CHECK_EQ(refusal(RF_LATCH, "10.0.0.2", 128), -EEXIST);
    CHECK_EQ(refusal(RF_NETWORK, "10.0.0.99", 112 - 8), -EEXIST);
    CHECK_EQ(refusal(RF_NETWORK, "10.0.9.9", 128), -EMLINK);
    struct session *plain = put(RF_EXACT, "10.0.9.9", 0); /* which has no network */

    CHECK(find(SSRC, "10.0.9.9", 1, 0, &latching) == plain);
    CHECK(feeder("10.0.0.4") == chain[4]);
    take(chain[4]);
    CHECK(feeder("10.0.0.4") != chain[4]);
    chain[4] = put(RF_NETWORK, "10.0.9.9", 128);
    CHECK(feeder("10.0.9.9") == chain[4]);
    teardown();
}

/* Growth of the index moves every chain's head. */
static void test_many_ssrcs(void)
{
    enum { N = 3000 };
    static struct session *s[N][2];
    struct session *latching;
    int rc;

    setup();
    for (uint32_t i = 0; i < N; i++) {
        for (unsigned k = 0; k < 2; k++) {
            struct rf_source source = {RF_NETWORK, .network = {address("10.0.0.1", 0), (uint8_t)(104 + 24 * k)}};

            s[i][k] = try_put(i, &source, &rc);
            CHECK_EQ(rc, 0);
        }
    }
    for (uint32_t i = 0; i < N; i++) {
        CHECK(find(i, "10.0.0.1", 9, 0, &latching) == s[i][1]);
        CHECK(find(i, "10.0.0.2", 9, 0, &latching) == s[i][0]);
        CHECK(find(i, "11.0.0.2", 9, 0, &latching) == NULL);
    }
    CHECK_EQ(table.by_network.live, N);
    CHECK_EQ(table.by_source.live, 0);
    for (uint32_t i = 0; i < N; i++)
        take(s[i][i % 2]);
    for (uint32_t i = 0; i < N; i++)
        CHECK(find(i, "10.0.0.1", 9, 0, &latching) == s[i][!(i % 2)]);
    teardown();
}

int main(void)
{
    RUN(test_the_most_specific_network_wins);
    RUN(test_anybody_is_the_least_specific);
    RUN(test_an_exact_source_goes_first);
    RUN(test_latching_admits_nobody);
    RUN(test_relatching_needs_silence);
    RUN(test_clashes_and_the_longest_chain);
    RUN(test_many_ssrcs);
    return 0;
}
