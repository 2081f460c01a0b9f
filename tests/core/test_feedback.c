/* feedback.c, feedback_reports.c, feedback.h, merged.c: which sender reports are passed on and when; what subscribers report; the one keyframe request of all of theirs. */
#include "feedback.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "rtp.h"

enum { SOURCE = 0x11223344, VIEWER = 0x55667788, OWN = 0x99 };

#define MS UINT64_C(1000000)
#define S UINT64_C(1000000000)

static struct feedback f;
static struct media_clock media;
static struct subscriber pilot, monitor;
static struct reporter reporters[2];
static struct reporters *set;
static uint8_t room[1024];

static void setup(void)
{
    memset(&f, 0, sizeof f);
    memset(reporters, 0, sizeof reporters);
    store_rlx(&pilot.traits, RF_CLASS_PILOT);
    store_rlx(&monitor.traits, RF_CLASS_MONITOR);
    reporters[0].subscriber = &pilot;
    reporters[1].subscriber = &monitor;
    store_rlx(&reporters[0].report.round_trip_us, UINT32_MAX);
    media = (struct media_clock){
        .ssrc = SOURCE, .at_ns = 100 * S, .timestamp = 900000, .rate = 90000};
    set->number = 1;
}

static void write_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* With `blocks` of others and, if there is one, a CNAME. */
static size_t sender_report(uint32_t ntp_seconds, uint32_t rtp_time, unsigned blocks, const char *cname)
{
    size_t len = RTCP_SR_LEN + RTCP_BLOCK_LEN * blocks;

    memset(room, 0, sizeof room);
    room[0] = (uint8_t)(0x80 | blocks);
    room[1] = RTCP_SR;
    room[3] = (uint8_t)(len / 4 - 1);
    write_u32(room + 4, SOURCE);
    write_u32(room + 8, ntp_seconds);
    write_u32(room + 12, 0x80000001);
    write_u32(room + 16, rtp_time);
    write_u32(room + 20, 7);
    write_u32(room + 24, 8400);
    return cname ? rtcp_write_cname(room, len, SOURCE, cname) : len;
}

static void test_sender_reports(void)
{
    uint8_t sent[RTCP_SR_LEN + 20];

    setup();
    size_t len = sender_report(5, 900000, 0, "cam@r7");

    CHECK_EQ(len, sizeof sent);
    memcpy(sent, room, sizeof sent);
    CHECK_EQ(feedback_take_source(&f, room, len, false, &media, 100 * S), RTCP_TAKEN_sender_report);
    CHECK(feedback_passes(&f, set, 100 * S));
    CHECK(!feedback_passes(&f, NULL, 100 * S));
    feedback_pass(&f, set, 100 * S);
    CHECK_EQ(f.packet.bytes.iov_len, sizeof sent);
    CHECK(memcmp(f.packet.bytes.iov_base, sent, sizeof sent) == 0);
    CHECK(!feedback_passes(&f, set, 200 * S));
    /* Somebody joins: as long as it is fresh. */
    set->number++;
    CHECK(!feedback_passes(&f, set, 100 * S + 39 * MS));
    CHECK(feedback_passes(&f, set, 109 * S));
    CHECK(!feedback_passes(&f, set, 111 * S));

    /* Its blocks speak of others; without a CNAME it goes with the one before. */
    len = sender_report(6, 990000, 2, NULL);
    CHECK_EQ(feedback_take_source(&f, room, len, false, &media, 101 * S), RTCP_TAKEN_sender_report);
    feedback_pass(&f, set, 101 * S);
    CHECK_EQ(f.packet.bytes.iov_len, sizeof sent);
    CHECK(rtcp_is_valid(f.report, f.report_len));
    CHECK_EQ(f.report[0], 0x80);
    CHECK(memcmp(f.report + 8, room + 8, RTCP_SR_LEN - 8) == 0);
    CHECK(memcmp(f.report + RTCP_SR_LEN, sent + RTCP_SR_LEN, sizeof sent - RTCP_SR_LEN) == 0);
    CHECK_EQ(load_rlx(&f.counters.sender_reports), 2);
}

static size_t report_of(uint32_t ssrc, uint32_t ntp_seconds, const char *cname)
{
    size_t len = sender_report(ntp_seconds, 900000, 0, NULL);

    write_u32(room + 4, ssrc);
    return cname ? rtcp_write_cname(room, len, ssrc, cname) : len;
}

static unsigned reports_in(const uint8_t *data, size_t len, uint32_t ssrc, uint32_t ntp_seconds)
{
    struct rtcp_sender_report sr;
    struct rtcp_packet cname;

    CHECK(rtcp_is_valid(data, len) && data[1] == RTCP_SR);
    return rtcp_find_sender_report(data, len, ssrc, &sr) && sr.ntp >> 32 == ntp_seconds &&
           rtcp_find_cname(data, len, ssrc, &cname);
}

/* Of a session with several SSRCs all that are fresh go together, each with its CNAME. */
static void test_reports_of_several_ssrcs(void)
{
    enum { VIDEO = 7, AUDIO = 8 };

    setup(), media.several = media.other = true;
    for (uint32_t second = 0; second < 3; second++) {
        for (uint32_t ssrc = VIDEO; ssrc <= AUDIO; ssrc++) {
            size_t len = report_of(ssrc, second * 10 + ssrc, second == 0 ? "cam@r7" : NULL);

            media.ssrc = ssrc;
            CHECK_EQ(feedback_take_source(&f, room, len, false, &media, (100 + second) * S),
                     RTCP_TAKEN_sender_report);
        }
        CHECK(feedback_passes(&f, set, (100 + second) * S));
        feedback_pass(&f, set, (100 + second) * S);
        for (uint32_t ssrc = VIDEO; ssrc <= AUDIO; ssrc++) {
            uint64_t came;

            CHECK(reports_in(f.packet.bytes.iov_base, f.packet.bytes.iov_len, ssrc, second * 10 + ssrc));
            CHECK_EQ(feedback_last_report(&f, ssrc, &came), (second * 10 + ssrc) << 16 | 0x8000);
            CHECK_EQ(came, (100 + second) * S);
        }
    }
    /* A round trip by the one that is not the last. */
    struct rtcp_block block = {.ssrc = VIDEO, .lsr = (20 + VIDEO) << 16 | 0x8000};
    size_t len = rtcp_write_receiver_report(room, 0, VIEWER, &block);

    media.ssrc = VIDEO;
    feedback_take_reporter(&f, &reporters[0], room, len, &media, 102 * S + 70 * MS);
    CHECK_EQ(load_rlx(&reporters[0].report.round_trip_us), 70000);
    /* One that is silent is left behind; more than there is room for, too. */
    for (uint32_t ssrc = AUDIO; ssrc < AUDIO + 12; ssrc++) {
        media.ssrc = ssrc;
        len = report_of(ssrc, ssrc, "a name that is long enough to be one");
        feedback_take_source(&f, room, len, false, &media, 120 * S + ssrc);
        CHECK(rtcp_is_valid(f.report, f.report_len));
        CHECK(reports_in(f.report, f.report_len, ssrc, ssrc));
        CHECK(!reports_in(f.report, f.report_len, VIDEO, 20 + VIDEO));
    }
    CHECK(reports_in(f.report, f.report_len, AUDIO + 10, AUDIO + 10));
    CHECK(!reports_in(f.report, f.report_len, AUDIO, AUDIO));
    /* Of a session that takes one alone the one before is gone. */
    media.several = media.other = false;
    media.ssrc = SOURCE;
    len = sender_report(5, 900000 + 20 * 90000, 0, NULL);
    CHECK_EQ(feedback_take_source(&f, room, len, false, &media, 121 * S), RTCP_TAKEN_sender_report);
    CHECK_EQ(f.report_len, RTCP_SR_LEN);
}

static void test_implausible_ones(void)
{
    struct {
        uint32_t rtp_time;
        uint64_t now;
        bool plausible;
    } cases[] = {
        {900000, 100 * S, true},
        {900000 + 899000, 100 * S, true},
        {900000 + 901000, 100 * S, false},
        {900000 - 899000, 100 * S, true},
        {900000 - 901000, 100 * S, false},
        {900000 + 3600 * 90000u, 3700 * S, true}, /* an hour without packets */
        {900000, 111 * S, false},
        {0x80000000, 100 * S, false},
    };

    for (unsigned i = 0; i < COUNT(cases); i++) {
        setup();
        size_t len = sender_report(5, cases[i].rtp_time, 0, NULL);

        CHECK_EQ(feedback_take_source(&f, room, len, false, &media, cases[i].now),
                 cases[i].plausible ? RTCP_TAKEN_sender_report : RTCP_DROPPED_implausible);
        CHECK_EQ(f.report_len > 0, cases[i].plausible);
    }
    setup();
    media.at_ns = 0; /* no packet yet */
    size_t len = sender_report(5, 900000, 0, NULL);

    CHECK_EQ(feedback_take_source(&f, room, len, false, &media, 100 * S), RTCP_DROPPED_implausible);
}

/* What can't be read goes as it is, if it is a sender report. */
static void test_encrypted_ones(void)
{
    setup();
    memset(room, 0xa5, 64);
    room[0] = 0x80;
    room[1] = RTCP_SR;
    CHECK_EQ(feedback_take_source(&f, room, 64, true, &media, 100 * S), RTCP_TAKEN_sender_report);
    CHECK_EQ(f.report_len, 64);
    CHECK(memcmp(f.report, room, 64) == 0);
    room[1] = RTCP_BYE;
    CHECK_EQ(feedback_take_source(&f, room, 64, true, &media, 100 * S), RTCP_TAKEN_other);
    CHECK_EQ(feedback_take_source(&f, room, FEEDBACK_REPORT + 1, true, &media, 100 * S),
             RTCP_TAKEN_other);
    CHECK_EQ(f.report_number, 1);
}

static void test_farewells_and_the_rest_of_a_source(void)
{
    setup();
    size_t len = rtcp_write_bye(room, 0, SOURCE);

    CHECK_EQ(feedback_take_source(&f, room, len, false, &media, 1), RTCP_TAKEN_bye);
    len = rtcp_write_cname(room, 0, SOURCE, "x");
    CHECK_EQ(feedback_take_source(&f, room, len, false, &media, 1), RTCP_TAKEN_other);
    CHECK_EQ(f.report_len, 0);
}

static void test_how_many_are_taken(void)
{
    unsigned taken = 0;

    setup();
    for (unsigned i = 0; i < 1000; i++) {
        size_t len = rtcp_write_pli(room, 0, VIEWER, SOURCE);

        taken += feedback_take_reporter(&f, &reporters[0], room, len, &media, 100 * S + i * MS) ==
                 RTCP_TAKEN_keyframe_request;
    }
    CHECK(taken >= 99 && taken <= 101); /* a second's at once, and a second's */
    CHECK_EQ(load_rlx(&f.counters.keyframe_requests), taken);
}

static void test_receiver_reports(void)
{
    struct rtcp_block block = {SOURCE, 64, 12, 70000, 900, (5u << 16) | 0x8000, 0};

    setup();
    feedback_take_source(&f, room, sender_report(5, 900000, 0, NULL), false, &media, 100 * S);
    feedback_pass(&f, set, 100 * S);
    block.dlsr = 65536 / 2; /* held for half a second */
    size_t len = rtcp_write_receiver_report(room, 0, VIEWER, &block);

    CHECK_EQ(feedback_take_reporter(&f, &reporters[0], room, len, &media, 100 * S + 620 * MS),
             RTCP_TAKEN_receiver_report);
    CHECK_EQ(load_rlx(&reporters[0].report.fraction), 64);
    CHECK_EQ(load_rlx(&reporters[0].report.lost), 12);
    CHECK_EQ(load_rlx(&reporters[0].report.jitter_us), 10000);
    CHECK_EQ(load_rlx(&reporters[0].report.round_trip_us), 120000);
    CHECK_EQ(load_rlx(&reporters[0].report.at_ns), 100 * S + 620 * MS);
    /* Of a report that nobody passed on, or held longer than that is ago: the one before stands. */
    for (unsigned i = 0; i < 2; i++) {
        block.lsr = i ? 77 : (5u << 16) | 0x8000;
        block.dlsr = i ? 0 : 65536 * 9;
        len = rtcp_write_receiver_report(room, 0, VIEWER, &block);
        feedback_take_reporter(&f, &reporters[0], room, len, &media, 101 * S);
        CHECK_EQ(load_rlx(&reporters[0].report.round_trip_us), 120000);
    }
    /* Who has joined since got it later. */
    reporters[1].passed = f.report_number;
    reporters[1].passed_ns = 103 * S;
    block.lsr = (5u << 16) | 0x8000;
    block.dlsr = 0;
    len = rtcp_write_receiver_report(room, 0, VIEWER, &block);
    feedback_take_reporter(&f, &reporters[1], room, len, &media, 103 * S + 50 * MS);
    CHECK_EQ(load_rlx(&reporters[1].report.round_trip_us), 50000);
    CHECK_EQ(load_rlx(&f.counters.receiver_reports), 4);
}

/* Requests that are due until then, looked for every 10 ms. */
static unsigned sent(uint64_t from, uint64_t until)
{
    unsigned n = 0;

    for (uint64_t now = from; now < until; now += 10 * MS) {
        size_t len = feedback_compose(&f, room, OWN, set, &media, now);

        if (len > 0) {
            CHECK(rtcp_is_valid(room, len));
            n += rtcp_read(room, len, SOURCE).pli;
        }
    }
    return n;
}

static void want(bool urgent, uint64_t now)
{
    feedback_want_keyframe(&f, urgent, &media, now);
}

static void test_one_request_of_a_thousand(void)
{
    setup();
    media.keyframes = 3; /* they are told from others */
    for (unsigned i = 0; i < 1000; i++) {
        want(i % 2, 100 * S + i * MS / 10);
        if (i % 10 == 0)
            sent(100 * S + i * MS / 10, 100 * S + i * MS / 10 + 1);
    }
    CHECK_EQ(load_rlx(&f.counters.keyframe_requests_sent), 1);
    CHECK_EQ(load_rlx(&f.counters.keyframe_requests), 1000);
    media.keyframes++;
    CHECK_EQ(sent(100 * S + 200 * MS, 120 * S), 0);
}

static void test_repeated_until_one_comes(void)
{
    setup();
    media.keyframes = 1;
    want(true, 100 * S);
    CHECK_EQ(sent(100 * S, 100 * S + 900 * MS), 1);
    CHECK_EQ(sent(100 * S + 900 * MS, 130 * S), KEYFRAME_REPEATS);
    want(true, 130 * S); /* nobody answers, and somebody wants one again */
    CHECK_EQ(sent(130 * S, 131 * S - 10 * MS), 1);
    media.keyframes++;
    CHECK_EQ(sent(131 * S, 140 * S), 0);

    /* Where nobody can tell a keyframe nothing is repeated, and who still lacks one says so. */
    setup();
    want(true, 100 * S);
    CHECK_EQ(sent(100 * S, 110 * S), 1);
    want(true, 110 * S);
    CHECK_EQ(sent(110 * S, 110 * S + 400 * MS), 1);
    want(true, 110 * S + 400 * MS);
    CHECK_EQ(sent(110 * S + 400 * MS, 112 * S), 0);
}

static void test_how_often_each_class_is_heard(void)
{
    setup();
    media.keyframes = 1;
    want(false, 100 * S);
    CHECK_EQ(sent(100 * S, 100 * S + 50 * MS), 1);
    media.keyframes++;
    want(false, 100 * S + 100 * MS);
    CHECK_EQ(sent(100 * S + 100 * MS, 105 * S), 0);
    CHECK_EQ(sent(105 * S, 105 * S + 50 * MS), 1);
    media.keyframes++;
    want(true, 105 * S + 100 * MS);
    CHECK_EQ(sent(105 * S + 100 * MS, 105 * S + 500 * MS), 0);
    CHECK_EQ(sent(105 * S + 500 * MS, 105 * S + 550 * MS), 1);
    /* A keyframe comes before it is anybody's turn. */
    media.keyframes++;
    want(false, 106 * S);
    media.keyframes++;
    CHECK_EQ(sent(106 * S, 130 * S), 0);
}

static void test_keyframes_that_cost_too_much(void)
{
    setup();
    media.keyframes = 1;
    feedback_count_run(&f, 790, false, 95 * S);
    feedback_count_run(&f, 210, true, 99 * S);
    want(true, 100 * S);
    CHECK_EQ(sent(100 * S, 101 * S), 0);
    feedback_count_run(&f, 100, false, 101 * S);
    CHECK_EQ(sent(101 * S, 101 * S + 50 * MS), 1);
    CHECK_EQ(f.request.bytes[0] + f.request.bytes[1], 1100);
    feedback_count_run(&f, 1, false, 130 * S); /* long ago */
    CHECK_EQ(f.request.bytes[0] + f.request.bytes[1], 1);
    CHECK_EQ(f.request.keyframe_bytes[0] + f.request.keyframe_bytes[1], 0);
}

static void test_how_a_source_is_asked(void)
{
    struct {
        uint8_t format;
        bool pli, fir;
    } cases[] = {{0, true, false},
                 {RF_KEYFRAME_PLI, true, false},
                 {RF_KEYFRAME_FIR, false, true},
                 {RF_KEYFRAME_PLI | RF_KEYFRAME_FIR, true, true}};

    for (unsigned i = 0; i < COUNT(cases); i++) {
        setup();
        store_rlx(&f.format, cases[i].format);
        want(true, 100 * S);
        size_t len = feedback_compose(&f, room, OWN, set, &media, 100 * S);
        struct rtcp_about a = rtcp_read(room, len, SOURCE);
        struct rtcp_packet cname;

        CHECK(rtcp_is_valid(room, len) && len <= FEEDBACK_MESSAGE);
        CHECK_EQ(room[1], RTCP_RR); /* RFC 3550 section 6.1 */
        CHECK_EQ(rtcp_sender(room, len), OWN);
        CHECK(rtcp_find_cname(room, len, OWN, &cname));
        CHECK(a.pli == cases[i].pli && a.fir == cases[i].fir && !a.has_block);
    }
}

static struct rf_addr at(uint8_t last, uint16_t port)
{
    return (struct rf_addr){.ip = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = last}, .port = port};
}

static void test_our_own_reports(void)
{
    setup();
    media.expected = 1000;
    media.received = 900;
    media.sequence = 0x10010;
    media.jitter = 55;
    feedback_take_source(&f, room, sender_report(5, 900000, 0, NULL), false, &media, 100 * S);
    CHECK_EQ(feedback_compose(&f, room, OWN, set, &media, 100 * S), 0); /* nobody knows where to */
    f.spoken_by = at(1, 5006);
    f.spoken_ns = 100 * S;
    size_t len = feedback_compose(&f, room, OWN, set, &media, 101 * S);
    struct rtcp_about a = rtcp_read(room, len, SOURCE);

    CHECK(a.has_block && !a.pli);
    CHECK_EQ(a.block.fraction, 25); /* 100 of 1000, of 256 */
    CHECK_EQ(a.block.lost, 100);
    CHECK_EQ(a.block.sequence, 0x10010);
    CHECK_EQ(a.block.jitter, 55);
    CHECK_EQ(a.block.lsr, (5u << 16) | 0x8000);
    CHECK_EQ(a.block.dlsr, 65536);
    CHECK_EQ(feedback_compose(&f, room, OWN, set, &media, 101 * S + 900 * MS), 0);
    media.expected = 1100;
    media.received = 1010; /* ten that were late have come */
    a = rtcp_read(room, feedback_compose(&f, room, OWN, set, &media, 102 * S), SOURCE);
    CHECK_EQ(a.block.fraction, 0);
    CHECK_EQ(a.block.lost, 90);
    CHECK_EQ(feedback_compose(&f, room, OWN, set, &media, 131 * S), 0); /* it reports no more */
    CHECK_EQ(load_rlx(&f.counters.reports_sent), 2);
}

static void says(struct reporter *r, uint8_t fraction, uint64_t bitrate, uint64_t now)
{
    struct rtcp_block block = {.ssrc = SOURCE, .fraction = fraction};
    size_t len = rtcp_write_receiver_report(room, 0, VIEWER, &block);

    if (bitrate > 0)
        len = rtcp_write_bitrate(room, len, VIEWER, SOURCE, bitrate);
    CHECK(rtcp_is_valid(room, len));
    feedback_take_reporter(&f, r, room, len, &media, now);
}

static struct rtcp_about our_report(uint64_t now)
{
    size_t len;

    feedback_take_source(&f, room, sender_report(5, 900000, 0, NULL), false, &media, now);
    f.spoken_ns = now;
    len = feedback_compose(&f, room, OWN, set, &media, now);
    CHECK(rtcp_is_valid(room, len) && len <= FEEDBACK_MESSAGE);
    return rtcp_read(room, len, SOURCE);
}

/* The worst of a few, the median of many; of that class, and of late. */
static void test_what_one_class_reports(void)
{
    enum { MANY = 9 };
    struct reporters *all = calloc(1, sizeof *all + (MANY + 1) * sizeof(struct reporter *));
    struct reporter one[MANY + 1] = {0};

    setup();
    media.expected = media.received = 1000;
    media.rate = 0; /* any time is plausible enough */
    all->number = 1;
    for (unsigned i = 0; i <= MANY; i++) {
        one[i].subscriber = i < MANY ? &monitor : &pilot;
        all->item[all->count++] = &one[i];
    }
    struct reporters *before = set;

    set = all;
    all->count = 8;
    for (unsigned i = 0; i < 8; i++)
        says(&one[i], (uint8_t)(10 * i), 2000000 - i, 100 * S);
    says(&one[MANY], 250, 500, 100 * S);
    CHECK_EQ(our_report(101 * S).block.fraction, 0); /* nobody was named */
    store_rlx(&f.class, 1 + RF_CLASS_MONITOR);
    struct rtcp_about a = our_report(102 * S);

    CHECK_EQ(a.block.fraction, 70);
    CHECK(a.has_bitrate && a.bitrate <= 2000000 - 7 && a.bitrate > 1999900);
    all->count = MANY + 1;
    says(&one[8], 255, 0, 102 * S);
    CHECK_EQ(our_report(103 * S).block.fraction, 40);
    store_rlx(&f.class, 1 + RF_CLASS_PILOT);
    a = our_report(104 * S);
    CHECK_EQ(a.block.fraction, 250);
    CHECK_EQ(a.bitrate, 500);
    media.received -= 100; /* its own loss is not more than that */
    CHECK_EQ(our_report(105 * S).block.fraction, 250);
    store_rlx(&f.class, 1 + RF_CLASS_RECORDER);
    media.expected += 200;
    media.received += 100;
    a = our_report(106 * S);
    CHECK_EQ(a.block.fraction, 128); /* but where nobody says more, that counts */
    CHECK(!a.has_bitrate);
    store_rlx(&f.class, 1 + RF_CLASS_MONITOR);
    store_rlx(&monitor.withheld, RF_WITHHELD_SHED);
    a = our_report(107 * S);
    CHECK_EQ(a.block.fraction, 0); /* it gets no packets */
    CHECK(!a.has_bitrate);
    store_rlx(&monitor.withheld, 0), a = our_report(118 * S);
    CHECK_EQ(a.block.fraction, 0); /* long ago */
    CHECK(!a.has_bitrate);
    CHECK_EQ(load_rlx(&f.counters.bitrates_sent), 4);
    set = before;
    free(all);
}

static void test_what_is_missing_is_asked_for(void)
{
    struct repair repair = {0};

    setup();
    feedback_note_packet(&f, SOURCE, 1, 100 * S); /* nobody wants that */
    store_rlx(&f.repair, &repair);
    store_rlx(&f.repairs, true);
    for (uint16_t sequence = 10; sequence < 60; sequence++) {
        if (sequence % 7 != 0)
            feedback_note_packet(&f, SOURCE, sequence, 100 * S);
    }
    size_t len = feedback_compose(&f, room, OWN, set, &media, 100 * S);

    CHECK(rtcp_is_valid(room, len) && len <= FEEDBACK_MESSAGE);
    CHECK_EQ(rtcp_read(room, len, SOURCE).nacked, 7);
    CHECK_EQ(load_rlx(&f.counters.packets_asked), 7);
    CHECK_EQ(feedback_compose(&f, room, OWN, set, &media, 100 * S + 50 * MS), 0);
    feedback_note_packet(&f, SOURCE, 14, 100 * S + 50 * MS);
    CHECK_EQ(load_rlx(&f.counters.packets_repaired), 1);
    store_rlx(&f.repairs, false);
    CHECK_EQ(feedback_compose(&f, room, OWN, set, &media, 101 * S), 0);
}

static void test_where_the_source_is(void)
{
    uint16_t port;
    bool next;

    setup();
    CHECK_EQ(feedback_source(&f, S, &port, &next).port, 0);
    f.fed_from = at(1, 5004);
    CHECK_EQ(feedback_source(&f, S, &port, &next).port, 5005);
    CHECK(next);
    f.spoken_by = at(1, 7777);
    f.spoken_to = 5005;
    f.spoken_ns = S;
    CHECK_EQ(feedback_source(&f, 2 * S, &port, &next).port, 7777);
    CHECK(!next && port == 5005);
    CHECK_EQ(feedback_source(&f, 100 * S, &port, &next).port, 5005); /* long ago */
    f.spoken_by = at(2, 7777); /* of where it was before */
    CHECK_EQ(feedback_source(&f, 2 * S, &port, &next).port, 5005);
}

static void test_farewell(void)
{
    setup();
    size_t len = feedback_bye(&f, SOURCE, room);

    CHECK(rtcp_is_valid(room, len) && rtcp_has_bye(room, len));
    feedback_take_source(&f, room, sender_report(5, 900000, 0, "cam@r7"), false, &media, 100 * S);
    len = feedback_bye(&f, SOURCE, room);
    struct rtcp_packet cname;

    CHECK(rtcp_is_valid(room, len) && rtcp_has_bye(room, len));
    CHECK(rtcp_find_cname(room, len, SOURCE, &cname));
}

static void test_another_source(void)
{
    setup();
    feedback_take_source(&f, room, sender_report(5, 900000, 0, "cam@r7"), false, &media, 100 * S);
    CHECK(feedback_passes(&f, set, 100 * S));
    feedback_begin(&f);
    CHECK(!feedback_passes(&f, set, 100 * S));
    CHECK_EQ(f.cname_len, 0);
}

int main(void)
{
    set = calloc(1, sizeof *set + sizeof(struct reporter *));
    CHECK(set);
    RUN(test_sender_reports);
    RUN(test_reports_of_several_ssrcs);
    RUN(test_implausible_ones);
    RUN(test_encrypted_ones);
    RUN(test_farewells_and_the_rest_of_a_source);
    RUN(test_how_many_are_taken);
    RUN(test_receiver_reports);
    RUN(test_one_request_of_a_thousand);
    RUN(test_repeated_until_one_comes);
    RUN(test_how_often_each_class_is_heard);
    RUN(test_keyframes_that_cost_too_much);
    RUN(test_how_a_source_is_asked);
    RUN(test_our_own_reports);
    RUN(test_what_one_class_reports);
    RUN(test_what_is_missing_is_asked_for);
    RUN(test_where_the_source_is);
    RUN(test_farewell);
    RUN(test_another_source);
    free(set);
    return 0;
}
