/* stats.c, stats_fields.h: names, sums and latency buckets. */
#include "stats.h"

#include <string.h>

#include "check.h"

static void test_every_bound_closes_its_bucket(void)
{
    for (size_t i = 0; i < RF_LATENCY_BOUNDS; i++) {
        uint64_t bound = rf_latency_bound(i);

        CHECK_EQ(latency_bucket(bound), i);
        CHECK_EQ(latency_bucket(bound + 1), i + 1);
        CHECK_EQ(latency_bucket(bound - 1), i);
    }
}

static void test_bounds_rise_by_eighths_of_an_octave(void)
{
    CHECK_EQ(rf_latency_bound(0), 1000);
    CHECK_EQ(rf_latency_bound(1), 1125);
    CHECK_EQ(rf_latency_bound(RF_LATENCY_BOUNDS - 1), (uint64_t)1000 << 24);
    for (size_t i = 1; i < RF_LATENCY_BOUNDS; i++) {
        uint64_t below = rf_latency_bound(i - 1), bound = rf_latency_bound(i);

        CHECK(bound > below);
        CHECK(8 * (bound - below) <= below);
        if (i % 8 == 0)
            CHECK_EQ(bound, 2 * rf_latency_bound(i - 8));
    }
}

static void test_buckets_are_exact_and_monotone(void)
{
    size_t last = 0;

    for (uint64_t ns = 0; ns < (uint64_t)40 * 1000000000; ns += 1 + ns / 5000) {
        size_t bucket = latency_bucket(ns);

        CHECK(bucket >= last && bucket <= RF_LATENCY_BOUNDS);
        CHECK(bucket == RF_LATENCY_BOUNDS || ns <= rf_latency_bound(bucket));
        CHECK(bucket == 0 || ns > rf_latency_bound(bucket - 1));
        last = bucket;
    }
    CHECK_EQ(last, RF_LATENCY_BOUNDS);
    CHECK_EQ(latency_bucket(UINT64_MAX), RF_LATENCY_BOUNDS);
}

static void test_histogram_counts_and_sums(void)
{
    static struct latency_histogram h;
    static struct rf_latency sum;

    latency_record(&h, 0, 1);
    latency_record(&h, 1000, 1);
    latency_record(&h, 1001, 1);
    latency_record(&h, (uint64_t)60 * 1000000000, 1);
    latency_sum(&sum, &h);
    latency_sum(&sum, &h); /* a second worker of the same counts */
    CHECK_EQ(sum.count[0], 4);
    CHECK_EQ(sum.count[1], 2);
    CHECK_EQ(sum.count[RF_LATENCY_BOUNDS], 2);
    CHECK_EQ(sum.sum_ns, 2 * (2001 + (uint64_t)60 * 1000000000));
}

/* Each reason's counter is the one its name says. */
static void test_reasons_reach_their_counters(void)
{
    static struct worker_counters c;
    struct rf_stats sum = {0};
    uint64_t expected = 1;

    for (unsigned i = 0; i < DROP_REASON_COUNT; i++)
        for (unsigned n = 0; n <= i; n++)
            stats_count_drop(&c, i);
    for (unsigned i = 0; i < SEND_FAILURE_COUNT; i++)
        stats_count_failures(&c, i, i + 1);
    stats_count_drop(&c, DROP_REASON_COUNT);
    stats_count_failures(&c, SEND_FAILURE_COUNT, 9);
    stats_sum(&sum, &c);
#define X(name) CHECK_EQ(sum.dropped_##name, expected++);
    RF_DROP_REASONS(X)
#undef X
    expected = 1;
#define X(name) CHECK_EQ(sum.failed_##name, expected++);
    RF_SEND_FAILURES(X)
#undef X
    CHECK_EQ(sum.packets_received + sum.packets_sent + sum.copies_attempted, 0);
}

static void test_names_in_order_of_the_fields(void)
{
    static struct worker_counters c;
    static struct session_counters s;
    struct rf_session_stats session = {0};
    struct rf_stats sum = {0};
    size_t i = 0;

#define X(name, help)                                   \
    CHECK(strcmp(rf_stats_field_name(i), #name) == 0);  \
    CHECK(strcmp(rf_stats_field_help(i), help) == 0);   \
    counter_add(&c.name, ++i);
    RF_WORKER_FIELDS(X)
#undef X
    stats_sum(&sum, &c);
    CHECK(strcmp(rf_stats_field_name(i), "kernel_drops") == 0);
    CHECK_EQ(&sum.kernel_drops - &sum.packets_received, i);
    CHECK(rf_stats_field_name(i + 3) != NULL && rf_stats_field_name(i + 4) == NULL);
    CHECK(rf_stats_field_help(i + 4) == NULL);
    for (size_t at = 0; at < i; at++) /* the seam reads them by position */
        CHECK_EQ((&sum.packets_received)[at], at + 1);
    i = 0;
#define X(name, help)                                    \
    CHECK(strcmp(rf_session_field_name(i), #name) == 0); \
    counter_add(&s.name, ++i);
    RF_SESSION_FIELDS(X)
#undef X
    CHECK(strcmp(rf_session_field_name(i), "dropped_overload") == 0);
    CHECK(rf_session_field_help(i) != NULL && rf_session_field_help(i + 9) == NULL);
    CHECK_EQ(&session.dropped_misrouted - &session.packets_received, i + 8);
    session_counters_read(&session, &s);
    for (size_t at = 0; at < i; at++)
        CHECK_EQ((&session.packets_received)[at], at + 1);
    CHECK(strcmp(rf_drop_reason_name(DROP_misrouted), "misrouted") == 0);
    CHECK(rf_drop_reason_name(DROP_REASON_COUNT) == NULL);
    CHECK(strcmp(rf_send_failure_name(FAILED_other), "other") == 0);
    CHECK(rf_send_failure_name(SEND_FAILURE_COUNT) == NULL);
}

int main(void)
{
    RUN(test_every_bound_closes_its_bucket);
    RUN(test_bounds_rise_by_eighths_of_an_octave);
    RUN(test_buckets_are_exact_and_monotone);
    RUN(test_histogram_counts_and_sums);
    RUN(test_reasons_reach_their_counters);
    RUN(test_names_in_order_of_the_fields);
    return 0;
}
