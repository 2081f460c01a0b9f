/* fair.c in virtual time: when a limit comes, what it leaves each session, when it goes. */
#include "fair.h"

#include "check.h"

#define MS UINT64_C(1000000)

enum { SESSIONS = 20, HOG = 0, QUEUE = 65536 };

static struct fair fair;
static struct session session[SESSIONS];
static struct subscriber_list subscribers[SESSIONS]; /* just the counts */
static uint64_t now;

/* A server that sends `capacity` copies a millisecond of what waits in a queue, oldest first; to drop
 * costs it nothing. Every session offers a packet of 10 copies a millisecond, the hog `hog`. */
struct server {
    uint64_t capacity, hog;
    uint64_t spent; /* copies sent ahead of time */
    uint64_t head, tail;
    struct {
        uint64_t at;
        unsigned session;
    } queue[QUEUE];
    uint64_t admitted[SESSIONS];
};

static struct server server;

static struct server *reset(uint64_t capacity, uint64_t hog)
{
    fair_init(&fair);
    for (unsigned i = 0; i < SESSIONS; i++)
        session[i] = (struct session){.ssrc = i, .subscribers = &subscribers[i]};
    now = 1000 * MS;
    server = (struct server){.capacity = capacity, .hog = hog};
    return &server;
}

static bool admits(unsigned i, uint32_t copies)
{
    subscribers[i].count = copies;
    return fair_admits(&fair, &session[i]);
}

static void offer(struct server *s, unsigned i)
{
    if (s->tail - s->head == QUEUE)
        return; /* the kernel drops it */
    s->queue[s->tail % QUEUE].at = now;
    s->queue[s->tail++ % QUEUE].session = i;
}

/* One turn: what is queued, 64 packets at the most. */
static void turn(struct server *s)
{
    uint64_t n = s->tail - s->head < 64 ? s->tail - s->head : 64;

    fair_block(&fair, now, now - s->queue[(s->head + n - 1) % QUEUE].at);
    for (uint64_t i = 0; i < n; i++) {
        unsigned from = s->queue[s->head++ % QUEUE].session;

        if (admits(from, 10)) {
            s->admitted[from] += 10;
            s->spent += 10;
        }
    }
}

static void run(struct server *s, unsigned ms)
{
    for (unsigned t = 0; t < ms; t++, now += MS) {
        for (unsigned i = 0; i < SESSIONS; i++) {
            for (uint64_t n = 0; n < (i == HOG ? s->hog : 1); n++)
                offer(s, i);
        }
        while (s->head < s->tail && s->spent < s->capacity)
            turn(s);
        s->spent -= s->spent < s->capacity ? s->spent : s->capacity;
    }
}

/* How long what is next has waited, in ms. */
static uint64_t queued_for(const struct server *s)
{
    return s->head < s->tail ? (now - s->queue[s->head % QUEUE].at) / MS : 0;
}

static void forget(struct server *s)
{
    for (unsigned i = 0; i < SESSIONS; i++)
        s->admitted[i] = 0;
}

static double jain(const struct server *s, unsigned from)
{
    double sum = 0, squares = 0;

    for (unsigned i = from; i < SESSIONS; i++) {
        sum += (double)s->admitted[i];
        squares += (double)s->admitted[i] * (double)s->admitted[i];
    }
    return sum * sum / (squares * (SESSIONS - from));
}

static uint64_t total(const struct server *s)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < SESSIONS; i++)
        sum += s->admitted[i];
    return sum;
}

static void test_nobody_is_limited_while_all_can_be_served(void)
{
    struct server *s = reset(200, 1);

    run(s, 5000);
    CHECK_EQ(total(s), 5000 * 10 * SESSIONS);
    CHECK_EQ(fair.share, FAIR_UNLIMITED);
    CHECK(!fair.watching);
}

static void test_equal_demand_equal_share(void)
{
    struct server *s = reset(100, 1);

    run(s, 5000);
    forget(s);
    run(s, 10000);
    CHECK(jain(s, 0) >= 0.99);
    CHECK(total(s) >= 0.95 * 10000 * s->capacity); /* nothing of the capacity lies idle */
    CHECK(queued_for(s) <= 400);                    /* and pictures stay fresh */
}

/* One that sends ten times as much takes nothing from those who can all be served. */
static void test_a_hog_pays_for_itself(void)
{
    struct server *s = reset(300, 100);

    run(s, 5000);
    forget(s);
    run(s, 10000);
    for (unsigned i = 1; i < SESSIONS; i++)
        CHECK(s->admitted[i] >= 0.97 * 10000 * 10);
    CHECK(s->admitted[HOG] >= 0.8 * 10000 * (300 - 190));
    CHECK_EQ(load_rlx(&session[1].fair_use.dropped) < 1000, true);
    CHECK(load_rlx(&session[HOG].fair_use.dropped) > 500000);
}

/* Also where there is not enough for those who behave. */
static void test_a_hog_gets_no_more_than_others(void)
{
    struct server *s = reset(100, 50);

    run(s, 5000);
    forget(s);
    run(s, 10000);
    CHECK(jain(s, 0) >= 0.99);
}

static void test_the_limit_goes_with_the_overload(void)
{
    struct server *s = reset(100, 1);

    run(s, 3000);
    CHECK(fair.share != FAIR_UNLIMITED);
    s->capacity = 1000;
    run(s, 1000);
    forget(s);
    run(s, 1000);
    CHECK(total(s) >= 0.99 * 1000 * 10 * SESSIONS);
    run(s, 10000);
    CHECK_EQ(fair.share, FAIR_UNLIMITED);
}

/* A server that was stopped for a second finds an old queue that it can serve. */
static void test_a_pause_is_no_overload(void)
{
    struct server *s = reset(1000, 1);

    run(s, 1000);
    for (unsigned t = 0; t < 1000; t++, now += MS) {
        for (unsigned i = 0; i < SESSIONS; i++)
            offer(s, i);
    }
    run(s, 1000);
    CHECK_EQ(fair.share, FAIR_UNLIMITED);
    CHECK_EQ(load_rlx(&session[1].fair_use.dropped), 0);
}

/* Else a session wider than the share would be cut off. */
/* The queue stands for three seconds, while so many copies are admitted in each 10 ms and so many
 * datagrams are nobody's. */
static void stand(uint32_t copies, uint64_t strangers)
{
    for (unsigned t = 0; t < 3000; t += 10, now += 10 * MS) {
        fair_block(&fair, now, 60 * MS);
        admits(t / 10 % SESSIONS, copies);
        fair.strangers += strangers;
    }
}

static void test_a_flood_of_strangers_takes_nobody_s_share(void)
{
    reset(100, 1);
    stand(10, 4 * 10 + 5);
    CHECK_EQ(fair.share, FAIR_UNLIMITED);
    stand(10, 4 * 10 - 5);
    CHECK(fair.share != FAIR_UNLIMITED);
    stand(10, 1000); /* and what was limited is let go */
    CHECK_EQ(fair.share, FAIR_UNLIMITED);
}

static void test_the_first_packet_of_a_window_passes(void)
{
    reset(1, 1);
    fair.watching = true;
    fair.share = 5;
    CHECK(admits(0, 1000));
    CHECK(!admits(0, 1));
    CHECK(admits(1, 2));
    CHECK(admits(1, 3));
    CHECK(!admits(1, 1));
    CHECK(admits(2, 0)); /* without subscribers nothing is spent */
    CHECK(admits(2, 0));
}

int main(void)
{
    RUN(test_nobody_is_limited_while_all_can_be_served);
    RUN(test_equal_demand_equal_share);
    RUN(test_a_hog_pays_for_itself);
    RUN(test_a_hog_gets_no_more_than_others);
    RUN(test_the_limit_goes_with_the_overload);
    RUN(test_a_pause_is_no_overload);
    RUN(test_a_flood_of_strangers_takes_nobody_s_share);
    RUN(test_the_first_packet_of_a_window_passes);
    return 0;
}
