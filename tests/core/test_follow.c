/* follow.c, hold.c, ssrcs.c, gate_admit.c: one SSRC at a time, in a time of the test's own. */
#include "at_gate.h"

enum { VIDEO = 96, AUDIO = 97, OLD = 100, NEW = 200 };
#define MS UINT64_C(1000000)

static struct rf_addr camera;
static uint64_t session;
static uint16_t sequence;

static void open_with(struct rf_source s, uint32_t ssrc)
{
    camera = address("10.0.0.1", 5000);
    gate_open_for(10);
    s.ssrc_policy = s.ssrc_policy ? s.ssrc_policy : RF_SSRC_FOLLOW;
    session = must_add(&s, ssrc);
    sequence = 1;
}

static void open_exact(uint32_t ssrc)
{
    open_with((struct rf_source){.exact = address("10.0.0.1", 5000)}, ssrc);
}

static const struct arrival *from(const struct rf_addr *a, uint32_t ssrc, uint8_t type)
{
    return pass_rtp(ssrc, a, type, sequence++);
}

static bool gets_in(uint32_t ssrc)
{
    return handle_of(from(&camera, ssrc, VIDEO)) == session;
}

static uint32_t followed(void)
{
    struct rf_source_ssrc seen[RF_SOURCE_SSRCS];
    int n = rf_session_ssrcs(engine, session, seen);

    CHECK(n == 0 || n == 1);
    return n ? seen[0].ssrc : 0;
}

static unsigned ssrc_notices(void)
{
    struct rf_notice n[8];
    unsigned count = 0;
    size_t got = rf_notices(engine, RF_QUEUE_KNOWN, n, COUNT(n));

    for (size_t i = 0; i < got; i++)
        count += n[i].kind == RF_NOTICE_SSRC && n[i].handle == session;
    return count;
}

static uint64_t dropped(void)
{
    struct rf_session_stats s;

    CHECK_EQ(rf_session_stats(engine, session, now, &s), 0);
    return s.dropped_probation;
}

/* How many go before the packet that passed last, and in order; they leave. */
static unsigned take_held(uint16_t first)
{
    uint8_t number = gate->arrival[0].first;
    struct held *h = number ? hold_take(&gate->holding, hold_at(&gate->holding, number)) : NULL;
    unsigned n = 0;

    for (; h; h = h->next, n++) {
        CHECK_EQ(h->bytes[2] << 8 | h->bytes[3], first + n);
        CHECK_EQ(h->datagram.len, 200);
        CHECK(h->datagram.data == h->bytes);
    }
    holding_left(&gate->holding);
    CHECK_EQ(gate->holding.free_blocks, HOLD_BLOCKS);
    return n;
}

static void test_the_first_is_taken_at_once(void)
{
    open_exact(0);
    CHECK_EQ(followed(), 0);
    CHECK(gets_in(OLD));
    CHECK_EQ(followed(), OLD);
    CHECK_EQ(ssrc_notices(), 1);
    CHECK(!gets_in(NEW));
    CHECK(gets_in(OLD));
    CHECK_EQ(ssrc_notices(), 0);
    gate_close();
}

static void test_the_one_it_was_told_is_taken_at_once(void)
{
    open_exact(OLD);
    CHECK(gets_in(NEW)); /* what comes first, until it comes */
    CHECK(gets_in(OLD));
    CHECK(!gets_in(NEW));
    CHECK_EQ(followed(), OLD);
    gate_close();
}

static void test_a_restart_is_followed_with_all_that_it_sent(void)
{
    open_exact(0);
    CHECK(gets_in(OLD));
    ssrc_notices();
    now += 250 * MS;
    uint16_t first = sequence;

    for (unsigned i = 0; i < 4; i++) {
        const struct arrival *a = from(&camera, NEW, VIDEO);

        CHECK(!a->session && a->held && !a->passes);
    }
    CHECK_EQ(followed(), OLD);
    const struct arrival *fifth = from(&camera, NEW, VIDEO);

    CHECK(fifth->session && fifth->passes);
    CHECK_EQ(take_held(first), 4);
    CHECK_EQ(followed(), NEW);
    CHECK_EQ(ssrc_notices(), 1);
    CHECK(gets_in(NEW));
    CHECK(!gets_in(OLD));
    CHECK_EQ(dropped(), 0);
    gate_close();
}

/* In one block with the packet by which it passes: another SSRC neither joins what waits nor ends it. */
static void test_who_comes_behind_a_restart_does_not_pass_with_it(void)
{
    static uint8_t data[2][200];
    struct datagram d[2];

    open_exact(0);
    CHECK(gets_in(OLD));
    now += 300 * MS;
    uint16_t first = sequence;

    for (unsigned i = 0; i < 4; i++)
        CHECK(from(&camera, NEW, VIDEO)->held);
    gate->now = now;
    gate->count = 0;
    for (unsigned i = 0; i < 2; i++) {
        rtp_make(data[i], sizeof data[i], NEW + i, sequence++);
        data[i][1] = VIDEO;
        d[i] = (struct datagram){.data = data[i], .len = 200, .segment = 200, .source = camera,
                                 .received_ns = now};
        gate_add(gate, data[i], 200, &d[i]);
    }
    gate_pass(gate);
    gate->count = 0;
    CHECK(gate->arrival[0].session && gate->arrival[0].passes);
    CHECK(!gate->arrival[1].session && gate->arrival[1].held && !gate->arrival[1].first);
    struct held *h = hold_take(&gate->holding, hold_at(&gate->holding, gate->arrival[0].first));

    for (unsigned i = 0; i < 4; i++, h = h->next)
        CHECK_EQ(h->bytes[2] << 8 | h->bytes[3], first + i);
    CHECK(h == NULL);
    gate_sweep(gate, now, true);
    CHECK_EQ(dropped(), 1);
    gate_close();
}

/* A gap of less than 200 ms: what comes in the meantime waits. */
static void test_a_quick_restart_waits_for_the_silence(void)
{
    open_exact(0);
    CHECK(gets_in(OLD));
    uint16_t first = sequence;
    uint64_t old_ended = now;
    unsigned waited = 0;

    now += 10 * MS;
    while (!gets_in(NEW)) {
        waited++;
        now += 5 * MS;
    }
    CHECK_EQ(now - old_ended, 200 * MS);
    CHECK_EQ(take_held(first), waited);
    gate_close();
}

static void test_the_old_one_keeps_its_place_as_long_as_it_comes(void)
{
    open_exact(0);
    for (unsigned i = 0; i < 1000; i++) {
        CHECK(gets_in(OLD));
        sequence--; /* numbers of their own */
        CHECK(!gets_in(NEW));
        now += 20 * MS;
    }
    CHECK_EQ(followed(), OLD);
    /* What came beside it for long is no restart, and is not kept. */
    CHECK(gate->holding.used <= 1);
    gate_sweep(gate, now + HOLD_NS, false);
    CHECK_EQ(gate->holding.used, 0);
    CHECK_EQ(dropped(), 1000);
    /* Nor is it followed when the old one ends: it was another camera all the time. */
    now += 10000 * MS;
    CHECK(!gets_in(NEW));
    gate_close();
}

static void test_silence_is_not_what_waited_in_the_queue(void)
{
    static uint8_t data[8][40];
    struct datagram d = {.len = sizeof data[0], .segment = sizeof data[0]};

    open_exact(0);
    CHECK(gets_in(OLD));
    uint64_t received = now;

    now += 500 * MS; /* a worker that stood still */
    d.source = camera;
    for (unsigned i = 0; i < 8; i++) {
        rtp_make(data[i], sizeof data[i], NEW, (uint16_t)i);
        d.received_ns = received + 10 * MS;
        gate->now = now;
        gate_add(gate, data[i], sizeof data[i], &d);
    }
    gate_pass(gate);
    for (unsigned i = 0; i < 8; i++)
        CHECK(!gate->arrival[i].session);
    gate->count = 0;
    CHECK(gets_in(OLD));
    gate_close();
}

/* Without stamps of the kernel it is our own clock that tells. */
static void test_silence_without_stamps(void)
{
    struct session *s;

    open_exact(0);
    CHECK(gets_in(OLD));
    s = session_by_handle(&engine->sessions, session);
    s->ssrcs->alive_received_ns = 0;
    for (unsigned i = 0; i < 8; i++)
        CHECK(!gets_in(NEW));
    now += 200 * MS;
    CHECK(gets_in(NEW));
    gate_close();
}

/* What waited of another that did not pass is not forwarded. */
static void test_only_its_own_waited_packets_leave_with_one(void)
{
    open_exact(0);
    CHECK(gets_in(OLD));
    now += 300 * MS;
    CHECK(from(&camera, NEW + 1, VIDEO)->held);
    CHECK(from(&camera, NEW + 1, VIDEO)->held);
    now += 150 * MS;
    uint16_t first = sequence;

    for (unsigned i = 0; i < 4; i++)
        CHECK(from(&camera, NEW, VIDEO)->held);
    CHECK(from(&camera, NEW, VIDEO)->passes);
    CHECK_EQ(take_held(first), 4);
    CHECK_EQ(dropped(), 2);
    gate_close();
}

static void test_five_in_sequence_of_a_type_that_came_before(void)
{
    open_exact(0);
    CHECK(gets_in(OLD));
    now += 1000 * MS;
    for (unsigned i = 0; i < 20; i++) { /* never in sequence */
        sequence++;
        CHECK(!gets_in(NEW));
    }
    for (unsigned i = 0; i < 20; i++)
        CHECK(!from(&camera, NEW + 1, AUDIO)->session);
    CHECK_EQ(followed(), OLD);
    gate_close();
}

/* A new SSRC with each packet: the one that is followed stays, and memory is bounded. */
static void test_a_flood_of_ssrcs_from_the_right_address(void)
{
    open_exact(0);
    for (uint32_t i = 0; i < 200000; i++) {
        if (i % 100 == 0)
            CHECK(gets_in(OLD));
        CHECK(!gets_in(1000 + i));
        now += MS / 100;
    }
    CHECK_EQ(followed(), OLD);
    CHECK_EQ(ssrc_notices(), 1);
    CHECK(gate->holding.used <= 1);
    /* And one that restarts among them comes through: two in a row, then none displaces it. */
    unsigned tries = 0;

    now += 300 * MS;
    for (bool in = false; !in; tries++) {
        in = gets_in(NEW);
        if (!in && tries > 1) {
            CHECK(!gets_in(500000 + tries));
            sequence--;
        }
        CHECK(tries < 10);
    }
    CHECK_EQ(followed(), NEW);
    gate_close();
}

static void test_strangers_never_get_in(void)
{
    struct rf_addr port = address("10.0.0.1", 5001), other = address("10.0.0.2", 5000);

    open_exact(0);
    CHECK(gets_in(OLD));
    now += 10000 * MS;
    for (unsigned i = 0; i < 100; i++) {
        CHECK(!from(&other, OLD, VIDEO)->session);
        CHECK(!from(&other, NEW, VIDEO)->session);
        CHECK(!from(&port, NEW, VIDEO)->session);
    }
    CHECK_EQ(gate->holding.used, 0);
    gate_close();
}

/* Pinned to an IP address: another port and another SSRC of it are the same camera. */
static void test_another_port_of_the_pinned_address(void)
{
    struct rf_addr port = address("10.0.0.1", 40000), other = address("10.0.0.2", 5000);

    open_with((struct rf_source){.exact = address("10.0.0.1", 0)}, 0);
    CHECK(gets_in(OLD));
    now += 400 * MS;
    uint16_t first = sequence;

    for (unsigned i = 0; i < 4; i++) {
        CHECK(from(&port, NEW, VIDEO)->held);
        CHECK(!from(&other, NEW, VIDEO)->session);
        sequence--;
    }
    CHECK(from(&port, NEW, VIDEO)->passes);
    CHECK_EQ(take_held(first), 4);
    CHECK(!from(&other, NEW, VIDEO)->session);
    CHECK_EQ(handle_of(from(&port, NEW, VIDEO)), session);
    gate_close();
}

static void test_another_session_has_its_ssrc(void)
{
    struct rf_source exact = {.exact = address("10.0.0.1", 5000)};

    open_exact(0);
    CHECK(gets_in(OLD));
    uint64_t other = must_add(&exact, NEW);

    now += 1000 * MS;
    for (unsigned i = 0; i < 10; i++)
        CHECK_EQ(handle_of(from(&camera, NEW, VIDEO)), other);
    CHECK_EQ(followed(), OLD);
    gate_close();
}

static void test_paused_and_removed_with_packets_held(void)
{
    open_exact(0);
    CHECK(gets_in(OLD));
    now += 300 * MS;
    for (unsigned i = 0; i < 4; i++)
        CHECK(from(&camera, NEW, VIDEO)->held);
    CHECK_EQ(rf_session_pause(engine, session, true), 0);
    CHECK_EQ(from(&camera, NEW, VIDEO)->reason, DROP_paused);
    CHECK_EQ(rf_session_pause(engine, session, false), 0);
    gate_sweep(gate, now + HOLD_NS, false);
    CHECK_EQ(dropped(), 4);
    sequence += 10;
    for (unsigned i = 0; i < 4; i++)
        CHECK(from(&camera, NEW, VIDEO)->held);
    CHECK_EQ(rf_session_remove(engine, session), 0);
    session = must_add(&(struct rf_source){.exact = camera, .ssrc_policy = RF_SSRC_FOLLOW}, 0);
    CHECK(gets_in(NEW)); /* its first */
    CHECK(hold_part(&gate->holding, session_by_handle(&engine->sessions, session)) == NULL);
    gate_sweep(gate, now + HOLD_NS, false);
    CHECK_EQ(dropped(), 0); /* of the one before */
    CHECK_EQ(load_rlx(&gate->counters->dropped_probation), 8);
    CHECK_EQ(gate->holding.free_blocks, HOLD_BLOCKS);
    gate_close();
}

/* Who moves begins anew: another camera has other payload types. */
static void test_moved_to_another_source(void)
{
    struct rf_source to = {.exact = address("10.0.0.9", 7), .ssrc_policy = RF_SSRC_FOLLOW};

    open_exact(0);
    CHECK(gets_in(OLD));
    CHECK_EQ(rf_session_move(engine, session, &to, now), 0);
    CHECK(!gets_in(OLD));
    CHECK_EQ(handle_of(from(&to.exact, NEW, AUDIO)), session);
    gate_close();
}

static void test_several_at_once(void)
{
    struct rf_source_ssrc seen[RF_SOURCE_SSRCS];

    open_with((struct rf_source){.exact = address("10.0.0.1", 5000), .ssrc_policy = RF_SSRC_ANY}, 0);
    CHECK(gets_in(OLD));
    CHECK_EQ(ssrc_notices(), 1);
    now += 500 * MS;
    CHECK_EQ(handle_of(from(&camera, NEW, AUDIO)), session);
    CHECK(gets_in(OLD));
    CHECK_EQ(rf_session_ssrcs(engine, session, seen), 2);
    CHECK(seen[0].ssrc == NEW && seen[0].payload_type == AUDIO && seen[0].since_ns + 500 * MS > now);
    CHECK(seen[1].ssrc == OLD && seen[1].last_ns == now);
    CHECK_EQ(ssrc_notices(), 1);
    /* A flood of them: all get in, those that last stay in the list, and it is told now and then. */
    unsigned notices = 0;

    for (uint32_t i = 0; i < 10000; i++) {
        CHECK(gets_in(OLD));
        CHECK(gets_in(1000 + i));
        now += MS;
        notices += ssrc_notices();
    }
    CHECK(notices > 50 && notices <= 101);
    CHECK_EQ(rf_session_ssrcs(engine, session, seen), RF_SOURCE_SSRCS);
    bool old_is_there = false;

    for (unsigned i = 0; i < RF_SOURCE_SSRCS; i++)
        old_is_there |= seen[i].ssrc == OLD;
    CHECK(old_is_there);
    now += 11000 * MS;
    CHECK(gets_in(OLD));
    CHECK_EQ(rf_session_ssrcs(engine, session, seen), 1);
    gate_close();
}

/* Nobody's held packets take all the room, and what is no longer needed is free again. */
static void test_room_for_all_who_restart(void)
{
    static struct holding h;
    static uint8_t data[1200];
    enum { N = 40 };
    struct session *s[N];
    struct session_pool pool;
    struct datagram d = {.source = address("10.0.0.1", 1)};
    unsigned held[N] = {0};

    CHECK_EQ(session_pool_init(&pool, N), 0);
    CHECK_EQ(holding_init(&h), 0);
    for (unsigned i = 0; i < N; i++) {
        CHECK_EQ(session_new(&pool, &d.source, i, 0, &s[i]), 0);
        s[i]->ssrcs = calloc(1, sizeof *s[i]->ssrcs);
        for (unsigned n = 0; n < 1000; n++)
            held[i] += hold_add(&h, s[i], &d, data, sizeof data, 1);
        CHECK(held[i] <= HOLD_PACKETS_EACH);
    }
    CHECK(held[0] > 150 && held[16] > 0);
    struct hold *one = hold_part(&h, s[0]);

    CHECK_EQ(one->packets, held[0]);
    hold_give_up(&h, one);
    CHECK(hold_part(&h, s[0]) == NULL);
    CHECK(hold_overdue(&h, HOLD_NS, false) == NULL);
    for (struct hold *overdue; (overdue = hold_overdue(&h, 1 + HOLD_NS, false));)
        hold_give_up(&h, overdue);
    CHECK_EQ(h.used, 0);
    CHECK_EQ(h.free_blocks, HOLD_BLOCKS);
    holding_destroy(&h);
    session_pool_destroy(&pool);
}

int main(void)
{
    RUN(test_the_first_is_taken_at_once);
    RUN(test_the_one_it_was_told_is_taken_at_once);
    RUN(test_a_restart_is_followed_with_all_that_it_sent);
    RUN(test_who_comes_behind_a_restart_does_not_pass_with_it);
    RUN(test_a_quick_restart_waits_for_the_silence);
    RUN(test_the_old_one_keeps_its_place_as_long_as_it_comes);
    RUN(test_silence_is_not_what_waited_in_the_queue);
    RUN(test_silence_without_stamps);
    RUN(test_only_its_own_waited_packets_leave_with_one);
    RUN(test_five_in_sequence_of_a_type_that_came_before);
    RUN(test_a_flood_of_ssrcs_from_the_right_address);
    RUN(test_strangers_never_get_in);
    RUN(test_another_port_of_the_pinned_address);
    RUN(test_another_session_has_its_ssrc);
    RUN(test_paused_and_removed_with_packets_held);
    RUN(test_moved_to_another_source);
    RUN(test_several_at_once);
    RUN(test_room_for_all_who_restart);
    return 0;
}
