/* table.c, index.c, known.c, gate.c, senders.c: who has a packet, where sessions take one SSRC or any of their source;
 * against a list that is looked through. */
#include "at_gate.h"
#include "random.h"

enum { SESSIONS = 24, STEPS = 4000, LOOKS = 12 };

struct entry {
    bool there;
    uint64_t handle;
    uint32_t ssrc;
    struct rf_source source;
};

static struct entry model[SESSIONS];
static uint64_t state = 88172645463325252;

static const char *const ips[] = {"10.0.0.1", "10.0.0.2", "10.0.1.1", "2001:db8::1"};

static struct rf_addr random_address(bool host)
{
    return address(ips[random_below(&state, COUNT(ips))],
                   host ? 0 : (uint16_t)(1 + random_below(&state, 3)));
}

static struct rf_source random_source(void)
{
    static const uint8_t prefixes[] = {96, 104, 120, 128};
    struct rf_source s = {.ssrc_policy = random_below(&state, 2) ? RF_SSRC_ANY : RF_SSRC_EXACT};

    switch (random_below(&state, 5)) {
    case 0: s.exact = random_address(true); break;
    case 1:
    case 2: s.exact = random_address(false); break;
    default:
        s.policy = random_below(&state, 3) ? RF_NETWORK : RF_LATCH;
        s.network.addr = random_address(true);
        s.network.prefix = addr_is_ipv4(&s.network.addr) ? prefixes[random_below(&state, 4)] : 64;
        s.network.anybody = random_below(&state, 6) == 0;
    }
    return s;
}

static bool covers(const struct rf_source *s, const struct rf_addr *a)
{
    struct source_rule *rule;
    bool covered;

    CHECK_EQ(rule_new(s, 0, &rule), 0);
    covered = rule_covers(rule, a);
    free(rule);
    return covered;
}

static unsigned narrowness(const struct rf_source *s)
{
    return s->network.anybody ? 0 : 1u + s->network.prefix;
}

/* How much rather than another it has the packet; 0: not at all. */
static unsigned claim(const struct entry *e, uint32_t ssrc, const struct rf_addr *a)
{
    bool any = e->source.ssrc_policy != RF_SSRC_EXACT;
    struct rf_addr host = *a;

    host.port = 0;
    if (!e->there || (!any && e->ssrc != ssrc))
        return 0;
    if (e->source.policy == RF_EXACT) {
        if (addr_equal(&e->source.exact, a))
            return any ? 500 : 2000;
        return addr_equal(&e->source.exact, &host) ? (any ? 400 : 1900) : 0;
    }
    return covers(&e->source, a) ? (any ? 1 : 1000) + narrowness(&e->source) : 0;
}

/* The handle, or 0; `*latching` whether somebody waits. Of networks the narrowest decides, be it a latch,
 * among those of the SSRC and then among those of any. */
static uint64_t expected(uint32_t ssrc, const struct rf_addr *a, bool *latching)
{
    const struct entry *best[2] = {NULL, NULL}; /* of the SSRC, of any */

    for (unsigned i = 0; i < SESSIONS; i++) {
        unsigned any = model[i].source.ssrc_policy != RF_SSRC_EXACT, c = claim(&model[i], ssrc, a);

        if (c > 0 && (!best[any] || c > claim(best[any], ssrc, a)))
            best[any] = &model[i];
    }
    *latching = false;
    for (unsigned any = 0; any < 2; any++) {
        if (best[any] && best[any]->source.policy != RF_LATCH)
            return best[any]->handle;
        *latching |= best[any] != NULL;
    }
    return 0;
}

/* Each is looked for twice: the second time the worker may know it. */
static void look_around(void)
{
    for (unsigned i = 0; i < LOOKS; i++) {
        uint32_t ssrc = 1 + random_below(&state, 4);
        struct rf_addr a = random_address(false);
        bool latching;
        uint64_t handle = expected(ssrc, &a, &latching);

        for (unsigned times = 0; times < 2; times++) {
            const struct arrival *found = pass_rtp(ssrc, &a, 96, 1);

            CHECK_EQ(handle_of(found), handle);
            if (!handle)
                CHECK_EQ(found->reason == DROP_latching, latching);
        }
    }
}

static bool is_taken(const struct entry *self, const struct rf_source *s, uint32_t ssrc)
{
    for (unsigned i = 0; i < SESSIONS; i++) {
        const struct entry *e = &model[i];
        bool same_kind = (e->source.ssrc_policy == RF_SSRC_EXACT) == (s->ssrc_policy == RF_SSRC_EXACT);

        if (e == self || !e->there || !same_kind || (s->ssrc_policy == RF_SSRC_EXACT && e->ssrc != ssrc))
            continue;
        if (s->policy == RF_EXACT && e->source.policy == RF_EXACT &&
            addr_equal(&s->exact, &e->source.exact))
            return true;
        if (s->policy == RF_EXACT || e->source.policy == RF_EXACT)
            continue;
        struct source_rule *a, *b;
        bool same;

        CHECK_EQ(rule_new(s, 0, &a), 0);
        CHECK_EQ(rule_new(&e->source, 0, &b), 0);
        same = rule_same_network(a, b);
        free(a);
        free(b);
        if (same)
            return true;
    }
    return false;
}

static void step(void)
{
    struct entry *e = &model[random_below(&state, SESSIONS)];
    struct rf_source s = random_source();
    uint32_t ssrc = random_below(&state, s.ssrc_policy == RF_SSRC_EXACT ? 4 : 2) + 1;
    bool taken = is_taken(e, &s, ssrc);
    int rc;

    if (e->there && random_below(&state, 3) == 0) {
        CHECK_EQ(rf_session_remove(engine, e->handle), 0);
        e->there = false;
        return;
    }
    if (e->there)
        rc = rf_session_retune(engine, e->handle, &s, ssrc, now);
    else
        rc = rf_session_add(engine, &s, ssrc, now, &e->handle);
    CHECK_EQ(rc, taken ? -EEXIST : 0);
    if (rc == 0)
        *e = (struct entry){true, e->handle, ssrc, s};
}

static void test_whoever_comes_is_found_as_in_a_list(void)
{
    gate_open_for(SESSIONS);
    for (unsigned i = 0; i < STEPS; i++) {
        step();
        look_around();
    }
    for (unsigned i = 0; i < SESSIONS; i++)
        if (model[i].there)
            CHECK_EQ(rf_session_remove(engine, model[i].handle), 0);
    CHECK_EQ(load_rlx(&engine->table.by_sender.live), 0);
    CHECK_EQ(load_rlx(&engine->table.by_source.live), 0);
    CHECK_EQ(load_rlx(&engine->table.by_ssrc.live), 0);
    CHECK_EQ(load_rlx(&engine->table.hosts), 0);
    CHECK(!table_has_senders(&engine->table));
    gate_close();
}

/* 10,000 cameras pinned to their addresses, of any port. */
static void test_many_senders(void)
{
    enum { N = 10000 };
    static uint64_t handle[N];
    struct rf_source s = {.exact = address("10.0.0.0", 0), .ssrc_policy = RF_SSRC_ANY};

    gate_open_for(N);
    for (unsigned i = 0; i < N; i++) {
        s.exact.ip[14] = (uint8_t)(i >> 8);
        s.exact.ip[15] = (uint8_t)i;
        handle[i] = must_add(&s, 0);
    }
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < N; i++) {
            struct rf_addr from = address("10.0.0.0", (uint16_t)(1000 + i));

            from.ip[14] = (uint8_t)(i >> 8);
            from.ip[15] = (uint8_t)i;
            CHECK_EQ(handle_of(pass_rtp(i, &from, 96, 1)), handle[i]);
        }
    }
    gate_close();
}

static void test_the_most_networks_of_those_that_take_any(void)
{
    struct rf_source s = {RF_NETWORK, .network = {address("10.0.0.0", 0), 120}, .ssrc_policy = RF_SSRC_ANY};
    uint64_t handle;

    gate_open_for(100);
    for (unsigned i = 0; i < RF_SENDER_NETWORKS; i++) {
        s.network.addr.ip[14] = (uint8_t)i;
        must_add(&s, 0);
    }
    s.network.addr.ip[14] = 200;
    CHECK_EQ(rf_session_add(engine, &s, 0, now, &handle), -EMLINK);
    s = (struct rf_source){.exact = address("10.0.200.1", 0), .ssrc_policy = RF_SSRC_ANY};
    must_add(&s, 0);
    gate_close();
}

/* What a worker knows is of no use to a stranger, nor after a change. */
static void test_what_is_known(void)
{
    struct rf_source s = {.exact = address("10.0.0.1", 0), .ssrc_policy = RF_SSRC_ANY};
    struct rf_addr camera = address("10.0.0.1", 5), stranger = address("10.0.0.2", 5);
    struct known *k;

    gate_open_for(10);
    k = &gate->known;
    uint64_t handle = must_add(&s, 0);
    struct table_key key = table_key(&engine->table, 7, &camera);

    CHECK(known_find(k, &engine->table, &key) == NULL);
    CHECK_EQ(handle_of(pass_rtp(7, &camera, 96, 1)), handle);
    struct session *known = known_find(k, &engine->table, &key);

    CHECK(known && session_handle(known) == handle);
    struct table_key forged = {7, KEY_FLOW, &stranger, key.hash}; /* the same tag and place */

    CHECK(known_find(k, &engine->table, &forged) == NULL);
    s.exact.port = 6;
    CHECK_EQ(rf_session_move(engine, handle, &s, now), 0);
    CHECK(known_find(k, &engine->table, &key) == NULL);
    CHECK_EQ(pass_rtp(7, &camera, 96, 2)->reason, DROP_unknown_ssrc);
    CHECK_EQ(rf_session_remove(engine, handle), 0);
    gate_close();
}

int main(void)
{
    RUN(test_whoever_comes_is_found_as_in_a_list);
    RUN(test_many_senders);
    RUN(test_the_most_networks_of_those_that_take_any);
    RUN(test_what_is_known);
    return 0;
}
