#include "stats.h"

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))
#define NAME(name) #name,

static const struct {
    const char *name, *help;
} stats_fields[] = {
#define X(name, help) {#name, help},
    RF_WORKER_FIELDS(X)
    RF_ENGINE_FIELDS(X)
#undef X
}, session_fields[] = {
#define X(name, help) {#name, help},
    RF_SESSION_FIELDS(X)
#undef X
#define X(name) {"dropped_" #name, ""},
    RF_SESSION_DROPS(X)
    RF_SESSION_REFUSALS(X)
#undef X
};
static const struct {
    const char *name, *help;
} feedback_fields[] = {
#define X(name, help) {#name, help},
    RF_FEEDBACK_FIELDS(X)
#undef X
};
static const char *const rtcp_kinds[] = {RF_RTCP_KINDS(NAME)};
static const char *const rtcp_drops[] = {RF_RTCP_DROPS(NAME)};
static const char *const drop_reasons[] = {RF_DROP_REASONS(NAME)};
static const char *const send_failures[] = {RF_SEND_FAILURES(NAME)};

const char *rf_stats_field_name(size_t i)
{
    return i < COUNT_OF(stats_fields) ? stats_fields[i].name : NULL;
}

const char *rf_stats_field_help(size_t i)
{
    return i < COUNT_OF(stats_fields) ? stats_fields[i].help : NULL;
}

const char *rf_session_field_name(size_t i)
{
    return i < COUNT_OF(session_fields) ? session_fields[i].name : NULL;
}

const char *rf_session_field_help(size_t i)
{
    return i < COUNT_OF(session_fields) ? session_fields[i].help : NULL;
}

const char *rf_feedback_field_name(size_t i)
{
    return i < COUNT_OF(feedback_fields) ? feedback_fields[i].name : NULL;
}

const char *rf_feedback_field_help(size_t i)
{
    return i < COUNT_OF(feedback_fields) ? feedback_fields[i].help : NULL;
}

const char *rf_rtcp_kind_name(size_t i)
{
    return i < COUNT_OF(rtcp_kinds) ? rtcp_kinds[i] : NULL;
}

const char *rf_rtcp_drop_name(size_t i)
{
    return i < COUNT_OF(rtcp_drops) ? rtcp_drops[i] : NULL;
}

const char *rf_drop_reason_name(size_t i)
{
    return i < COUNT_OF(drop_reasons) ? drop_reasons[i] : NULL;
}

const char *rf_send_failure_name(size_t i)
{
    return i < COUNT_OF(send_failures) ? send_failures[i] : NULL;
}

void stats_count_drop(struct worker_counters *c, enum drop_reason reason)
{
    switch (reason) {
#define X(name) case DROP_##name: counter_add(&c->dropped_##name, 1); break;
        RF_DROP_REASONS(X)
#undef X
    case DROP_REASON_COUNT:
        break;
    }
}

void stats_count_failures(struct worker_counters *c, enum send_failure reason, uint64_t n)
{
    switch (reason) {
#define X(name) case FAILED_##name: counter_add(&c->failed_##name, n); break;
        RF_SEND_FAILURES(X)
#undef X
    case SEND_FAILURE_COUNT:
        break;
    }
}

void stats_count_rtcp(struct worker_counters *c, enum rtcp_verdict verdict)
{
    switch (verdict) {
#define X(name) case RTCP_TAKEN_##name: counter_add(&c->rtcp_taken_##name, 1); break;
        RF_RTCP_KINDS(X)
#undef X
#define X(name) case RTCP_DROPPED_##name: counter_add(&c->rtcp_dropped_##name, 1); break;
        RF_RTCP_DROPS(X)
#undef X
    case RTCP_VERDICT_COUNT:
        break;
    }
}

/* Bucket 0 ends at RF_LATENCY_FIRST_NS; then each octave is cut into equal steps. */
size_t latency_bucket(uint64_t ns)
{
    if (ns <= RF_LATENCY_FIRST_NS)
        return 0;
    uint64_t below = ns - 1; /* so that a bound falls into the bucket it closes */
    unsigned octave = 63 - (unsigned)__builtin_clzll(below / RF_LATENCY_FIRST_NS);
    if (octave >= RF_LATENCY_OCTAVES)
        return RF_LATENCY_BOUNDS;
    /* In steps since zero, of which those before the octave are as many as it has itself. */
    uint64_t steps = (below * RF_LATENCY_STEPS >> octave) / RF_LATENCY_FIRST_NS;
    return 1 + octave * RF_LATENCY_STEPS + steps - RF_LATENCY_STEPS;
}

uint64_t rf_latency_bound(size_t i)
{
    if (i == 0)
        return RF_LATENCY_FIRST_NS;
    uint64_t base = (uint64_t)RF_LATENCY_FIRST_NS << (i - 1) / RF_LATENCY_STEPS;
    return base + base / RF_LATENCY_STEPS * ((i - 1) % RF_LATENCY_STEPS + 1);
}

void latency_record(struct latency_histogram *h, uint64_t ns, uint64_t n)
{
    latency_record_in(h, latency_bucket(ns), ns, n);
}

void stats_sum(struct rf_stats *sum, struct worker_counters *c)
{
#define X(name, help) sum->name += load_rlx(&c->name);
    RF_WORKER_FIELDS(X)
#undef X
}

void latency_sum(struct rf_latency *sum, struct latency_histogram *h)
{
    for (size_t i = 0; i < COUNT_OF(sum->count); i++)
        sum->count[i] += load_rlx(&h->count[i]);
    sum->sum_ns += load_rlx(&h->sum_ns);
}

void session_counters_read(struct rf_session_stats *out, struct session_counters *c)
{
#define X(name, help) out->name = load_rlx(&c->name);
    RF_SESSION_FIELDS(X)
#undef X
}
