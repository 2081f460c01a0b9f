#include "table.h"
#include "word.h"

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

/* The session that has `key`, or NULL, and where its word is (`*at` may be asked for by the
 * writer). A reader lives by its one load of the word: a second could meet another session,
 * or none, put there meanwhile. The acquire pairs with the release that published the word:
 * the record it names is complete. Ends, for at least one word in two is 0. */
static struct session *index_find(const struct table *t, const struct table_index *index,
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
        struct session *s = session_at(t->sessions, word_index(word));

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

struct session *table_find(const struct table *t, const struct table_key *key,
                           struct session **namesake)
{
    struct session *s = index_find(t, &t->by_source, key, NULL);

    if (s)
        return s;
    struct table_key any = ssrc_key(t, key->ssrc);

    *namesake = index_find(t, &t->by_ssrc, &any, NULL);
    /* Perhaps the session came between the two looks. */
    return *namesake ? index_find(t, &t->by_source, key, NULL) : NULL;
}

/* What is taken out of a chain leads on into it until its grace period is over. The acquires
 * pair with the releases of table_put_network and table_drop_network, and of the control call
 * that gives a session another rule. */
static struct session *match_chain(struct session *s, const struct rf_addr *source, uint64_t now,
                                   struct session **latching)
{
    for (; s; s = load_acq(&s->network_next)) {
        const struct source_rule *rule = load_acq(&s->rule);

        if (!rule_covers(rule, source))
            continue;
        if (rule->kind == RULE_ADMIT)
            return s;
        if (rule->kind == RULE_LATCH) {
            *latching = s;
            return NULL;
        }
        if (!*latching && session_may_relatch(s, rule, now))
            *latching = s;
    }
    return NULL;
}

struct session *table_match(const struct table *t, const struct table_key *key, uint64_t now,
                            struct session **latching)
{
    struct table_key any = ssrc_key(t, key->ssrc);
    struct session *head = index_find(t, &t->by_network, &any, NULL), *s;

    *latching = NULL;
    s = match_chain(head, key->source, now, latching);
    /* Perhaps it has moved from its network to that exact source between the two looks. */
    return s ? s : index_find(t, &t->by_source, key, NULL);
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
        uint32_t word = load_rlx(&old->word[i]);

        if (word_live(word)) {
            uint32_t at = word_index(word);

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

/* Those of the SSRC with a rule; `*head` is where their word is. */
static struct session *chain_of(const struct table *t, uint32_t ssrc, table_word **head)
{
    struct table_key any = ssrc_key(t, ssrc);

    return index_find(t, &t->by_network, &any, head);
}

static int check_rule(const struct table *t, const struct session *self, uint32_t ssrc,
                      const struct source_rule *rule)
{
    unsigned others = 0;

    for (struct session *s = chain_of(t, ssrc, NULL); s; s = load_rlx(&s->network_next)) {
        const struct source_rule *its = load_rlx(&s->rule);

        if (s == self)
            continue;
        if (rule->kind != RULE_RELATCH && its->kind != RULE_RELATCH &&
            rule_same_network(rule, its))
            return -EEXIST;
        others++;
    }
    return others < RF_SSRC_NETWORKS ? 0 : -EMLINK;
}

int table_reserve(struct table *t, const struct session *s, uint32_t ssrc,
                  const struct rf_addr *source, const struct source_rule *rule)
{
    int rc;

    if (source) {
        struct table_key exact = table_key(t, ssrc, source);
        struct session *there = index_find(t, &t->by_source, &exact, NULL);

        if (there && there != s)
            return -EEXIST;
    }
    if (rule && (rc = check_rule(t, s, ssrc, rule)))
        return rc;
    if ((rc = index_reserve(t, &t->by_source)) || (rc = index_reserve(t, &t->by_ssrc)))
        return rc;
    return rule ? index_reserve(t, &t->by_network) : 0;
}

void table_put_source(struct table *t, struct session *s)
{
    index_put(&t->by_source, table_key(t, s->ssrc, &s->source).hash, s->index);
    s->exact = true;
}

void table_drop_source(struct table *t, struct session *s)
{
    struct table_key exact = table_key(t, s->ssrc, &s->source);
    table_word *word;

    index_find(t, &t->by_source, &exact, &word);
    index_clear(&t->by_source, word);
    s->exact = false;
}

/* The head's word is written last: whoever follows it finds the whole chain. */
void table_put_network(struct table *t, struct session *s)
{
    uint64_t hash = ssrc_key(t, s->ssrc).hash;
    unsigned narrowness = rule_narrowness(load_rlx(&s->rule));
    table_word *head;
    struct session *next = chain_of(t, s->ssrc, &head), *previous = NULL;
    bool first = next == NULL;

    while (next && rule_narrowness(load_rlx(&next->rule)) >= narrowness) {
        previous = next;
        next = load_rlx(&next->network_next);
    }
    store_rls(&s->network_next, next);
    if (previous)
        store_rls(&previous->network_next, s);
    else if (first)
        index_put(&t->by_network, hash, s->index);
    else
        store_rls(head, word_make(hash, s->index));
}

void table_drop_network(struct table *t, struct session *s)
{
    table_word *head;
    struct session *at = chain_of(t, s->ssrc, &head), *next = load_rlx(&s->network_next);

    if (at != s) {
        while (load_rlx(&at->network_next) != s)
            at = load_rlx(&at->network_next);
        store_rls(&at->network_next, next);
    } else if (next) {
        store_rls(head, word_make(ssrc_key(t, s->ssrc).hash, next->index));
    } else {
        index_clear(&t->by_network, head);
    }
}

static void link_ssrc(struct table *t, struct session *s)
{
    struct table_key any = ssrc_key(t, s->ssrc);
    table_word *head;

    s->ssrc_previous = NULL;
    s->ssrc_next = index_find(t, &t->by_ssrc, &any, &head);
    if (s->ssrc_next) {
        s->ssrc_next->ssrc_previous = s;
        session_share_refusals(s, s->ssrc_next);
        store_rls(head, word_make(any.hash, s->index));
    } else {
        index_put(&t->by_ssrc, any.hash, s->index);
    }
}

int table_insert(struct table *t, struct session *s)
{
    struct source_rule *rule = load_rlx(&s->rule);
    int rc = table_reserve(t, NULL, s->ssrc, s->exact ? &s->source : NULL, rule);

    if (rc)
        return rc;
    link_ssrc(t, s);
    if (rule)
        table_put_network(t, s);
    if (s->exact)
        table_put_source(t, s);
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
    unlink_ssrc(t, s);
    if (load_rlx(&s->rule))
        table_drop_network(t, s);
    if (s->exact)
        table_drop_source(t, s);
}

int table_init(struct table *t, const struct session_pool *sessions, struct qsbr *qsbr)
{
    struct table_slots *slots[3];
    int rc = hash_key_init(&t->key);

    if (rc)
        return rc;
    for (unsigned i = 0; i < 3; i++) {
        slots[i] = slots_new(TABLE_MIN_SLOTS);
        if (!slots[i]) {
            while (i > 0)
                free(slots[--i]);
            return -ENOMEM;
        }
    }
    t->sessions = sessions;
    t->qsbr = qsbr;
    t->by_source = (struct table_index){.slots = slots[0]};
    t->by_ssrc = (struct table_index){.slots = slots[1]};
    t->by_network = (struct table_index){.slots = slots[2]};
    return 0;
}

void table_destroy(struct table *t)
{
    free(load_rlx(&t->by_source.slots));
    free(load_rlx(&t->by_ssrc.slots));
    free(load_rlx(&t->by_network.slots));
}
