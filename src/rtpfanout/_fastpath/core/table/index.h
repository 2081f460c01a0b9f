/* From a key to a session: open addressing, one writer (under the engine's mutex), any number of
 * readers inside a QSBR section. It grows by publishing a larger one and retiring the old one. */
#ifndef RF_INDEX_H
#define RF_INDEX_H

#include "hash.h"
#include "session.h"
#include "word.h"

/* What of a packet an index looks at. */
enum key_kind { KEY_FLOW /* SSRC and source */, KEY_SSRC, KEY_SOURCE };

/* What an entry is looked up by. */
struct table_key {
    uint32_t ssrc;
    enum key_kind kind;
    const struct rf_addr *source; /* NULL: KEY_SSRC */
    uint64_t hash;
};

struct table_key key_of_flow(const struct hash_key *h, uint32_t ssrc, const struct rf_addr *source);
struct table_key key_of_ssrc(const struct hash_key *h, uint32_t ssrc);
struct table_key key_of_source(const struct hash_key *h, const struct rf_addr *source);

/* The bits of RF_MAX_SESSIONS: session index + 1, 0 for none; those above: of the hash. 0: never
 * used. So short that the words of 10,000 sessions leave a second-level cache to the records. */
typedef _Atomic uint32_t table_word;

struct table_slots {
    struct qsbr_retired retired;
    uint32_t mask;
    table_word word[];
};

struct table_index {
    enum key_kind kind;
    _Atomic(struct table_slots *) slots;
    uint32_t filled; /* words that are not 0: live or deleted; the writer's */
    _Atomic uint32_t live;
};

/* -ENOMEM. */
int index_init(struct table_index *index, enum key_kind kind);
void index_destroy(struct table_index *index);

/* The session that has `key`, or NULL, and where its word is (`*at` may be asked for by the
 * writer). */
struct session *index_find(const struct table_index *index, const struct session_pool *sessions,
                           const struct table_key *key, table_word **at);

static inline void index_prefetch(const struct table_index *index, uint64_t hash)
{
    struct table_slots *slots = load_acq(&index->slots);

    __builtin_prefetch(&slots->word[(uint32_t)hash & slots->mask]);
}

/* Where in the pool the session of that hash most likely is; false: it will hardly be there. To be asked for
 * what is prefetched, by nothing but the words of the table. */
static inline bool index_peek(const struct table_index *index, uint64_t hash, uint32_t *at)
{
    enum { WORDS = 4 }; /* that are looked at */
    struct table_slots *slots = load_acq(&index->slots);
    uint32_t tag = word_tag(hash);

    for (uint32_t i = 0; i < WORDS; i++) {
        uint32_t word = load_acq(&slots->word[(uint32_t)(hash + i) & slots->mask]);

        if (word == 0)
            return false;
        if (word_live(word) && (word & ~RF_MAX_SESSIONS) == tag) {
            *at = word_index(word);
            return true;
        }
    }
    return false;
}

/* Makes room for one more; -ENOMEM. What follows can't fail then. */
int index_reserve(struct table_index *index, const struct session_pool *sessions,
                  const struct hash_key *h, struct qsbr *qsbr);
void index_put(struct table_index *index, uint64_t hash, uint32_t at);
void index_clear(struct table_index *index, table_word *word);

#endif
