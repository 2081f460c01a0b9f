/* The packet loops of an engine, each in a thread of its own. */
#ifndef TEST_LOOPS_H
#define TEST_LOOPS_H

#include <pthread.h>

#include "check.h"
#include "core.h"

struct loops {
    uint32_t count;
    struct loop {
        struct rf_engine *engine;
        uint32_t worker;
        pthread_t thread;
    } loop[8];
};

static inline void *loop_run(void *argument)
{
    struct loop *loop = argument;

    CHECK_EQ(rf_engine_run(loop->engine, loop->worker), 0);
    return NULL;
}

static inline void loops_start(struct loops *l, struct rf_engine *e, uint32_t count)
{
    CHECK(count <= COUNT(l->loop));
    l->count = count;
    for (uint32_t i = 0; i < count; i++) {
        l->loop[i].engine = e;
        l->loop[i].worker = i;
        CHECK(pthread_create(&l->loop[i].thread, NULL, loop_run, &l->loop[i]) == 0);
    }
}

/* After rf_engine_stop. */
static inline void loops_join(struct loops *l)
{
    for (uint32_t i = 0; i < l->count; i++)
        CHECK(pthread_join(l->loop[i].thread, NULL) == 0);
}

#endif
