#include "reporter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static in_port_t *port_of(union sockaddr_any *name)
{
    return name->any.sa_family == AF_INET ? &name->v4.sin_port : &name->v6.sin6_port;
}

static struct reporter *reporter_new(struct subscriber *s, bool next_port)
{
    struct reporter *r = calloc(1, sizeof *r);

    if (!r)
        return NULL;
    r->subscriber = s;
    r->name = s->name;
    r->next_port = next_port;
    if (next_port)
        *port_of(&r->name) = htons((uint16_t)(ntohs(*port_of(&r->name)) + 1));
    store_rlx(&r->report.jitter_us, UINT32_MAX);
    store_rlx(&r->report.round_trip_us, UINT32_MAX);
    return r;
}

/* The first that was added at that time or later: no two of a session have the same. */
static uint32_t place(const struct reporters *set, uint64_t since_ns)
{
    uint32_t low = 0, high = set ? set->count : 0;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (set->item[middle]->subscriber->since_ns < since_ns)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct reporter *reporters_find(const struct reporters *set, const struct subscriber *s)
{
    uint32_t i = place(set, s->since_ns);

    return set && i < set->count && set->item[i]->subscriber == s ? set->item[i] : NULL;
}

/* Whoever is subscribed to a session may choose the port: many in one place are only slow. */
static uint32_t place_of(const struct reporters *set, const struct rf_addr *addr)
{
    uint64_t words[2], hash;

    memcpy(words, addr->ip, sizeof words);
    hash = (words[0] ^ addr->port) * UINT64_C(0x9e3779b97f4a7c15);
    hash = (hash ^ hash >> 32 ^ words[1]) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 32) & (set->places - 1);
}

static struct reporter *match_one(const struct reporters *set, const struct rf_addr *addr)
{
    union sockaddr_any name[2];

    addr_to_sockaddr(&name[0], addr, AF_INET);
    addr_to_sockaddr(&name[1], addr, AF_INET6);
    for (uint32_t at = place_of(set, addr); set->place[at]; at = (at + 1) & (set->places - 1)) {
        struct reporter *r = set->item[set->place[at] - 1];
        const union sockaddr_any *has = &r->subscriber->name;

        if (memcmp(has, &name[has->any.sa_family == AF_INET6], sizeof *has) == 0)
            return r;
    }
    return NULL;
}

struct reporter *reporters_match(const struct reporters *set, const struct rf_addr *from)
{
    struct rf_addr below = *from;

    if (!set)
        return NULL;
    below.port--;
    struct reporter *r = match_one(set, from);

    return r ? r : match_one(set, &below);
}

static void put_in_places(struct reporters *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        struct rf_addr addr;

        addr_from_sockaddr(&addr, &set->item[i]->subscriber->name);
        uint32_t at = place_of(set, &addr);

        while (set->place[at])
            at = (at + 1) & (set->places - 1);
        set->place[at] = i + 1;
    }
}

/* Room for so many. */
static struct reporters *set_new(size_t most)
{
    uint32_t places = 2;

    while (places < 2 * most)
        places *= 2;
    struct reporters *set =
        calloc(1, sizeof *set + most * sizeof(struct reporter *) + places * sizeof(uint32_t));

    if (!set)
        return NULL;
    set->places = places;
    set->place = (uint32_t *)(set->item + most);
    return set;
}

static int by_since(const void *a, const void *b)
{
    uint64_t x = (*(struct subscriber *const *)a)->since_ns,
             y = (*(struct subscriber *const *)b)->since_ns;

    return x < y ? -1 : x > y;
}

/* Those that there are, each once, in the order of the list. */
static size_t sort_out(struct subscriber **to, struct subscriber *const *who, size_t n)
{
    size_t there = 0, once = 0;

    for (size_t i = 0; i < n; i++) {
        if (who[i])
            to[there++] = who[i];
    }
    qsort(to, there, sizeof *to, by_since);
    for (size_t i = 0; i < there; i++) {
        if (i == 0 || to[i] != to[once - 1])
            to[once++] = to[i];
    }
    return once;
}

static bool would_change(const struct reporters *old, struct subscriber *const *who, size_t n,
                         enum rf_rtcp rtcp)
{
    for (size_t i = 0; i < n; i++) {
        if (reporter_rtcp(reporters_find(old, who[i])) != rtcp)
            return true;
    }
    return false;
}

/* The one there was, another, or NULL without an error: none. */
static int reporter_for(const struct reporters *old, struct subscriber *s, enum rf_rtcp rtcp,
                        struct reporter **out)
{
    *out = reporters_find(old, s);
    if (reporter_rtcp(*out) == rtcp)
        return 0;
    *out = rtcp == RF_RTCP_OFF ? NULL : reporter_new(s, rtcp == RF_RTCP_NEXT_PORT);
    return *out || rtcp == RF_RTCP_OFF ? 0 : -ENOMEM;
}

/* Both are sorted; `set` has room. */
static int merge(struct reporters *set, const struct reporters *old, struct subscriber *const *who,
                 size_t n, enum rf_rtcp rtcp)
{
    uint32_t i = 0, count = old ? old->count : 0;

    for (size_t k = 0; k < n; k++) {
        struct reporter *r;

        while (i < count && old->item[i]->subscriber->since_ns < who[k]->since_ns)
            set->item[set->count++] = old->item[i++];
        int rc = reporter_for(old, who[k], rtcp, &r);

        if (rc)
            return rc;
        if (r)
            set->item[set->count++] = r;
        if (i < count && old->item[i]->subscriber == who[k])
            i++;
    }
    while (i < count)
        set->item[set->count++] = old->item[i++];
    return 0;
}

int reporters_change(const struct reporters *old, struct subscriber *const *who, size_t n,
                     enum rf_rtcp rtcp, uint64_t number, struct reporters **out)
{
    struct subscriber **sorted = calloc(n + 1, sizeof(struct subscriber *));
    struct reporters *set = NULL;
    int rc = sorted ? 0 : -ENOMEM;

    if (sorted)
        n = sort_out(sorted, who, n);
    *out = (struct reporters *)old;
    if (rc == 0 && would_change(old, sorted, n, rtcp)) {
        set = set_new((old ? old->count : 0) + n);
        rc = set ? merge(set, old, sorted, n, rtcp) : -ENOMEM;
        if (rc == 0) {
            put_in_places(set);
            set->number = number;
            *out = set;
        } else if (set) {
            reporters_give_up(set, old);
        }
    }
    free(sorted);
    return rc;
}

void reporters_each_beyond(const struct reporters *set, const struct reporters *other,
                           void (*tell)(struct reporter *, void *), void *with)
{
    for (uint32_t i = 0; set && i < set->count; i++) {
        if (reporters_find(other, set->item[i]->subscriber) != set->item[i])
            tell(set->item[i], with);
    }
}

static void free_one(struct reporter *r, void *unused)
{
    (void)unused;
    free(r);
}

static void retire_one(struct reporter *r, void *qsbr)
{
    qsbr_retire(qsbr, &r->retired);
}

void reporters_give_up(struct reporters *set, const struct reporters *old)
{
    if (!set || set == old)
        return;
    reporters_each_beyond(set, old, free_one, NULL);
    free(set);
}

void reporters_retire(struct reporters *old, const struct reporters *next, struct qsbr *qsbr)
{
    if (!old || old == next)
        return;
    reporters_each_beyond(old, next, retire_one, qsbr);
    qsbr_retire(qsbr, &old->retired);
}
