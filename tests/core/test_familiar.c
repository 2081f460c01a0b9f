/* familiar.c, rtcp_gate.c, reporting.c: who is expected to send RTCP, and that strangers take nothing from them. */
#include "familiar.h"

#include <stdlib.h>

#include "calls.h"
#include "endpoints.h"
#include "engine.h"
#include "loops.h"
#include "random.h"
#include "rtp.h"

enum { SSRC = 0x11223344, VIEWER = 7, LEN = 100 };

static struct familiar *familiar;

static struct rf_addr host_of(unsigned i, uint16_t port)
{
    return (struct rf_addr){
        .ip = {[10] = 0xff, [11] = 0xff, [12] = 10, [14] = (uint8_t)(i >> 8), [15] = (uint8_t)i},
        .port = port};
}

static uint64_t in_all(struct familiar *f)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < FAMILIAR_CELLS; i++)
        sum += load_rlx(&f->cell[i]);
    return sum;
}

static void test_who_is_counted(void)
{
    struct hash_key key;

    CHECK_EQ(hash_key_init(&key), 0);
    familiar = familiar_new(&key);
    CHECK(familiar);
    struct rf_addr a = host_of(1, 5000), above = host_of(1, 5001), far = host_of(1, 5002),
                   other = host_of(2, 5000);

    familiar_count_pair(familiar, &a, 1);
    familiar_count_pair(familiar, &a, 1);
    CHECK_EQ(familiar_with(familiar, &a).reporters, 2);
    CHECK_EQ(familiar_with(familiar, &above).reporters, 2);
    CHECK_EQ(familiar_with(familiar, &far).reporters, 0);
    CHECK_EQ(familiar_with(familiar, &other).reporters, 0);
    familiar_count_host(familiar, familiar_host(&key, &a), 1);
    CHECK_EQ(familiar_with(familiar, &far).sources, 1);
    CHECK_EQ(familiar_with(familiar, &other).sources, 0);
    familiar_note_fed(familiar, familiar_host(&key, &other));
    CHECK_EQ(familiar_with(familiar, &other).sources, 1);
    familiar_count_host(familiar, 0, 1); /* of no single host */
    familiar_count_host(familiar, familiar_host(&key, &a), -1);
    familiar_count_pair(familiar, &a, -1);
    CHECK_EQ(familiar_with(familiar, &above).reporters, 1);
    familiar_count_pair(familiar, &a, -1);
    CHECK_EQ(in_all(familiar), 0);
    familiar_free(familiar);
}

/* Two cells for each subscriber with RTCP, one for each session whose source has one address. */
static uint64_t expected_of(struct rf_engine *e, const uint64_t handle[4])
{
    uint64_t expected = 0;

    for (unsigned i = 0; i < 4; i++) {
        struct rf_feedback f;

        if (!handle[i])
            continue;
        CHECK_EQ(rf_session_feedback(e, handle[i], &f), 0);
        expected += 2 * f.reporters;
        expected += load_rlx(&session_by_handle(&e->sessions, handle[i])->feeder) != 0;
    }
    return expected;
}

/* Whatever the calls, as many are expected as there are. */
static void test_counted_as_calls_have_it(void)
{
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = 8,
        .max_subscribers = 16,
        .receive_queue_packets = 64,
        .workers = 1,
        .split_threshold = 8,
    };
    struct rf_engine *e;
    uint64_t handle[4] = {0}, random = 5, most = 0;

    CHECK_EQ(rf_engine_new(&config, &e), 0);
    for (unsigned round = 0; round < 4000; round++) {
        unsigned i = random_below(&random, 4), v = random_below(&random, 6);
        struct rf_addr source = host_of(i, 4000), to = host_of(100 + v, 6000);
        struct rf_source wide = {.policy = RF_NETWORK, .network = {source, 120, false}},
                         exact = {.policy = RF_EXACT, .exact = source};
        bool flag;

        if (!handle[i])
            CHECK_EQ(session_add(e, &source, SSRC + i, 0, &handle[i]), 0);
        switch (random_below(&random, 5)) {
        case 0: CHECK_EQ(subscribers_add(e, handle[i], &to, 1, 0, &flag), 0); break;
        case 1: CHECK_EQ(rf_subscribers_remove(e, handle[i], &to, 1, &flag), 0); break;
        case 2: CHECK_EQ(rf_subscribers_rtcp(e, handle[i], &to, 1, random_below(&random, 3)), 0); break;
        case 3: CHECK_EQ(rf_session_move(e, handle[i], v % 2 ? &wide : &exact, 0), 0); break;
        default:
            if (v == 0) {
                CHECK_EQ(rf_session_remove(e, handle[i]), 0);
                handle[i] = 0;
            }
        }
        if (round % 20 == 0) {
            uint64_t expected = expected_of(e, handle);

            CHECK_EQ(in_all(e->table.familiar), expected);
            most = expected > most ? expected : most;
        }
    }
    CHECK(most > 10);
    for (unsigned i = 0; i < 4; i++) {
        if (handle[i])
            CHECK_EQ(rf_session_remove(e, handle[i]), 0);
    }
    CHECK_EQ(in_all(e->table.familiar), 0);
    rf_engine_free(e);
}

/* Behind each of these many others: whose RTCP is expected is heard all the same. */
static void test_a_flood_takes_nothing_from_who_is_expected(void)
{
    enum { ROUNDS = 40, BESIDE = 200 };
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = 8,
        .max_subscribers = 16,
        .receive_queue_packets = 65536,
        .workers = 1,
        .split_threshold = 8,
    };
    struct rf_socket_info info;
    struct rf_engine *e;
    struct rf_addr from, to[2], nobody;
    struct loops loops;
    struct rf_stats s;
    uint64_t handle;
    uint8_t packet[LEN], message[LEN];
    bool added[2];
    int source, viewer[2], stranger;
    struct rtcp_block block = {SSRC, 128, 7, 65000, 0, 0, 0};

    CHECK_EQ(rf_engine_new(&config, &e), 0);
    rf_engine_socket(e, &info);
    loops_start(&loops, e, 1);
    nobody = to[0] = to[1] = from = address("127.0.0.1", 0);
    source = endpoint("127.0.0.1", &from);
    stranger = endpoint("127.0.0.2", &nobody);
    for (unsigned i = 0; i < 2; i++)
        viewer[i] = endpoint("127.0.0.1", &to[i]);
    CHECK_EQ(session_add(e, &from, SSRC, 0, &handle), 0);
    CHECK_EQ(subscribers_add(e, handle, to, 2, 0, added), 0);
    CHECK_EQ(rf_subscribers_rtcp(e, handle, to, 2, RF_RTCP_MUX), 0);
    rtp_make(packet, sizeof packet, SSRC, 1);
    send_to(source, &info.bound, packet, sizeof packet);
    CHECK_EQ(receive(viewer[0], packet, sizeof packet, 5000), LEN);
    /* Of strangers, and of a subscriber, or who has its address. */
    for (unsigned round = 0; round < ROUNDS; round++) {
        size_t len = rtcp_write_pli(message, 0, VIEWER, SSRC);

        for (unsigned i = 0; i < BESIDE; i++)
            send_to(round % 2 ? stranger : viewer[1], &info.bound, message, len);
        len = rtcp_write_receiver_report(message, 0, VIEWER, &block);
        send_to(viewer[0], &info.bound, message, len);
    }
    for (unsigned i = 0; i < 20000; i++) {
        rf_engine_stats(e, &s);
        if (s.packets_received == 1 + ROUNDS * (BESIDE + 1))
            break;
        sleep_ms(1);
    }
    CHECK_EQ(s.packets_received, 1 + ROUNDS * (BESIDE + 1));
    CHECK_EQ(s.rtcp_taken_receiver_report, ROUNDS);
    CHECK(s.rtcp_dropped_rate > 0);
    CHECK(s.rtcp_taken_keyframe_request >= 50);
    rf_engine_stop(e);
    loops_join(&loops);
    rf_engine_free(e);
    close(source), close(stranger), close(viewer[0]), close(viewer[1]);
}

int main(void)
{
    RUN(test_who_is_counted);
    RUN(test_counted_as_calls_have_it);
    RUN(test_a_flood_takes_nothing_from_who_is_expected);
    return 0;
}
