/* What must hold of the counters of all workers of an engine whenever no packet is in flight. */
#ifndef TEST_IDENTITIES_H
#define TEST_IDENTITIES_H

#include "check.h"
#include "core.h"

static inline void check_identities(const struct rf_stats *s)
{
    uint64_t dropped = 0, failed = 0;

#define X(name) dropped += s->dropped_##name;
    RF_DROP_REASONS(X)
#undef X
#define X(name) failed += s->failed_##name;
    RF_SEND_FAILURES(X)
#undef X
    CHECK_EQ(s->packets_received, s->packets_forwarded + dropped);
    CHECK_EQ(s->copies_attempted, s->packets_sent + failed);
    CHECK_EQ(s->copies_attempted + s->copies_withheld, s->copies_due + s->copies_rtcp);
    uint64_t rtcp = 0;

#define X(name) rtcp += s->rtcp_taken_##name;
    RF_RTCP_KINDS(X)
#undef X
#define X(name) rtcp += s->rtcp_dropped_##name;
    RF_RTCP_DROPS(X)
#undef X
    CHECK_EQ(s->dropped_rtcp, rtcp);
}

#endif
