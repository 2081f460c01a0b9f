/* The packet loop. One turn = receive, classify and gate, fan out, flush, quiesce. */
#ifndef RF_WORKER_H
#define RF_WORKER_H

#include "fanout.h"
#include "ingress.h"
#include "sock.h"
#include "table.h"

struct worker {
    /* Given at creation. */
    const struct sock *sock;
    const struct table *table;
    struct qsbr *qsbr;
    unsigned reader; /* index in qsbr */
    bool check_padding;
    socklen_t name_len;
    int wake_fd; /* eventfd: ends a wait */
    _Atomic bool stopping;

    bool gso;
    struct ingress *ingress;
    struct batch batch;
    unsigned receive_limit; /* buffers the next turn may fill */

    /* Of the turn at hand. */
    uint64_t now; /* CLOCK_MONOTONIC at its beginning */
    uint64_t entries; /* handed to egress */
    uint32_t packet_count, session_count;
    struct packet *packets;
    struct session **sessions; /* those with a run, in order of arrival */
    struct fanout_room room;

    alignas(CACHE_LINE) struct worker_counters counters;
    struct latency_histogram latency;
};

/* 0 or -errno. */
int worker_init(struct worker *w, const struct sock *sock, const struct table *table,
                struct qsbr *qsbr, unsigned reader, bool check_padding);
void worker_destroy(struct worker *w);

/* Until worker_stop; then forwards what is queued, for 200 ms at the most. */
void worker_run(struct worker *w);
/* From any thread. */
void worker_stop(struct worker *w);

#endif
