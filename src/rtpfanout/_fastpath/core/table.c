#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE_MIN_SLOTS = 64 };

static struct table_key ssrc_key(const struct table *t, uint32_t ssrc)
{
    return (struct table_key){ssrc, NULL, hash_bytes(&t->key, &ssrc, sizeof ssrc)};
}

struct table_key table_key(const struct table *t, uint32_t ssrc, const struct rf_addr *source)
{
    struct {
        struct rf_addr source;
        uint32_t ssrc;
    } bytes;

    /* Member by member: padding in the caller's struct is not part of the key. */
    memset(&bytes, 0, sizeof bytes);
    memcpy(bytes.source.ip, source->ip, sizeof bytes.source.ip);
    bytes.source.scope = source->scope;
    bytes.source.port = source->port;
    bytes.ssrc = ssrc;
    return (struct table_key){ssrc, source, hash_bytes(&t->key, &bytes, sizeof bytes)};
}

/* In the index by SSRC alone a key has no source. */
static bool key_matches(const struct table_key *k, const struct session *s)
{
    return s->ssrc == k->ssrc && (!k->source || addr_equal(&s->source, k->source));
}

static uint64_t word_make(uint64_t hash, uint32_t index)
{
    return (hash & 0xffffffff00000000) | (index + 1);
}

static bool word_live(uint64_t word)
{
    return (uint32_t)word != 0;
}

/* Not 0, and its index is none: probing goes on past it. */
static const uint64_t word_deleted = (uint64_t)1 << 32;

/* The session that has `key`, or NULL, and where its word is (`*at` may be asked for by the
 * writer). A reader lives by its one load of the word: a second could meet another session,
 * or none, put there meanwhile. The acquire pairs with the release that published the word:
 * the record it names is complete. Ends, for at least one word in two is 0. */
static struct session *index_find(const struct table *t, const struct table_index *index,
                                  const struct table_key *key, table_word **at)
{
    struct table_slots *slots = load_acq(&index->slots);

    for (uint32_t i = (uint32_t)key->hash & slots->mask;; i = (i + 1) & slots->mask) {
        uint64_t word = load_acq(&slots->word[i]);

        if (word == 0)
            return NULL;
        if (!word_live(word) || (word ^ key->hash) >> 32 != 0)
            continue;
        struct session *s = session_at(t->sessions, (uint32_t)word - 1);

        if (key_matches(key, s)) {
            if (at)
                *at = &slots->word[i];
            return s;
        }
    }
}

void table_prefetch(const struct table *t, const struct table_key *key)
{
    struct table_slots *slots = load_acq(&t->by_source.slots);

    __builtin_prefetch(&slots->word[(uint32_t)key->hash & slots->mask]);
}

struct session *table_find_key(const struct table *t, const struct table_key *key,
                               bool *ssrc_known)
{
    struct session *s = index_find(t, &t->by_source, key, NULL);

    if (s)
        return s;
    struct table_key any = ssrc_key(t, key->ssrc);

    *ssrc_known = index_find(t, &t->by_ssrc, &any, NULL) != NULL;
    /* Perhaps the session came between the two looks. */
    return *ssrc_known ? index_find(t, &t->by_source, key, NULL) : NULL;
}

struct session *table_find(const struct table *t, uint32_t ssrc, const struct rf_addr *source,
                           bool *ssrc_known)
{
    struct table_key key = table_key(t, ssrc, source);

    return table_find_key(t, &key, ssrc_known);
}

static struct table_slots *slots_new(uint32_t count)
{
    struct table_slots *slots = calloc(1, sizeof *slots + count * sizeof(table_word));

    if (slots)
        slots->mask = count - 1;
    return slots;
}

/* True when the word was 0 before, false when it takes the place of a deleted one. */
static bool slots_put(struct table_slots *slots, uint64_t hash, uint32_t index)
{
    uint32_t i = (uint32_t)hash & slots->mask;
    uint64_t word;

    while (word_live(word = load_rlx(&slots->word[i])))
        i = (i + 1) & slots->mask;
    store_rls(&slots->word[i], word_make(hash, index));
    return word == 0;
}

/* The hash by which a live entry of `index` is found again. */
static uint64_t entry_hash(const struct table *t, const struct table_index *index,
                           const struct session *s)
{
    return index == &t->by_source ? table_key(t, s->ssrc, &s->source).hash
                                  : ssrc_key(t, s->ssrc).hash;
}

/* Make room for one more, so that at most half of the words are not 0. */
static int index_reserve(struct table *t, struct table_index *index)
{
    struct table_slots *old = load_rlx(&index->slots);
    uint32_t count = TABLE_MIN_SLOTS;

    if (2 * ((uint64_t)index->filled + 1) <= (uint64_t)old->mask + 1)
        return 0;
    while (count < 4 * ((uint64_t)index->live + 1))
        count *= 2;

    struct table_slots *slots = slots_new(count);

    if (!slots)
        return -ENOMEM;
    for (uint32_t i = 0; i <= old->mask; i++) {
        uint64_t word = load_rlx(&old->word[i]);

        if (word_live(word)) {
            uint32_t at = (uint32_t)word - 1;

            slots_put(slots, entry_hash(t, index, session_at(t->sessions, at)), at);
        }
    }
    store_rls(&index->slots, slots);
    index->filled = index->live;
    qsbr_retire(t->qsbr, &old->retired);
    return 0;
}

static void index_put(struct table_index *index, uint64_t hash, uint32_t at)
{
    if (slots_put(load_rlx(&index->slots), hash, at))
        index->filled++;
    index->live++;
}

static void index_clear(struct table_index *index, table_word *word)
{
    store_rls(word, word_deleted);
    index->live--;
}

int table_insert(struct table *t, struct session *s)
{
    struct table_key exact = table_key(t, s->ssrc, &s->source);
    struct table_key any = ssrc_key(t, s->ssrc);
    int rc;

    if (index_find(t, &t->by_source, &exact, NULL))
        return -EEXIST;
    if ((rc = index_reserve(t, &t->by_source)) || (rc = index_reserve(t, &t->by_ssrc)))
        return rc;

    table_word *head;

    s->ssrc_previous = NULL;
    s->ssrc_next = index_find(t, &t->by_ssrc, &any, &head);
    if (s->ssrc_next) {
        s->ssrc_next->ssrc_previous = s;
        store_rls(head, word_make(any.hash, s->index));
    } else {
        index_put(&t->by_ssrc, any.hash, s->index);
    }
    index_put(&t->by_source, exact.hash, s->index);
    return 0;
}

static void unlink_ssrc(struct table *t, struct session *s)
{
    struct table_key any = ssrc_key(t, s->ssrc);
    table_word *word;

    if (s->ssrc_next)
        s->ssrc_next->ssrc_previous = s->ssrc_previous;
    if (s->ssrc_previous) {
        s->ssrc_previous->ssrc_next = s->ssrc_next;
        return;
    }
    index_find(t, &t->by_ssrc, &any, &word);
    if (s->ssrc_next)
        store_rls(word, word_make(any.hash, s->ssrc_next->index));
    else
        index_clear(&t->by_ssrc, word);
}

/* The SSRC goes first: a reader that finds neither is right, and one that finds the session
 * still is, too; the other way round it would take the last packets for a stranger's. */
void table_remove(struct table *t, struct session *s)
{
    struct table_key exact = table_key(t, s->ssrc, &s->source);
    table_word *word;

    unlink_ssrc(t, s);
    index_find(t, &t->by_source, &exact, &word);
    index_clear(&t->by_source, word);
}

int table_init(struct table *t, const struct session_pool *sessions, struct qsbr *qsbr)
{
    struct table_slots *by_source, *by_ssrc;
    int rc = hash_key_init(&t->key);

    if (rc)
        return rc;
    by_source = slots_new(TABLE_MIN_SLOTS);
    by_ssrc = slots_new(TABLE_MIN_SLOTS);
    if (!by_source || !by_ssrc) {
        free(by_source);
        free(by_ssrc);
        return -ENOMEM;
    }
    t->sessions = sessions;
    t->qsbr = qsbr;
    t->by_source = (struct table_index){.slots = by_source};
    t->by_ssrc = (struct table_index){.slots = by_ssrc};
    return 0;
}

void table_destroy(struct table *t)
{
    free(load_rlx(&t->by_source.slots));
    free(load_rlx(&t->by_ssrc.slots));
}
