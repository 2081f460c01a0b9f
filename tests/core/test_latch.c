/* gate_wait.c, hold.c, sources.c: what comes for a latch before it is pinned, in a time of the test's own. */
#include "at_gate.h"

enum { VIDEO = 96, AUDIO = 97, SSRC = 7, MOST = 1000 };
#define MS UINT64_C(1000000)

/* What left, in order: by source and number. */
static struct leave {
    uint16_t port, sequence;
} left[MOST];
static unsigned left_count;

static struct rf_addr camera, stranger;
static uint64_t session;
static uint16_t sequence;

static void open_latch(enum rf_ssrc_policy policy)
{
    struct rf_source s = {.policy = RF_LATCH, .network.anybody = true, .ssrc_policy = policy};

    camera = address("10.0.0.1", 5000);
    stranger = address("10.0.0.9", 9000);
    gate_open_for(100);
    session = must_add(&s, policy == RF_SSRC_EXACT ? SSRC : 0);
    sequence = 1;
    left_count = 0;
}

static void leave(const uint8_t *data, const struct datagram *d)
{
    CHECK(left_count < MOST);
    left[left_count++] = (struct leave){d->source.port, (uint16_t)(data[2] << 8 | data[3])};
}

/* As a worker does with what the gate has let in; how many left. */
static unsigned fan_out(const struct arrival *a)
{
    unsigned before = left_count;

    if (a->first) {
        struct held *h = hold_take(&gate->holding, hold_at(&gate->holding, a->first));

        for (; h; h = h->next)
            leave(h->datagram.data, &h->datagram);
        gate->arrival[0].first = 0;
    }
    if (a->session)
        leave(a->data, a->datagram);
    holding_left(&gate->holding);
    return left_count - before;
}

static unsigned play(const struct rf_addr *from, uint32_t ssrc, uint8_t type)
{
    return fan_out(pass_rtp(ssrc, from, type, sequence++));
}

static unsigned knock_with(const struct rf_addr *from, unsigned packets)
{
    unsigned out = 0;

    for (unsigned i = 0; i < packets; i++)
        out += play(from, SSRC, VIDEO);
    return out;
}

static int pin_to(uint64_t handle, const struct rf_addr *a, enum rf_ssrc_policy policy, bool pins)
{
    struct rf_source s = {.exact = *a, .ssrc_policy = policy, .pins = pins,
                          .relatch_after_ns = 100 * MS, .network.anybody = true};

    return rf_session_move(engine, handle, &s, now);
}

static void pin(const struct rf_addr *a, enum rf_ssrc_policy policy)
{
    CHECK_EQ(pin_to(session, a, policy, true), 0);
}

static void check_left(const struct rf_addr *from, uint16_t first, unsigned count)
{
    CHECK_EQ(left_count, count);
    for (unsigned i = 0; i < count; i++)
        CHECK(left[i].port == from->port && left[i].sequence == first + i);
    left_count = 0;
}

static struct rf_session_stats stats_of(uint64_t handle)
{
    struct rf_session_stats s;

    CHECK_EQ(rf_session_stats(engine, handle, now, &s), 0);
    return s;
}

static uint64_t dropped(void)
{
    return stats_of(session).dropped_latching;
}

/* Everything that was held is counted by the end of its second, and no memory is lost. */
static void close_latch(uint64_t dropped_in_all)
{
    now += 2 * HOLD_NS;
    gate_sweep(gate, now, false);
    CHECK_EQ(load_rlx(&gate->counters->dropped_latching), dropped_in_all);
    CHECK_EQ(gate->holding.used, 0);
    CHECK_EQ(gate->holding.latching, 0);
    CHECK_EQ(gate->holding.free_blocks, HOLD_BLOCKS);
    gate_close();
}

static bool noticed(const struct rf_addr *a)
{
    struct rf_notice n;

    return rf_notices(engine, RF_QUEUE_KNOWN, &n, 1) == 1 && n.kind == RF_NOTICE_SOURCE &&
           addr_equal(&n.source, a);
}

static void test_the_first_packets_leave_first(void)
{
    static const enum rf_ssrc_policy policy[] = {RF_SSRC_EXACT, RF_SSRC_FOLLOW, RF_SSRC_ANY};

    for (unsigned i = 0; i < COUNT(policy); i++) {
        open_latch(policy[i]);
        CHECK_EQ(knock_with(&camera, 30), 0);
        CHECK(noticed(&camera));
        CHECK_EQ(dropped(), 0);
        pin(&camera, policy[i]);
        CHECK_EQ(knock_with(&camera, 2), 32);
        check_left(&camera, 1, 32);
        CHECK_EQ(rf_knocks(engine, (struct rf_knock[RF_KNOCKS]){0}, RF_KNOCKS), 0);
        close_latch(0);
    }
}

/* A port of the pinned address each: with each one's next packet goes what came from there. */
static void test_several_ports_of_a_pinned_address(void)
{
    struct rf_addr audio = address("10.0.0.1", 5002), any = address("10.0.0.1", 0);

    open_latch(RF_SSRC_ANY);
    for (unsigned i = 0; i < 3; i++) {
        play(&camera, SSRC, VIDEO);
        play(&audio, SSRC + 1, AUDIO);
        play(&stranger, SSRC + 2, VIDEO);
    }
    pin(&any, RF_SSRC_ANY);
    CHECK_EQ(play(&camera, SSRC, VIDEO), 4);
    CHECK_EQ(play(&camera, SSRC, VIDEO), 1);
    CHECK_EQ(play(&audio, SSRC + 1, AUDIO), 4);
    CHECK_EQ(play(&stranger, SSRC + 2, VIDEO), 0);
    for (unsigned i = 0; i < left_count; i++)
        CHECK(left[i].port != stranger.port);
    close_latch(3);
}

/* Of several SSRCs the first one is followed, as if they came now; a second waits for a silence. */
static void test_two_ssrcs_while_it_waits(void)
{
    open_latch(RF_SSRC_FOLLOW);
    for (unsigned i = 0; i < 3; i++) {
        play(&camera, SSRC, VIDEO);
        play(&camera, SSRC + 1, VIDEO);
    }
    pin(&camera, RF_SSRC_FOLLOW);
    CHECK_EQ(play(&camera, SSRC + 1, VIDEO), 3); /* the packet that they go before is none of them */
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(left[i].sequence, 1 + 2 * i);
    CHECK_EQ(play(&camera, SSRC, VIDEO), 1);
    now += 2 * HOLD_NS;
    gate_sweep(gate, now, false);
    CHECK_EQ(stats_of(session).dropped_probation, 4);
    close_latch(0);
}

/* A port whose packets are five in sequence, of a restart: they were held twice, and leave once. */
static void test_what_was_held_restarts(void)
{
    struct rf_addr port = address("10.0.0.1", 5002), any = address("10.0.0.1", 0);

    open_latch(RF_SSRC_FOLLOW);
    knock_with(&camera, 1);
    uint16_t first = sequence;

    for (unsigned i = 0; i < 6; i++)
        play(&port, SSRC + 1, VIDEO);
    pin(&any, RF_SSRC_FOLLOW);
    CHECK_EQ(play(&camera, SSRC, VIDEO), 2);
    left_count = 0;
    now += 300 * MS;
    sequence = (uint16_t)(first + 6);
    CHECK_EQ(play(&port, SSRC + 1, VIDEO), 7);
    check_left(&port, first, 7);
    close_latch(0);
}

static void test_what_others_sent_never_leaves(void)
{
    open_latch(RF_SSRC_EXACT);
    knock_with(&stranger, 5);
    knock_with(&camera, 5);
    pin(&camera, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&stranger, 1), 0);
    CHECK_EQ(knock_with(&camera, 1), 6);
    /* Nor when the stranger is pinned before his second is over. */
    now += 200 * MS;
    CHECK_EQ(knock_with(&stranger, 3), 0);
    pin(&stranger, RF_SSRC_EXACT);
    left_count = 0;
    CHECK_EQ(knock_with(&stranger, 1), 4);
    check_left(&stranger, 13, 4);
    CHECK_EQ(dropped(), 5);
    close_latch(5);
}

/* Who was held when another was pinned is not let in by what is held of him then. */
static void test_pinned_by_a_signature(void)
{
    open_latch(RF_SSRC_EXACT);
    knock_with(&stranger, 5);
    knock_with(&camera, 5);
    pin(&camera, RF_SSRC_EXACT);
    pin(&stranger, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&stranger, 1), 1);
    close_latch(10);
}

static void test_longer_than_a_second(void)
{
    open_latch(RF_SSRC_EXACT);
    knock_with(&camera, 5);
    now += HOLD_NS - 1;
    knock_with(&camera, 1);
    now += 1;
    knock_with(&camera, 2); /* a second that begins anew */
    CHECK_EQ(dropped(), 6);
    pin(&camera, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&camera, 1), 3);
    check_left(&camera, 7, 3);
    /* With the packet that comes too late. */
    CHECK_EQ(rf_session_remove(engine, session), 0);
    session = must_add(&(struct rf_source){.policy = RF_LATCH, .network.anybody = true}, SSRC);
    knock_with(&camera, 5);
    pin(&camera, RF_SSRC_EXACT);
    now += HOLD_NS;
    CHECK_EQ(knock_with(&camera, 1), 1);
    CHECK_EQ(dropped(), 5);
    close_latch(11);
}

static void test_a_pause_ends_the_wait(void)
{
    open_latch(RF_SSRC_EXACT);
    knock_with(&camera, 2);
    CHECK_EQ(rf_session_pause(engine, session, true), 0);
    knock_with(&camera, 3);
    CHECK_EQ(dropped(), 3); /* at once */
    CHECK_EQ(rf_session_pause(engine, session, false), 0);
    knock_with(&camera, 4);
    pin(&camera, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&camera, 1), 5);
    check_left(&camera, 6, 5);
    close_latch(5);
}

static void test_paused_between_pin_and_packet(void)
{
    open_latch(RF_SSRC_FOLLOW);
    knock_with(&camera, 2);
    pin(&camera, RF_SSRC_FOLLOW);
    CHECK_EQ(rf_session_pause(engine, session, true), 0);
    CHECK_EQ(knock_with(&camera, 1), 0);
    CHECK_EQ(rf_session_pause(engine, session, false), 0);
    CHECK_EQ(knock_with(&camera, 1), 1);
    CHECK_EQ(stats_of(session).dropped_paused, 1);
    close_latch(2);
}

/* Of another SSRC of a source that feeds. */
static void test_a_pause_ends_probation(void)
{
    open_latch(RF_SSRC_FOLLOW);
    pin(&camera, RF_SSRC_FOLLOW);
    CHECK_EQ(knock_with(&camera, 1), 1);
    now += 300 * MS;
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(play(&camera, SSRC + 1, VIDEO), 0);
    CHECK_EQ(rf_session_pause(engine, session, true), 0);
    CHECK_EQ(rf_session_pause(engine, session, false), 0);
    CHECK_EQ(play(&camera, SSRC + 1, VIDEO), 1);
    now += 2 * HOLD_NS;
    gate_sweep(gate, now, false);
    CHECK_EQ(stats_of(session).dropped_probation, 4);
    close_latch(0);
}

/* A move is the operator's: what was sent before it is not his. */
static void test_moved_to_whom_is_held(void)
{
    struct rf_source latch = {.policy = RF_LATCH, .network.anybody = true};

    open_latch(RF_SSRC_EXACT);
    knock_with(&camera, 2);
    CHECK_EQ(pin_to(session, &camera, RF_SSRC_EXACT, false), 0);
    CHECK_EQ(knock_with(&camera, 1), 1);
    CHECK_EQ(rf_session_move(engine, session, &latch, now), 0);
    knock_with(&camera, 3);
    CHECK_EQ(rf_session_move(engine, session, &latch, now), 0);
    pin(&camera, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&camera, 1), 1);
    close_latch(5);
}

static void test_removed_and_made_anew(void)
{
    struct rf_source latch = {.policy = RF_LATCH, .network.anybody = true};

    open_latch(RF_SSRC_EXACT);
    knock_with(&camera, 2);
    CHECK_EQ(rf_session_remove(engine, session), 0);
    session = must_add(&latch, SSRC);
    CHECK_EQ((uint32_t)session, 0); /* in the very same place */
    knock_with(&camera, 3);
    pin(&camera, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&camera, 1), 4);
    check_left(&camera, 3, 4);
    now += 2 * HOLD_NS;
    gate_sweep(gate, now, false);
    CHECK_EQ(dropped(), 0); /* they were of the one before */
    close_latch(2);
}

/* As many packets of as many bytes as may come at once: those behind them are dropped, not it. */
static void test_a_limit_is_kept(void)
{
    open_latch(RF_SSRC_EXACT);
    CHECK_EQ(rf_session_limit(engine, session, 1), 0);
    unsigned room = 65536 / 200;

    knock_with(&camera, 200);
    pin(&camera, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&camera, 200), room);
    check_left(&camera, 1, room);
    CHECK_EQ(stats_of(session).dropped_rate_limit, 400 - room);
    close_latch(0);
}

static void test_more_than_there_is_room_for(void)
{
    open_latch(RF_SSRC_EXACT);
    knock_with(&camera, 400);
    CHECK_EQ(dropped(), 400 - HOLD_PACKETS_EACH);
    pin(&camera, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&camera, 1), HOLD_PACKETS_EACH + 1);
    CHECK(left[0].sequence == 1 && left[255].sequence == 256 && left[256].sequence == 401);
    close_latch(400 - HOLD_PACKETS_EACH);
}

static void pass_large(const struct rf_addr *from, uint32_t ssrc, unsigned packets)
{
    static uint8_t data[1400];

    for (unsigned i = 0; i < packets; i++) {
        rtp_make(data, sizeof data, ssrc, (uint16_t)i);
        pass(data, sizeof data, from);
    }
}

/* At one latch they take few places, and the one of whom the control plane is told has his. */
static void test_a_flood_of_strangers(void)
{
    struct rf_addr forged = address("11.0.0.1", 1);
    uint64_t sent = 0;

    open_latch(RF_SSRC_EXACT);
    uint64_t other = must_add(&(struct rf_source){.policy = RF_LATCH, .network.anybody = true}, SSRC + 1);

    for (uint16_t i = 1; i < 2000; i++) {
        forged.port = i;
        pass_large(&forged, SSRC, 3);
        sent += 3;
        CHECK(gate->holding.latching <= HOLD_SOURCES_EACH);
    }
    CHECK(gate->holding.free_blocks > HOLD_BLOCKS / 2);
    forged.port = 3; /* one of them, with all that he has */
    pass_large(&forged, SSRC, 2000);
    sent += 2000;
    CHECK(gate->holding.free_blocks > HOLD_BLOCKS / 2);
    /* Another latch has room, and so has the camera once it is told of. */
    pass_large(&camera, SSRC + 1, 100);
    CHECK_EQ(stats_of(other).dropped_latching, 0);
    struct rf_notice n[8];

    rf_notices(engine, RF_QUEUE_KNOWN, n, COUNT(n));
    knock_with(&camera, 3);
    CHECK(hold_of_latch(&gate->holding, session_by_handle(&engine->sessions, session), &camera));
    pin(&camera, RF_SSRC_EXACT);
    CHECK_EQ(knock_with(&camera, 1), 4);
    close_latch(sent + 100);
}

/* At as many latches as there are: who is admitted finds room, whose SSRC changes. */
static void test_a_flood_at_all_latches(void)
{
    struct rf_source s = {.policy = RF_LATCH, .network.anybody = true};

    open_latch(RF_SSRC_FOLLOW);
    pin(&camera, RF_SSRC_FOLLOW);
    CHECK_EQ(knock_with(&camera, 1), 1);
    for (uint32_t i = 0; i < 90; i++) {
        must_add(&s, 1000 + i);
        pass_large(&stranger, 1000 + i, 300);
        if (i < 10)
            CHECK(gate->holding.latching == i + 1);
    }
    CHECK_EQ(gate->holding.free_blocks, HOLD_BLOCKS_SPARED);
    now += 300 * MS;
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(play(&camera, SSRC + 1, VIDEO), 0);
    CHECK_EQ(play(&camera, SSRC + 1, VIDEO), 5);
    close_latch(90 * 300);
}

/* Who waits has knocked, until he is let in. */
static void test_who_waits_knocks(void)
{
    static struct rf_knock knocks[RF_KNOCKS];

    open_latch(RF_SSRC_FOLLOW);
    knock_with(&camera, 3);
    play(&stranger, SSRC + 1, AUDIO);
    CHECK_EQ(rf_knocks(engine, knocks, RF_KNOCKS), 2);
    pin(&camera, RF_SSRC_FOLLOW);
    CHECK_EQ(rf_knocks(engine, knocks, RF_KNOCKS), 1);
    CHECK(knocks[0].reason == DROP_latching && knocks[0].handle == session);
    CHECK(addr_equal(&knocks[0].source, &stranger) && knocks[0].payload_type == AUDIO);
    now += 2 * HOLD_NS;
    gate_sweep(gate, now, false);
    CHECK_EQ(rf_knocks(engine, knocks, RF_KNOCKS), 1);
    CHECK_EQ(knocks[0].packets, 1);
    close_latch(4);
}

/* As the session that may latch on to them reads them. */
static void test_padding_and_types_of_rtcp(void)
{
    static uint8_t data[60];

    open_latch(RF_SSRC_FOLLOW);
    rtp_make(data, sizeof data, SSRC, sequence++);
    data[0] |= RTP_PADDING;
    data[sizeof data - 1] = 250; /* more than there is */
    CHECK_EQ(pass(data, sizeof data, &camera)->reason, DROP_malformed);
    CHECK_EQ(rf_session_read(engine, session, RF_READ_NO_PADDING | RF_READ_NO_RTCP), 0);
    CHECK(pass(data, sizeof data, &camera)->held);
    play(&camera, SSRC, 128 + 72);
    pin(&camera, RF_SSRC_FOLLOW);
    CHECK_EQ(play(&camera, SSRC, 128 + 72), 3);
    check_left(&camera, 1, 3);
    close_latch(0);
}

/* The other worker has the session, as its first packet came there: what is held goes the same way. */
static void test_held_by_another_worker_than_the_owner(void)
{
    struct rf_source latch = {.policy = RF_LATCH, .network.anybody = true, .ssrc_policy = RF_SSRC_ANY};
    struct rf_config config = {.bind = address("127.0.0.1", 0), .max_sessions = 10,
                               .max_subscribers = 10, .receive_queue_packets = 64, .workers = 2};
    struct rf_addr port = address("10.0.0.1", 5002), any = address("10.0.0.1", 0);
    struct rf_addr third = address("10.0.0.1", 5004);
    struct inbox *inbox;
    struct parcel *p;

    open_latch(RF_SSRC_ANY);
    rf_engine_free(engine);
    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    for (unsigned i = 0; i < 2; i++) {
        struct worker *w = engine->worker[i];

        w->inboxes[0] = engine->worker[0]->inbox;
        w->inboxes[1] = engine->worker[1]->inbox;
        CHECK(inbox_open(w->inbox, w->inboxes, 2));
    }
    session = must_add(&latch, 0);
    gate = &engine->worker[1]->gate;
    inbox = engine->worker[0]->inbox;
    for (unsigned i = 0; i < 3; i++)
        play(&port, SSRC, VIDEO);
    gate = &engine->worker[0]->gate;
    for (unsigned i = 0; i < 2; i++)
        play(&camera, SSRC + 1, AUDIO);
    play(&third, SSRC + 2, VIDEO);
    pin(&any, RF_SSRC_ANY);
    CHECK_EQ(play(&camera, SSRC + 1, AUDIO), 3);
    gate = &engine->worker[1]->gate;
    CHECK_EQ(play(&port, SSRC, VIDEO), 0);
    CHECK_EQ(load_rlx(&gate->counters->handed_over), 4);
    CHECK_EQ(gate->holding.used, 0);
    gate = &engine->worker[0]->gate;
    for (uint16_t i = 0; i < 4; i++) {
        CHECK((p = inbox_take(inbox)) != NULL);
        CHECK(addr_equal(&p->datagram.source, &port) && p->datagram.len == 200);
        CHECK_EQ(p->datagram.data[2] << 8 | p->datagram.data[3], i < 3 ? 1 + i : 8);
        gate->count = 0;
        gate_add_parcel(gate, p);
        gate_pass(gate);
        gate->count = 0;
        CHECK_EQ(fan_out(&gate->arrival[0]), 1);
    }
    CHECK(!inbox_take(inbox));
    CHECK_EQ(play(&third, SSRC + 2, VIDEO), 2);
    close_latch(0);
}

int main(void)
{
    RUN(test_the_first_packets_leave_first);
    RUN(test_several_ports_of_a_pinned_address);
    RUN(test_two_ssrcs_while_it_waits);
    RUN(test_what_was_held_restarts);
    RUN(test_what_others_sent_never_leaves);
    RUN(test_pinned_by_a_signature);
    RUN(test_longer_than_a_second);
    RUN(test_a_pause_ends_the_wait);
    RUN(test_paused_between_pin_and_packet);
    RUN(test_a_pause_ends_probation);
    RUN(test_moved_to_whom_is_held);
    RUN(test_removed_and_made_anew);
    RUN(test_a_limit_is_kept);
    RUN(test_more_than_there_is_room_for);
    RUN(test_a_flood_of_strangers);
    RUN(test_a_flood_at_all_latches);
    RUN(test_who_waits_knocks);
    RUN(test_padding_and_types_of_rtcp);
    RUN(test_held_by_another_worker_than_the_owner);
    return 0;
}
