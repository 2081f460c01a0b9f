/* SSRC and source address -> session, by lock-free lookup.
 *
 * Sessions of one SSRC are in three indexes: one by (SSRC, source), so that 10,000 cameras with the
 * same factory SSRC still cost one probe each; one by SSRC alone, whose entry heads the chain of
 * sessions with that SSRC: it tells a wrong source from an unknown SSRC; and one by SSRC whose entry
 * heads the chain of those among them that have a rule (rule.h), the most specific network first: it
 * is asked only when the first has no entry and the second has.
 *
 * Sessions that take any SSRC of their source (`any_ssrc`) are asked after these, so that a fixed
 * SSRC wins: one index by source, and one chain of those with a rule. If one of them has been told an
 * SSRC it is a namesake, too, but no other is kept from having that.
 *
 * An exact source with port 0 is any port of its address; one with a port goes first. */
#ifndef RF_TABLE_H
#define RF_TABLE_H

#include "aliases.h"
#include "familiar.h"
#include "index.h"

struct table {
    struct hash_key key;
    const struct session_pool *sessions;
    struct qsbr *qsbr;
    struct table_index by_source; /* (SSRC, source) */
    struct table_index by_ssrc;
    struct table_index by_network;
    struct table_index by_sender; /* source, of those that take any SSRC */
    _Atomic(struct session *) senders; /* those among them with a rule */
    _Atomic uint32_t hosts; /* sessions in by_source with port 0 */
    _Atomic uint32_t without_rtcp; /* sessions with GATING_NO_RTCP */
    /* Counts what may change who has a packet that by_source doesn't know. Written after that, so
     * what was found out before it is not taken for true after it. */
    _Atomic uint64_t epoch;
    struct aliases *aliases;
    struct familiar *familiar;
};

/* What a session is to be found by. */
struct table_claim {
    uint32_t ssrc;
    bool any_ssrc;
    const struct rf_addr *source;   /* exact, or NULL */
    const struct source_rule *rule; /* or NULL */
};

int table_init(struct table *t, const struct session_pool *sessions, struct qsbr *qsbr);
void table_destroy(struct table *t);

/* -EEXIST when SSRC and source, or SSRC and network, are taken, -EMLINK (RF_SSRC_NETWORKS of the
 * SSRC, RF_SENDER_NETWORKS of those that take any), -ENOMEM; nothing is changed then. */
int table_insert(struct table *t, struct session *s);
void table_remove(struct table *t, struct session *s);

/* The steps of a move. table_reserve asks whether `s` (NULL: a session to come) may have this claim,
 * and makes room for it: as table_insert. What follows can't fail then. */
int table_reserve(struct table *t, const struct session *s, const struct table_claim *claim);
void table_put_source(struct table *t, struct session *s);
void table_drop_source(struct table *t, struct session *s);
/* Puts it into its rule's place in the chain; out of which it was for a grace period. */
void table_put_network(struct table *t, struct session *s);
void table_drop_network(struct table *t, struct session *s);
/* After a rule was replaced by another of the same network. */
void table_changed(struct table *t);

static inline uint64_t table_epoch(const struct table *t)
{
    return load_acq(&t->epoch);
}

/* Whether some session takes any SSRC. */
static inline bool table_has_senders(const struct table *t)
{
    return load_rlx(&t->by_sender.live) > 0 || load_rlx(&t->senders) != NULL;
}

static inline struct table_key table_key(const struct table *t, uint32_t ssrc,
                                         const struct rf_addr *source)
{
    return key_of_flow(&t->key, ssrc, source);
}

/* Begins to load what table_find will read. Keys that are made and prefetched some packets
 * ahead hide the memory's latency: with 10,000 sessions a lookup costs what it costs with 10. */
static inline void table_prefetch(const struct table *t, const struct table_key *key)
{
    index_prefetch(&t->by_source, key->hash);
}

/* The session of this SSRC and exact source, or NULL. */
struct session *table_find(const struct table *t, const struct table_key *key);

/* When table_find has found none: one of this SSRC, or NULL; `*session` then is the one of it that
 * admits any port of this address, or that has come meanwhile, or NULL. */
struct session *table_namesake(const struct table *t, const struct table_key *key,
                               struct session **session);

/* When there is a namesake and no session: the one whose network admits the source. Else NULL, and
 * `*latching` the session that may latch on to it, or NULL. */
struct session *table_match(const struct table *t, const struct table_key *key, uint64_t now,
                            struct session **latching);

/* The same among the sessions that take any SSRC, by exact source or network. */
struct session *table_match_sender(const struct table *t, const struct rf_addr *source,
                                   uint64_t now, struct session **latching);

#endif
