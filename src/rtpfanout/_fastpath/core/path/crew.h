/* Workers with nothing to receive help one whose turn has much to send.
 *
 * A worker cuts its turn's sends into tasks and publishes them as its job. Whoever is idle
 * takes tasks too, sends them through its own socket, and the owner's turn ends when
 * all tasks are done. So a session is received, gated and counted by one worker alone,
 * its packets need no buffers that outlive the turn, and since the next turn begins after the
 * last task, every subscriber gets everything in order. */
#ifndef RF_CREW_H
#define RF_CREW_H

#include <stdalign.h>
#include <stdbool.h>

#include "atomic.h"

enum { JOB_TASKS = 1024 };

/* A task is a range of the owner's shares. */
struct task {
    uint32_t first_share, end_share;
};

struct job {
    /* High half: how many tasks there are; low half: the next to be taken. */
    alignas(CACHE_LINE) _Atomic uint64_t ticket;
    alignas(CACHE_LINE) _Atomic uint32_t done;
    uint32_t count;
    struct task task[JOB_TASKS];
};

/* The owner. `count` tasks are filled in and no earlier one is under way. */
void job_publish(struct job *j, uint32_t count);
/* Waits, without sleeping, for those that others have taken. */
void job_await(struct job *j);

/* Anyone. Whether there is something to take; and taking it: false when nothing is left. */
bool job_offers(struct job *j);
bool job_take(struct job *j, uint32_t *task);
void job_task_done(struct job *j);

#endif
