/* qsbr.c: what a grace period waits for, and for whom it doesn't.
 * wraps: free */
#include "qsbr.h"

#include <pthread.h>

#include "endpoints.h"

static struct qsbr q;
static unsigned freed;

void __real_free(void *p);
void __wrap_free(void *p);

void __wrap_free(void *p)
{
    freed++;
    __real_free(p);
}

static struct qsbr_retired *retire_one(void)
{
    struct qsbr_retired *r = malloc(sizeof *r);

    qsbr_retire(&q, r);
    return r;
}

static void start(void)
{
    qsbr_init(&q);
    freed = 0;
}

static void test_nobody_online_is_no_wait(void)
{
    start();
    CHECK(qsbr_passed(&q, qsbr_start(&q)));
    qsbr_synchronize(&q);
    retire_one();
    qsbr_reclaim(&q);
    CHECK_EQ(freed, 1);
    qsbr_reclaim(&q);
    CHECK_EQ(freed, 1);
}

static void test_online_reader_is_waited_for(void)
{
    for (unsigned reader = 0; reader < QSBR_READERS; reader++) {
        start();
        qsbr_online(&q, reader);
        retire_one();
        qsbr_reclaim(&q);
        CHECK_EQ(freed, 0);
        qsbr_quiescent(&q, reader);
        qsbr_reclaim(&q);
        CHECK_EQ(freed, 1);
        retire_one();
        qsbr_offline(&q, reader);
        qsbr_reclaim(&q);
        CHECK_EQ(freed, 2);
    }
}

static void test_quiescence_before_retirement_does_not_count(void)
{
    start();
    qsbr_online(&q, 3);
    qsbr_quiescent(&q, 3);
    uint64_t period = qsbr_start(&q);

    CHECK(!qsbr_passed(&q, period));
    CHECK(!qsbr_passed(&q, period));
    qsbr_quiescent(&q, 3);
    CHECK(qsbr_passed(&q, period));
}

static void test_a_later_reader_does_not_hold_up(void)
{
    start();
    uint64_t period = qsbr_start(&q);

    qsbr_online(&q, 1);
    CHECK(qsbr_passed(&q, period));
    CHECK(!qsbr_passed(&q, qsbr_start(&q)));
}

static void test_reclaims_in_order_as_far_as_it_may(void)
{
    start();
    qsbr_online(&q, 0);
    qsbr_online(&q, 1);
    retire_one();
    qsbr_quiescent(&q, 0);
    qsbr_quiescent(&q, 1);
    retire_one();
    retire_one();
    qsbr_quiescent(&q, 0);
    qsbr_reclaim(&q);
    CHECK_EQ(freed, 1); /* reader 1 still may hold the other two */
    qsbr_quiescent(&q, 1);
    retire_one();
    qsbr_reclaim(&q);
    CHECK_EQ(freed, 3);
    retire_one();
    qsbr_destroy(&q);
    CHECK_EQ(freed, 5);
    CHECK(q.oldest == NULL && q.newest == NULL);
}

static _Atomic bool passed;

static void *synchronize(void *unused)
{
    qsbr_synchronize(&q);
    store_seq(&passed, true);
    return unused;
}

static void test_synchronize_returns_with_the_last_reader(void)
{
    pthread_t thread;

    start();
    qsbr_online(&q, 0);
    qsbr_online(&q, 1);
    CHECK(pthread_create(&thread, NULL, synchronize, NULL) == 0);
    while (load_seq(&q.period) == 1)
        sleep_ms(1);
    qsbr_quiescent(&q, 0);
    sleep_ms(10);
    CHECK(!load_seq(&passed));
    qsbr_offline(&q, 1);
    pthread_join(thread, NULL);
    CHECK(load_seq(&passed));
}

int main(void)
{
    RUN(test_nobody_online_is_no_wait);
    RUN(test_online_reader_is_waited_for);
    RUN(test_quiescence_before_retirement_does_not_count);
    RUN(test_a_later_reader_does_not_hold_up);
    RUN(test_reclaims_in_order_as_far_as_it_may);
    RUN(test_synchronize_returns_with_the_last_reader);
    return 0;
}
