/* subscriber.c, fanout.c: who gets no copies: counted, never first or last, also while that changes under the workers. */
#include "fanout.h"

#include <errno.h>
#include <pthread.h>

#include "random.h"
#include "loops.h"
#include "plans.h"

enum { MOST = 300, PACKETS = 8, NAME_LEN = sizeof(struct sockaddr_in) };

static struct packet packets[PACKETS];
static uint8_t bytes[PACKETS * 100];
static struct rf_addr addrs[MOST];

static void setup(uint32_t subscribers)
{
    plans_begin(PACKETS, addrs, subscribers);
}

static void run_of(uint32_t n, bool gso)
{
    session->run = (struct run){NULL, NULL};
    for (uint32_t i = 0; i < n; i++) {
        packets[i] = (struct packet){.bytes = {bytes + 100 * i, 100}, .received_ns = 1000};
        run_append(&session->run, &packets[i], gso);
    }
}

static void withhold(uint32_t i, bool on)
{
    size_t changed;

    CHECK_EQ(subscriber_list_withhold(load_rlx(&session->subscribers), &addrs[i], 1, AF_INET, 1,
                                      on, &changed),
             0);
}

static uint64_t latencies(const struct latency_histogram *h)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < COUNT(h->count); i++)
        n += load_rlx(&h->count[i]);
    return n;
}

/* Serves the plan share by share in any order, with `flips` changes in between. Copies made. */
static uint64_t serve(uint64_t *random, uint32_t count, unsigned flips, const bool *off)
{
    uint32_t left = plan.entries > 0 ? plan.shares_used : 0;
    uint64_t copies = 0;
    unsigned firsts = 0, lasts = 0;

    /* Those that were to be first and last then get what was planned all the same. */
    for (uint32_t i = 0; i < count && flips > 0; i++)
        withhold(i, true);
    while (left > 0) {
        struct share *s = &plan.shares[random_below(random, plan.shares_used)];

        if (s->group == s->groups_end)
            continue;
        left -= share_fill(s, &batch, 0, NAME_LEN);
        for (unsigned i = 0; i < batch.used; i++) {
            struct copy *c = &batch.copy[i];

            CHECK(flips > 0 || !off[ntohs(c->subscriber->name.v4.sin_port) - 1]);
            firsts += c->first;
            lasts += c->last;
            copies += c->packet ? 1 : c->group->packets;
        }
        batch_settle(&batch, 5000);
        if (flips > 0)
            withhold(random_below(random, count), random_below(random, 2));
    }
    CHECK_EQ(firsts, plan.groups_used);
    CHECK_EQ(lasts, plan.groups_used);
    return copies;
}

static void test_any_set_of_them(void)
{
    uint64_t random = 11;
    static const uint32_t counts[] = {1, 2, 3, 5, 128, 129, 300};
    bool off[MOST];

    for (unsigned round = 0; round < 2100; round++) {
        uint32_t count = counts[round % COUNT(counts)], n = 1 + random_below(&random, PACKETS);
        uint32_t chance = random_below(&random, 5); /* of 4: from none to all */
        unsigned flips = round % 3 == 2;
        bool any = false, gso = random_below(&random, 2);

        setup(count);
        for (uint32_t i = 0; i < count; i++) {
            off[i] = random_below(&random, 4) < chance;
            any |= !off[i];
            withhold(i, off[i]);
        }
        session->rotation = random_below(&random, 1000);
        run_of(n, gso);
        plan_session(&plan, session, random_below(&random, 2));
        CHECK(any == (plan.entries > 0));

        uint64_t copies = serve(&random, count, flips, off);

        memset(&counters, 0, sizeof counters);
        plan_account(&plan, &counters, &latency_first, &latency_last);
        uint64_t withheld = load_rlx(&counters.copies_withheld);


        CHECK_EQ(copies + withheld, (uint64_t)n * count);
        CHECK_EQ(load_rlx(&session->counters.copies_withheld), withheld);
        CHECK_EQ(latencies(&latency_first), any ? n : 0);
        CHECK_EQ(latencies(&latency_last), any ? n : 0);
        CHECK_EQ(load_rlx(&latency_last.sum_ns), any ? 4000u * n : 0);
        plan_clear(&plan);
        plans_end();
    }
}

/* A list made of another knows how many of its members are withheld. */
static void test_lists_count_them(void)
{
    uint64_t random = 5;
    struct subscriber_list *list, *removed;
    bool flags[MOST];

    setup(MOST);
    for (unsigned round = 0; round < 1000; round++) {
        struct subscriber_list *old = load_rlx(&session->subscribers);
        uint32_t first = random_below(&random, MOST - 20), n = 1 + random_below(&random, 20);
        struct rf_terms terms = {9, (uint8_t)random_below(&random, 3),
                                 (uint8_t)random_below(&random, 4)};
        size_t changed;

        switch (random_below(&random, 4)) {
        case 0:
            CHECK_EQ(subscriber_list_add(old, addrs + first, n,
                                         &(struct joining){AF_INET, MOST, 0, &terms}, flags, &list),
                     0);
            break;
        case 1:
            CHECK_EQ(subscriber_list_remove(old, addrs + first, n, AF_INET, flags, &list, &removed),
                     0);
            if (list != old)
                subscriber_list_free(removed);
            break;
        case 2:
            list = old;
            CHECK_EQ(subscriber_list_withhold(old, addrs + first, n, AF_INET, 1,
                                              random_below(&random, 2), &changed),
                     0);
            CHECK(changed <= n);
            break;
        default:
            list = old;
            CHECK_EQ(subscriber_list_withhold(old, addrs + first, n, AF_INET, RF_WITHHELD_SHED,
                                              random_below(&random, 2), &changed),
                     0);
        }
        if (list != old)
            free(old);
        store_rlx(&session->subscribers, list);

        uint32_t withheld = 0;

        for (uint32_t i = 0; i < list->count; i++)
            withheld += load_rlx(&list->item[i]->withheld) != 0;
        CHECK_EQ(load_rlx(&list->withheld), withheld);
        CHECK_EQ(subscribers_served(list), list->count - withheld);
    }
    plans_end();
}

static struct rf_engine *engine;
static uint64_t handle;
static _Atomic bool finished;

static void *film(void *argument)
{
    struct rf_socket_info info;
    uint8_t p[100];

    rf_engine_socket(engine, &info);
    for (uint16_t i = 0; !load_acq(&finished); i++) {
        rtp_make(p, sizeof p, 1, i);
        send_to(*(int *)argument, &info.bound, p, sizeof p);
        if (i % 8 == 0)
            sleep_ms(1);
    }
    return NULL;
}

static struct rf_session_stats stats_now(void)
{
    struct rf_session_stats stats;

    CHECK_EQ(rf_session_stats(engine, handle, 0, &stats), 0);
    return stats;
}

static void await_packets(uint64_t n)
{
    uint64_t came = stats_now().packets_received;

    while (stats_now().packets_received < came + n)
        sleep_ms(1);
}

/* Two workers share the turns of a session, whose subscribers come and go all the time: when a
 * call is back nothing leaves, and no copy is uncounted. */
static void test_silence_under_traffic(void)
{
    struct rf_config config = {.bind = address("127.0.0.1", 0),
                               .max_sessions = 1,
                               .max_subscribers = MOST,
                               .receive_queue_packets = 1000,
                               .workers = 2,
                               .split_threshold = 2};
    struct loops loops;
    pthread_t camera;
    struct rf_addr source;
    int from = endpoint("127.0.0.1", &source);
    static bool added[MOST];
    size_t changed;

    for (uint32_t i = 0; i < MOST; i++)
        addrs[i] = loopback_address(i, 9);
    store_rls(&finished, false);
    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    CHECK_EQ(session_add(engine, &source, 1, 0, &handle), 0);
    CHECK_EQ(subscribers_add(engine, handle, addrs, MOST, 0, added), 0);
    loops_start(&loops, engine, 2);
    CHECK(pthread_create(&camera, NULL, film, &from) == 0);
    for (unsigned round = 0; round < 100; round++) {
        if (round % 2) {
            CHECK_EQ(rf_subscribers_withhold(engine, handle, addrs, MOST, RF_WITHHELD_SHED, true,
                                             &changed),
                     0);
            CHECK_EQ(changed, MOST);
            uint64_t attempted = stats_now().copies_attempted;

            await_packets(5);
            CHECK_EQ(stats_now().copies_attempted, attempted);
            CHECK_EQ(rf_subscribers_withhold(engine, handle, addrs, MOST, RF_WITHHELD_SHED, false,
                                             &changed),
                     0);
        } else {
            bool on = round % 4;

            CHECK_EQ(rf_subscribers_withhold(engine, handle, addrs + round, 200, 1, on, &changed),
                     0);
            await_packets(2);
        }
    }
    store_rls(&finished, true);
    pthread_join(camera, NULL);
    rf_engine_stop(engine);
    loops_join(&loops);

    struct rf_session_stats stats = stats_now();
    struct rf_stats sum;

    rf_engine_stats(engine, &sum);
    CHECK_EQ(stats.copies_attempted + stats.copies_withheld, stats.packets_received * MOST);
    CHECK_EQ(sum.copies_withheld, stats.copies_withheld);
    CHECK_EQ(sum.copies_attempted, stats.copies_attempted);
    CHECK(stats.copies_withheld > 0 && stats.copies_attempted > 0);
    rf_engine_free(engine);
    close(from);
}

/* Who is refused fits beyond the limit and in a family that the socket can't send to, is found and
 * removed like any other, and makes room for nobody. */
static void test_refused_ones_fit_always(void)
{
    struct rf_terms refused = {.subscriber_class = RF_CLASS_PILOT, .withheld = RF_WITHHELD_REFUSED};
    struct rf_terms usual = {.subscriber_class = RF_CLASS_PILOT};
    struct joining joining = {AF_INET, 2, 1000, &refused};
    struct rf_addr many[4] = {address("2001:db8::1", 1), address("192.0.2.1", 1),
                              address("192.0.2.2", 2), address("2001:db8::2", 2)};
    struct subscriber *found[4];
    struct subscriber_list *list = subscriber_list_new(0), *old = list, *removed = NULL;
    bool added[4];
    size_t changed;

    CHECK(list != NULL);
    CHECK_EQ(subscriber_list_add(old, many, 4, &joining, added, &list), 0);
    free(old);
    CHECK_EQ(list->count, 4);
    CHECK_EQ(subscribers_served(list), 0);
    joining.terms = &usual;
    old = list;
    CHECK_EQ(subscriber_list_add(old, &(struct rf_addr){0}, 1, &joining, added, &list),
             -EAFNOSUPPORT);
    struct rf_addr one = address("192.0.2.3", 3);

    CHECK_EQ(subscriber_list_add(old, &one, 1, &joining, added, &list), -EAGAIN);
    CHECK_EQ(subscriber_list_add(old, &many[3], 1, &joining, added, &list), 0);
    CHECK(!added[0] && list == old);
    CHECK_EQ(subscriber_list_withhold(list, &many[1], 1, AF_INET, RF_WITHHELD_REFUSED, false,
                                      &changed),
             0);
    CHECK_EQ(changed, 1);
    CHECK_EQ(subscribers_served(list), 1);
    CHECK_EQ(subscriber_list_find(list, many, 4, AF_INET, found), 0);
    for (unsigned i = 0; i < 4; i++)
        CHECK(found[i] && !load_rlx(&found[i]->withheld) == (i == 1));
    CHECK_EQ(subscriber_list_remove(old, many, 3, AF_INET, added, &list, &removed), 0);
    free(old);
    subscriber_list_free(removed);
    CHECK_EQ(list->count, 1);
    subscriber_list_free(list);
}

int main(void)
{
    RUN(test_refused_ones_fit_always);
    RUN(test_any_set_of_them);
    RUN(test_lists_count_them);
    RUN(test_silence_under_traffic);
    return 0;
}
