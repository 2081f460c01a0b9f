/* RTCP of sessions and their subscribers (RFC 3550 section 6). Part of core.h, which has the terms that
 * hold here, too. */
#ifndef RF_RTCP_API_H
#define RF_RTCP_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stats_fields.h"

struct rf_engine;
struct rf_addr;

/* Whether a subscriber has RTCP (RFC 3550 section 6): what its session's source reports is passed on to
 * it, and what it reports and asks for is taken. */
enum rf_rtcp {
    RF_RTCP_OFF,
    RF_RTCP_MUX,       /* to the very port of its RTP (RFC 5761) */
    RF_RTCP_NEXT_PORT, /* to the one above (RFC 3550 section 11) */
};

/* What a subscriber with RTCP last reported (RFC 3550 section 6.4.1). */
struct rf_report {
    uint64_t at_ns;    /* 0: nothing yet */
    double fraction;   /* lost since the report before */
    int64_t lost;      /* in all; less than 0 where duplicates came */
    double jitter_secs, round_trip_secs; /* less than 0: not known */
};

/* How a session's source is asked for a keyframe. */
enum rf_keyframe_format {
    RF_KEYFRAME_PLI = 1, /* RFC 4585 section 6.3.1 */
    RF_KEYFRAME_FIR = 2, /* RFC 5104 section 4.3.1 */
};

/* A session's RTCP. */
struct rf_feedback {
    uint64_t handle;
#define X(name, help) uint64_t name;
    RF_FEEDBACK_FIELDS(X)
#undef X
    uint64_t sender_report_ns; /* when the last one came; 0: none yet */
    uint32_t reporters;        /* subscribers with RTCP */
};

/* Those of `addrs` that are subscribers have RTCP from now on, or none. -ENOENT, -EINVAL (rtcp),
 * -ENOMEM: nothing is changed then. */
int rf_subscribers_rtcp(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                        enum rf_rtcp rtcp);
/* -ENOENT. */
int rf_session_feedback(struct rf_engine *e, uint64_t handle, struct rf_feedback *out);
/* Those that have, or had, any: writes up to `capacity` and returns how many there are. */
size_t rf_sessions_feedback(struct rf_engine *e, struct rf_feedback *out, size_t capacity);
/* How its source is asked for keyframes: RF_KEYFRAME_PLI at first. -ENOENT, -EINVAL. */
int rf_session_keyframe_format(struct rf_engine *e, uint64_t handle, unsigned format);
/* Whose reports go into ours to the source: of subscribers of that class the worst loss, of more than
 * eight the median, and the least bitrate; RF_CLASSES: nobody's, as at first. -ENOENT, -EINVAL. */
int rf_session_report_class(struct rf_engine *e, uint64_t handle, unsigned subscriber_class);
/* Whether its source is asked to send again what is missing: at first not. -ENOENT, -ENOMEM. */
int rf_session_repair(struct rf_engine *e, uint64_t handle, bool on);
/* Its source is asked for a keyframe as if a pilot had asked: with its next packet, half a second after the
 * last time, and not where one has come since. -ENOENT, -EHOSTUNREACH: its source is not of one address, and
 * nobody else is asked. */
int rf_session_want_keyframe(struct rf_engine *e, uint64_t handle);
/* Names, in order, and what they tell; NULL past the end. */
const char *rf_feedback_field_name(size_t i);
const char *rf_feedback_field_help(size_t i);
const char *rf_rtcp_kind_name(size_t i);
const char *rf_rtcp_drop_name(size_t i);

#endif
