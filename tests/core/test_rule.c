/* rule.c: which addresses a network holds. */
#include "rule.h"

#include "endpoints.h"
#include "random.h"

static struct source_rule *rule_of(enum rf_source_policy policy, const char *ip, uint8_t prefix)
{
    struct rf_source source = {policy, .network = {address(ip, 77), prefix}, .relatch_after_ns = 5};
    struct source_rule *rule;

    CHECK_EQ(rule_new(&source, 9, &rule), 0);
    return rule;
}

static void test_networks(void)
{
    static const struct {
        const char *network;
        uint8_t prefix;
        const char *ip;
        bool inside;
    } cases[] = {
        {"10.1.2.3", 128, "10.1.2.3", true},      {"10.1.2.3", 128, "10.1.2.2", false},
        {"10.1.2.3", 127, "10.1.2.2", true},      {"10.1.2.3", 120, "10.1.2.255", true},
        {"10.1.2.3", 120, "10.1.3.3", false},     {"10.1.2.3", 119, "10.1.3.3", true},
        {"10.1.2.3", 104, "10.255.0.1", true},    {"0.0.0.0", 96, "203.0.113.9", true},
        {"0.0.0.0", 96, "2001:db8::1", false},    {"::", 0, "2001:db8::1", true},
        {"::", 0, "203.0.113.9", false},          {"::", 80, "203.0.113.9", false},
        {"2001:db8::", 32, "2001:db8:f::1", true}, {"2001:db8::", 32, "2001:db9::1", false},
        {"2001:db8::", 33, "2001:db8:8000::", false}, {"2001:db8::1", 128, "2001:db8::1", true},
        {"::1", 128, "::", false},
    };

    for (unsigned i = 0; i < COUNT(cases); i++) {
        struct source_rule *rule = rule_of(RF_NETWORK, cases[i].network, cases[i].prefix);
        struct rf_addr a = address(cases[i].ip, (uint16_t)i);

        CHECK_EQ(rule_covers(rule, &a), cases[i].inside);
        free(rule);
    }
}

/* Of both families, whatever stands beside it; and nobody's else network. */
static void test_anybody(void)
{
    struct rf_source source = {RF_LATCH, .network = {address("10.0.0.0", 5), 7, true}};
    const char *const everywhere[] = {"203.0.113.9", "0.0.0.1", "2001:db8::1", "::1", "fe80::1"};
    struct source_rule *anybody, *six = rule_of(RF_NETWORK, "::", 0);

    CHECK_EQ(rule_new(&source, 9, &anybody), 0);
    for (unsigned i = 0; i < COUNT(everywhere); i++) {
        struct rf_addr a = address(everywhere[i], 4);

        a.scope = i;
        CHECK(rule_covers(anybody, &a));
    }
    CHECK(!rule_same_network(anybody, six) && !rule_same_network(six, anybody));
    CHECK(rule_same_network(anybody, anybody));
    CHECK(rule_narrowness(anybody) < rule_narrowness(six));
    free(anybody);
    free(six);
}

/* Bit by bit, of random addresses. */
static void test_against_single_bits(void)
{
    uint64_t random = 3;

    for (unsigned n = 0; n < 20000; n++) {
        struct rf_source source = {RF_NETWORK, .network = {.prefix = (uint8_t)random_below(&random, 129)}};
        struct rf_addr a = {{0}, 0, 1};
        struct source_rule *rule;
        unsigned same = 0;

        for (unsigned i = 0; i < 16; i++)
            source.network.addr.ip[i] = a.ip[i] = (uint8_t)next_random(&random);
        a.ip[random_below(&random, 16)] ^= (uint8_t)(1 << random_below(&random, 8));
        while (same < 128 && !((a.ip[same / 8] ^ source.network.addr.ip[same / 8]) & 0x80 >> same % 8))
            same++;
        CHECK_EQ(rule_new(&source, 0, &rule), 0);
        CHECK_EQ(rule_covers(rule, &a), same >= source.network.prefix);
        for (unsigned bit = source.network.prefix; bit < 128; bit++)
            CHECK((rule->network.addr.ip[bit / 8] & 0x80 >> bit % 8) == 0);
        free(rule);
    }
}

static void test_scope_counts_when_there_is_one(void)
{
    struct rf_source source = {RF_NETWORK, .network = {address("fe80::", 0), 10}};
    struct rf_addr a = address("fe80::9", 4);
    struct source_rule *rule;

    a.scope = 2;
    CHECK_EQ(rule_new(&source, 0, &rule), 0);
    CHECK(rule_covers(rule, &a));
    free(rule);
    source.network.addr.scope = 3;
    CHECK_EQ(rule_new(&source, 0, &rule), 0);
    CHECK(!rule_covers(rule, &a));
    free(rule);
}

static void test_kinds_and_errors(void)
{
    struct source_rule *a = rule_of(RF_NETWORK, "10.0.0.5", 120), *b = rule_of(RF_LATCH, "10.0.0.9", 120);
    struct source_rule *c = rule_of(RF_EXACT, "10.0.0.0", 121), *none;
    struct rf_source wrong = {RF_NETWORK, .network = {address("10.0.0.0", 0), 95}};

    CHECK_EQ(a->kind, RULE_ADMIT);
    CHECK_EQ(b->kind, RULE_LATCH);
    CHECK_EQ(c->kind, RULE_RELATCH);
    CHECK(c->silence_ns == 5 && c->since_ns == 9);
    CHECK(rule_same_network(a, b) && !rule_same_network(a, c));
    free(a), free(b), free(c);
    CHECK_EQ(rule_new(&wrong, 0, &none), -EINVAL);
    wrong.network = (struct rf_network){address("::1", 0), 129};
    CHECK_EQ(rule_new(&wrong, 0, &none), -EINVAL);
    wrong.policy = RF_EXACT; /* without relatching the network is not asked */
    CHECK_EQ(rule_new(&wrong, 0, &none), 0);
    CHECK(none == NULL);
}

int main(void)
{
    RUN(test_networks);
    RUN(test_anybody);
    RUN(test_against_single_bits);
    RUN(test_scope_counts_when_there_is_one);
    RUN(test_kinds_and_errors);
    return 0;
}
