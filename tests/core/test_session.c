/* session.c, subscriber.c: the pool of records, handles, rates, and subscriber lists. */
#include "session.h"

#include "calls.h"
#include "endpoints.h"

/* On the usual terms. */
static int add_to(struct subscriber_list *old, const struct rf_addr *addrs, size_t n, int family,
                  uint32_t max, uint64_t now, bool *added, struct subscriber_list **out)
{
    struct joining joining = {family, max, now, &usual_terms};

    return subscriber_list_add(old, addrs, n, &joining, added, out);
}

static struct session *fresh(struct session_pool *pool, uint32_t ssrc)
{
    struct rf_addr source = address("192.0.2.1", 1);
    struct session *s;

    CHECK_EQ(session_new(pool, &source, ssrc, 1000, &s), 0);
    return s;
}

static void test_records_across_chunks(void)
{
    enum { N = 2 * SESSION_CHUNK + 1 };
    static struct session *s[N];
    struct rf_addr source = address("192.0.2.1", 1);
    struct session_pool pool;
    struct session *none;

    CHECK_EQ(session_pool_init(&pool, N), 0);
    for (uint32_t i = 0; i < N; i++) {
        s[i] = fresh(&pool, i);
        CHECK(session_at(&pool, i) == s[i] && s[i]->index == i);
        CHECK_EQ((uintptr_t)s[i] % CACHE_LINE, 0);
        CHECK(session_by_handle(&pool, session_handle(s[i])) == s[i]);
    }
    CHECK_EQ(session_new(&pool, &source, 1, 0, &none), -EAGAIN);
    session_release(&pool, s[7]);
    CHECK(fresh(&pool, 99) == s[7]);
    session_pool_destroy(&pool);
}

static void test_handle_dies_with_its_session(void)
{
    struct session_pool pool;

    CHECK_EQ(session_pool_init(&pool, 1), 0);
    struct session *s = fresh(&pool, 5);
    uint64_t first = session_handle(s);

    counter_add(&s->counters.packets_sent, 9);
    CHECK(session_by_handle(&pool, first ^ ((uint64_t)1 << 32)) == NULL);
    CHECK(session_by_handle(&pool, first + 1) == NULL);
    session_release(&pool, s);
    CHECK(session_by_handle(&pool, first) == NULL);
    s = fresh(&pool, 6);
    CHECK(session_handle(s) != first);
    CHECK(session_by_handle(&pool, first) == NULL);
    CHECK_EQ(load_rlx(&s->counters.packets_sent), 0);
    CHECK_EQ(load_rlx(&s->subscribers)->count, 0);
    session_pool_destroy(&pool);
}

static void test_snapshot_and_rate(void)
{
    const uint64_t second = 1000000000;
    struct rf_session_stats stats;
    struct session_pool pool;

    CHECK_EQ(session_pool_init(&pool, 1), 0);
    struct session *s = fresh(&pool, 5);

    session_snapshot(s, 1000, &stats);
    CHECK(stats.packets_per_second == 0.0); /* no time has passed */
    CHECK_EQ(stats.created_ns, 1000);
    counter_add(&s->counters.packets_received, 50);
    store_rlx(&s->last_packet_ns, 77);
    session_snapshot(s, 1000 + second, &stats);
    CHECK(stats.packets_per_second == 50.0);
    CHECK_EQ(stats.packets_received, 50);
    CHECK_EQ(stats.last_packet_ns, 77);
    session_roll_rate(s, 1000 + second);
    session_roll_rate(s, 1000 + 2 * second);
    counter_add(&s->counters.packets_received, 30);
    session_snapshot(s, 1000 + 3 * second, &stats); /* 30 over the last two seconds */
    CHECK(stats.packets_per_second == 15.0);
    session_pool_destroy(&pool);
}

static struct subscriber_list *list_of(struct session *s)
{
    return load_rlx(&s->subscribers);
}

/* Puts `list` in the place of the session's own. */
static void replace_list(struct session *s, struct subscriber_list *list)
{
    struct subscriber_list *old = list_of(s);

    if (list == old)
        return;
    store_rlx(&s->subscribers, list);
    free(old);
}

static int add(struct session *s, const char *ip, uint16_t port, uint32_t max, bool *added)
{
    struct rf_addr a = address(ip, port);
    struct subscriber_list *list;
    int rc = add_to(list_of(s), &a, 1, AF_INET, max, 0, added, &list);

    if (rc == 0)
        replace_list(s, list);
    return rc;
}

static void test_list_grows_in_order_without_doubles(void)
{
    struct session_pool pool;
    bool added;

    CHECK_EQ(session_pool_init(&pool, 1), 0);
    struct session *s = fresh(&pool, 1);

    for (uint16_t port = 1; port <= 100; port++) {
        CHECK_EQ(add(s, "127.0.0.1", port, 100, &added), 0);
        CHECK(added);
    }
    struct subscriber_list *full = list_of(s);

    CHECK_EQ(add(s, "127.0.0.1", 50, 100, &added), 0);
    CHECK(!added && list_of(s) == full);
    CHECK_EQ(add(s, "127.0.0.1", 101, 100, &added), -EAGAIN);
    CHECK_EQ(add(s, "2001:db8::1", 1, 200, &added), -EAFNOSUPPORT);
    CHECK(list_of(s) == full && full->count == 100);
    for (uint16_t i = 0; i < 100; i++)
        CHECK_EQ(ntohs(full->item[i]->name.v4.sin_port), i + 1);
    session_pool_destroy(&pool);
}

static void test_many_at_once_all_or_none(void)
{
    struct rf_addr addrs[6];
    struct session_pool pool;
    struct subscriber_list *list;
    bool added[6];

    CHECK_EQ(session_pool_init(&pool, 1), 0);
    struct session *s = fresh(&pool, 1);
    struct subscriber_list *old = list_of(s);

    for (unsigned i = 0; i < 6; i++)
        addrs[i] = address("127.0.0.1", (uint16_t)(1 + i % 4)); /* the last two are doubles */
    CHECK_EQ(add_to(old, addrs, 6, AF_INET, 3, 0, added, &list), -EAGAIN);
    CHECK_EQ(old->count, 0);
    addrs[3] = address("::1", 9);
    CHECK_EQ(add_to(old, addrs, 6, AF_INET, 9, 0, added, &list), -EAFNOSUPPORT);
    CHECK_EQ(add_to(old, addrs, 0, AF_INET, 9, 0, added, &list), 0);
    CHECK(list == old);
    CHECK_EQ(add_to(old, addrs, 6, AF_INET6, 4, 0, added, &list), 0);
    CHECK_EQ(list->count, 4);
    CHECK(added[0] && added[1] && added[2] && added[3] && !added[4] && !added[5]);
    replace_list(s, list);
    session_pool_destroy(&pool);
}

/* Doubles of those that are there and of each other take no room: the list may become
 * exactly full, and what was in it stays the very same. */
static void test_doubles_take_no_room(void)
{
    static const uint16_t ports[] = {2, 9, 1, 9, 8, 8, 2, 9};
    static const bool new[] = {false, true, false, false, true, false, false, false};
    struct rf_addr addrs[COUNT(ports)];
    struct session_pool pool;
    struct subscriber_list *list;
    struct subscriber *before[2];
    bool added[COUNT(ports)];

    CHECK_EQ(session_pool_init(&pool, 1), 0);
    struct session *s = fresh(&pool, 1);

    CHECK_EQ(add(s, "127.0.0.1", 1, 4, added), 0);
    CHECK_EQ(add(s, "127.0.0.1", 2, 4, added), 0);
    memcpy(before, list_of(s)->item, sizeof before);
    counter_add(&before[0]->packets_sent, 5);
    for (unsigned i = 0; i < COUNT(ports); i++)
        addrs[i] = address("127.0.0.1", ports[i]);
    CHECK_EQ(add_to(list_of(s), addrs, COUNT(ports), AF_INET, 3, 0, added, &list),
             -EAGAIN);
    CHECK_EQ(add_to(list_of(s), addrs, COUNT(ports), AF_INET, 4, 0, added, &list), 0);
    for (unsigned i = 0; i < COUNT(ports); i++)
        CHECK_EQ(added[i], new[i]);
    CHECK_EQ(list->count, 4);
    CHECK(memcmp(before, list->item, sizeof before) == 0);
    CHECK_EQ(ntohs(list->item[2]->name.v4.sin_port), 9);
    CHECK_EQ(ntohs(list->item[3]->name.v4.sin_port), 8);
    CHECK_EQ(load_rlx(&list->item[0]->packets_sent), 5);
    CHECK_EQ(load_rlx(&list->item[2]->packets_sent), 0);
    replace_list(s, list);
    session_pool_destroy(&pool);
}

/* Also when many come at once, and when the clock did not move or went back. */
static void test_since_grows_strictly(void)
{
    static const uint64_t nows[] = {0, 0, 1000, 1000, 900, 1002, 5000};
    struct rf_addr addrs[2];
    struct session_pool pool;
    bool added[2];

    CHECK_EQ(session_pool_init(&pool, 1), 0);
    struct session *s = fresh(&pool, 1);

    for (unsigned i = 0; i < COUNT(nows); i++) {
        struct subscriber_list *list;
        uint64_t before = i ? list_of(s)->item[2 * i - 1]->since_ns : 0;

        for (unsigned k = 0; k < 2; k++)
            addrs[k] = address("127.0.0.1", (uint16_t)(2 * i + k));
        CHECK_EQ(add_to(list_of(s), addrs, 2, AF_INET, 99, nows[i], added, &list), 0);
        replace_list(s, list);
        uint64_t since = list->item[2 * i]->since_ns;

        CHECK_EQ(since, nows[i] > before ? nows[i] : before + 1);
        CHECK_EQ(list->item[2 * i + 1]->since_ns, since + 1);
    }
    session_pool_destroy(&pool);
}

static void remove_and_free(struct session *s, const struct rf_addr *addrs, size_t n, bool *found)
{
    struct subscriber_list *list, *removed = NULL;

    CHECK_EQ(subscriber_list_remove(list_of(s), addrs, n, AF_INET, found, &list, &removed), 0);
    replace_list(s, list);
    if (removed)
        subscriber_list_free(removed);
}

static void test_removal_keeps_the_others_in_order(void)
{
    for (uint16_t gone = 1; gone <= 5; gone++) {
        struct rf_addr a = address("127.0.0.1", gone);
        struct rf_addr strangers[] = {address("127.0.0.1", 99), address("::1", gone)};
        struct session_pool pool;
        struct subscriber_list *list, *removed = NULL;
        bool found[2] = {true, true};

        CHECK_EQ(session_pool_init(&pool, 1), 0);
        struct session *s = fresh(&pool, 1);

        for (uint16_t port = 1; port <= 5; port++)
            CHECK_EQ(add(s, "127.0.0.1", port, 5, found), 0);
        struct subscriber_list *old = list_of(s);

        CHECK_EQ(subscriber_list_remove(old, strangers, 2, AF_INET, found, &list, &removed), 0);
        CHECK(list == old && removed == NULL && !found[0] && !found[1]);
        counter_add(&old->item[gone % 5]->packets_sent, 4);
        CHECK_EQ(subscriber_list_remove(old, &a, 1, AF_INET, found, &list, &removed), 0);
        CHECK(found[0]);
        CHECK_EQ(list->count, 4);
        for (uint32_t i = 0; i < 4; i++)
            CHECK(list->item[i] == old->item[i + (i + 1 >= gone)]);
        CHECK_EQ(removed->count, 1);
        CHECK_EQ(ntohs(removed->item[0]->name.v4.sin_port), gone);
        replace_list(s, list);
        subscriber_list_free(removed);
        session_pool_destroy(&pool);
    }
}

static void test_many_removed_at_once(void)
{
    static const uint16_t ports[] = {40, 2, 77, 2, 100, 1, 40, 101};
    static const bool there[] = {true, true, true, false, true, true, false, false};
    struct rf_addr addrs[COUNT(ports)];
    struct session_pool pool;
    bool found[COUNT(ports)];

    CHECK_EQ(session_pool_init(&pool, 1), 0);
    struct session *s = fresh(&pool, 1);

    for (uint16_t port = 1; port <= 100; port++)
        CHECK_EQ(add(s, "127.0.0.1", port, 100, found), 0);
    for (unsigned i = 0; i < COUNT(ports); i++)
        addrs[i] = address("127.0.0.1", ports[i]);
    remove_and_free(s, addrs, 0, found);
    CHECK_EQ(list_of(s)->count, 100);
    remove_and_free(s, addrs, COUNT(ports), found);
    for (unsigned i = 0; i < COUNT(ports); i++)
        CHECK_EQ(found[i], there[i]);
    CHECK_EQ(list_of(s)->count, 95);
    for (uint32_t i = 0, port = 1; i < 95; i++, port++) {
        while (port == 1 || port == 2 || port == 40 || port == 77 || port == 100)
            port++;
        CHECK_EQ(ntohs(list_of(s)->item[i]->name.v4.sin_port), port);
    }
    remove_and_free(s, addrs, COUNT(ports), found); /* all of them are strangers now */
    for (unsigned i = 0; i < COUNT(ports); i++)
        CHECK(!found[i]);
    CHECK_EQ(list_of(s)->count, 95);
    CHECK_EQ(add(s, "127.0.0.1", 2, 100, found), 0); /* and may come back, to the end */
    CHECK(found[0]);
    CHECK_EQ(ntohs(list_of(s)->item[95]->name.v4.sin_port), 2);
    session_pool_destroy(&pool);
}

static void test_a_subscriber_is_small(void)
{
    CHECK(sizeof(struct subscriber) + sizeof(struct subscriber *) <= 128);
}

int main(void)
{
    RUN(test_records_across_chunks);
    RUN(test_handle_dies_with_its_session);
    RUN(test_snapshot_and_rate);
    RUN(test_list_grows_in_order_without_doubles);
    RUN(test_many_at_once_all_or_none);
    RUN(test_doubles_take_no_room);
    RUN(test_since_grows_strictly);
    RUN(test_removal_keeps_the_others_in_order);
    RUN(test_many_removed_at_once);
    RUN(test_a_subscriber_is_small);
    return 0;
}
