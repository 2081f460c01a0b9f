/* inbox.c: order, room, many posters at once, and that nothing is left in an inbox that closes. */
#include "inbox.h"

#include <pthread.h>
#include <sched.h>

#include "endpoints.h"
#include "random.h"

static bool post(struct inbox *in, uint32_t poster, uint64_t number, uint32_t len)
{
    static _Thread_local uint8_t data[INGRESS_DATAGRAM];
    struct parcel p = {
        {data, len, len, false, 0, PORT_RTP, 0, address("127.0.0.1", (uint16_t)poster), number},
        (uint16_t)number};

    counter count = 0;

    memset(data, (int)number, len);
    bool done = inbox_post(in, &p, &count);

    CHECK_EQ(load_rlx(&count), done);
    return done;
}

static void check_next(struct inbox *in, uint32_t poster, uint64_t number, uint32_t len)
{
    struct rf_addr source = address("127.0.0.1", (uint16_t)poster);

    CHECK(inbox_waits(in));
    struct parcel *p = inbox_take(in);

    CHECK(p != NULL);
    const struct datagram *d = &p->datagram;

    CHECK_EQ(p->owner, (uint16_t)number);
    CHECK(addr_equal(&d->source, &source));
    CHECK_EQ(d->received_ns, number);
    CHECK_EQ(d->len, len);
    CHECK_EQ(d->segment, len);
    CHECK(!d->truncated);
    for (uint32_t i = 0; i < len; i++)
        CHECK_EQ(d->data[i], (uint8_t)number);
}

static void test_order_and_room(void)
{
    struct inbox *in = inbox_new();
    uint64_t posted = 0, taken = 0;

    CHECK(in != NULL);
    CHECK(!inbox_waits(in) && !inbox_take(in));
    for (unsigned lap = 0; lap < 3; lap++) {
        for (unsigned i = 0; i < INBOX_SLOTS; i++, posted++)
            CHECK(post(in, 7, posted, 12 + posted % 1489));
        CHECK(!post(in, 7, posted, 12)); /* full */
        /* What is taken keeps its place until it is given back. */
        for (unsigned i = 0; i < 100; i++, taken++)
            check_next(in, 7, taken, 12 + taken % 1489);
        CHECK_EQ(inbox_held(in), 100);
        CHECK(!post(in, 7, posted, 12));
        inbox_release(in);
        CHECK_EQ(inbox_held(in), 0);
        for (unsigned i = 0; i < 100; i++, posted++)
            CHECK(post(in, 7, posted, 12 + posted % 1489));
        CHECK(!post(in, 7, posted, 12));
        for (; taken < posted; taken++)
            check_next(in, 7, taken, 12 + taken % 1489);
        CHECK(!inbox_waits(in) && !inbox_take(in));
        inbox_release(in);
        for (unsigned i = 0; i < 777; i++, posted++, taken++) { /* laps begin anywhere */
            CHECK(post(in, 7, posted, 12));
            check_next(in, 7, taken, 12);
            inbox_release(in);
        }
    }
    inbox_free(in);
}

static void test_lengths(void)
{
    struct inbox *in = inbox_new();

    CHECK(post(in, 1, 1, INGRESS_DATAGRAM));
    CHECK(post(in, 1, 3, 0));
    check_next(in, 1, 1, INGRESS_DATAGRAM);
    check_next(in, 1, 3, 0);
    CHECK(!inbox_take(in));
    inbox_free(in);
    inbox_free(NULL);
}

enum { POSTERS = 3, POSTS = 40000 };

static struct inbox *shared;

static void *post_all(void *argument)
{
    uint32_t poster = (uint32_t)(uintptr_t)argument;
    uint64_t random = poster;

    for (uint64_t i = 0; i < POSTS;) {
        if (post(shared, poster, i, 12 + random_below(&random, 100)))
            i++;
        else
            sched_yield();
    }
    return NULL;
}

/* Each one's in its order, whole and once, through many laps and a full queue. */
static void test_posters_at_once(void)
{
    pthread_t thread[POSTERS];
    uint64_t next[POSTERS] = {0}, random = 5;

    shared = inbox_new();
    for (uintptr_t i = 0; i < POSTERS; i++)
        CHECK(pthread_create(&thread[i], NULL, post_all, (void *)i) == 0);
    for (uint64_t taken = 0; taken < (uint64_t)POSTERS * POSTS;) {
        struct parcel *p = inbox_take(shared);

        if (!p) {
            inbox_release(shared);
            sched_yield();
            continue;
        }
        const struct datagram *d = &p->datagram;

        CHECK(d->source.port < POSTERS);
        CHECK_EQ(d->received_ns, next[d->source.port]);
        for (uint32_t k = 0; k < d->len; k++)
            CHECK_EQ(d->data[k], (uint8_t)d->received_ns);
        next[d->source.port]++;
        taken++;
        if (random_below(&random, 50) == 0)
            inbox_release(shared);
    }
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(thread[i], NULL);
    CHECK(!inbox_waits(shared));
    inbox_free(shared);
}

/* A crew that posts to each other until it has enough, each of them at another time. */
enum { CREW = 4, ROUNDS = 300 };

static struct {
    struct inbox *inbox[CREW];
    unsigned amount[CREW];
    bool owns[CREW]; /* the owner's; who finds its inbox closed may have it */
    uint64_t posted[CREW], taken[CREW];
} crew;

static void take_all(unsigned me)
{
    while (inbox_take(crew.inbox[me]))
        crew.taken[me]++;
    inbox_release(crew.inbox[me]);
}

static void *live(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;

    CHECK(inbox_open(crew.inbox[me], crew.inbox, CREW));
    crew.owns[me] = true;
    for (unsigned i = 0; i < crew.amount[me]; i++) {
        unsigned to = (me + 1 + i % (CREW - 1)) % CREW;
        uint32_t phase = load_acq(&crew.inbox[to]->phase);

        if (phase == INBOX_CLOSED)
            CHECK(!crew.owns[to]); /* all that it did is seen */
        else if (phase != INBOX_NEW)
            crew.posted[me] += post(crew.inbox[to], me, i, 20);
        take_all(me);
    }
    inbox_settle(crew.inbox[me]);
    crew.owns[me] = false;
    while (!inbox_close(crew.inbox[me], crew.inbox, CREW)) {
        take_all(me);
        sched_yield();
    }
    return NULL;
}

static void test_what_is_posted_is_taken_before_the_end(void)
{
    uint64_t random = 8;

    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_t thread[CREW];
        uint64_t posted = 0, taken = 0;

        memset(&crew, 0, sizeof crew);
        for (unsigned i = 0; i < CREW; i++) {
            crew.inbox[i] = inbox_new();
            crew.amount[i] = random_below(&random, 200);
        }
        for (uintptr_t i = 0; i < CREW; i++) /* some may have ended before others begin */
            CHECK(pthread_create(&thread[i], NULL, live, (void *)i) == 0);
        for (unsigned i = 0; i < CREW; i++)
            pthread_join(thread[i], NULL);
        for (unsigned i = 0; i < CREW; i++) {
            posted += crew.posted[i];
            taken += crew.taken[i];
            CHECK(inbox_is_closed(crew.inbox[i]));
            CHECK(!inbox_waits(crew.inbox[i]));
            CHECK(!inbox_open(crew.inbox[i], crew.inbox, CREW)); /* for good */
        }
        CHECK_EQ(posted, taken);
        for (unsigned i = 0; i < CREW; i++)
            inbox_free(crew.inbox[i]);
    }
}

int main(void)
{
    RUN(test_order_and_room);
    RUN(test_lengths);
    RUN(test_posters_at_once);
    RUN(test_what_is_posted_is_taken_before_the_end);
    return 0;
}
