/* crew.c: tasks of several owners, taken by all, each exactly once. */
#include "crew.h"

#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "check.h"
#include "random.h"

enum { CREW = 4, OWNERS = 3, MOST_TASKS = 40 };

/* `work` and `taken` are plain memory on purpose: what the job publishes and what job_await
 * sees is all that keeps their use apart, and the thread sanitizer watches. */
static struct owner {
    struct job job;
    uint64_t work[JOB_TASKS], result[JOB_TASKS];
    uint32_t taken[JOB_TASKS];
    _Atomic uint32_t taken_by_others;
} owners[OWNERS];

static uint64_t jobs_of_each = 50000;
static _Atomic uint32_t owners_left;

static void test_take_in_order_until_none_is_left(void)
{
    static struct job job; /* zeroed: nothing to take */
    uint32_t task = 77;

    CHECK(!job_offers(&job));
    CHECK(!job_take(&job, &task));
    for (uint32_t count = 1; count <= JOB_TASKS; count = count * 3 + 1) {
        job_publish(&job, count);
        for (uint32_t i = 0; i < count; i++) {
            CHECK(job_offers(&job));
            CHECK(job_take(&job, &task));
            CHECK_EQ(task, i);
            job_task_done(&job);
        }
        CHECK(!job_offers(&job));
        CHECK(!job_take(&job, &task));
        CHECK_EQ(task, count - 1);
        job_await(&job);
    }
}

static bool take_part(struct owner *o, bool own)
{
    uint32_t task;

    if (!job_take(&o->job, &task))
        return false;
    CHECK(task < o->job.count);
    CHECK_EQ(o->job.task[task].first_share, task);
    o->taken[task]++;
    o->result[task] = ~o->work[task];
    if (!own)
        fetch_add_rls(&o->taken_by_others, 1);
    job_task_done(&o->job);
    return true;
}

static bool help(unsigned me)
{
    for (unsigned i = 1; i <= OWNERS; i++) {
        unsigned other = (me + i) % CREW;

        if (other != me && other < OWNERS && take_part(&owners[other], false))
            return true;
    }
    return false;
}

/* Often as many tasks as the last time, so that a ticket looks like an earlier one. */
static void run_job(struct owner *o, uint64_t number, uint64_t *random)
{
    uint32_t count = number / 64 % 3 ? 2 : 1 + random_below(random, MOST_TASKS);

    for (uint32_t i = 0; i < count; i++) {
        o->job.task[i] = (struct task){i, i + 1};
        o->work[i] = number << 16 | i;
        o->taken[i] = 0;
    }
    job_publish(&o->job, count);
    if (number % 8 == 0)
        sched_yield();
    while (take_part(o, true))
        ;
    job_await(&o->job);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(o->taken[i], 1);
        CHECK_EQ(o->result[i], ~(number << 16 | i));
    }
}

static void *crew_member(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    uint64_t random = 7 + me;

    if (me < OWNERS) {
        for (uint64_t number = 0; number < jobs_of_each; number++) {
            run_job(&owners[me], number, &random);
            if (random_below(&random, 4) == 0)
                help(me);
        }
        fetch_add_seq(&owners_left, -1u);
    }
    while (load_seq(&owners_left) > 0)
        if (!help(me))
            sched_yield();
    return NULL;
}

static void test_each_task_once_and_all_results_seen(void)
{
    uint64_t by_others = 0;
    pthread_t thread[CREW];

    store_seq(&owners_left, OWNERS);
    for (uintptr_t i = 0; i < CREW; i++)
        CHECK(pthread_create(&thread[i], NULL, crew_member, (void *)i) == 0);
    for (unsigned i = 0; i < CREW; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < OWNERS; i++) {
        CHECK(!job_offers(&owners[i].job));
        by_others += load_acq(&owners[i].taken_by_others);
    }
    CHECK(by_others > 0);
    printf("  %" PRIu64 " jobs, %" PRIu64 " tasks taken by others\n", OWNERS * jobs_of_each,
           by_others);
}

int main(void)
{
    const char *amount = getenv("RTPFANOUT_TORTURE");

    if (amount && strcmp(amount, "full") == 0)
        jobs_of_each *= 10;
    RUN(test_take_in_order_until_none_is_left);
    RUN(test_each_task_once_and_all_results_seen);
    return 0;
}
