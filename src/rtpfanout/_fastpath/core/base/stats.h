/* Counters: one writing thread each, 64 bits, relaxed, never reset. */
#ifndef RF_STATS_H
#define RF_STATS_H

#include <stdalign.h>

#include "atomic.h"
#include "core.h"

enum drop_reason {
#define X(name) DROP_##name,
    RF_DROP_REASONS(X)
#undef X
    DROP_REASON_COUNT
};

enum send_failure {
#define X(name) FAILED_##name,
    RF_SEND_FAILURES(X)
#undef X
    SEND_FAILURE_COUNT
};

/* What became of a datagram of RTCP. */
enum rtcp_verdict {
#define X(name) RTCP_TAKEN_##name,
    RF_RTCP_KINDS(X)
#undef X
#define X(name) RTCP_DROPPED_##name,
    RF_RTCP_DROPS(X)
#undef X
    RTCP_VERDICT_COUNT
};

struct worker_counters {
#define X(name, help) counter name;
    RF_WORKER_FIELDS(X)
#undef X
};

struct session_counters {
#define X(name, help) counter name;
    RF_SESSION_FIELDS(X)
#undef X
};

struct latency_histogram {
    counter count[RF_LATENCY_BOUNDS + 1];
    counter sum_ns;
};

void stats_count_drop(struct worker_counters *c, enum drop_reason reason);
void stats_count_failures(struct worker_counters *c, enum send_failure reason, uint64_t n);

void stats_count_rtcp(struct worker_counters *c, enum rtcp_verdict verdict);

/* The bucket whose inclusive upper bound is the first not below `ns`. */
size_t latency_bucket(uint64_t ns);
/* `n` observations of the same latency. */
void latency_record(struct latency_histogram *h, uint64_t ns, uint64_t n);
/* The same where its bucket is known. */
static inline void latency_record_in(struct latency_histogram *h, size_t bucket, uint64_t ns, uint64_t n)
{
    counter_add(&h->count[bucket], n);
    counter_add(&h->sum_ns, n * ns);
}

/* Adds one worker's counters to `sum`. */
void stats_sum(struct rf_stats *sum, struct worker_counters *c);
void latency_sum(struct rf_latency *sum, struct latency_histogram *h);
void session_counters_read(struct rf_session_stats *out, struct session_counters *c);

#endif
