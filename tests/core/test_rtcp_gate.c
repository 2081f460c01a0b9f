/* rtcp_gate.c, aliases.h, worker_rtcp.c, reporting.c, fanout_account.c, over loopback: whose RTCP is taken, and to whom it goes. */
#include "rtcp_loop.h"

#include <pthread.h>

static void test_down(void)
{
    struct rf_addr from, to[3];
    uint8_t report[LEN];
    int source_next, viewer[3], next, source;

    setup(1);
    sends = 0;
    source = pair(&source_next, &from);
    viewer[0] = pair(&next, &to[0]);
    for (unsigned i = 1; i < 3; i++)
        viewer[i] = endpoint("127.0.0.1", &to[i]);
    uint64_t handle = session_of(&from);

    subscribe(handle, &to[0], RF_RTCP_NEXT_PORT);
    subscribe(handle, &to[1], RF_RTCP_MUX);
    subscribe(handle, &to[2], RF_RTCP_OFF);
    /* Before any packet there is nothing to compare it with. */
    say(source, report, sender_report(report, 1));
    feed(source, viewer, 3);
    feed(source, viewer, 3);
    CHECK_EQ(figures().rtcp_dropped_implausible, 1);

    size_t len = sender_report(report, 2);

    say(source_next, report, len);
    expect(next, report, len);
    expect(viewer[1], report, len);
    expect_nothing(viewer[0]);
    expect_nothing(viewer[2]);
    /* Once, and to who joins. */
    subscribe(handle, &to[2], RF_RTCP_MUX);
    sleep_ms(60);
    feed(source, viewer, 3);
    expect(viewer[2], report, len);
    for (unsigned i = 0; i < 3; i++)
        expect_nothing(viewer[i]);
    /* From whatever port of its address. */
    struct rf_addr elsewhere;
    int other = endpoint("127.0.0.1", &elsewhere);

    sleep_ms(60);
    len = sender_report(report, 3);
    say(other, report, len);
    expect(next, report, len);
    expect(viewer[1], report, len);
    expect(viewer[2], report, len);
    /* Its farewell stops nobody. */
    sleep_ms(60);
    uint8_t bye[8];

    say(source, bye, rtcp_write_bye(bye, 0, SSRC));
    feed(source, viewer, 3);
    /* No more for who has it no more. */
    subscribe(handle, &to[1], RF_RTCP_OFF);
    len = sender_report(report, 4);
    say(source, report, len);
    expect(next, report, len);
    expect(viewer[2], report, len);
    expect_nothing(viewer[1]);

    struct rf_feedback f;

    CHECK_EQ(rf_session_feedback(engine, handle, &f), 0);
    CHECK_EQ(f.sender_reports, 3);
    CHECK_EQ(f.copies_rtcp, 2 + 1 + 3 + 2);
    CHECK_EQ(f.reporters, 2);
    CHECK_EQ(figures().rtcp_taken_bye, 1);
    /* Ours, when it ends: to who has RTCP. */
    CHECK_EQ(rf_session_remove(engine, handle), 0);
    for (unsigned i = 0; i < 2; i++) {
        ssize_t n = receive(i ? viewer[2] : next, room, sizeof room, WAIT);

        CHECK(n > 0 && rtcp_is_valid(room, (size_t)n) && rtcp_has_bye(room, (size_t)n));
        CHECK_EQ(rtcp_sender(room, (size_t)n), SSRC);
    }
    expect_nothing(viewer[0]);
    expect_nothing(viewer[1]);
    CHECK_EQ(figures().rtcp_sent, 2 + 1); /* and a report to the source */
    finish();
    close(source), close(source_next), close(next), close(other);
    for (unsigned i = 0; i < 3; i++)
        close(viewer[i]);
}

/* Paused, withheld, and where the source is another. */
static void test_who_gets_none(void)
{
    struct rf_addr from, to;
    uint8_t report[LEN];
    size_t changed;
    int source, viewer;

    setup(1);
    sends = 0;
    source = endpoint("127.0.0.1", &from);
    viewer = endpoint("127.0.0.1", &to);
    uint64_t handle = session_of(&from);

    subscribe(handle, &to, RF_RTCP_MUX);
    feed(source, &viewer, 1);
    CHECK_EQ(rf_session_pause(engine, handle, true), 0);
    say(source, report, sender_report(report, 1));
    expect_nothing(viewer);
    CHECK_EQ(figures().rtcp_dropped_paused, 1);
    CHECK_EQ(rf_session_pause(engine, handle, false), 0);
    CHECK_EQ(rf_subscribers_withhold(engine, handle, &to, 1, RF_WITHHELD_SHED, true, &changed), 0);
    say(source, report, sender_report(report, 2));
    expect_nothing(viewer);
    CHECK_EQ(figures().copies_rtcp, 0);
    CHECK_EQ(rf_subscribers_withhold(engine, handle, &to, 1, RF_WITHHELD_SHED, false, &changed), 0);

    struct rf_addr second;
    int moved = endpoint("127.0.0.1", &second);
    struct rf_source exact = {.policy = RF_EXACT, .exact = second};

    CHECK_EQ(rf_session_move(engine, handle, &exact, clock_now(CLOCK_MONOTONIC)), 0);
    sleep_ms(60);
    feed(moved, &viewer, 1);
    expect_nothing(viewer); /* what the source before said is not passed on */
    finish();
    close(source), close(viewer), close(moved);
}

static void test_strangers(void)
{
    struct rf_addr from, to, off, nobody = address("127.0.0.2", 0);
    uint8_t report[LEN];
    int source, viewer, without, stranger;

    setup(1);
    sends = 0;
    source = endpoint("127.0.0.1", &from);
    viewer = endpoint("127.0.0.1", &to);
    without = endpoint("127.0.0.1", &off);
    stranger = endpoint("127.0.0.2", &nobody);
    uint64_t handle = session_of(&from);
    bool added;

    subscribe(handle, &to, RF_RTCP_MUX);
    CHECK_EQ(subscribers_add(engine, handle, &off, 1, clock_now(CLOCK_MONOTONIC), &added), 0);
    feed(source, (int[]){viewer, without}, 2);

    say(stranger, report, sender_report(report, 1)); /* the SSRC, from another address */
    say(stranger, report, rtcp_write_pli(report, 0, VIEWER, SSRC));
    say(without, report, rtcp_write_pli(report, 0, VIEWER, SSRC)); /* it has no RTCP */
    CHECK_EQ(figures().rtcp_dropped_unknown_sender, 3);
    say(stranger, report, rtcp_write_pli(report, 0, VIEWER, SSRC + 1));
    CHECK_EQ(figures().rtcp_dropped_wrong_ssrc, 1);
    say(stranger, (uint8_t[]){0x80, 200, 0, 9, 1, 2, 3, 4}, 8);
    CHECK_EQ(figures().rtcp_dropped_malformed, 1);
    feed(source, (int[]){viewer, without}, 2);
    expect_nothing(stranger);
    expect_nothing(viewer);
    expect_nothing(source);
    CHECK_EQ(figures().rtcp_sent, 0);
    finish();
    close(source), close(viewer), close(without), close(stranger);
}

/* A subscriber that says that it is the source is not: all others would take its clock. */
static void test_a_subscriber_has_no_sender_report(void)
{
    struct rf_addr from, to[2];
    uint8_t report[LEN];
    int source, viewer[2];

    to[1] = address("127.0.0.2", 0);
    for (unsigned any = 0; any < 2; any++) {
        setup(1);
        sends = 0;
        source = endpoint("127.0.0.1", &from);
        viewer[0] = endpoint("127.0.0.1", &to[0]);
        viewer[1] = endpoint("127.0.0.2", &to[1]);
        struct rf_source feeder = {.exact = from, .ssrc_policy = any ? RF_SSRC_ANY : RF_SSRC_EXACT};
        uint64_t handle;

        CHECK_EQ(rf_session_add(engine, &feeder, any ? 0 : SSRC, 0, &handle), 0);
        for (unsigned i = 0; i < 2; i++)
            subscribe(handle, &to[i], RF_RTCP_MUX);
        for (unsigned i = 0; i < 3; i++)
            feed(source, viewer, 2);
        size_t len = sender_report(report, 1);

        say(viewer[1], report, rtcp_write_pli(report, len, SSRC, SSRC));
        feed(source, viewer, 2);
        for (unsigned i = 0; i < 2; i++)
            expect_nothing(viewer[i]);
        CHECK_EQ(figures().rtcp_taken_sender_report, 0);
        CHECK_EQ(figures().rtcp_taken_keyframe_request, 1);
        finish();
        close(source), close(viewer[0]), close(viewer[1]);
    }
}

/* What is encrypted can't be read: the source's goes as it came, of others nothing is taken. */
static void test_encrypted(void)
{
    struct rf_addr from, to;
    uint8_t report[LEN], room_of[LEN];
    int source, viewer;

    setup(1);
    sends = 0;
    source = endpoint("127.0.0.1", &from);
    viewer = endpoint("127.0.0.1", &to);
    uint64_t handle = session_of(&from);

    CHECK_EQ(rf_session_read(engine, handle, RF_READ_SRTP), 0);
    subscribe(handle, &to, RF_RTCP_MUX);
    feed(source, &viewer, 1);
    /* SRTCP (RFC 3711 section 3.4): 8 bytes are clear, and behind the packet stand index and tag. */
    size_t len = sender_report(report, 1);

    memset(report + 8, 0xa5, len - 8);
    report[3] = (uint8_t)(len / 4 - 1);
    say(source, report, len);
    expect(viewer, report, len);
    CHECK_EQ(figures().rtcp_taken_sender_report, 1);
    memcpy(room_of, report, len);
    room_of[1] = RTCP_BYE;
    room_of[0] = 0x81;
    sleep_ms(60);
    say(source, room_of, len);
    expect_nothing(viewer);
    say(viewer, report, rtcp_write_pli(report, 0, VIEWER, SSRC));
    finish();
    close(source), close(viewer);
}

static void test_up(void)
{
    struct rf_addr from, to;
    uint8_t message[LEN];
    int source, source_next, viewer, viewer_next;
    struct rtcp_block block = {SSRC, 128, 7, 65000, 0, 0, 0};

    setup(1);
    sends = 0;
    source = pair(&source_next, &from);
    viewer = pair(&viewer_next, &to);
    uint64_t handle = session_of(&from);
    struct rf_subscriber_stats stats;
    size_t count;

    subscribe(handle, &to, RF_RTCP_NEXT_PORT);
    feed(source, &viewer, 1);
    feed(source, &viewer, 1);
    say(viewer_next, message, rtcp_write_receiver_report(message, 0, VIEWER, &block));
    CHECK_EQ(rf_subscribers(engine, handle, 0, &stats, 1, &count), 0);
    CHECK_EQ(stats.terms.rtcp, RF_RTCP_NEXT_PORT);
    CHECK(stats.report.fraction == 0.5);
    CHECK_EQ(stats.report.lost, 7);
    CHECK(stats.report.at_ns > 0);
    CHECK(stats.report.round_trip_secs < 0);
    expect_nothing(source_next); /* it has not asked */

    say(viewer, message, rtcp_write_pli(message, 0, VIEWER, SSRC));
    ssize_t n = receive(source_next, room, sizeof room, WAIT);

    CHECK(n > 0 && rtcp_is_valid(room, (size_t)n));
    CHECK(rtcp_read(room, (size_t)n, SSRC).pli);
    /* By a call; where it speaks from; with both. */
    CHECK_EQ(rf_session_keyframe_format(engine, handle, RF_KEYFRAME_PLI | RF_KEYFRAME_FIR), 0);
    CHECK_EQ(rf_session_keyframe_format(engine, handle, 0), -EINVAL);
    say(source, message, sender_report(message, 1));
    n = receive(source, room, sizeof room, WAIT); /* it reports, so it is reported to */
    CHECK(n > 0 && rtcp_is_valid(room, (size_t)n));
    CHECK(rtcp_read(room, (size_t)n, SSRC).has_block);
    CHECK_EQ(rtcp_read(room, (size_t)n, SSRC).block.sequence, sequence);
    sleep_ms(550);
    CHECK_EQ(rf_session_want_keyframe(engine, handle), 0);
    feed(source, &viewer, 1);
    n = receive(source, room, sizeof room, WAIT);
    CHECK(n > 0 && rtcp_is_valid(room, (size_t)n));
    struct rtcp_about a = rtcp_read(room, (size_t)n, SSRC);

    CHECK(a.pli && a.fir);
    CHECK_EQ(rf_session_want_keyframe(engine, handle + 1), -ENOENT);
    CHECK_EQ(rf_session_keyframe_format(engine, handle + 1, 1), -ENOENT);
    CHECK_EQ(rf_subscribers_rtcp(engine, handle + 1, &to, 1, RF_RTCP_MUX), -ENOENT);
    CHECK_EQ(rf_subscribers_rtcp(engine, handle, &to, 1, RF_RTCP_NEXT_PORT + 1), -EINVAL);
    struct rf_feedback f;

    CHECK_EQ(rf_sessions_feedback(engine, &f, 1), 1);
    CHECK_EQ(f.handle, handle);
    CHECK_EQ(f.keyframe_requests, 2);
    CHECK_EQ(f.keyframe_requests_sent, 2);
    CHECK_EQ(f.receiver_reports, 1);
    CHECK_EQ(rf_session_feedback(engine, handle + 1, &f), -ENOENT);
    finish();
    close(source), close(source_next), close(viewer), close(viewer_next);
}

/* A source that may be anybody of a network is asked for nothing; one of a single address is. */
static void test_who_is_asked(void)
{
    struct rf_source network = {.policy = RF_NETWORK,
                                .network = {.addr = address("127.0.0.0", 0), .prefix = 104}};

    setup(1);
    for (int i = 0; i < 2; i++) {
        uint64_t handle;

        network.network.addr = address("127.0.0.1", 0);
        network.network.prefix = i ? 128 : 104;
        CHECK_EQ(rf_session_add(engine, &network, SSRC + (uint32_t)i, 0, &handle), 0);
        CHECK_EQ(rf_session_want_keyframe(engine, handle), i ? 0 : -EHOSTUNREACH);
    }
    finish();
}

/* Its SSRC is not told beforehand, and so in no index: subscribers speak of what they are sent. */
static void test_any_ssrc(void)
{
    struct rf_addr from, to;
    uint8_t message[LEN];
    int source, viewer;

    for (enum rf_ssrc_policy policy = RF_SSRC_FOLLOW; policy <= RF_SSRC_ANY; policy++) {
        setup(1);
        sends = 0;
        source = endpoint("127.0.0.1", &from);
        viewer = endpoint("127.0.0.1", &to);
        struct rf_source any = {.policy = RF_EXACT, .exact = from, .ssrc_policy = policy};
        uint64_t handle;

        CHECK_EQ(rf_session_add(engine, &any, 0, 0, &handle), 0);
        subscribe(handle, &to, RF_RTCP_MUX);
        for (unsigned i = 0; i < 3; i++)
            feed(source, &viewer, 1);
        size_t len = sender_report(message, 1);

        say(source, message, len);
        expect(viewer, message, len);
        CHECK(receive(source, room, sizeof room, WAIT) > 0); /* our report */
        say(viewer, message, rtcp_write_pli(message, 0, VIEWER, SSRC));
        ssize_t n = receive(source, room, sizeof room, WAIT);

        CHECK(n > 0 && rtcp_read(room, (size_t)n, SSRC).pli);
        CHECK_EQ(rf_session_remove(engine, handle), 0);
        say(viewer, message, rtcp_write_pli(message, 0, VIEWER, SSRC));
        CHECK_EQ(figures().rtcp_dropped_wrong_ssrc, 1);
        finish();
        close(source), close(viewer);
    }
}

/* Who joins after a restart gets no report of the SSRC before. */
static void test_a_report_of_before_a_restart(void)
{
    struct rf_addr from, to[2];
    uint8_t message[LEN];
    int source, viewer[2];

    setup(1);
    sends = 0;
    source = endpoint("127.0.0.1", &from);
    for (unsigned i = 0; i < 2; i++)
        viewer[i] = endpoint("127.0.0.1", &to[i]);
    struct rf_source follow = {.policy = RF_EXACT, .exact = from, .ssrc_policy = RF_SSRC_FOLLOW};
    uint64_t handle;

    CHECK_EQ(rf_session_add(engine, &follow, SSRC, 0, &handle), 0);
    subscribe(handle, &to[0], RF_RTCP_MUX);
    feed(source, viewer, 1);
    size_t len = sender_report(message, 1);

    say(source, message, len);
    expect(viewer[0], message, len);
    sleep_ms(300);
    for (uint16_t i = 0; i < 8; i++) {
        rtp_make(message, sizeof message, SSRC + 1, i);
        say(source, message, sizeof message);
    }
    passed_by += 8;
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(receive(viewer[0], room, sizeof room, WAIT), LEN);
    subscribe(handle, &to[1], RF_RTCP_MUX);
    sleep_ms(60);
    rtp_make(message, sizeof message, SSRC + 1, 8);
    say(source, message, sizeof message);
    passed_by += 2;
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(receive(viewer[i], room, sizeof room, WAIT), LEN);
        expect_nothing(viewer[i]);
    }
    finish();
    close(source), close(viewer[0]), close(viewer[1]);
}

static void *wobble(void *argument)
{
    const struct rf_addr *to = argument;
    uint64_t handle = 0;
    struct rf_feedback f;

    rf_sessions_feedback(engine, &f, 1);
    handle = f.handle;
    for (unsigned i = 0; i < 400; i++) {
        bool flag;
        struct rf_subscriber_stats stats[4];
        size_t n;

        CHECK_EQ(rf_subscribers_rtcp(engine, handle, to, 1, i % 3), 0);
        CHECK_EQ(rf_subscribers(engine, handle, 0, stats, 4, &n), 0);
        CHECK_EQ(rf_session_feedback(engine, handle, &f), 0);
        CHECK_EQ(rf_session_want_keyframe(engine, handle), 0);
        if (i % 7 == 0) {
            CHECK_EQ(rf_subscribers_remove(engine, handle, to, 1, &flag), 0);
            CHECK_EQ(subscribers_add(engine, handle, to, 1, clock_now(CLOCK_MONOTONIC), &flag), 0);
        }
    }
    return NULL;
}

/* Changes while reports pass and are taken, by several workers; of interest under sanitizers. */
static void test_changes_under_way(void)
{
    struct rf_addr from, to[2];
    uint8_t message[LEN];
    int source, viewer[2];
    pthread_t changer;
    struct rtcp_block block = {SSRC, 128, 7, 65000, 0, 0, 0};

    setup(3);
    source = endpoint("127.0.0.1", &from);
    for (unsigned i = 0; i < 2; i++)
        viewer[i] = endpoint("127.0.0.1", &to[i]);
    uint64_t handle = session_of(&from);

    for (unsigned i = 0; i < 2; i++)
        subscribe(handle, &to[i], RF_RTCP_MUX);
    CHECK(pthread_create(&changer, NULL, wobble, &to[1]) == 0);
    for (unsigned i = 0; i < 2000; i++) {
        rtp_make(message, sizeof message, SSRC, ++sequence);
        write_u32(message + 4, (uint32_t)sequence * 3000);
        send_to(source, &bound, message, sizeof message);
        if (i % 5 == 0)
            send_to(source, &bound, message, sender_report(message, i));
        for (unsigned k = 0; k < 2; k++)
            send_to(viewer[k], &bound, message,
                    rtcp_write_pli(message,
                                   rtcp_write_receiver_report(message, 0, VIEWER, &block),
                                   VIEWER, SSRC));
        while (receive(viewer[i % 2], room, sizeof room, 0) >= 0)
            ;
    }
    pthread_join(changer, NULL);
    rf_engine_stop(engine);
    loops_join(&loops);
    struct rf_stats s = figures();

    check_identities(&s);
    CHECK(s.rtcp_taken_sender_report > 0 && s.rtcp_taken_keyframe_request > 0);
    rf_engine_free(engine);
    close(source), close(viewer[0]), close(viewer[1]);
}

int main(void)
{
    RUN(test_down);
    RUN(test_who_gets_none);
    RUN(test_strangers);
    RUN(test_a_subscriber_has_no_sender_report);
    RUN(test_encrypted);
    RUN(test_up);
    RUN(test_who_is_asked);
    RUN(test_any_ssrc);
    RUN(test_a_report_of_before_a_restart);
    RUN(test_changes_under_way);
    return 0;
}
