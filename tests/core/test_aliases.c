/* aliases.h, rtcp_gate.c: RTCP finds sessions where their packets don't. */
#include "at_gate.h"

#include <pthread.h>

#include "calls.h"
#include "rtcp.h"

enum { SSRC = 0x11223344, VIEWER = 0x55667788 };

static uint64_t handle;
static _Atomic bool removed;

static void *remove_it(void *unused)
{
    (void)unused;
    CHECK_EQ(rf_session_remove(engine, handle), 0);
    store_rls(&removed, true);
    return NULL;
}

/* While its grace period lasts: its owner would note it behind the back of who forgets it. */
static void test_a_session_on_its_way_out_is_found_no_more(void)
{
    struct rf_addr camera = address("127.0.0.1", 5000), to = address("127.0.0.1", 6000);
    struct rf_source any = {.policy = RF_EXACT, .exact = camera, .ssrc_policy = RF_SSRC_ANY};
    struct rf_stats s;
    uint8_t message[100];
    pthread_t remover;
    bool added;

    gate_open_for(4);
    handle = must_add(&any, 0);
    CHECK_EQ(subscribers_add(engine, handle, &to, 1, now, &added), 0);
    CHECK_EQ(rf_subscribers_rtcp(engine, handle, &to, 1, RF_RTCP_MUX), 0);
    CHECK_EQ(handle_of(pass_rtp(SSRC, &camera, 96, 1)), handle);
    alias_note(engine->table.aliases, SSRC, (uint32_t)handle);
    uint32_t len = (uint32_t)rtcp_write_pli(message, 0, VIEWER, SSRC);

    pass(message, len, &to);
    rf_engine_stats(engine, &s);
    CHECK_EQ(s.rtcp_taken_keyframe_request, 1);

    qsbr_online(&engine->qsbr, 0);
    CHECK_EQ(pthread_create(&remover, NULL, remove_it, NULL), 0);
    while (pass_rtp(SSRC, &camera, 96, 2)->session)
        sleep_ms(1);
    sleep_ms(20); /* it has begun to wait */
    CHECK(!load_acq(&removed));
    pass(message, len, &to);
    qsbr_offline(&engine->qsbr, 0);
    CHECK_EQ(pthread_join(remover, NULL), 0);
    rf_engine_stats(engine, &s);
    CHECK_EQ(s.rtcp_taken_keyframe_request, 1);
    gate_close();
}

static void *move_it(void *to)
{
    struct rf_source exact = {.policy = RF_EXACT, .exact = *(struct rf_addr *)to};

    CHECK_EQ(rf_session_move(engine, handle, &exact, now), 0);
    return NULL;
}

/* It may have another owner then, and what is heard has one writer. */
static void test_a_session_that_changes_hands_is_not_heard(void)
{
    struct rf_addr camera = address("127.0.0.1", 5000), other = address("127.0.0.1", 5002);
    struct rf_addr to = address("127.0.0.1", 6000);
    struct rf_source exact = {.policy = RF_EXACT, .exact = camera};
    struct rf_stats s;
    uint8_t message[100];
    uint32_t len = (uint32_t)rtcp_write_pli(message, 0, VIEWER, SSRC);
    pthread_t mover;
    bool added;

    gate_open_for(4);
    handle = must_add(&exact, SSRC);
    CHECK_EQ(subscribers_add(engine, handle, &to, 1, now, &added), 0);
    CHECK_EQ(rf_subscribers_rtcp(engine, handle, &to, 1, RF_RTCP_MUX), 0);
    CHECK_EQ(handle_of(pass_rtp(SSRC, &camera, 96, 1)), handle);
    qsbr_online(&engine->qsbr, 0);
    CHECK_EQ(pthread_create(&mover, NULL, move_it, &other), 0);
    while (pass_rtp(SSRC, &camera, 96, 2)->session)
        sleep_ms(1);
    pass(message, len, &to);
    qsbr_offline(&engine->qsbr, 0);
    CHECK_EQ(pthread_join(mover, NULL), 0);
    rf_engine_stats(engine, &s);
    CHECK_EQ(s.rtcp_taken_keyframe_request, 0);
    CHECK_EQ(s.rtcp_dropped_implausible, 1);
    CHECK_EQ(handle_of(pass_rtp(SSRC, &other, 96, 1)), handle);
    pass(message, len, &to);
    rf_engine_stats(engine, &s);
    CHECK_EQ(s.rtcp_taken_keyframe_request, 1);
    gate_close();
}

/* Each address has a bucket, and strangers have one: at one moment 50 of each subscription, and a tenth of
 * what strangers have in a second. */
static void test_each_has_a_bucket(void)
{
    enum { VIEWERS = 500 };
    struct rf_addr camera = address("127.0.0.1", 5000), to[VIEWERS], stranger = address("127.0.0.9", 1);
    struct rf_source any = {.policy = RF_EXACT, .exact = camera, .ssrc_policy = RF_SSRC_ANY};
    bool added[VIEWERS];
    uint8_t message[100];

    gate_open_for(4);
    handle = must_add(&any, 0);
    for (unsigned i = 0; i < VIEWERS; i++)
        to[i] = address("127.0.0.2", (uint16_t)(6000 + 2 * i));
    CHECK_EQ(subscribers_add(engine, handle, to, VIEWERS, now, added), 0);
    CHECK_EQ(rf_subscribers_rtcp(engine, handle, to, VIEWERS, RF_RTCP_MUX), 0);
    CHECK_EQ(handle_of(pass_rtp(SSRC, &camera, 96, 1)), handle);
    alias_note(engine->table.aliases, SSRC, (uint32_t)handle);
    uint32_t len = (uint32_t)rtcp_write_pli(message, 0, VIEWER, SSRC);

    while (familiar_with(engine->table.familiar, &stranger).reporters > 0)
        stranger.port++; /* it shares a cell with one of them */
    for (unsigned i = 0; i < 3000; i++)
        pass(message, len, &stranger);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_dropped_rate), 3000 - 200);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_dropped_wrong_ssrc), 200);
    for (unsigned i = 0; i < 60; i++)
        pass(message, len, &to[7]);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_dropped_rate), 3000 - 200 + 10);
    for (unsigned i = 0; i < VIEWERS; i++)
        pass(message, len, &to[i]);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_taken_keyframe_request), 50 + VIEWERS - 1);
    now += UINT64_C(100000000);
    for (unsigned i = 0; i < 60; i++)
        pass(message, len, &to[7]);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_taken_keyframe_request), 50 + VIEWERS - 1 + 5);
    gate_close();
}

/* In the middle of a move it is in the index by its old source, which is not its source any more. */
static void test_the_source_before_is_not_heard(void)
{
    struct rf_addr camera = address("127.0.0.1", 5000), next = address("127.0.0.3", 5000);
    struct rf_source exact = {.policy = RF_EXACT, .exact = camera}, moved = {.policy = RF_EXACT, .exact = next};
    uint8_t report[RTCP_SR_LEN] = {0x80, RTCP_SR, 0, RTCP_SR_LEN / 4 - 1};

    gate_open_for(4);
    handle = must_add(&exact, SSRC);
    CHECK_EQ(rf_session_read(engine, handle, RF_READ_SRTP), 0); /* nothing is compared with packets */
    for (unsigned i = 0; i < 4; i++)
        report[4 + i] = (uint8_t)(SSRC >> (24 - 8 * i));
    CHECK_EQ(handle_of(pass_rtp(SSRC, &camera, 96, 1)), handle);
    pass(report, sizeof report, &camera);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_taken_sender_report), 1);
    struct session *s = session_by_handle(&engine->sessions, handle);

    engine_note_feeder(engine, s, &moved);
    pass(report, sizeof report, &camera);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_taken_sender_report), 1);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_dropped_unknown_sender), 1);
    CHECK_EQ(s->feedback->report_len, 0); /* nor is what it said before */
    CHECK_EQ(rf_session_move(engine, handle, &moved, now), 0);
    CHECK_EQ(handle_of(pass_rtp(SSRC, &next, 96, 2)), handle);
    pass(report, sizeof report, &next);
    CHECK_EQ(load_rlx(&gate->counters->rtcp_taken_sender_report), 2);
    CHECK(s->feedback->report_len > 0); /* that of the new one stays */
    CHECK(!load_rlx(&s->feedback->forget));
    gate_close();
}

int main(void)
{
    RUN(test_a_session_on_its_way_out_is_found_no_more);
    RUN(test_a_session_that_changes_hands_is_not_heard);
    RUN(test_each_has_a_bucket);
    RUN(test_the_source_before_is_not_heard);
    return 0;
}
