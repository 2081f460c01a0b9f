/* A worker without an engine around it, and what it needs. */
#ifndef TEST_ONE_WORKER_H
#define TEST_ONE_WORKER_H

#include "endpoints.h"
#include "worker.h"

static struct sock sock;
static struct qsbr qsbr;
static struct session_pool pool;
static struct table table;
static struct worker worker, *crew[] = {&worker};

static inline void worker_open(const struct worker_options *options)
{
    struct rf_addr at = address("127.0.0.1", 0);

    qsbr_init(&qsbr);
    CHECK_EQ(session_pool_init(&pool, 16), 0);
    CHECK_EQ(table_init(&table, &pool, &qsbr), 0);
    CHECK_EQ(sock_open(&sock, &at, 4 << 20, 4 << 20), 0);
    CHECK_EQ(worker_init(&worker, options, &sock, &table, &qsbr, crew, 1), 0);
}

static inline void worker_close(void)
{
    worker_destroy(&worker);
    sock_close(&sock);
    table_destroy(&table);
    session_pool_destroy(&pool);
    qsbr_destroy(&qsbr);
}

#endif
