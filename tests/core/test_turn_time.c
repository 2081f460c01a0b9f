/* linger.c, budget.h: what a turn does with its time. Waiting for the rest of a frame: when, for how long, and what it
 * spares; and the end of a turn that has no more time. On loopback what is sent
 * before a receive is there, so frames come packet by packet without a race.
 * wraps: recvmmsg clock_gettime */
#include "one_worker.h"
#include "segments.h"
#include "sessions.h"

enum { MOST = 200, LEN = 100, FLOOD = 256, AT_ONCE = 64 };

static struct rf_addr camera;
static int from;

/* What the camera sends before each receive: 'p' a packet, 'm' one with the marker, 'o' one of
 * another session, 'x' no RTP, 'f' a flood of FLOOD packets, '.' nothing; behind the end the worker is told to stop. */
static const char *script;
static uint16_t sequence;
static uint64_t passed_ns; /* of virtual time with every receive */
static uint64_t clock_step_ns; /* with every look at the clock */
static uint64_t now_ns = 1000000000;

/* It is removed as soon as something has left; then its record is another's. */
static struct session *going;

static void remove_session(void)
{
    table_remove(&table, going);
    going->latency->linger = (struct linger_use){3, 7};
    going = NULL;
}

int __real_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);
int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t);

/* With the marker, so that nothing more is waited for. */
static void send_flood(void)
{
    static uint8_t p[AT_ONCE * LEN];

    for (unsigned sent = 0; sent < FLOOD; sent += AT_ONCE) {
        for (unsigned i = 0; i < AT_ONCE; i++) {
            rtp_make(p + i * LEN, LEN, 1, sequence++);
            p[i * LEN + 1] |= 0x80;
        }
        send_segments(from, &sock.bound, p, sizeof p, LEN);
    }
}

int __wrap_recvmmsg(int fd, struct mmsghdr *h, unsigned n, int flags, struct timespec *t)
{
    uint8_t p[LEN];
    char what = *script ? *script++ : 's';

    rtp_make(p, LEN, what == 'o' ? 2 : 1, sequence);
    if (what == 'm')
        p[1] |= 0x80;
    if (what == 'x')
        p[0] = 0;
    if (what == 's')
        worker_stop(&worker);
    else if (what == 'f')
        send_flood();
    else if (what != '.')
        send_to(from, &sock.bound, p, LEN);
    sequence++;
    now_ns += passed_ns;
    return __real_recvmmsg(fd, h, n, flags, t);
}

int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    (void)id;
    if (going && load_rlx(&worker.counters.sends) > 0)
        remove_session();
    now_ns += clock_step_ns;
    *t = (struct timespec){(time_t)(now_ns / 1000000000), (long)(now_ns % 1000000000)};
    return 0;
}

static struct rf_addr viewers[MOST];

static void setup_with(uint32_t subscribers, bool no_segmentation)
{
    struct worker_options options = {
        .receives = true, .no_segmentation = no_segmentation, .busy_poll_ns = UINT64_MAX};

    for (uint32_t i = 0; i < subscribers; i++)
        viewers[i] = loopback_address(i, 9);
    from = endpoint("127.0.0.1", &camera);
    worker_open(&options);
    for (uint32_t ssrc = 1; ssrc <= 2; ssrc++)
        CHECK_EQ(table_insert(&table, session_make(&pool, camera, ssrc, viewers, subscribers)), 0);
}

static void setup(uint32_t subscribers)
{
    setup_with(subscribers, false);
}

static void teardown(void)
{
    worker_close();
    close(from);
}

static void play(const char *what, uint64_t gap_ns)
{
    script = what;
    sequence = 0;
    passed_ns = gap_ns;
    worker_run(&worker);
    store_rlx(&worker.stopping, false);
    store_rlx(&worker.inbox->phase, INBOX_NEW); /* it has ended, but is to run again */
}

/* The turns of a run, the waits among them and the send entries. */
static void expect(uint64_t turns, uint64_t lingers, uint64_t sends)
{
    struct worker_counters *c = &worker.counters;

    CHECK_EQ(load_rlx(&c->turns), turns);
    CHECK_EQ(load_rlx(&c->lingers), lingers);
    CHECK_EQ(load_rlx(&c->packets_sent) + load_rlx(&c->failed_would_block),
             load_rlx(&c->copies_attempted));
    if (worker.gso)
        CHECK_EQ(load_rlx(&c->sends), sends);
}

static void test_a_frame_leaves_as_one(void)
{
    setup(100);
    play("ppppm", 5000);
    if (worker.gso)
        expect(1, 1, 100);
    play("m", 5000); /* a frame of one packet waits for nothing */
    if (worker.gso)
        expect(2, 1, 200);
    teardown();
}

static void test_what_is_dropped_does_not_prolong_it(void)
{
    setup(100);
    play("pxxxxxxxxxxxxxxxxxxxxm", 5000); /* 8 receives take the 40 us of 100 subscribers */
    if (worker.gso)
        CHECK_EQ(load_rlx(&worker.counters.sends), 200);
    CHECK_EQ(load_rlx(&worker.counters.dropped_not_rtp), 20);
    teardown();
}

static void test_it_ends_though_packets_keep_coming(void)
{
    setup(100);
    play("pppppppppppppppppppp", 20000); /* 160 us in all: the turn ends with 9 packets */
    if (worker.gso)
        CHECK(load_rlx(&worker.counters.turns) >= 2);
    CHECK_EQ(load_rlx(&worker.counters.copies_attempted), 2000);
    teardown();
}

/* While it waits so much comes that all is sent: then other threads may have the session. */
static void test_a_session_that_was_removed_meanwhile_is_left_alone(void)
{
    setup(150);
    struct session *s = going = session_at(&pool, 0);

    play("pf", 0);
    if (worker.gso) {
        CHECK(load_rlx(&worker.counters.dropped_unknown_ssrc) > 0);
        CHECK(s->latency->linger.failures == 3 && s->latency->linger.skip == 7);
    }
    going = NULL;
    teardown();
}

static void test_others_do_not_wait(void)
{
    setup(100);
    play("pom", 5000);
    if (worker.gso)
        expect(2, 1, 300); /* both at once, then the end of the frame */
    teardown();
}

static void test_never_for_few(void)
{
    setup(10);
    play("ppm", 5000);
    expect(3, 0, 30);
    teardown();
}

static void test_never_for_those_withheld(void)
{
    setup(100);
    size_t changed;

    CHECK_EQ(subscriber_list_withhold(load_rlx(&session_at(&pool, 0)->subscribers), viewers, 100,
                                      AF_INET, RF_WITHHELD_SHED, true, &changed),
             0);
    CHECK_EQ(changed, 100);
    play("ppm", 5000);
    expect(3, 0, 0);
    CHECK_EQ(load_rlx(&worker.counters.copies_withheld), 300);
    teardown();
}

/* Packets of 20 ms of audio: the first few times it is looked whether more comes, then seldom. */
static void test_audio_is_left_alone(void)
{
    enum { PACKETS = 1000 };
    static char audio[PACKETS * 10 + 1];

    for (unsigned i = 0; i < PACKETS * 10; i++)
        audio[i] = i % 10 == 0 ? 'p' : '.';
    setup(100);
    play(audio, 20000);
    if (worker.gso) {
        CHECK(load_rlx(&worker.counters.lingers) >= 6);
        CHECK(load_rlx(&worker.counters.lingers) <= 6 + PACKETS / 64);
    }
    CHECK_EQ(load_rlx(&worker.counters.copies_attempted), PACKETS * 100);
    sequence = 0;
    teardown();
}

/* Stopped in a turn that would take seconds: what there is no time for is dropped and
 * counted; but nothing when the queue is left to another, since nobody else could send it. */
static void test_a_stop_ends_a_long_turn(bool leaves)
{
    enum { BUFFERS = 16, SEGMENTS = 32, ALL = BUFFERS * SEGMENTS };
    uint8_t p[SEGMENTS * LEN];
    struct worker_counters *c = &worker.counters;

    setup_with(MOST, true);
    for (uint16_t b = 0; b < BUFFERS; b++) {
        for (uint16_t i = 0; i < SEGMENTS; i++)
            rtp_make(p + i * LEN, LEN, 1, (uint16_t)(b * SEGMENTS + i));
        send_segments(from, &sock.bound, p, sizeof p, LEN);
    }
    clock_step_ns = 10000000;
    script = ""; /* it is told to stop as the turn begins */
    passed_ns = 0;
    store_rlx(&worker.leaves_queue, leaves);
    worker_run(&worker);
    clock_step_ns = 0;
    CHECK_EQ(load_rlx(&c->packets_received), ALL);
    CHECK_EQ(load_rlx(&c->packets_forwarded) + load_rlx(&c->dropped_overload), ALL);
    CHECK_EQ(load_rlx(&c->packets_forwarded) * MOST, load_rlx(&c->copies_attempted));
    if (leaves)
        CHECK_EQ(load_rlx(&c->dropped_overload), 0);
    else
        CHECK(load_rlx(&c->dropped_overload) > ALL / 2 && load_rlx(&c->packets_forwarded) > 0);
    teardown();
}

/* What others have handed over ends a turn that has lasted too long, as what was received does. */
static void test_a_long_inbox_takes_several_turns(void)
{
    enum { PARCELS = 256 };
    struct worker_counters *c = &worker.counters;
    uint8_t p[LEN];

    setup_with(MOST, true);
    store_rlx(&session_at(&pool, 0)->owner, 1);
    for (uint16_t i = 0; i < PARCELS; i++) {
        struct parcel parcel = {
            {.data = p, .len = LEN, .segment = LEN, .source = camera}, .owner = 1};

        rtp_make(p, LEN, 1, i);
        CHECK(inbox_post(worker.inbox, &parcel, &c->packets_received));
    }
    clock_step_ns = 10000000;
    script = ""; /* it is told to stop as the first turn begins */
    passed_ns = 0;
    store_rlx(&worker.leaves_queue, true);
    worker_run(&worker);
    clock_step_ns = 0;
    CHECK(load_rlx(&c->turns) > 2);
    CHECK_EQ(load_rlx(&c->packets_forwarded), PARCELS);
    CHECK_EQ(load_rlx(&c->copies_attempted), PARCELS * MOST);
    teardown();
}

/* 256 packets to 150 subscribers are 38,400 copies: they leave after 224 packets, and the rest. */
static void test_a_turn_is_cut_after_so_many_copies(void)
{
    setup(150);
    play("f", 0);
    if (worker.gso)
        expect(1, 0, 150 * (224 / 64 + 1) + 150);
    teardown();
}

/* ... until copies prove cheap: then all of them leave at once, in as few groups. */
static void test_later_where_copies_are_cheap(void)
{
    setup(150);
    play("f", 0); /* in no time */
    if (worker.gso)
        expect(1, 0, 150 * 5);
    play("f", 0);
    if (worker.gso)
        expect(2, 0, 150 * 5 + 150 * 4);
    teardown();
}

static void test_not_where_they_are_dear(void)
{
    setup(150);
    clock_step_ns = 1000000; /* 8 ms for 33,600 copies: 240 ns each */
    for (uint64_t turns = 1; turns <= 3; turns++) {
        play("f", 0);
        if (worker.gso)
            expect(turns, 0, turns * 150 * 5);
    }
    clock_step_ns = 0;
    teardown();
}

/* 8 buffers of 64 packets, each of which takes 60 ms to send: a turn each, not one of half a second. */
static void test_a_turn_is_cut_after_so_long(void)
{
    uint8_t p[AT_ONCE * LEN];

    setup(MOST);
    for (uint16_t b = 0; b < 8; b++) {
        for (uint16_t i = 0; i < AT_ONCE; i++)
            rtp_make(p + i * LEN, LEN, 1, (uint16_t)(b * AT_ONCE + i));
        send_segments(from, &sock.bound, p, sizeof p, LEN);
    }
    clock_step_ns = 20000000;
    play("", 0); /* told to stop as the first turn begins: what it has received leaves all the same */
    clock_step_ns = 0;
    CHECK_EQ(load_rlx(&worker.counters.receives), 8);
    CHECK(load_rlx(&worker.counters.turns) >= 3);
    CHECK_EQ(load_rlx(&worker.counters.packets_received), 8 * AT_ONCE);
    CHECK_EQ(load_rlx(&worker.counters.packets_forwarded) +
                 load_rlx(&worker.counters.dropped_overload), 8 * AT_ONCE);
    teardown();
}

static void test_a_stop_drops_the_rest(void)
{
    test_a_stop_ends_a_long_turn(false);
}

static void test_who_leaves_the_queue_sends_it(void)
{
    test_a_stop_ends_a_long_turn(true);
}

int main(void)
{
    RUN(test_a_frame_leaves_as_one);
    RUN(test_what_is_dropped_does_not_prolong_it);
    RUN(test_it_ends_though_packets_keep_coming);
    RUN(test_a_session_that_was_removed_meanwhile_is_left_alone);
    RUN(test_others_do_not_wait);
    RUN(test_never_for_few);
    RUN(test_never_for_those_withheld);
    RUN(test_audio_is_left_alone);
    RUN(test_a_long_inbox_takes_several_turns);
    RUN(test_a_turn_is_cut_after_so_many_copies);
    RUN(test_later_where_copies_are_cheap);
    RUN(test_not_where_they_are_dear);
    RUN(test_a_turn_is_cut_after_so_long);
    RUN(test_a_stop_drops_the_rest);
    RUN(test_who_leaves_the_queue_sends_it);
    return 0;
}
