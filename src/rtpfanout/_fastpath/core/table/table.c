#include "table.h"
#include "word.h"

#include <errno.h>
#include <stdlib.h>

/* The index that an exact source is found by. */
static struct table_index *source_index(struct table *t, bool any_ssrc)
{
    return any_ssrc ? &t->by_sender : &t->by_source;
}

static struct table_key source_key(const struct table *t, uint32_t ssrc, bool any_ssrc,
                                   const struct rf_addr *source)
{
    return any_ssrc ? key_of_source(&t->key, source) : table_key(t, ssrc, source);
}

static struct session *find(const struct table *t, const struct table_index *index,
                            const struct table_key *key)
{
    return index_find(index, t->sessions, key, NULL);
}

struct session *table_find(const struct table *t, const struct table_key *key)
{
    return find(t, &t->by_source, key);
}

static struct rf_addr any_port(const struct rf_addr *source)
{
    struct rf_addr host = *source;

    host.port = 0;
    return host;
}

struct session *table_namesake(const struct table *t, const struct table_key *key,
                               struct session **session)
{
    struct table_key any = key_of_ssrc(&t->key, key->ssrc);
    struct session *namesake = find(t, &t->by_ssrc, &any);

    *session = NULL;
    if (!namesake)
        return NULL;
    *session = table_find(t, key); /* perhaps it came between the two looks */
    if (!*session && load_rlx(&t->hosts) > 0) {
        struct rf_addr host = any_port(key->source);
        struct table_key at_host = table_key(t, key->ssrc, &host);

        *session = table_find(t, &at_host);
    }
    return namesake;
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
    struct table_key any = key_of_ssrc(&t->key, key->ssrc);
    struct session *head = find(t, &t->by_network, &any), *s;

    *latching = NULL;
    s = match_chain(head, key->source, now, latching);
    /* Perhaps it has moved from its network to that exact source between the two looks. */
    return s ? s : table_find(t, key);
}

static struct session *find_sender(const struct table *t, const struct rf_addr *source)
{
    if (load_rlx(&t->by_sender.live) == 0)
        return NULL;
    struct table_key key = key_of_source(&t->key, source);
    struct session *s = find(t, &t->by_sender, &key);

    if (s || source->port == 0)
        return s;
    struct rf_addr host = any_port(source);
    struct table_key at_host = key_of_source(&t->key, &host);

    return find(t, &t->by_sender, &at_host);
}

struct session *table_match_sender(const struct table *t, const struct rf_addr *source,
                                   uint64_t now, struct session **latching)
{
    uint64_t epoch = table_epoch(t);
    struct session *s = find_sender(t, source);

    *latching = NULL;
    if (!s)
        s = match_chain(load_acq(&t->senders), source, now, latching);
    if (!s && table_epoch(t) != epoch) /* perhaps it has moved between the two looks */
        s = find_sender(t, source);
    return s;
}

void table_changed(struct table *t)
{
    fetch_add_seq(&t->epoch, 1);
}

/* Those of the SSRC with a rule, or those of any SSRC; `*head` is where the word of the first is,
 * NULL where that is none. */
static struct session *chain_of(const struct table *t, uint32_t ssrc, bool any_ssrc,
                                table_word **head)
{
    struct table_key key = key_of_ssrc(&t->key, ssrc);

    *head = NULL;
    if (any_ssrc)
        return load_rlx(&t->senders);
    return index_find(&t->by_network, t->sessions, &key, head);
}

/* `first` heads the chain of `s` from here on; NULL: there is none any more. */
static void set_head(struct table *t, const struct session *s, table_word *head,
                     struct session *first)
{
    uint64_t hash = key_of_ssrc(&t->key, s->ssrc).hash;

    if (s->any_ssrc)
        store_rls(&t->senders, first);
    else if (!first)
        index_clear(&t->by_network, head);
    else if (head)
        store_rls(head, word_make(hash, first->index));
    else
        index_put(&t->by_network, hash, first->index);
}

static int check_rule(const struct table *t, const struct session *self,
                      const struct table_claim *claim)
{
    unsigned others = 0, most = claim->any_ssrc ? RF_SENDER_NETWORKS : RF_SSRC_NETWORKS;
    table_word *head;
    struct session *s = chain_of(t, claim->ssrc, claim->any_ssrc, &head);

    for (; s; s = load_rlx(&s->network_next)) {
        const struct source_rule *its = load_rlx(&s->rule);

        if (s == self)
            continue;
        if (claim->rule->kind != RULE_RELATCH && its->kind != RULE_RELATCH &&
            rule_same_network(claim->rule, its))
            return -EEXIST;
        others++;
    }
    return others < most ? 0 : -EMLINK;
}

static int reserve(struct table *t, struct table_index *index)
{
    return index_reserve(index, t->sessions, &t->key, t->qsbr);
}

int table_reserve(struct table *t, const struct session *s, const struct table_claim *c)
{
    struct table_index *index = source_index(t, c->any_ssrc);
    int rc;

    if (c->source) {
        struct table_key exact = source_key(t, c->ssrc, c->any_ssrc, c->source);
        struct session *there = find(t, index, &exact);

        if (there && there != s)
            return -EEXIST;
    }
    if (c->rule && (rc = check_rule(t, s, c)))
        return rc;
    if ((rc = reserve(t, index)) || (rc = reserve(t, &t->by_ssrc)))
        return rc;
    return c->rule && !c->any_ssrc ? reserve(t, &t->by_network) : 0;
}

/* What by_source finds is asked first, so nothing else has to be found out anew. */
static void source_changed(struct table *t, const struct session *s, uint32_t hosts)
{
    bool is_host = s->source.port == 0;

    if (is_host && !s->any_ssrc)
        store_rlx(&t->hosts, load_rlx(&t->hosts) + hosts);
    if (is_host || s->any_ssrc)
        table_changed(t);
}

void table_put_source(struct table *t, struct session *s)
{
    struct table_key exact = source_key(t, s->ssrc, s->any_ssrc, &s->source);

    index_put(source_index(t, s->any_ssrc), exact.hash, s->index);
    s->exact = true;
    source_changed(t, s, 1);
}

void table_drop_source(struct table *t, struct session *s)
{
    struct table_index *index = source_index(t, s->any_ssrc);
    struct table_key exact = source_key(t, s->ssrc, s->any_ssrc, &s->source);
    table_word *word;

    index_find(index, t->sessions, &exact, &word);
    index_clear(index, word);
    s->exact = false;
    source_changed(t, s, UINT32_MAX); /* one less */
}

/* The head's word is written last: whoever follows it finds the whole chain. */
void table_put_network(struct table *t, struct session *s)
{
    unsigned narrowness = rule_narrowness(load_rlx(&s->rule));
    table_word *head;
    struct session *next = chain_of(t, s->ssrc, s->any_ssrc, &head), *previous = NULL;

    while (next && rule_narrowness(load_rlx(&next->rule)) >= narrowness) {
        previous = next;
        next = load_rlx(&next->network_next);
    }
    store_rls(&s->network_next, next);
    if (previous)
        store_rls(&previous->network_next, s);
    else
        set_head(t, s, head, s);
    table_changed(t);
}

void table_drop_network(struct table *t, struct session *s)
{
    table_word *head;
    struct session *at = chain_of(t, s->ssrc, s->any_ssrc, &head);
    struct session *next = load_rlx(&s->network_next);

    if (at == s) {
        set_head(t, s, head, next);
    } else {
        while (load_rlx(&at->network_next) != s)
            at = load_rlx(&at->network_next);
        store_rls(&at->network_next, next);
    }
    table_changed(t);
}

/* Whether an SSRC tells that it may be meant. */
static bool has_ssrc(const struct session *s)
{
    return !s->any_ssrc || s->ssrc != 0;
}

static void link_ssrc(struct table *t, struct session *s)
{
    struct table_key any = key_of_ssrc(&t->key, s->ssrc);
    table_word *head;

    s->ssrc_previous = NULL;
    struct session *next = index_find(&t->by_ssrc, t->sessions, &any, &head);

    store_rlx(&s->ssrc_next, next);
    if (next) {
        next->ssrc_previous = s;
        session_share_refusals(s, next);
        store_rls(head, word_make(any.hash, s->index));
    } else {
        index_put(&t->by_ssrc, any.hash, s->index);
    }
}

int table_insert(struct table *t, struct session *s)
{
    struct source_rule *rule = load_rlx(&s->rule);
    struct table_claim claim = {s->ssrc, s->any_ssrc, s->exact ? &s->source : NULL, rule};
    int rc = table_reserve(t, NULL, &claim);

    if (rc)
        return rc;
    if (has_ssrc(s))
        link_ssrc(t, s);
    if (rule)
        table_put_network(t, s);
    if (s->exact)
        table_put_source(t, s);
    return 0;
}

static void unlink_ssrc(struct table *t, struct session *s)
{
    struct table_key any = key_of_ssrc(&t->key, s->ssrc);
    table_word *word;

    struct session *next = load_rlx(&s->ssrc_next);

    if (next)
        next->ssrc_previous = s->ssrc_previous;
    if (s->ssrc_previous) {
        store_rls(&s->ssrc_previous->ssrc_next, next);
        return;
    }
    index_find(&t->by_ssrc, t->sessions, &any, &word);
    if (next)
        store_rls(word, word_make(any.hash, next->index));
    else
        index_clear(&t->by_ssrc, word);
}

/* The SSRC goes first: a reader that finds neither is right, and one that finds the session
 * still is, too; the other way round it would take the last packets for a stranger's. */
void table_remove(struct table *t, struct session *s)
{
    if (has_ssrc(s))
        unlink_ssrc(t, s);
    if (load_rlx(&s->rule))
        table_drop_network(t, s);
    if (s->exact)
        table_drop_source(t, s);
}

int table_init(struct table *t, const struct session_pool *sessions, struct qsbr *qsbr)
{
    int rc;

    *t = (struct table){.sessions = sessions, .qsbr = qsbr};
    t->aliases = calloc(1, sizeof *t->aliases);
    if ((rc = hash_key_init(&t->key)) || (rc = t->aliases ? 0 : -ENOMEM) ||
        (rc = (t->familiar = familiar_new(&t->key)) ? 0 : -ENOMEM) ||
        (rc = index_init(&t->by_source, KEY_FLOW)) ||
        (rc = index_init(&t->by_ssrc, KEY_SSRC)) || (rc = index_init(&t->by_network, KEY_SSRC)) ||
        (rc = index_init(&t->by_sender, KEY_SOURCE))) {
        table_destroy(t);
        return rc;
    }
    return 0;
}

void table_destroy(struct table *t)
{
    index_destroy(&t->by_source);
    index_destroy(&t->by_ssrc);
    index_destroy(&t->by_network);
    index_destroy(&t->by_sender);
    free(t->aliases);
    familiar_free(t->familiar);
    t->familiar = NULL;
    t->aliases = NULL; /* as the indexes: table_init has given all back when it fails */
}
