/* receptions.c, worker_admit.c: how sessions are received, as an engine tells it. */
#include <pthread.h>

#include "calls.h"
#include "core.h"
#include "endpoints.h"
#include "loops.h"

enum { WORKERS = 2 };

static struct rf_engine *engine;
static struct loops loops;
static struct rf_addr to;

static void setup(void)
{
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = 100,
        .max_subscribers = 4,
        .receive_queue_packets = 4096,
        .workers = WORKERS,
        .split_threshold = 256,
        .check_padding = true,
    };
    struct rf_socket_info info;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    to = info.bound;
    loops_start(&loops, engine, WORKERS);
}

static void teardown(void)
{
    rf_engine_stop(engine);
    loops_join(&loops);
    rf_engine_free(engine);
}

static struct rf_reception reception_of(uint64_t handle)
{
    struct rf_reception r;

    memset(&r, 0, sizeof r);
    CHECK_EQ(rf_session_reception(engine, handle, clock_now(CLOCK_MONOTONIC), &r), 0);
    CHECK_EQ(r.handle, handle);
    return r;
}

static void await_received(uint64_t handle, int64_t n)
{
    for (unsigned i = 0; i < 20000 && reception_of(handle).received < n; i++)
        sleep_ms(1);
    CHECK_EQ(reception_of(handle).received, n);
}

static void send_payload(int from, uint32_t ssrc, uint16_t seq, const char *payload, size_t len)
{
    uint8_t p[256];

    rtp_make(p, 12, ssrc, seq);
    memset(p + 4, 0, 4);
    p[6] = (uint8_t)(seq >> 8);
    p[7] = (uint8_t)seq;
    memcpy(p + 12, payload, len);
    send_to(from, &to, p, 12 + len);
}

/* Whichever worker receives them: what is handed over is counted by the owner, and once. */
static void by_several_workers(void)
{
    enum { SOURCES = 8, PACKETS = 4000 };
    struct rf_source any = {.policy = RF_NETWORK, .network = {address("127.0.0.0", 0), 104, false}};
    int from[SOURCES];
    struct rf_addr bound;
    struct rf_stats stats;
    uint64_t handle;

    setup();
    CHECK_EQ(rf_session_add(engine, &any, 5, clock_now(CLOCK_MONOTONIC), &handle), 0);
    for (unsigned i = 0; i < SOURCES; i++)
        from[i] = endpoint("127.0.0.1", &bound);
    for (unsigned i = 0; i < PACKETS; i++) {
        send_payload(from[i % SOURCES], 5, (uint16_t)i, "x", 1);
        if (i % 32 == 31)
            await_received(handle, i + 1);
    }
    struct rf_reception r = reception_of(handle);

    rf_engine_stats(engine, &stats);
    CHECK_EQ(r.expected, PACKETS);
    CHECK_EQ(r.lost + r.duplicates + r.restarts + r.out_of_sequence, 0);
    CHECK_EQ(r.ssrc, 5);
    CHECK_EQ(stats.packets_received, PACKETS);
    for (unsigned i = 0; i < SOURCES; i++)
        close(from[i]);
    teardown();
}

static void sets_are_there_at_once(void)
{
    struct rf_addr source;
    int from = endpoint("127.0.0.1", &source);
    uint8_t got[RF_PARAMETER_BYTES];
    uint64_t handle, now = clock_now(CLOCK_MONOTONIC);
    size_t len = 1;

    setup();
    CHECK_EQ(session_add(engine, &source, 9, now, &handle), 0);
    CHECK_EQ(rf_session_parameter_sets(engine, handle, got, &len), 0);
    CHECK_EQ(len, 0);
    /* Sent once, before anybody knows what it is, and never again. */
    send_payload(from, 9, 1, "\x40\x01\x0c\x01", 4);
    send_payload(from, 9, 2, "\x42\x01\x01\x01", 4);
    send_payload(from, 9, 3, "\x44\x01\xc1\x72", 4);
    for (uint16_t i = 4; i < 60; i++)
        send_payload(from, 9, i, i == 4 ? "\x26\x01\xaf" : "\x02\x01\xd0", 3);
    await_received(handle, 59);
    struct rf_reception r = reception_of(handle);

    CHECK_EQ(r.encoding, RF_ENCODING_H265);
    CHECK(r.parameter_sets_age_ns >= 0);
    CHECK_EQ(rf_session_parameter_sets(engine, handle, got, &len), 0);
    CHECK_EQ(len, 18);
    CHECK(memcmp(got, "\0\4\x40\x01\x0c\x01\0\4\x42\x01\x01\x01\0\4\x44\x01\xc1\x72", 18) == 0);
    /* What was the session's goes with it. */
    CHECK_EQ(rf_session_remove(engine, handle), 0);
    CHECK_EQ(session_add(engine, &source, 9, now, &handle), 0);
    CHECK_EQ(rf_session_parameter_sets(engine, handle, got, &len), 0);
    CHECK_EQ(len, 0);
    CHECK_EQ(reception_of(handle).received, 0);
    CHECK_EQ(reception_of(handle).condition, RF_CONDITION_never_fed);
    close(from);
    teardown();
}

static void media_is_told(void)
{
    struct rf_addr source = address("127.0.0.1", 4000);
    struct rf_media media = {.encoding = RF_ENCODING_VP8, .payload_type = RF_ANY_PAYLOAD_TYPE};
    uint64_t handle;

    setup();
    CHECK_EQ(session_add(engine, &source, 9, 0, &handle), 0);
    CHECK_EQ(rf_session_media(engine, handle, &media), 0);
    media.payload_type = 128;
    CHECK_EQ(rf_session_media(engine, handle, &media), -EINVAL);
    media.payload_type = 96;
    media.encoding = RF_ENCODING_COUNT;
    CHECK_EQ(rf_session_media(engine, handle, &media), -EINVAL);
    media.encoding = RF_ENCODING_H264;
    CHECK_EQ(rf_session_media(engine, handle + 1, &media), -ENOENT);
    CHECK_EQ(rf_session_reception(engine, handle + 1, 0, &(struct rf_reception){0}), -ENOENT);
    CHECK_EQ(rf_session_parameter_sets(engine, handle + 1, NULL, NULL), -ENOENT);
    teardown();
}

/* Each change once; what finds no room comes with the next call. */
static void conditions_are_told_once(void)
{
    enum { SESSIONS = 10 };
    const uint64_t LATELY = 5000000000;
    struct rf_reception sum;
    struct rf_addr source;
    int from = endpoint("127.0.0.1", &source);
    struct rf_condition_change change[SESSIONS];
    struct rf_reception all[SESSIONS];
    uint64_t handle[SESSIONS], now = clock_now(CLOCK_MONOTONIC);

    setup();
    for (uint32_t i = 0; i < SESSIONS; i++)
        CHECK_EQ(session_add(engine, &source, 100 + i, now, &handle[i]), 0);
    CHECK_EQ(rf_conditions(engine, now, LATELY, change, SESSIONS), 0);
    for (uint32_t i = 0; i < SESSIONS; i++)
        send_payload(from, 100 + i, 1, "x", 1);
    for (uint32_t i = 0; i < SESSIONS; i++)
        await_received(handle[i], 1);
    now = clock_now(CLOCK_MONOTONIC);
    CHECK_EQ(rf_conditions(engine, now, LATELY, change, 4), 4);
    CHECK_EQ(change[0].handle, handle[0]);
    CHECK_EQ(change[0].condition, RF_CONDITION_flowing);
    CHECK(change[0].active);
    CHECK_EQ(rf_conditions(engine, now, LATELY, change, SESSIONS), 6);
    CHECK_EQ(change[0].handle, handle[4]);
    CHECK_EQ(rf_conditions(engine, now, LATELY, change, SESSIONS), 0);
    CHECK_EQ(rf_conditions(engine, now + 2000000000, LATELY, change, SESSIONS), SESSIONS);
    CHECK_EQ(change[9].condition, RF_CONDITION_silent);
    CHECK(change[9].active);
    CHECK_EQ(rf_conditions(engine, now + LATELY + 1, LATELY, change, SESSIONS), SESSIONS);
    CHECK(change[9].condition == RF_CONDITION_silent && !change[9].active);
    CHECK_EQ(change[9].restarts, 0);
    rf_receptions_sum(engine, now, &sum);
    CHECK_EQ(sum.received, SESSIONS);
    CHECK_EQ(sum.expected, SESSIONS);
    CHECK_EQ(sum.keyframe_age_ns, 0);
    CHECK_EQ(rf_session_remove(engine, handle[0]), 0);
    rf_receptions_sum(engine, now, &sum);
    CHECK_EQ(sum.received, SESSIONS);
    CHECK_EQ(rf_sessions_reception(engine, now, all, 3), SESSIONS - 1);
    CHECK_EQ(all[2].handle, handle[3]);
    CHECK_EQ(all[2].condition, RF_CONDITION_silent);
    struct rf_reception_figures figures[SESSIONS];
    uint64_t of[SESSIONS];

    CHECK_EQ(rf_sessions_figures(engine, now, of, figures, 3), SESSIONS - 1);
    CHECK(of[0] == handle[1] && of[2] == handle[3]);
    CHECK(figures[2].expected == 1 && figures[2].lost == 0);
    CHECK(figures[2].frame_rate == (float)all[2].frame_rate);
    CHECK((figures[2].jitter_secs < 0) == (all[2].jitter_ns == RF_ABSENT));
    close(from);
    teardown();
}

static void names(void)
{
    CHECK(strcmp(rf_encoding_name(RF_ENCODING_JPEG), "JPEG") == 0);
    CHECK(rf_encoding_name(RF_ENCODING_COUNT) == NULL);
    CHECK(strcmp(rf_condition_name(RF_CONDITION_never_fed), "never_fed") == 0);
    CHECK(rf_condition_name(RF_CONDITION_COUNT) == NULL);
    CHECK(rf_condition_help(RF_CONDITION_COUNT) == NULL);
    CHECK(strcmp(rf_reception_field_name(0), "received") == 0);
    for (size_t i = 0; rf_reception_field_name(i); i++)
        CHECK(*rf_reception_field_help(i) != 0);
}

int main(void)
{
    RUN(by_several_workers);
    RUN(sets_are_there_at_once);
    RUN(media_is_told);
    RUN(conditions_are_told_once);
    RUN(names);
    return 0;
}
