#include "qsbr.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

void qsbr_init(struct qsbr *q)
{
    memset(q, 0, sizeof *q);
    store_rlx(&q->period, 1);
}

/* Pairs with qsbr_start and qsbr_passed: in the single order of the seq_cst operations
 * either the writer's load of `seen` comes after our store and waits for us, or our load
 * of `period` comes after the writer's increment and, being an acquire, makes us see what
 * was unpublished before it. */
void qsbr_online(struct qsbr *q, unsigned reader)
{
    store_seq(&q->readers[reader].seen, load_seq(&q->period));
    (void)load_seq(&q->period);
}

/* The release pairs with the acquire in qsbr_passed: our reads of retired objects happen
 * before they are freed. The acquire pairs with qsbr_start as above. */
void qsbr_quiescent(struct qsbr *q, unsigned reader)
{
    store_rls(&q->readers[reader].seen, load_acq(&q->period));
}

void qsbr_offline(struct qsbr *q, unsigned reader)
{
    store_rls(&q->readers[reader].seen, QSBR_OFFLINE);
}

uint64_t qsbr_start(struct qsbr *q)
{
    return fetch_add_seq(&q->period, 1) + 1;
}

bool qsbr_passed(struct qsbr *q, uint64_t period)
{
    for (unsigned i = 0; i < QSBR_READERS; i++) {
        uint64_t seen = load_seq(&q->readers[i].seen);

        if (seen != QSBR_OFFLINE && seen < period)
            return false;
    }
    return true;
}

void qsbr_synchronize(struct qsbr *q)
{
    uint64_t period = qsbr_start(q);
    struct timespec pause = {.tv_nsec = 20000};

    while (!qsbr_passed(q, period))
        nanosleep(&pause, NULL);
}

void qsbr_retire(struct qsbr *q, struct qsbr_retired *r)
{
    r->next = NULL;
    r->period = qsbr_start(q);
    if (q->newest)
        q->newest->next = r;
    else
        q->oldest = r;
    q->newest = r;
}

void qsbr_reclaim(struct qsbr *q)
{
    while (q->oldest && qsbr_passed(q, q->oldest->period)) {
        struct qsbr_retired *r = q->oldest;

        q->oldest = r->next;
        if (!q->oldest)
            q->newest = NULL;
        free(r);
    }
}

void qsbr_destroy(struct qsbr *q)
{
    while (q->oldest) {
        struct qsbr_retired *next = q->oldest->next;

        free(q->oldest);
        q->oldest = next;
    }
    q->newest = NULL;
}
