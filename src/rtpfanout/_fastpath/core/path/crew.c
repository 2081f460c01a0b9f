#include "crew.h"

#include <sched.h>

enum { SPINS_BEFORE_YIELD = 200 };

static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* The store of `ticket` pairs with the acquire in job_take: whoever takes a task sees it, its
 * shares and all they point to. It is seq_cst for the sake of worker.c: between it and the
 * owner's look for idle workers, and an idle worker's store and job_offers, one sees the
 * other. */
void job_publish(struct job *j, uint32_t count)
{
    j->count = count;
    store_rlx(&j->done, 0);
    store_seq(&j->ticket, (uint64_t)count << 32);
}

static bool offers(uint64_t ticket)
{
    return (uint32_t)ticket < ticket >> 32;
}

bool job_offers(struct job *j)
{
    return offers(load_seq(&j->ticket));
}

/* A ticket that the owner renewed between our load and our exchange may look the same; then
 * it names a task of the new job, which is as good. */
bool job_take(struct job *j, uint32_t *task)
{
    uint64_t ticket = load_acq(&j->ticket);

    while (offers(ticket)) {
        if (compare_exchange_acq_rel(&j->ticket, &ticket, ticket + 1)) {
            *task = (uint32_t)ticket;
            return true;
        }
    }
    return false;
}

/* Pairs with the acquire in job_await: the owner sees what the task counted. */
void job_task_done(struct job *j)
{
    fetch_add_rls(&j->done, 1);
}

void job_await(struct job *j)
{
    for (unsigned spins = 0; load_acq(&j->done) != j->count; spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            spin_pause();
        else
            sched_yield();
    }
}
