/* follow.c, ssrcs.c, gate_admit.c: a second camera behind the address of one that is followed. */
#include "at_gate.h"

enum { VIDEO = 96, AUDIO = 97, OLD = 100, NEW = 200, OTHER = 300 };
#define MS UINT64_C(1000000)

static struct rf_addr front, rear;
static uint64_t session;

/* Pinned to the address of both. */
static void open_pinned(void)
{
    struct rf_source s = {.exact = address("10.0.0.1", 0), .ssrc_policy = RF_SSRC_FOLLOW};

    front = address("10.0.0.1", 5000);
    rear = address("10.0.0.1", 5001);
    gates_open_for(10, 2);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < 2; k++)
            engine->worker[i]->inboxes[k] = engine->worker[k]->inbox;
        CHECK(inbox_open(engine->worker[i]->inbox, engine->worker[i]->inboxes, 2));
    }
    session = must_add(&s, 0);
}

static const struct arrival *from(const struct rf_addr *source, uint32_t ssrc)
{
    static uint16_t sequence[1000];

    return pass_rtp(ssrc, source, VIDEO, sequence[ssrc % 1000]++);
}

static bool gets_in(const struct rf_addr *source, uint32_t ssrc)
{
    return handle_of(from(source, ssrc)) == session;
}

static const struct rf_knock *knock_of(uint32_t ssrc)
{
    static struct rf_knock found[RF_KNOCKS];
    int n = rf_knocks(engine, found, RF_KNOCKS);

    for (int i = 0; i < n; i++) {
        if (found[i].ssrc == ssrc)
            return &found[i];
    }
    return NULL;
}

/* Both send for so long; only the first gets in. */
static void both_for(unsigned ms, uint32_t ssrc)
{
    for (unsigned i = 0; i <= ms; i += 20, now += 20 * MS) {
        CHECK(gets_in(&front, OLD));
        CHECK(!gets_in(&rear, ssrc));
    }
    now -= 20 * MS;
}

static unsigned waits_ms(const struct rf_addr *source, uint32_t ssrc, unsigned most)
{
    unsigned ms = 0;

    while (!gets_in(source, ssrc) && ms < most) {
        ms += 5;
        now += 5 * MS;
    }
    return ms;
}

static void test_a_second_camera_knocks(void)
{
    open_pinned();
    CHECK(gets_in(&front, OLD));
    both_for(900, OTHER);
    CHECK(knock_of(OTHER) == NULL); /* it may be a restart */
    both_for(2000, OTHER);
    const struct rf_knock *k = knock_of(OTHER);

    CHECK(k && k->reason == DROP_probation && k->handle == session);
    CHECK(addr_equal(&k->source, &rear) && k->payload_type == VIDEO && k->packets > 40);
    CHECK(knock_of(OLD) == NULL);
    gate_close();
}

/* However long the first one is silent. */
static void test_a_second_camera_is_not_followed_when_the_first_ends(void)
{
    open_pinned();
    CHECK(gets_in(&front, OLD));
    both_for(1500, OTHER);
    CHECK_EQ(waits_ms(&rear, OTHER, 200000), 200000);
    /* Nor when it has been away itself, */
    now += 3600000 * MS;
    CHECK_EQ(waits_ms(&rear, OTHER, 10000), 10000);
    /* and the first one comes back, with its old SSRC and with another, at once. */
    CHECK(gets_in(&front, OLD));
    now += 200 * MS;
    for (unsigned i = 0; i < 4; i++) {
        CHECK(from(&front, NEW)->held);
        CHECK(!gets_in(&rear, OTHER));
    }
    CHECK(from(&front, NEW)->passes);
    gate_close();
}

/* The last packets of the old one may come late: a short while together costs little. */
static void test_who_overlaps_a_little_waits_for_longer(void)
{
    static const unsigned together[] = {0, 20, 100, 400, 900};

    for (unsigned i = 0; i < COUNT(together); i++) {
        unsigned silence = 5 * together[i] > 200 ? 5 * together[i] : 200;

        open_pinned();
        CHECK(gets_in(&front, OLD));
        CHECK(!gets_in(&rear, NEW));
        if (together[i] > 0) {
            now += 20 * MS;
            both_for(together[i] - 20, NEW);
        }
        CHECK_EQ(waits_ms(&rear, NEW, 10000), silence);
        CHECK(knock_of(NEW) == NULL);
        gate_close();
    }
}

/* What has waited in a queue came earlier than it is seen. */
static void test_a_late_queue_is_no_overlap(void)
{
    static uint8_t data[200];
    struct datagram d = {.data = data, .len = sizeof data, .segment = sizeof data};

    open_pinned();
    CHECK(gets_in(&front, OLD));
    uint64_t received = now;

    now += 10 * MS;
    CHECK(!gets_in(&rear, NEW));
    for (unsigned i = 0; i < 100; i++) {
        now += 20 * MS;
        rtp_make(data, sizeof data, OLD, (uint16_t)(10000 + i));
        data[1] = VIDEO;
        d.source = front;
        d.received_ns = received;
        gate->now = now;
        gate_add(gate, data, sizeof data, &d);
        gate_pass(gate);
        gate->count = 0;
        CHECK(!gets_in(&rear, NEW));
    }
    CHECK_EQ(waits_ms(&rear, NEW, 1000), 200);
    gate_close();
}

/* Eight are told from a restart, all at once; the ninth is let in as little. */
static void test_many_cameras_behind_one_address(void)
{
    open_pinned();
    for (unsigned i = 0; i < 200; i++, now += 20 * MS) {
        CHECK(gets_in(&front, OLD));
        for (unsigned n = 0; n < 9; n++)
            CHECK(!gets_in(&rear, OTHER + n));
    }
    for (unsigned i = 0; i < 1000; i++, now += 5 * MS) {
        for (unsigned n = 0; n < 9; n++)
            CHECK(!gets_in(&rear, OTHER + n));
    }
    for (unsigned n = 0; n < 9; n++)
        CHECK(knock_of(OTHER + n) != NULL);
    CHECK(gets_in(&front, OLD));
    /* They go, and one that starts anew finds room. */
    now += 61000 * MS;
    for (unsigned i = 0; i < 4; i++)
        CHECK(from(&front, NEW)->held);
    CHECK(from(&front, NEW)->passes);
    gate_close();
}

/* SSRCs that come once each don't make the second camera forgotten, nor a new one. */
static void test_a_flood_does_not_hide_it(void)
{
    open_pinned();
    for (uint32_t i = 0; i < 100000; i++) {
        if (i % 10 == 0)
            CHECK(gets_in(&front, OLD));
        if (i % 7 == 3)
            CHECK(!gets_in(&rear, OTHER));
        CHECK(!pass_rtp(1000 + i, &rear, VIDEO, 1)->session);
        now += MS;
    }
    CHECK(knock_of(OTHER) != NULL);
    CHECK_EQ(waits_ms(&rear, OTHER, 20000), 20000);
    gate_close();
}

/* An encoder that has two SSRCs by turns: what came of one long ago is no overlap. */
static void test_back_to_an_ssrc_of_before(void)
{
    open_pinned();
    CHECK(gets_in(&front, OLD));
    now += 300 * MS;
    CHECK_EQ(waits_ms(&front, NEW, 1000), 20);
    CHECK(!gets_in(&front, OLD)); /* a straggler */
    for (unsigned i = 0; i < 1000; i++, now += 20 * MS)
        CHECK(gets_in(&front, NEW));
    CHECK_EQ(waits_ms(&front, OLD, 1000), 180);
    CHECK_EQ(waits_ms(&front, NEW, 1000), 200);
    gate_close();
}

/* Of a payload type that never came it knocks at once. */
static void test_another_payload_type_knocks(void)
{
    open_pinned();
    CHECK(gets_in(&front, OLD));
    CHECK(!pass_rtp(OTHER, &front, AUDIO, 1)->session);
    const struct rf_knock *k = knock_of(OTHER);

    CHECK(k && k->reason == DROP_probation && k->handle == session && k->payload_type == AUDIO);
    gate_close();
}

/* Somebody says that it is the session's. */
static void test_it_is_followed_when_the_session_is_told_so(void)
{
    struct rf_source s = {.exact = address("10.0.0.1", 0), .ssrc_policy = RF_SSRC_FOLLOW};

    open_pinned();
    CHECK(gets_in(&front, OLD));
    both_for(1500, OTHER);
    CHECK_EQ(rf_session_retune(engine, session, &s, OTHER, now), 0);
    CHECK(knock_of(OTHER) != NULL);
    CHECK(gets_in(&rear, OTHER));
    CHECK(knock_of(OTHER) == NULL);
    CHECK(!gets_in(&front, OLD));
    CHECK(gets_in(&rear, OTHER));
    gate_close();
}

/* A session of its own is what it needs. */
static void test_a_session_of_its_own(void)
{
    struct rf_source s = {.ssrc_policy = RF_SSRC_FOLLOW};

    open_pinned();
    CHECK(gets_in(&front, OLD));
    both_for(1500, OTHER);
    s.exact = rear;
    uint64_t own = must_add(&s, 0);

    CHECK(knock_of(OTHER) == NULL);
    CHECK_EQ(handle_of(from(&rear, OTHER)), own);
    CHECK(gets_in(&front, OLD));
    gate_close();
}

/* An earlier process followed it. */
static void open_again(uint64_t followed)
{
    struct rf_source s = {.exact = address("10.0.0.1", 0), .ssrc_policy = RF_SSRC_FOLLOW,
                          .followed = followed};

    front = address("10.0.0.1", 5000);
    rear = address("10.0.0.1", 5001);
    gate_open_for(10);
    session = must_add(&s, 0);
}

static unsigned shown(void)
{
    struct rf_source_ssrc seen[RF_SOURCE_SSRCS];

    return (unsigned)rf_session_ssrcs(engine, session, seen);
}

/* After a restart of the server the second camera may be the first that comes. */
static void test_whom_it_followed_before_is_expected(void)
{
    struct rf_notice notice;

    open_again(rf_followed(OLD, VIDEO));
    now += 5000 * MS; /* until packets are read */
    for (unsigned i = 0; i < 20; i++)
        CHECK(!gets_in(&rear, OTHER));
    CHECK_EQ(shown(), 0);
    CHECK_EQ(rf_notices(engine, RF_QUEUE_KNOWN, &notice, 1), 0);
    CHECK(gets_in(&front, OLD));
    CHECK_EQ(shown(), 1);
    CHECK_EQ(rf_notices(engine, RF_QUEUE_KNOWN, &notice, 1), 1);
    CHECK(notice.kind == RF_NOTICE_SSRC && notice.handle == session);
    both_for(1500, OTHER);
    CHECK_EQ(waits_ms(&rear, OTHER, 10000), 10000);
    gate_close();
}

static void test_it_restarted_while_no_server_ran(void)
{
    open_again(rf_followed(OLD, VIDEO));
    CHECK(pass_rtp(NEW, &front, AUDIO, 1)->session == NULL); /* of no type that it had */
    now += 300 * MS;
    CHECK_EQ(waits_ms(&front, NEW, 1000), 20); /* five packets */
    gate_close();
    open_again(rf_followed(OLD, VIDEO));
    CHECK_EQ(waits_ms(&front, NEW, 1000), 200);
    CHECK_EQ(shown(), 1);
    gate_close();
}

static void test_what_is_no_such_thing_is_not_expected(void)
{
    static const uint64_t damaged[] = {0, 1, OLD, UINT64_C(1) << 41, UINT64_MAX,
                                       UINT64_C(3) << 40 | OLD, UINT64_C(0x1ff) << 32 | OLD};

    for (unsigned i = 0; i < COUNT(damaged); i++) {
        open_again(damaged[i]);
        CHECK(gets_in(&rear, OTHER));
        gate_close();
    }
}


/* Its packets may come to another worker than the one that judges. */
static void test_a_second_camera_is_no_life_of_the_first(void)
{
    const struct session *s;
    const uint64_t began = now;

    open_pinned();
    CHECK(gets_in(&front, OLD));
    s = gate->arrival[0].session;
    now += 100 * MS;
    gate = &engine->worker[1]->gate;
    CHECK(!gets_in(&rear, OTHER));
    CHECK_EQ(load_rlx(&s->last_packet_ns), began);
    gate_close();
}

int main(void)
{
    RUN(test_a_second_camera_knocks);
    RUN(test_a_second_camera_is_no_life_of_the_first);
    RUN(test_a_second_camera_is_not_followed_when_the_first_ends);
    RUN(test_who_overlaps_a_little_waits_for_longer);
    RUN(test_a_late_queue_is_no_overlap);
    RUN(test_many_cameras_behind_one_address);
    RUN(test_a_flood_does_not_hide_it);
    RUN(test_back_to_an_ssrc_of_before);
    RUN(test_another_payload_type_knocks);
    RUN(test_it_is_followed_when_the_session_is_told_so);
    RUN(test_a_session_of_its_own);
    RUN(test_whom_it_followed_before_is_expected);
    RUN(test_it_restarted_while_no_server_ran);
    RUN(test_what_is_no_such_thing_is_not_expected);
    return 0;
}
