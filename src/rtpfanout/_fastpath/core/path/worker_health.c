/* How somebody else tells a worker that gets on from one that is stuck.
 *
 * A worker gives a sign of life with every block of packets at the gate, every batch it sends, every
 * turn and every waking: about every 30 ms at the most while it runs, however long the turn. One that
 * gives none may not have been scheduled; then the CPU time of its thread tells. Who sleeps for want
 * of work, and who waits for others that have tasks of its job, has nothing to give a sign of. */
#include <pthread.h>

#include "worker.h"

void worker_note_thread(struct worker *w)
{
    clockid_t id;

    if (pthread_getcpuclockid(pthread_self(), &id) == 0)
        store_rlx(&w->cpu_clock, id);
    store_rlx(&w->alive_ns, clock_ns(CLOCK_MONOTONIC));
}

/* The clock ends with its thread. */
static uint64_t cpu_ns(struct worker *w)
{
    clockid_t id = load_rlx(&w->cpu_clock);
    struct timespec t;

    if (id == 0 || clock_gettime(id, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static bool is_helped(struct worker *w)
{
    for (unsigned i = 0; i < w->crew_size; i++) {
        if (load_rlx(&w->crew[i]->helps) == w->options.index + 1)
            return true;
    }
    return false;
}

void worker_health(struct worker *w, uint64_t now, struct rf_health *out)
{
    bool asleep = load_seq(&w->idle);
    uint64_t alive = load_rlx(&w->alive_ns), wakes = alive + IDLE_WAIT_MS * UINT64_C(1000000);

    if (asleep)
        alive = wakes < now ? wakes : now;
    else if (load_rlx(&w->awaits) && is_helped(w)) /* they are who may be stuck */
        alive = now;
    *out = (struct rf_health){
        .alive_ns = alive,
        .busy_ns = load_rlx(&w->busy_ns),
        .cpu_ns = cpu_ns(w),
    };
}
