#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { INDEX_MIN_SLOTS = 64 };

struct table_key key_of_ssrc(const struct hash_key *h, uint32_t ssrc)
{
    return (struct table_key){ssrc, KEY_SSRC, NULL, hash_bytes(h, &ssrc, sizeof ssrc)};
}

/* Member by member: padding in the caller's struct is not part of a key. */
static void copy_members(struct rf_addr *to, const struct rf_addr *from)
{
    memset(to, 0, sizeof *to);
    memcpy(to->ip, from->ip, sizeof to->ip);
    to->scope = from->scope;
    to->port = from->port;
}

struct table_key key_of_flow(const struct hash_key *h, uint32_t ssrc, const struct rf_addr *source)
{
    struct {
        struct rf_addr source;
        uint32_t ssrc;
    } bytes;

    copy_members(&bytes.source, source);
    bytes.ssrc = ssrc;
    return (struct table_key){ssrc, KEY_FLOW, source, hash_bytes(h, &bytes, sizeof bytes)};
}

struct table_key key_of_source(const struct hash_key *h, const struct rf_addr *source)
{
    struct rf_addr bytes;

    copy_members(&bytes, source);
    return (struct table_key){0, KEY_SOURCE, source, hash_bytes(h, &bytes, sizeof bytes)};
}

static bool key_matches(const struct table_key *k, const struct session *s)
{
    return (k->kind == KEY_SOURCE || s->ssrc == k->ssrc) &&
           (k->kind == KEY_SSRC || addr_equal(&s->source, k->source));
}

/* A reader lives by its one load of the word: a second could meet another session, or none, put there
 * meanwhile. The acquire pairs with the release that published the word: the record it names is
 * complete. Ends, for at least one word in two is 0. */
struct session *index_find(const struct table_index *index, const struct session_pool *sessions,
                           const struct table_key *key, table_word **at)
{
    struct table_slots *slots = load_acq(&index->slots);
    uint32_t tag = word_tag(key->hash);

    for (uint32_t i = (uint32_t)key->hash & slots->mask;; i = (i + 1) & slots->mask) {
        uint32_t word = load_acq(&slots->word[i]);

        if (word == 0)
            return NULL;
        if (!word_live(word) || (word & ~RF_MAX_SESSIONS) != tag)
            continue;
        struct session *s = session_at(sessions, word_index(word));

        if (key_matches(key, s)) {
            if (at)
                *at = &slots->word[i];
            return s;
        }
    }
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
    uint32_t word;

    while (word_live(word = load_rlx(&slots->word[i])))
        i = (i + 1) & slots->mask;
    store_rls(&slots->word[i], word_make(hash, index));
    return word == 0;
}

/* The hash by which a live entry of `index` is found again. */
static uint64_t entry_hash(const struct hash_key *h, const struct table_index *index,
                           const struct session *s)
{
    switch (index->kind) {
    case KEY_FLOW: return key_of_flow(h, s->ssrc, &s->source).hash;
    case KEY_SSRC: return key_of_ssrc(h, s->ssrc).hash;
    case KEY_SOURCE: break;
    }
    return key_of_source(h, &s->source).hash;
}

/* At most half of the words are not 0. */
int index_reserve(struct table_index *index, const struct session_pool *sessions,
                  const struct hash_key *h, struct qsbr *qsbr)
{
    struct table_slots *old = load_rlx(&index->slots);
    uint32_t live = load_rlx(&index->live), count = INDEX_MIN_SLOTS;

    if (2 * ((uint64_t)index->filled + 1) <= (uint64_t)old->mask + 1)
        return 0;
    while (count < 4 * ((uint64_t)live + 1))
        count *= 2;

    struct table_slots *slots = slots_new(count);

    if (!slots)
        return -ENOMEM;
    for (uint32_t i = 0; i <= old->mask; i++) {
        uint32_t word = load_rlx(&old->word[i]);

        if (word_live(word)) {
            uint32_t at = word_index(word);

            slots_put(slots, entry_hash(h, index, session_at(sessions, at)), at);
        }
    }
    store_rls(&index->slots, slots);
    index->filled = live;
    qsbr_retire(qsbr, &old->retired);
    return 0;
}

void index_put(struct table_index *index, uint64_t hash, uint32_t at)
{
    if (slots_put(load_rlx(&index->slots), hash, at))
        index->filled++;
    store_rlx(&index->live, load_rlx(&index->live) + 1);
}

void index_clear(struct table_index *index, table_word *word)
{
    store_rls(word, word_deleted);
    store_rlx(&index->live, load_rlx(&index->live) - 1);
}

int index_init(struct table_index *index, enum key_kind kind)
{
    struct table_slots *slots = slots_new(INDEX_MIN_SLOTS);

    *index = (struct table_index){.kind = kind, .slots = slots};
    return slots ? 0 : -ENOMEM;
}

void index_destroy(struct table_index *index)
{
    free(load_rlx(&index->slots));
    store_rlx(&index->slots, NULL);
}
