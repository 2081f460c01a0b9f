/* What a worker sends: its turn's runs, alone or with the help of idle workers. */
#include "worker.h"

#include <unistd.h>

enum {
    SEND_WAIT_MS = 2, /* for room in the send buffer, per batch */
    LISTS_AHEAD = 4,  /* subscriber lists that are prefetched */
    SIGN_COPIES = EGRESS_BATCH / 4, /* a batch of fewer takes no time worth a look at the clock */
};

static void flush(struct worker *w, uint32_t now_secs)
{
    bool much = w->batch.used >= SIGN_COPIES;

    if (w->batch.used == 0)
        return;
    egress_flush(&w->egress, &w->batch, &w->counters, SEND_WAIT_MS, now_secs);
    batch_settle(&w->batch, clock_ns(CLOCK_REALTIME));
    if (much)
        store_rlx(&w->alive_ns, clock_ns(CLOCK_MONOTONIC));
}

/* Shares of this worker's turn, or of another's. */
static void serve(struct worker *w, struct plan *plan, uint32_t share, uint32_t end)
{
    w->batch.local = w->gate.local ? load_acq(w->gate.local) : NULL;
    for (; share < end; share++) {
        while (!share_fill(&plan->shares[share], &w->batch, plan->now_secs, w->name_len))
            flush(w, plan->now_secs);
    }
    flush(w, plan->now_secs);
}

static uint32_t cut_tasks(struct job *j, const struct plan *plan)
{
    uint32_t count = 0;
    uint64_t entries = 0;

    for (uint32_t i = 0, first = 0; i < plan->shares_used; i++) {
        entries += share_entries(&plan->shares[i]);
        if (entries >= SHARE_ENTRIES || i + 1 == plan->shares_used) {
            j->task[count++] = (struct task){first, i + 1};
            first = i + 1;
            entries = 0;
        }
    }
    return count;
}

void worker_wake(int fd)
{
    uint64_t one = 1;

    /* EAGAIN means that the counter is full of earlier wake-ups: it wakes all the same. */
    (void)!write(fd, &one, sizeof one);
}

static void wake_idle(struct worker *w, uint32_t wanted)
{
    for (unsigned i = 0; i < w->crew_size && wanted > 0; i++) {
        if (w->crew[i] != w && load_seq(&w->crew[i]->idle)) {
            worker_wake(w->crew[i]->wake_fd);
            wanted--;
        }
    }
}

bool worker_take_part(struct worker *w, struct worker *owner)
{
    uint32_t task;

    /* Said as long as the owner may wait for it, see worker_health.c; so before and after. */
    store_rlx(&w->helps, w == owner ? 0 : owner->options.index + 1);
    bool taken = job_take(&owner->job, &task);

    if (taken) {
        serve(w, &owner->plan, owner->job.task[task].first_share, owner->job.task[task].end_share);
        job_task_done(&owner->job);
    }
    store_rls(&w->helps, 0);
    return taken;
}

/* Sends all that is planned, with the help of idle workers where it is much. */
static void run_plan(struct worker *w)
{
    bool much = w->crew_size > 1 && w->plan.entries >= w->options.split_threshold;
    uint32_t tasks = much ? cut_tasks(&w->job, &w->plan) : 1;

    if (tasks > 1) {
        job_publish(&w->job, tasks);
        wake_idle(w, tasks - 1);
        while (worker_take_part(w, w))
            ;
        store_rlx(&w->awaits, true);
        job_await(&w->job);
        store_rlx(&w->alive_ns, clock_ns(CLOCK_MONOTONIC));
        store_rlx(&w->awaits, false);
    } else {
        serve(w, &w->plan, 0, w->plan.shares_used);
    }
    plan_account(&w->plan, &w->counters, &w->latency_first, &w->latency_last);
    plan_clear(&w->plan);
}

/* Those that something was handed over to, if they sleep. */
static void call_owners(struct worker *w)
{
    for (unsigned i = 0; w->gate.called >> i; i++) {
        if (w->gate.called >> i & 1 && load_seq(&w->crew[i]->idle))
            worker_wake(w->crew[i]->wake_fd);
    }
    w->gate.called = 0;
}

/* Of sessions without a run. */
static void feed_back(struct worker *w)
{
    struct session *s = w->gate.rtcp.due, *next;

    for (; s; s = next) {
        next = s->feedback->due_next;
        if (!plan_has_room(&w->plan))
            run_plan(w);
        if (s->feedback->due)
            worker_feedback(w, s);
    }
    w->gate.rtcp.due = NULL;
}

void worker_fan_out(struct worker *w)
{
    call_owners(w); /* first: sending takes its time */
    w->plan.now_secs = (uint32_t)(w->now / 1000000000);
    for (uint32_t i = 0; i < w->session_count; i++) {
        if (i + LISTS_AHEAD < w->session_count)
            __builtin_prefetch(load_rlx(&w->sessions[i + LISTS_AHEAD]->subscribers));
        if (!plan_has_room(&w->plan))
            run_plan(w);
        plan_session(&w->plan, w->sessions[i], w->crew_size > 1);
        if (load_rlx(&w->sessions[i]->gating) & GATING_FEEDBACK)
            worker_feedback(w, w->sessions[i]);
        w->sessions[i]->run = (struct run){NULL, NULL};
    }
    feed_back(w);
    run_plan(w);
    w->packet_count = w->session_count = 0;
    holding_left(&w->gate.holding);
}
