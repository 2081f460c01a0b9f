/* One session, and what a turn plans and sends of it, without a worker. */
#ifndef TEST_PLANS_H
#define TEST_PLANS_H

#include "fanout.h"
#include "sessions.h"

static struct session_pool pool;
static struct session *session;
static struct plan plan;
static struct batch batch;
static struct worker_counters counters;
static struct latency_histogram latency_first, latency_last;

/* `addrs` has room for the subscribers: ports 1, 2, ... of 127.0.0.1. */
static inline void plans_begin(uint32_t packets, struct rf_addr *addrs, uint32_t subscribers)
{
    for (uint32_t i = 0; i < subscribers; i++)
        addrs[i] = address("127.0.0.1", (uint16_t)(1 + i));
    CHECK_EQ(session_pool_init(&pool, 100), 0);
    session = session_make(&pool, address("192.0.2.1", 1), 1, addrs, subscribers);
    CHECK_EQ(plan_init(&plan, packets), 0);
    memset(&batch, 0, sizeof batch);
    memset(&latency_first, 0, sizeof latency_first);
    memset(&latency_last, 0, sizeof latency_last);
}

static inline void plans_end(void)
{
    plan_destroy(&plan);
    session_pool_destroy(&pool);
}

#endif
