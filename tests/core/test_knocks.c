/* knocks.c, gate.c, senders.c: who sent packets that no session admits; and how a session's packets are read. */
#include "at_gate.h"
#include "random.h"

#define SECOND UINT64_C(1000000000)

static struct rf_knock found[RF_KNOCKS];

static const struct rf_knock *knock_of(const struct rf_addr *source, uint32_t ssrc)
{
    int n = rf_knocks(engine, found, RF_KNOCKS);

    for (int i = 0; i < n; i++) {
        if (found[i].ssrc == ssrc && addr_equal(&found[i].source, source))
            return &found[i];
    }
    return NULL;
}

static void test_who_knocks_is_told(void)
{
    struct rf_source s = {.exact = address("10.0.0.1", 5)};
    struct rf_addr port = address("10.0.0.1", 6), stranger = address("2001:db8::7", 7);

    gate_open_for(10);
    uint64_t session = must_add(&s, 100), first = now;

    CHECK_EQ(handle_of(pass_rtp(100, &s.exact, 96, 1)), session);
    CHECK_EQ(rf_knocks(engine, found, RF_KNOCKS), 0);
    for (unsigned i = 0; i < 3; i++) {
        now += SECOND;
        CHECK(!pass_rtp(100, &port, 97, 1)->session);
    }
    now += SECOND;
    CHECK(!pass_rtp(200, &stranger, 98, 1)->session);
    CHECK_EQ(rf_knocks(engine, found, RF_KNOCKS), 2);
    CHECK(found[0].ssrc == 200 && found[0].handle == 0 && found[0].reason == DROP_unknown_ssrc);
    const struct rf_knock *k = knock_of(&port, 100);

    CHECK(k && k->packets == 3 && k->payload_type == 97 && k->reason == DROP_wrong_source);
    CHECK_EQ(k->handle, session);
    CHECK_EQ(k->first_ns, first + SECOND);
    CHECK_EQ(k->last_ns, first + 3 * SECOND);
    CHECK_EQ(rf_knocks(engine, found, 1), 1);
    CHECK_EQ(found[0].ssrc, 200);
    gate_close();
}

/* Whom a session admits by now, in whatever way, is no stranger any more. */
static void test_who_was_let_in_since(void)
{
    struct rf_addr a = address("10.0.0.1", 5), b = address("10.0.0.1", 6);
    struct rf_source ways[] = {
        {.exact = a},
        {.exact = a, .ssrc_policy = RF_SSRC_FOLLOW},
        {.exact = address("10.0.0.1", 0)},
        {.exact = address("10.0.0.1", 0), .ssrc_policy = RF_SSRC_ANY},
        {.policy = RF_NETWORK, .network = {.addr = address("10.0.0.0", 0), .prefix = 120}},
        {.policy = RF_NETWORK, .network = {.anybody = true}, .ssrc_policy = RF_SSRC_FOLLOW},
    };

    for (unsigned i = 0; i < COUNT(ways); i++) {
        gate_open_for(10);
        pass_rtp(100, &a, 96, 1);
        pass_rtp(200, &b, 96, 1);
        CHECK_EQ(rf_knocks(engine, found, RF_KNOCKS), 2);
        uint64_t session = must_add(&ways[i], 100);

        CHECK(knock_of(&a, 100) == NULL);
        CHECK((knock_of(&b, 200) == NULL) == (i == 3 || i == 5));
        CHECK_EQ(rf_session_remove(engine, session), 0);
        CHECK(knock_of(&a, 100) != NULL); /* he is one again */
        gate_close();
    }
}

static void test_who_waits_for_a_latch_knocks(void)
{
    struct rf_addr a = address("10.0.0.1", 5);
    struct rf_source latch = {.policy = RF_LATCH, .network = {.anybody = true}}, pinned = {.exact = a};

    gate_open_for(10);
    uint64_t session = must_add(&latch, 100);

    CHECK_EQ(pass_rtp(100, &a, 96, 1)->reason, DROP_latching);
    CHECK(knock_of(&a, 100) != NULL);
    CHECK_EQ(rf_session_move(engine, session, &pinned, now), 0);
    CHECK(knock_of(&a, 100) == NULL);
    gate_close();
}

static void test_the_last_wrong_source(void)
{
    struct rf_source s = {.exact = address("10.0.0.1", 5)};
    struct rf_addr port = address("10.0.0.1", 6), last;

    gate_open_for(10);
    uint64_t session = must_add(&s, 100);

    CHECK_EQ(rf_session_wrong_source(engine, session, &last), 0);
    CHECK(!ip_is_known(last.ip));
    pass_rtp(100, &port, 97, 1);
    CHECK_EQ(rf_session_wrong_source(engine, session, &last), 0);
    CHECK(addr_equal(&last, &port));
    CHECK_EQ(rf_session_wrong_source(engine, session + 1, &last), -ENOENT);
    gate_close();
}

/* A camera that goes on keeps its place while a million others come once each. */
static void test_a_flood_takes_places_from_its_own(void)
{
    uint64_t state = 1;
    struct rf_addr camera = address("10.0.0.1", 5), forged = address("11.0.0.1", 5);

    gate_open_for(10);
    CHECK(!pass_rtp(7, &camera, 96, 1)->session);
    for (uint32_t i = 0; i < 1000000; i++) {
        memcpy(forged.ip + 12, &(uint32_t){random_below(&state, UINT32_MAX)}, 4);
        CHECK(!pass_rtp(i, &forged, 96, 1)->session);
        if (i % 1000 == 0)
            CHECK(!pass_rtp(7, &camera, 96, 1)->session);
        now += SECOND / 100000;
    }
    const struct rf_knock *k = knock_of(&camera, 7);

    CHECK(k != NULL);
    CHECK_EQ(k->packets, 1001);
    CHECK_EQ(rf_knocks(engine, found, RF_KNOCKS), RF_KNOCKS);
    gate_close();
}

static void test_newcomers_come_at_a_bounded_rate(void)
{
    struct rf_addr a = address("10.0.0.1", 1);

    gate_open_for(10);
    for (uint32_t i = 0; i < 5000; i++)
        pass_rtp(i, &a, 96, 1);
    CHECK(rf_knocks(engine, found, RF_KNOCKS) <= 101);
    gate_close();
}

/* But not for ever: who has gone makes room for who comes. */
static void test_places_of_those_who_have_gone(void)
{
    struct rf_addr a = address("10.0.0.1", 1);

    gate_open_for(10);
    for (unsigned round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 2000; i++) {
            for (unsigned times = 0; times < 5; times++)
                pass_rtp(10000 * round + i, &a, 96, 1);
            now += SECOND / 50;
        }
        unsigned of_this_round = 0;
        int n = rf_knocks(engine, found, RF_KNOCKS);

        for (int i = 0; i < n; i++)
            of_this_round += found[i].ssrc / 10000 == round;
        CHECK(of_this_round > 100);
        now += 70 * SECOND;
    }
    gate_close();
}

static const struct arrival *pass_padded(const struct rf_addr *source, uint32_t ssrc)
{
    static uint8_t data[60];

    rtp_make(data, sizeof data, ssrc, 1);
    data[0] |= RTP_PADDING;
    data[sizeof data - 1] = 250; /* more than there is */
    return pass(data, sizeof data, source);
}

static void test_padding_is_asked_as_the_session_says(void)
{
    struct rf_source s = {.exact = address("10.0.0.1", 5)};
    struct rf_addr stranger = address("10.0.0.2", 5);

    gate_open_for(10);
    uint64_t session = must_add(&s, 100);

    CHECK_EQ(pass_padded(&s.exact, 100)->reason, DROP_malformed);
    CHECK_EQ(pass_padded(&stranger, 100)->reason, DROP_malformed);
    CHECK(knock_of(&stranger, 100) == NULL);
    CHECK_EQ(rf_session_read(engine, session, RF_READ_NO_PADDING | RF_READ_SRTP), 0);
    CHECK_EQ(handle_of(pass_padded(&s.exact, 100)), session);
    CHECK_EQ(pass_padded(&stranger, 100)->reason, DROP_malformed);
    gate->check_padding = false;
    CHECK_EQ(pass_padded(&stranger, 100)->reason, DROP_wrong_source);
    CHECK_EQ(rf_session_read(engine, session, RF_READ_PADDING), 0);
    CHECK_EQ(pass_padded(&s.exact, 100)->reason, DROP_malformed);
    CHECK_EQ(rf_session_read(engine, session, 0), 0);
    CHECK_EQ(handle_of(pass_padded(&s.exact, 100)), session);
    CHECK_EQ(rf_session_read(engine, session + 1, 0), -ENOENT);
    gate_close();
}

/* Payload types 64 to 95 with marker. */
static void test_what_looks_like_rtcp_is_rtp_where_the_session_says_so(void)
{
    struct rf_source s = {.exact = address("10.0.0.1", 5)};
    struct rf_addr stranger = address("10.0.0.2", 5);
    uint8_t report[8] = {0x80, 201, 0, 1};

    gate_open_for(10);
    uint64_t session = must_add(&s, 100), other = must_add(&s, 101);

    CHECK_EQ(pass_rtp(100, &s.exact, 200, 1)->reason, DROP_rtcp);
    CHECK_EQ(rf_session_read(engine, session, RF_READ_NO_RTCP), 0);
    for (unsigned type = 192; type <= 223; type++)
        CHECK_EQ(handle_of(pass_rtp(100, &s.exact, (uint8_t)type, 1)), session);
    CHECK_EQ(pass_rtp(101, &s.exact, 200, 1)->reason, DROP_rtcp);
    CHECK_EQ(pass_rtp(100, &stranger, 200, 1)->reason, DROP_rtcp);
    CHECK_EQ(pass(report, sizeof report, &s.exact)->reason, DROP_rtcp);
    CHECK_EQ(rf_session_remove(engine, session), 0);
    CHECK_EQ(load_rlx(&engine->table.without_rtcp), 0);
    CHECK_EQ(pass_rtp(100, &s.exact, 200, 1)->reason, DROP_rtcp);
    CHECK_EQ(handle_of(pass_rtp(101, &s.exact, 96, 1)), other);
    gate_close();
}

int main(void)
{
    RUN(test_who_knocks_is_told);
    RUN(test_who_was_let_in_since);
    RUN(test_who_waits_for_a_latch_knocks);
    RUN(test_the_last_wrong_source);
    RUN(test_a_flood_takes_places_from_its_own);
    RUN(test_newcomers_come_at_a_bounded_rate);
    RUN(test_places_of_those_who_have_gone);
    RUN(test_padding_is_asked_as_the_session_says);
    RUN(test_what_looks_like_rtcp_is_rtp_where_the_session_says_so);
    return 0;
}
