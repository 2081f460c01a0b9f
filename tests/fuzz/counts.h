/* Counts of a turn that the fuzzer has no model of. */
#ifndef FUZZ_COUNTS_H
#define FUZZ_COUNTS_H

#include "check.h"
#include "core.h"

/* What RTCP was is fuzz_rtcp's to say; here each is something. */
static inline void expect_rtcp(struct rf_stats *expected, const struct rf_stats *sum)
{
    uint64_t each = 0;

#define X(name) each += expected->rtcp_taken_##name = sum->rtcp_taken_##name;
    RF_RTCP_KINDS(X)
#undef X
#define X(name) each += expected->rtcp_dropped_##name = sum->rtcp_dropped_##name;
    RF_RTCP_DROPS(X)
#undef X
    CHECK_EQ(each, expected->dropped_rtcp);
    CHECK_EQ(sum->rtcp_send_failures, 0);
    CHECK(sum->rtcp_sent <= each); /* reports of our own, to a source that reports */
    expected->rtcp_sent = sum->rtcp_sent;
}

#endif
