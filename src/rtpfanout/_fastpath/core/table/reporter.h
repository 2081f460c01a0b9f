/* Those of a session's subscribers who have RTCP: where it goes to them, and what they report. */
#ifndef RF_REPORTER_H
#define RF_REPORTER_H

#include "subscriber.h"

/* Exists only for who asked for RTCP. `subscriber`, `name` and `next_port` are written before
 * publication, the last three lines by the session's owner. */
struct reporter {
    struct qsbr_retired retired;
    struct subscriber *subscriber;
    union sockaddr_any name; /* where RTCP goes to it */
    bool next_port;
    /* Which sender report it had last (0: none), and when, CLOCK_MONOTONIC; by the worker that serves
     * it. */
    uint32_t passed;
    uint64_t passed_ns;
    uint64_t full_at; /* of the bucket that limits what is taken from it */
    uint64_t bitrate, bitrate_ns; /* that it says it can take, bits a second, and when; 0: never */
    struct rf_report_counters {
        _Atomic uint64_t at_ns; /* 0: none yet */
        _Atomic uint32_t fraction, jitter_us, round_trip_us; /* UINT32_MAX: not known */
        _Atomic int32_t lost;
    } report;
};

/* The set after `old` (NULL: nobody) in which these n subscribers have `rtcp`, by that number. They may be NULL, and stand there twice. `*out` is `old` when nothing changes, and
 * NULL when nobody is left. Nothing is retired here. -ENOMEM. */
int reporters_change(const struct reporters *old, struct subscriber *const *who, size_t n,
                     enum rf_rtcp rtcp, uint64_t number, struct reporters **out);
/* Undoes it: frees `set` and what of it is not in `old`. */
void reporters_give_up(struct reporters *set, const struct reporters *old);
/* `next` took the place of `old`. */
void reporters_retire(struct reporters *old, const struct reporters *next, struct qsbr *qsbr);

/* Calls `tell` with each of `set` (NULL: nobody) that is not in `other`. */
void reporters_each_beyond(const struct reporters *set, const struct reporters *other,
                           void (*tell)(struct reporter *, void *), void *with);

/* NULL: it has no RTCP. */
struct reporter *reporters_find(const struct reporters *set, const struct subscriber *s);
/* Who sends RTCP from that address: its own, or that with the next port. NULL: nobody. */
struct reporter *reporters_match(const struct reporters *set, const struct rf_addr *from);

static inline enum rf_rtcp reporter_rtcp(const struct reporter *r)
{
    return !r ? RF_RTCP_OFF : r->next_port ? RF_RTCP_NEXT_PORT : RF_RTCP_MUX;
}

#endif
