/* Session records. */
#ifndef RF_SESSION_H
#define RF_SESSION_H

#include "feedback.h"
#include "rule.h"
#include "run.h"
#include "ssrcs.h"
#include "subscriber.h"
#include "watch.h"

/* Two past points of packets_received: a rate over the last one to two ticks. */
struct rate_point {
    uint64_t at, packets;
};

/* Whether waiting for more of a frame paid; see linger.h. */
struct linger_use {
    uint8_t failures, skip;
};

/* To the first and to the last subscriber served. Apart from the record, which lookups want
 * small: 10,000 sessions then fit a second-level cache. */
struct session_latency {
    struct latency_histogram first, last;
    struct linger_use linger;
};

/* What a session had of this window's capacity; see fair.h. */
struct fair_use {
    uint32_t window;
    uint64_t copies;
    counter dropped;
};

/* Beyond an exact source that feeds: what the gate has to look at, as bits of `session.gating`. */
enum {
    GATING_PAUSED = 1,
    GATING_LIMITED = 2,
    GATING_FOLLOW = 4, /* one SSRC at a time */
    GATING_ANY = 8,    /* whatever SSRCs its source sends */
    /* Some may have been held of its source before it was that, since its last packet: whichever worker
     * holds sets it, and its owner clears it. */
    GATING_AWAITED = 2048,
    GATING_ASKED = GATING_PAUSED | GATING_LIMITED | GATING_FOLLOW | GATING_ANY |
                   GATING_AWAITED, /* of each packet */
    GATING_PADDING = 16,    /* the padding is checked, */
    GATING_NO_PADDING = 32, /* or is not, whatever the engine does */
    GATING_NO_RTCP = 64,    /* payload types 64 to 95 with marker are RTP */
    GATING_SRTP = 128,      /* nothing beyond the header can be read */
    GATING_FEEDBACK = 256,  /* for the fan-out: its RTCP is to be looked after with each run */
    /* Its RTCP is not taken, which finds it where its packets don't: it is on its way out, or changes
     * hands. Set a grace period before. */
    GATING_UNHEARD = 512,
    GATING_MARKED = 1024, /* its copies are marked, see `mark` */
};

/* `session.owner`: 1 + the index of a worker, 0 for none yet; above that, how often it has lost its
 * owner, modulo 512. So what was handed over to an earlier owner can be told. */
enum { OWNER_MASK = 127 };

/* A bucket that holds `burst` and runs dry at a packet's end (as ITU-T I.371's virtual
 * scheduling): `full_at` is when it would be full again. */
struct rate_limit {
    _Atomic uint64_t bits_per_second; /* the writer's; the rest is the worker's */
    uint64_t full_at;
    counter dropped;
};

/* What came with an SSRC from where none of its sessions admits it. The sessions share it; it goes
 * with the last of them, after the grace period of that. */
struct ssrc_refusals {
    counter wrong_source;
    _Atomic bool busy;   /* somebody is at `last` */
    struct rf_addr last; /* whence; all zero: nowhere */
    uint32_t sessions; /* the writer's */
};

struct session {
    /* Written before publication, and compared by lookups: by a move only while the session is
     * out of the index by source, and a grace period is over since. */
    alignas(CACHE_LINE) struct rf_addr source;
    uint32_t ssrc;
    uint32_t index;
    _Atomic(struct subscriber_list *) subscribers; /* never NULL while published */

    /* The worker's own. */
    struct run run; /* of this turn */
    _Atomic uint16_t owner; /* the one worker that forwards its packets */
    _Atomic uint16_t gating;
    uint32_t rotation; /* which subscriber is served first; moves on with every run */
    _Atomic uint64_t last_packet_ns;
    struct session_latency *latency;
    struct session_counters counters; /* but for the last, this cache line is full */
    struct fair_use fair_use;
    struct rate_limit limit;
    counter dropped_paused;
    _Atomic uint16_t mark; /* of its copies: as packet.mark, or MARK_COPY */

    struct feedback *feedback; /* the owner's */
    /* Of the one IP address that feeds it, see rtcp_feeder; 0: there is none. */
    _Atomic uint64_t feeder;

    /* Guarded by the writer mutex. */
    alignas(CACHE_LINE) uint32_t generation;
    uint64_t reporter_sets; /* how many it has had */
    bool in_use;
    bool exact; /* `source` admits: it is in the index by source */
    bool at_own_port; /* in none of the table's indexes; its rule says all of who feeds it */
    /* It takes others than `ssrc`, which only is a hint then (0: none). As `ssrc` it is written
     * only while the session is in no index, and was so for a grace period. */
    bool any_ssrc;
    struct session *next_free;
    /* Sessions of the same SSRC; workers follow the first. */
    _Atomic(struct session *) ssrc_next;
    struct session *ssrc_previous;
    uint64_t created_ns;
    uint64_t idle_timeout; /* 0: the one that all have; RF_IDLE_FOREVER */
    struct rate_point older, newer;
    struct watch watch;

    /* Of sessions with a rule: read when an exact source is not found. */
    _Atomic(struct source_rule *) rule;
    struct ssrcs *ssrcs; /* of one with `any_ssrc`; else NULL, or not in use */
    _Atomic(struct session *) network_next; /* less or equally specific, of the same SSRC */
    _Atomic uint32_t noticed; /* bits of rf_notice_kind: one of those waits */
    /* Of what is held for it (hold.h): how often it was changed in a way that ends that, modulo 2^32, and
     * after how many changes what is held may yet leave. */
    _Atomic uint32_t changes, held_since;
    /* The owner's: the last source that a network admitted, and the newest subscriber then. */
    struct rf_addr last_source;
    uint64_t last_newest_ns;
    /* What it has instead of a place in the table, see side_ports.h; NULL: it hasn't. */
    _Atomic(struct side_port *) own_port, own_rtcp_port;

    /* Counted by any worker: atomic additions, and apart from what the owner counts. */
    struct ssrc_refusals *refusals;
    uint64_t refusals_before; /* this session */
    struct {
#define X(name) counter name;
        RF_SESSION_REFUSALS(X)
#undef X
    } dropped;
    /* Which of our addresses its source speaks to (all zero: not known), and of which interface that
     * is in the local_set `heard_in`. Written before what it admits is fanned out. */
    uint8_t heard[16];
    uint32_t heard_interface;
    uint64_t heard_in; /* its number */
    _Atomic(struct parameter_sets *) sets; /* NULL: none came yet */
};

/* Session records by index, allocated a chunk at a time; a record never moves. */
enum { SESSION_CHUNK = 256 };

struct session_pool {
    uint32_t max;
    uint32_t used; /* indexes below were in use at some time */
    struct session *free;
    _Atomic(struct session *) *chunks;
    struct session_latency **latency_chunks;
    struct feedback **feedback_chunks;
    struct reception **reception_chunks;
    /* By index: the generation of the session that workers may find, 0: none. Apart from the records,
     * which are cleared for whoever has them next. */
    _Atomic uint32_t *found;
    struct parameter_pool parameters;
};

int session_pool_init(struct session_pool *p, uint32_t max);
/* Frees all records and what they hold. */
void session_pool_destroy(struct session_pool *p);

/* A record with its key, an empty subscriber list and zero counters; not yet published.
 * -EAGAIN (max), -ENOMEM. */
int session_new(struct session_pool *p, const struct rf_addr *source, uint32_t ssrc, uint64_t now,
                struct session **out);
/* Back to the pool, with all its subscribers; after its grace period. */
void session_release(struct session_pool *p, struct session *s);

static inline struct session *session_at(const struct session_pool *p, uint32_t index)
{
    return &load_acq(&p->chunks[index / SESSION_CHUNK])[index % SESSION_CHUNK];
}

/* What the gate reads of it, and what is counted of a packet that gets in. */
static inline void session_prefetch(const struct session *s)
{
    __builtin_prefetch(s);
    __builtin_prefetch(&s->last_packet_ns, 1);
}

/* Apart from its record, for the same reason as its latencies. */
static inline struct reception *session_reception(const struct session_pool *p,
                                                  const struct session *s)
{
    return &p->reception_chunks[s->index / SESSION_CHUNK][s->index % SESSION_CHUNK];
}

static inline uint64_t session_handle(const struct session *s)
{
    return (uint64_t)s->generation << 32 | s->index;
}

/* Whether it is fed by more than one exact source. Where a network or a latch is the rule there may be no
 * exact one, and a move may be writing it. */
static inline bool session_is_wide(struct session *s)
{
    const struct source_rule *rule = load_acq(&s->rule);

    return (rule && rule->kind != RULE_RELATCH) || s->source.port == 0;
}

/* Workers find it, or won't any more: before the grace period after which it is released. */
static inline void session_show(const struct session_pool *p, const struct session *s)
{
    store_rls(&p->found[s->index], s->generation);
}
static inline void session_hide(const struct session_pool *p, const struct session *s)
{
    store_rls(&p->found[s->index], 0);
}

/* A worker, of a handle that it knows from before: whether that session is still there, and so until
 * the end of its QSBR section. */
static inline bool session_is_there(const struct session_pool *p, uint64_t handle)
{
    return load_acq(&p->found[(uint32_t)handle]) == handle >> 32;
}

/* What is held for it is not to leave any more. */
static inline void session_end_waits(struct session *s)
{
    uint32_t changes = load_rlx(&s->changes) + 1;

    store_rls(&s->held_since, changes);
    store_rls(&s->changes, changes);
}

/* The source that it was waiting for is in: what is held of others, and from here on, is for the next. */
static inline void session_begin_waits(struct session *s)
{
    uint32_t changes = load_rlx(&s->changes);

    store_rls(&s->held_since, changes);
    store_rls(&s->changes, changes + 1);
}

/* Whether what is held since so many changes may leave. */
static inline bool session_waits(struct session *s, uint32_t since)
{
    return (int32_t)(since - load_acq(&s->held_since)) >= 0;
}

/* NULL unless it is in use under this very handle. */
struct session *session_by_handle(const struct session_pool *p, uint64_t handle);

/* Before it is published: `s` has the SSRC of `other`, so what is refused for that is for both. */
void session_share_refusals(struct session *s, const struct session *other);
/* While it is in no index: it gets another SSRC, and `fresh` (by malloc, all zero) to count by. */
void session_change_ssrc(struct session *s, uint32_t ssrc, struct ssrc_refusals *fresh);
/* A worker drops a packet from `source`: of `s`, or of an SSRC that it has. */
void session_count_refusal(struct session *s, enum drop_reason reason,
                           const struct rf_addr *source);
/* Whence the last one came that was dropped as of a wrong source, if any was. */
bool session_wrong_source(struct session *s, struct rf_addr *out);

/* Nobody feeds it, nor is anybody in the middle of a turn with it: any worker may have it. */
static inline void session_lose_owner(struct session *s)
{
    store_rls(&s->owner, (uint16_t)((load_rlx(&s->owner) | OWNER_MASK) + 1));
}

/* Whether one with an exact source has been silent for as long as its rule asks. */
bool session_may_relatch(struct session *s, const struct source_rule *rule, uint64_t now);
/* The owner: parameter sets of the payload are kept, in a block of `spares` if it is the first time. */
void session_keep_sets(struct session *s, struct parameter_spares *spares, enum rf_encoding encoding,
                       struct payload payload, uint64_t now);

void session_roll_rate(struct session *s, uint64_t now);
void session_snapshot(struct session *s, uint64_t now, struct rf_session_stats *out);

#endif
