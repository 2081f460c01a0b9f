/* What a session's source and its subscribers tell each other by RTCP, kept for one session.
 *
 * Downwards: the last sender report, with the source's CNAME, as it goes to who has RTCP. Upwards: what
 * subscribers report, and the one request for a keyframe that becomes of all of theirs. No system calls,
 * and no clock: `now` is CLOCK_MONOTONIC. Written by the session's owner alone; what is atomic is read by
 * others. Zeros that take no memory until there is RTCP (session.c). */
#ifndef RF_FEEDBACK_H
#define RF_FEEDBACK_H

#include "merged.h"
#include "repair.h"
#include "rtcp.h"
#include "run.h"

enum {
    FEEDBACK_REPORT = 512,   /* bytes of a sender report and a CNAME; of more none are passed on */
    FEEDBACK_MESSAGE = 384,  /* of what we say ourselves: a receiver report, our CNAME, requests */
    FEEDBACK_OTHERS = 4,     /* SSRCs beside, of a session that takes several, whose reports go with */
    FEEDBACK_OTHER = 80,     /* bytes of one of those */
    FEEDBACK_PASSED = 8,     /* sender reports that a round trip may be measured by */
    KEYFRAME_REPEATS = 3,
};

#define FEEDBACK_FRESH_NS UINT64_C(10000000000)  /* a sender report that a joiner still gets */
#define FEEDBACK_SPACING_NS UINT64_C(40000000)   /* between two that are passed on */
#define FEEDBACK_MISSING_NS UINT64_C(15000000000)
#define FEEDBACK_SPEAKS_NS UINT64_C(30000000000) /* who has sent a report since wants ours */
#define FEEDBACK_EVERY_NS UINT64_C(1000000000)   /* our own reports */
#define KEYFRAME_URGENT_NS UINT64_C(500000000)   /* between two requests for pilots, */
#define KEYFRAME_OTHERS_NS UINT64_C(5000000000)  /* and for others */
#define KEYFRAME_REPEAT_NS UINT64_C(1000000000)
#define KEYFRAME_SHARE_NS UINT64_C(5000000000)   /* two such windows make the share of keyframes */

/* What is known of a session's packets. */
struct media_clock {
    uint32_t ssrc;
    bool other;         /* the rest is of another SSRC of the same source */
    bool several;       /* the session takes more than one at once */
    uint64_t at_ns;     /* when the last one came; 0: none has */
    uint32_t timestamp; /* its own */
    uint32_t rate;      /* Hz; 0: not known */
    uint32_t keyframes; /* counted; 0 where keyframes can't be told, or none came */
    uint64_t expected, received; /* as RFC 3550 A.3 has them */
    uint32_t sequence;  /* the highest, extended */
    uint32_t jitter;    /* of the RTP clock */
};

/* The request for a keyframe, of all who want one. */
struct keyframe_request {
    uint64_t urgent_ns, others_ns; /* since when somebody has wanted one, and nobody was asked; 0: not */
    uint32_t ssrc;                 /* that it is for */
    uint64_t asked_ns;             /* the source, the last time; 0: never */
    uint32_t keyframes;            /* that had come when it was wanted, or asked for */
    uint8_t repeats;               /* left, while `pending` */
    uint8_t number;                /* of FIR, RFC 5104 section 4.3.1 */
    bool pending;                  /* asked for, and none has come */
    /* UDP bytes in the window that began then, and in the one before; and those of keyframes. */
    uint64_t window_ns, bytes[2], keyframe_bytes[2];
};

struct feedback {
    /* Downwards. */
    uint8_t report[FEEDBACK_REPORT];
    uint16_t report_len; /* 0: none; with what goes behind it */
    uint16_t cname_len;  /* bytes of the packet with the CNAME, at RTCP_SR_LEN */
    uint32_t report_number;
    /* The last ones of other SSRCs: fresh ones go behind it (RFC 3550 section 6.1). */
    struct other_report {
        uint64_t at_ns; /* 0: none */
        uint32_t ssrc, number, ntp;
        uint16_t len;
        uint8_t bytes[FEEDBACK_OTHER];
    } others[FEEDBACK_OTHERS];
    _Atomic uint64_t report_ns; /* when it came */
    uint32_t report_ntp;        /* the middle of its NTP time stamp */
    uint32_t passed_number;     /* of the last one that was passed on to all, */
    uint64_t passed_set;        /* and to which set of reporters, */
    uint64_t passed_ns;         /* and when */
    struct {
        uint32_t ntp;
        uint64_t at_ns;
    } passed[FEEDBACK_PASSED];
    struct packet packet; /* the report, for the plan */

    /* Upwards. */
    struct keyframe_request request;
    _Atomic bool wanted;      /* by a control call; the owner clears it */
    _Atomic uint8_t format;   /* the writer's: bits of enum rf_keyframe_format, */
    _Atomic uint8_t class;    /* 1 + whose reports go into ours; 0: nobody's, */
    _Atomic bool repairs;     /* and whether the source is asked for what is missing */
    _Atomic(struct repair *) repair; /* there once it was asked for; session.c frees it */
    struct rf_addr fed_from;  /* where its packets came from last; port 0: nowhere yet */
    _Atomic bool forget;      /* the source is another: the owner begins anew */
    struct rf_addr spoken_by; /* where RTCP of the source came from last, */
    uint16_t spoken_to;       /* and to which port of ours, as datagram.port, */
    uint64_t spoken_ns;       /* and when; 0: never */
    uint16_t fed_to;          /* the same of its packets */
    uint64_t reported_ns;     /* when we reported last */
    uint64_t expected_prior, received_prior;
    uint64_t full_at; /* of the bucket that limits what is taken of the source */

    /* Its turn with the packet path: in the list of those that something is due of. */
    bool due;
    struct session *due_next;

    struct {
#define X(name, help) counter name;
        RF_FEEDBACK_FIELDS(X)
#undef X
    } counters;
};

/* RTCP that comes from the session's source. What it is, or why it is dropped. `whole`: it can't be read
 * (SRTCP) and is passed on as it is. */
enum rtcp_verdict feedback_take_source(struct feedback *f, const uint8_t *data, size_t len, bool whole,
                                       const struct media_clock *m, uint64_t now);
/* RTCP that comes from a subscriber, about this session. */
enum rtcp_verdict feedback_take_reporter(struct feedback *f, struct reporter *r, const uint8_t *data,
                                         size_t len, const struct media_clock *m, uint64_t now);

/* Whether there is a sender report for somebody of `set` now. */
static inline bool feedback_passes(const struct feedback *f, const struct reporters *set, uint64_t now)
{
    if (!set || f->report_len == 0 ||
        (f->passed_number == f->report_number && f->passed_set == set->number))
        return false;
    uint64_t came = load_rlx(&f->report_ns);

    return now - came <= FEEDBACK_FRESH_NS &&
           (f->passed_ns == 0 || now - f->passed_ns >= FEEDBACK_SPACING_NS);
}

/* The last sender report of its source is this, with the CNAME if the datagram has it. */
void feedback_keep_report(struct feedback *f, const struct rtcp_sender_report *sr, const uint8_t *data,
                          size_t len, bool several, uint64_t now);
/* What a report about that SSRC says of the last one: the middle of its time, and when it came; 0: there was
 * none. */
uint32_t feedback_last_report(const struct feedback *f, uint32_t ssrc, uint64_t *came);
/* Its source is another: nothing that the one before said is passed on any more. */
void feedback_begin(struct feedback *f);
/* It is passed on, now. */
void feedback_pass(struct feedback *f, const struct reporters *set, uint64_t now);

/* Somebody wants a keyframe; `urgent`: a pilot, or an operator. */
void feedback_want_keyframe(struct feedback *f, bool urgent, const struct media_clock *m, uint64_t now);
/* A run of so many bytes was forwarded, with a keyframe or some of one. */
void feedback_count_run(struct feedback *f, uint64_t bytes, bool keyframe, uint64_t now);

/* What is to be said to the source now: up to FEEDBACK_MESSAGE bytes, or 0. `own` is our SSRC, `set` who
 * reports to us. */
size_t feedback_compose(struct feedback *f, uint8_t out[FEEDBACK_MESSAGE], uint32_t own,
                        const struct reporters *set, const struct media_clock *m, uint64_t now);
/* A packet of the source, of the SSRC that its reception follows. */
static inline void feedback_note_packet(struct feedback *f, uint32_t ssrc, uint16_t sequence, uint64_t now)
{
    if (load_acq(&f->repairs) && repair_take(load_acq(&f->repair), ssrc, sequence, now))
        counter_add(&f->counters.packets_repaired, 1);
}
/* Where to: where its RTCP comes from, or else the port above that of its packets. From which of ours:
 * `*port`, as datagram.port, or `*next` the one above that. */
struct rf_addr feedback_source(const struct feedback *f, uint64_t now, uint16_t *port, bool *next);

/* A farewell for who has RTCP (BYE); bytes. */
size_t feedback_bye(const struct feedback *f, uint32_t ssrc, uint8_t out[FEEDBACK_MESSAGE]);

/* At most 50 a second, and as many at once. */
bool feedback_admits(uint64_t *full_at, uint64_t now);

void feedback_snapshot(struct feedback *f, struct rf_feedback *out);

#endif
