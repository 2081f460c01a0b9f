/* atomic.h: readers against a writer, at full speed: the table with QSBR, then subscriber lists.
 *
 * Retired memory is overwritten before it is freed or used again, so a reader that still
 * touches it sees nonsense (and the sanitizers see it too). TORTURE=full does ten times
 * the work. */
#include <pthread.h>

#include "endpoints.h"
#include "fanout.h"
#include "random.h"
#include "sessions.h"
#include "table.h"

enum { READERS = 2, KEYS = 384, GROUPS = 32, BATCH_OF_REMOVALS = 16, MEMBERS = 24, AT_ONCE = 6 };

static struct {
    uint64_t lookups, updates, fills, list_updates;
} quota = {1000000, 10000, 20000, 2000};

/* What is true of a key: a new value with every change, odd while its session stands. */
static struct {
    _Atomic uint64_t version;
    _Atomic(struct session *) session;
} keys[KEYS];

static struct qsbr qsbr;
static struct session_pool pool;
static struct table table;
static _Atomic uint64_t lookups_done[READERS], updates_done;
static _Atomic bool finished;

/* Keys 0 to GROUPS - 1 stand forever, one for each SSRC. */
static uint32_t key_ssrc(unsigned k)
{
    return 0xffffffff - k % GROUPS;
}

static struct rf_addr key_source(unsigned k)
{
    struct rf_addr a = {.ip = {[10] = 0xff, [11] = 0xff, 10, 0, (uint8_t)(k >> 8), (uint8_t)k}};

    a.port = (uint16_t)(k + 1);
    return a;
}

static void check_record(const struct session *s, unsigned k)
{
    struct rf_addr source = key_source(k);

    CHECK_EQ(s->ssrc, key_ssrc(k));
    CHECK(addr_equal(&s->source, &source));
}

static void look_up(unsigned k)
{
    struct rf_addr source = key_source(k);
    bool ssrc_known = false;
    uint64_t before = load_acq(&keys[k].version);
    struct session *s = find_session(&table, key_ssrc(k), &source, &ssrc_known);

    if (s) {
        check_record(s, k); /* never another key's, never freed memory */
        check_record(s, k);
    } else {
        CHECK(ssrc_known); /* the group's first session stands */
    }
    const struct session *expected = load_acq(&keys[k].session);

    if (before % 2 == 1 && load_acq(&keys[k].version) == before)
        CHECK(s != NULL && s == expected);
}

static void look_up_strangers(uint64_t random)
{
    struct rf_addr stranger = key_source(KEYS + 1 + random % 1000);
    bool ssrc_known = false;

    CHECK(find_session(&table, key_ssrc((unsigned)random), &stranger, &ssrc_known) == NULL);
    CHECK(ssrc_known);
    ssrc_known = true;
    CHECK(find_session(&table, (uint32_t)(random % 1000), &stranger, &ssrc_known) == NULL);
    CHECK(!ssrc_known);
}

static void *read_table(void *argument)
{
    unsigned reader = (unsigned)(uintptr_t)argument;
    uint64_t random = 88172645463325252 + reader;

    qsbr_online(&qsbr, reader);
    while (!load_acq(&finished)) {
        for (unsigned i = 0; i < 64; i++)
            look_up((unsigned)(next_random(&random) % KEYS));
        look_up_strangers(next_random(&random));
        store_rlx(&lookups_done[reader], load_rlx(&lookups_done[reader]) + 66);
        if (random % 64 == 0) {
            qsbr_offline(&qsbr, reader);
            qsbr_online(&qsbr, reader);
        } else {
            qsbr_quiescent(&qsbr, reader);
        }
    }
    qsbr_offline(&qsbr, reader);
    return NULL;
}

static void stand(unsigned k)
{
    struct rf_addr source = key_source(k);
    struct session *s;

    CHECK_EQ(session_new(&pool, &source, key_ssrc(k), 0, &s), 0);
    CHECK_EQ(table_insert(&table, s), 0);
    store_rls(&keys[k].session, s);
    store_seq(&keys[k].version, load_rlx(&keys[k].version) + 1);
}

static struct session *fall(unsigned k)
{
    struct session *s = load_rlx(&keys[k].session);

    store_seq(&keys[k].version, load_rlx(&keys[k].version) + 1);
    table_remove(&table, s);
    return s;
}

static void poison_and_release(struct session *s)
{
    s->ssrc = 0xdeaddead;
    memset(&s->source, 0xdd, sizeof s->source);
    session_release(&pool, s);
}

static bool table_quota_met(void)
{
    uint64_t lookups = 0;

    for (unsigned i = 0; i < READERS; i++)
        lookups += load_rlx(&lookups_done[i]);
    return lookups >= quota.lookups && load_rlx(&updates_done) >= quota.updates;
}

/* Inserts and removes at random; now and then empties the table and fills it again, so
 * that it is rebuilt smaller and grows. */
static void write_table(void)
{
    struct session *removed[BATCH_OF_REMOVALS];
    unsigned pending = 0, bias = 50;
    uint64_t random = 0x9e3779b97f4a7c15, updates = 0;

    while (!table_quota_met()) {
        unsigned k = GROUPS + (unsigned)(next_random(&random) % (KEYS - GROUPS));
        bool stands = load_rlx(&keys[k].version) % 2 == 1;

        if (++updates % 4096 == 0)
            bias = updates / 4096 % 2 ? 90 : 20;
        if (stands && (random >> 32) % 100 >= bias)
            removed[pending++] = fall(k);
        else if (!stands)
            stand(k);
        else
            continue;
        counter_add(&updates_done, 1);
        if (pending == BATCH_OF_REMOVALS) {
            qsbr_synchronize(&qsbr);
            while (pending > 0)
                poison_and_release(removed[--pending]);
            qsbr_reclaim(&qsbr);
        }
    }
    while (pending > 0)
        (void)removed[--pending]; /* still in the pool, which frees them */
}

static void test_table_under_readers(void)
{
    pthread_t thread[READERS];
    uint64_t lookups = 0;

    qsbr_init(&qsbr);
    CHECK_EQ(session_pool_init(&pool, KEYS + BATCH_OF_REMOVALS), 0);
    CHECK_EQ(table_init(&table, &pool, &qsbr), 0);
    for (unsigned k = 0; k < GROUPS; k++)
        stand(k);
    for (uintptr_t i = 0; i < READERS; i++)
        CHECK(pthread_create(&thread[i], NULL, read_table, (void *)i) == 0);
    write_table();
    store_rls(&finished, true);
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(thread[i], NULL);
        lookups += load_rlx(&lookups_done[i]);
    }
    printf("  %" PRIu64 " lookups against %" PRIu64 " updates\n", lookups,
           (uint64_t)load_rlx(&updates_done));
    table_destroy(&table);
    session_pool_destroy(&pool);
    qsbr_destroy(&qsbr);
}

static struct session *published;
static _Atomic uint64_t fills_done;

/* Every list holds port 1, each port once, and nothing that was freed. */
static void check_batch(struct batch *b)
{
    bool seen[MEMBERS + 1] = {false};

    CHECK(b->used >= 1);
    for (unsigned i = 0; i < b->used; i++) {
        const struct sockaddr_in *name = b->header[i].msg_hdr.msg_name;
        unsigned port = ntohs(name->sin_port);

        CHECK_EQ(name->sin_family, AF_INET);
        CHECK(port >= 1 && port <= MEMBERS && !seen[port]);
        seen[port] = true;
    }
    CHECK(seen[1]);
}

static void *read_list(void *argument)
{
    static struct batch batch;
    static struct latency_histogram first, last;
    static struct worker_counters counters;
    struct packet packet = {.bytes = {.iov_len = 100}};
    struct plan plan;

    (void)argument;
    CHECK_EQ(plan_init(&plan, 1), 0);
    qsbr_online(&qsbr, 0);
    while (!load_acq(&finished)) {
        published->run = (struct run){NULL, NULL};
        run_append(&published->run, &packet, true);
        plan_session(&plan, published, false);
        CHECK(share_fill(&plan.shares[0], &batch, 0, sizeof(struct sockaddr_in)));
        check_batch(&batch);
        batch_settle(&batch, 1);
        plan_account(&plan, &counters, &first, &last);
        plan_clear(&plan);
        qsbr_quiescent(&qsbr, 0);
        counter_add(&fills_done, 1);
    }
    qsbr_offline(&qsbr, 0);
    plan_destroy(&plan);
    return NULL;
}

static void publish(struct subscriber_list *list)
{
    struct subscriber_list *old = load_rlx(&published->subscribers);

    store_rls(&published->subscribers, list);
    qsbr_retire(&qsbr, &old->retired);
    qsbr_reclaim(&qsbr);
}

/* `n` ports from `first` on, of which those that are not yet members become so. */
static void add_members(bool *member, unsigned first, unsigned n)
{
    struct subscriber_list *list, *old = load_rlx(&published->subscribers);
    struct rf_addr addrs[AT_ONCE] = {0};
    bool added[AT_ONCE];

    for (unsigned i = 0; i < n; i++)
        addrs[i] = address("127.0.0.1", (uint16_t)(first + i));
    CHECK_EQ(subscriber_list_add(old, addrs, n, &(struct joining){AF_INET, MEMBERS, 0, &usual_terms},
                                 added, &list),
             0);
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(added[i], !member[first + i]);
        member[first + i] = true;
    }
    publish(list);
}

/* The same ports cease to be members. */
static void remove_members(bool *member, unsigned first, unsigned n)
{
    struct subscriber_list *list, *removed, *old = load_rlx(&published->subscribers);
    struct rf_addr addrs[AT_ONCE] = {0};
    bool found[AT_ONCE];

    for (unsigned i = 0; i < n; i++)
        addrs[i] = address("127.0.0.1", (uint16_t)(first + i));
    CHECK_EQ(subscriber_list_remove(old, addrs, n, AF_INET, found, &list, &removed), 0);
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(found[i], member[first + i]);
        member[first + i] = false;
    }
    publish(list);
    qsbr_synchronize(&qsbr);
    for (uint32_t i = 0; i < removed->count; i++)
        memset(removed->item[i], 0xdd, sizeof *removed->item[i]);
    subscriber_list_free(removed);
}

static void test_lists_under_a_reader(void)
{
    struct rf_addr source = address("127.0.0.1", 9);
    bool member[MEMBERS + 1] = {false};
    uint64_t random = 7, updates = 0;
    pthread_t thread;

    store_rls(&finished, false);
    qsbr_init(&qsbr);
    CHECK_EQ(session_pool_init(&pool, 1), 0);
    CHECK_EQ(session_new(&pool, &source, 1, 0, &published), 0);
    add_members(member, 1, 1);
    CHECK(pthread_create(&thread, NULL, read_list, NULL) == 0);
    for (; updates < quota.list_updates || load_rlx(&fills_done) < quota.fills; updates++) {
        unsigned first = 2 + random_below(&random, MEMBERS - 1);
        unsigned n = 1 + random_below(&random, AT_ONCE), room = MEMBERS + 1 - first;

        if (member[first])
            remove_members(member, first, n < room ? n : room);
        else
            add_members(member, first, n < room ? n : room);
    }
    store_rls(&finished, true);
    pthread_join(thread, NULL);
    printf("  %" PRIu64 " fan-outs against %" PRIu64 " lists\n", (uint64_t)load_rlx(&fills_done),
           updates);
    session_pool_destroy(&pool);
    qsbr_destroy(&qsbr);
}

int main(void)
{
    const char *amount = getenv("RTPFANOUT_TORTURE");

    if (amount && strcmp(amount, "full") == 0) {
        quota.lookups *= 10;
        quota.updates *= 10;
        quota.fills *= 10;
        quota.list_updates *= 10;
    }
    RUN(test_table_under_readers);
    RUN(test_lists_under_a_reader);
    return 0;
}
