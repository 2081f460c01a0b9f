/* SSRC and source address -> session, by lock-free lookup.
 *
 * Three open-addressing indexes: one by (SSRC, source), so that 10,000 cameras with the
 * same factory SSRC still cost one probe each; one by SSRC alone, whose entry heads
 * the chain of sessions with that SSRC: it tells a wrong source from an unknown SSRC; and one
 * by SSRC whose entry heads the chain of those among them that have a rule (rule.h), the most
 * specific network first: it is asked only when the first has no entry and the second has.
 * One writer (under the engine's mutex), any number of readers inside a QSBR section.
 * A table grows by publishing a larger one and retiring the old one. */
#ifndef RF_TABLE_H
#define RF_TABLE_H

#include "hash.h"
#include "session.h"

/* The bits of RF_MAX_SESSIONS: session index + 1, 0 for none; those above: of the hash. 0: never
 * used. So short that the words of 10,000 sessions leave a second-level cache to the records. */
typedef _Atomic uint32_t table_word;

struct table_slots {
    struct qsbr_retired retired;
    uint32_t mask;
    table_word word[];
};

struct table_index {
    _Atomic(struct table_slots *) slots;
    uint32_t filled; /* words that are not 0: live or deleted; the writer's */
    uint32_t live;
};

struct table {
    struct hash_key key;
    const struct session_pool *sessions;
    struct qsbr *qsbr;
    struct table_index by_source; /* (SSRC, source) */
    struct table_index by_ssrc;
    struct table_index by_network;
};

int table_init(struct table *t, const struct session_pool *sessions, struct qsbr *qsbr);
void table_destroy(struct table *t);

/* -EEXIST when SSRC and source, or SSRC and network, are taken, -EMLINK (RF_SSRC_NETWORKS of the
 * SSRC), -ENOMEM; nothing is changed then. */
int table_insert(struct table *t, struct session *s);
void table_remove(struct table *t, struct session *s);

/* The steps of a move. table_reserve asks whether `s` (NULL: a session to come) may have this
 * exact source and this rule, either of them NULL, and makes room for them: as table_insert.
 * What follows can't fail then. */
int table_reserve(struct table *t, const struct session *s, uint32_t ssrc,
                  const struct rf_addr *source, const struct source_rule *rule);
void table_put_source(struct table *t, struct session *s);
void table_drop_source(struct table *t, struct session *s);
/* Puts it into its rule's place in the chain; out of which it was for a grace period. */
void table_put_network(struct table *t, struct session *s);
void table_drop_network(struct table *t, struct session *s);

/* What an entry is looked up by. */
struct table_key {
    uint32_t ssrc;
    const struct rf_addr *source;
    uint64_t hash;
};

struct table_key table_key(const struct table *t, uint32_t ssrc, const struct rf_addr *source);
/* Begins to load what table_find will read. Keys that are made and prefetched some packets
 * ahead hide the memory's latency: with 10,000 sessions a lookup costs what it costs with 10. */
void table_prefetch(const struct table *t, const struct table_key *key);
/* NULL when there is no such session; `*namesake` then is one of this SSRC, or NULL. */
struct session *table_find(const struct table *t, const struct table_key *key,
                           struct session **namesake);

/* When table_find has found none but knows the SSRC: the session whose network admits the
 * source. Else NULL, and `*latching` the session that may latch on to it, or NULL. */
struct session *table_match(const struct table *t, const struct table_key *key, uint64_t now,
                            struct session **latching);

#endif
