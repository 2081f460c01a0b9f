/* Whose packets a worker has found out about: which session has them, of those that by_source does
 * not know. So a packet of a session that takes any SSRC is found at once, too.
 *
 * Two entries by hash of (SSRC, source). What the table says may have changed since: an entry holds
 * as long as the table's epoch does, and only for the source that its session admits. */
#ifndef RF_KNOWN_H
#define RF_KNOWN_H

#include "table.h"

enum { KNOWN_LEAST = 256, KNOWN_MOST = 32768 };

struct known_entry {
    uint32_t tag, index;
    uint64_t epoch; /* 0: free */
};

struct known {
    uint32_t mask;
    struct known_entry *entry;
};

/* For so many sessions; -ENOMEM. */
int known_init(struct known *k, uint32_t sessions);
void known_destroy(struct known *k);

static inline void known_prefetch(const struct known *k, uint64_t hash)
{
    __builtin_prefetch(&k->entry[(uint32_t)hash & k->mask]);
}

/* The session, or NULL. */
struct session *known_find(const struct known *k, const struct table *t,
                           const struct table_key *key);
/* `s` was found for it when, or after, the table's epoch was that. */
void known_put(struct known *k, const struct table_key *key, const struct session *s,
               uint64_t epoch);

#endif
