#include "known.h"

#include <errno.h>
#include <stdlib.h>

int known_init(struct known *k, uint32_t sessions)
{
    uint32_t count = KNOWN_LEAST;

    while (count < KNOWN_MOST && count / 2 < sessions)
        count *= 2;
    k->mask = count - 1;
    k->entry = aligned_alloc(CACHE_LINE, count * sizeof *k->entry);
    if (!k->entry)
        return -ENOMEM;
    memset(k->entry, 0, count * sizeof *k->entry); /* touched now, so that no packet waits for a page */
    return 0;
}

void known_destroy(struct known *k)
{
    free(k->entry);
}

/* The bits of the hash that do not choose the place. */
static uint32_t tag_of(uint64_t hash)
{
    return (uint32_t)(hash >> 32);
}

static bool is_at(const struct rf_addr *host, const struct rf_addr *source)
{
    return (host->port == 0 || host->port == source->port) && host->scope == source->scope &&
           memcmp(host->ip, source->ip, sizeof source->ip) == 0;
}

/* A tag is 32 bits, and anybody may try many: so the source is looked at, too. Where a network or a
 * latch is the rule there may be no exact one, and a move may be writing it. */
static bool admits(struct session *s, const struct rf_addr *source)
{
    const struct source_rule *rule = load_acq(&s->rule);

    if (rule && rule->kind != RULE_RELATCH)
        return rule->kind == RULE_ADMIT && rule_covers(rule, source);
    return is_at(&s->source, source);
}

struct session *known_find(const struct known *k, const struct table *t,
                           const struct table_key *key)
{
    uint32_t at = (uint32_t)key->hash & k->mask, tag = tag_of(key->hash);

    for (unsigned i = 0; i < 2; i++) {
        const struct known_entry *e = &k->entry[at ^ i];

        if (e->tag != tag || e->epoch == 0 || e->epoch != table_epoch(t))
            continue;
        struct session *s = session_at(t->sessions, e->index);

        if (admits(s, key->source))
            return s;
    }
    return NULL;
}

void known_put(struct known *k, const struct table_key *key, const struct session *s,
               uint64_t epoch)
{
    uint32_t at = (uint32_t)key->hash & k->mask;
    struct known_entry *e = &k->entry[at];

    if (e->epoch == epoch && k->entry[at ^ 1].epoch != epoch)
        e = &k->entry[at ^ 1];
    *e = (struct known_entry){tag_of(key->hash), s->index, epoch};
}
