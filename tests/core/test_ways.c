/* ways.c, datagrams.c: everything that says from where copies leave, changed while copies leave: deliveries told and found,
 * addresses that come and go, those that are withheld, sessions that come and go, and what strangers
 * send meanwhile. Nothing is torn, lost or counted twice; the sanitizers look on. */
#include <pthread.h>
#include <stdlib.h>

#include "identities.h"
#include "random.h"
#include "sessions.h"

enum { SESSIONS = 4, SUBSCRIBERS = 300, WORKERS = 3, CHANGES = 400, SOURCES = 3 };

static struct rf_engine *engine;
static struct rf_addr bound, source[SOURCES];
static int camera[SOURCES];
static _Atomic uint64_t handle[SESSIONS];
static _Atomic bool over;

/* 127.0.0.1 to 127.0.0.40, of the loopback interface; those from 192.0.2.0/24 are nobody's. */
static struct rf_addr one_of_ours(uint64_t *random)
{
    struct rf_addr a = address("127.0.0.1", 0);

    a.ip[15] = (uint8_t)(1 + random_below(random, 40));
    if (random_below(random, 5) == 0)
        a = address("192.0.2.1", 0);
    return a;
}

static void tell_addresses(uint64_t *random)
{
    struct rf_addr all[42];
    uint32_t n = random_below(random, COUNT(all));

    for (uint32_t i = 0; i < n; i++) {
        all[i] = address(i % 2 ? "127.0.0.1" : "10.0.0.1", 0);
        all[i].ip[15] = (uint8_t)(1 + i);
        all[i].scope = 1 + i % 2;
    }
    CHECK_EQ(rf_local_addresses(engine, all, n), 0);
}

static size_t some_subscribers(uint64_t *random, struct rf_addr out[8])
{
    size_t n = 1 + random_below(random, 8);

    for (size_t i = 0; i < n; i++)
        out[i] = loopback_address(random_below(random, SUBSCRIBERS), 9);
    return n;
}

static void change_subscribers(uint64_t *random, uint64_t h)
{
    struct rf_terms terms = {.subscriber_class = RF_CLASS_MONITOR}, found_terms[8];
    struct rf_addr addrs[8], from = one_of_ours(random);
    size_t n = some_subscribers(random, addrs), changed;
    bool flags[8];
    int rc;

    switch (random_below(random, 6)) {
    case 0:
        rc = rf_subscribers_remove(engine, h, addrs, n, flags);
        break;
    case 1:
        rc = rf_subscribers_deliver(engine, h, addrs, n, from.ip);
        break;
    case 2:
        rc = rf_subscribers_withhold(engine, h, addrs, n, RF_WITHHELD_CONSENT,
                                     random_below(random, 2), &changed);
        break;
    case 3:
        rc = rf_subscribers_find(engine, h, addrs, n, found_terms, flags);
        break;
    default:
        if (random_below(random, 2))
            memcpy(terms.from, from.ip, sizeof terms.from);
        rc = rf_subscribers_add(engine, h, addrs, n, &terms, 1, flags);
    }
    CHECK(rc == 0 || rc == -ENOENT);
}

static void renew_session(uint32_t i)
{
    struct rf_source any = {.policy = RF_NETWORK, .network = {.anybody = true}};
    uint64_t h;

    (void)rf_session_remove(engine, load_rlx(&handle[i]));
    CHECK_EQ(rf_session_add(engine, &any, 1 + i, 1, &h), 0);
    store_rlx(&handle[i], h);
}

static void *change(void *seed)
{
    uint64_t random = (uintptr_t)seed;
    struct rf_stats stats;

    for (unsigned i = 0; i < CHANGES; i++) {
        uint64_t h = load_rlx(&handle[random_below(&random, SESSIONS)]);

        for (unsigned k = 0; k < 4; k++)
            change_subscribers(&random, h);
        if (random_below(&random, 8) == 0)
            tell_addresses(&random);
        if (random_below(&random, 8) == 0)
            rf_follow_sources(engine);
        if (random_below(&random, 16) == 0)
            rf_engine_stats(engine, &stats);
    }
    return NULL;
}

static void *read_notices(void *unused)
{
    static struct rf_notice notices[64];
    uint64_t random = 99;

    for (unsigned i = 0; !load_rlx(&over); i++) {
        uint8_t key[RF_PROOF_KEY] = {(uint8_t)(i % 2)};

        for (unsigned queue = 0; queue < RF_QUEUES; queue++) {
            size_t n = rf_notices(engine, queue, notices, COUNT(notices));

            for (size_t k = 0; k < n; k++)
                CHECK(notices[k].len <= RF_CONTROL_MAX);
        }
        rf_cookie_key(engine, key);
        rf_await(engine, source, SOURCES, i % 2 == 0);
        if (i % 16 == 0)
            renew_session(random_below(&random, SESSIONS));
        sleep_ms(1);
    }
    return unused;
}

static size_t hello(uint8_t p[40])
{
    memset(p, 0, 40);
    memcpy(p, "RFO\x01\x02", 5);
    return 40;
}

static void *feed(void *unused)
{
    uint64_t random = 7;
    uint8_t p[200];

    for (uint16_t i = 0; !load_rlx(&over); i++) {
        struct rf_addr to = one_of_ours(&random);
        size_t len = sizeof p - random_below(&random, 2);

        to.port = bound.port;
        if (to.ip[12] != 127)
            to = bound, to.ip[12] = 127, to.ip[15] = 1;
        rtp_make(p, len, 1 + random_below(&random, SESSIONS + 1), i);
        if (random_below(&random, 16) == 0)
            len = hello(p);
        send_to(camera[random_below(&random, SOURCES)], &to, p, len);
        if (i % 8 == 0)
            sleep_ms(1);
    }
    return unused;
}

static void *run(void *worker)
{
    CHECK_EQ(rf_engine_run(engine, (uint32_t)(uintptr_t)worker), 0);
    return NULL;
}

static void check_sessions(const struct rf_stats *sum)
{
    struct rf_session_stats s;

    for (unsigned i = 0; i < SESSIONS; i++) {
        CHECK_EQ(rf_session_stats(engine, load_rlx(&handle[i]), 2, &s), 0);
        CHECK_EQ(s.copies_attempted, s.packets_sent + s.send_failures);
        CHECK(s.copies_attempted <= sum->copies_attempted);
    }
}

static void test_all_of_it_at_once(void)
{
    struct rf_config config = {.bind = address("0.0.0.0", 0),
                               .max_sessions = 2 * SESSIONS,
                               .max_subscribers = SUBSCRIBERS,
                               .receive_queue_packets = 4096,
                               .workers = WORKERS,
                               .split_threshold = 64};
    pthread_t worker[WORKERS], changing[2], reading, feeding;
    struct rf_socket_info info;
    struct rf_stats sum;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = info.bound;
    for (unsigned i = 0; i < SOURCES; i++)
        camera[i] = endpoint("127.0.0.1", &source[i]);
    for (uint32_t i = 0; i < SESSIONS; i++)
        renew_session(i);
    for (uintptr_t i = 0; i < WORKERS; i++)
        CHECK(pthread_create(&worker[i], NULL, run, (void *)i) == 0);
    CHECK(pthread_create(&reading, NULL, read_notices, NULL) == 0);
    CHECK(pthread_create(&feeding, NULL, feed, NULL) == 0);
    for (uintptr_t i = 0; i < 2; i++)
        CHECK(pthread_create(&changing[i], NULL, change, (void *)(i + 1)) == 0);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(changing[i], NULL);
    store_rlx(&over, true);
    pthread_join(reading, NULL);
    pthread_join(feeding, NULL);
    rf_engine_leave(engine);
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(worker[i], NULL);
    rf_engine_stats(engine, &sum);
    check_identities(&sum);
    CHECK(sum.packets_sent > 0 && sum.egress_address_missing > 0);
    check_sessions(&sum);
    rf_engine_free(engine);
    for (unsigned i = 0; i < SOURCES; i++)
        close(camera[i]);
}

int main(void)
{
    RUN(test_all_of_it_at_once);
    return 0;
}
