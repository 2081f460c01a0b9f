#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

static struct subscriber_list *list_new(uint32_t count)
{
    struct subscriber_list *list =
        malloc(sizeof *list + count * sizeof(struct subscriber *));

    if (list)
        list->count = count;
    return list;
}

void subscriber_list_free(struct subscriber_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        free(list->item[i]);
    free(list);
}

int session_pool_init(struct session_pool *p, uint32_t max)
{
    memset(p, 0, sizeof *p);
    p->chunks = calloc((max + SESSION_CHUNK - 1) / SESSION_CHUNK, sizeof *p->chunks);
    p->latency_chunks = calloc((max + SESSION_CHUNK - 1) / SESSION_CHUNK,
                               sizeof *p->latency_chunks);
    if (!p->chunks || !p->latency_chunks)
        return -ENOMEM;
    p->max = max;
    return 0;
}

void session_pool_destroy(struct session_pool *p)
{
    for (uint32_t i = 0; i < p->used; i++) {
        struct subscriber_list *list = load_rlx(&session_at(p, i)->subscribers);

        if (list)
            subscriber_list_free(list);
        free(load_rlx(&session_at(p, i)->rule));
    }
    for (uint32_t i = 0; i < p->used; i += SESSION_CHUNK) {
        free(load_rlx(&p->chunks[i / SESSION_CHUNK]));
        free(p->latency_chunks[i / SESSION_CHUNK]);
    }
    free(p->chunks);
    free(p->latency_chunks);
}

static int chunk_new(struct session_pool *p, uint32_t number)
{
    size_t size = SESSION_CHUNK * sizeof(struct session);
    struct session *chunk = aligned_alloc(alignof(struct session), size);
    struct session_latency *latency = calloc(SESSION_CHUNK, sizeof *latency);

    if (!chunk || !latency) {
        free(chunk);
        free(latency);
        return -ENOMEM;
    }
    memset(chunk, 0, size);
    p->latency_chunks[number] = latency;
    store_rls(&p->chunks[number], chunk);
    return 0;
}

/* The next record that was never used. */
static int session_fresh(struct session_pool *p, struct session **out)
{
    if (p->used == p->max)
        return -EAGAIN;
    uint32_t chunk = p->used / SESSION_CHUNK, place = p->used % SESSION_CHUNK;

    if (place == 0) {
        int rc = chunk_new(p, chunk);

        if (rc)
            return rc;
    }
    *out = session_at(p, p->used);
    (*out)->index = p->used++;
    (*out)->latency = &p->latency_chunks[chunk][place];
    return 0;
}

int session_new(struct session_pool *p, const struct rf_addr *source, uint32_t ssrc, uint64_t now,
                struct session **out)
{
    struct subscriber_list *empty = list_new(0);
    struct session *s = p->free;

    if (!empty)
        return -ENOMEM;
    if (s) {
        p->free = s->next_free;
    } else {
        int rc = session_fresh(p, &s);

        if (rc) {
            free(empty);
            return rc;
        }
    }
    uint32_t index = s->index, generation = s->generation;
    struct session_latency *latency = s->latency;

    memset(s, 0, sizeof *s);
    memset(latency, 0, sizeof *latency);
    s->index = index;
    s->latency = latency;
    s->generation = generation + 1;
    s->in_use = true;
    s->source = *source;
    s->exact = true;
    s->ssrc = ssrc;
    s->created_ns = now;
    s->older.at = s->newer.at = now;
    store_rlx(&s->subscribers, empty);
    *out = s;
    return 0;
}

void session_release(struct session_pool *p, struct session *s)
{
    subscriber_list_free(load_rlx(&s->subscribers));
    store_rlx(&s->subscribers, NULL);
    free(load_rlx(&s->rule));
    store_rlx(&s->rule, NULL);
    s->in_use = false;
    s->next_free = p->free;
    p->free = s;
}

struct session *session_by_handle(const struct session_pool *p, uint64_t handle)
{
    uint32_t index = (uint32_t)handle;

    if (index >= p->used)
        return NULL;
    struct session *s = session_at(p, index);

    return s->in_use && session_handle(s) == handle ? s : NULL;
}

void session_roll_rate(struct session *s, uint64_t now)
{
    s->older = s->newer;
    s->newer.at = now;
    s->newer.packets = load_rlx(&s->counters.packets_received);
}

void session_snapshot(struct session *s, uint64_t now, struct rf_session_stats *out)
{
    out->handle = session_handle(s);
    session_counters_read(out, &s->counters);
    out->dropped_overload = load_rlx(&s->fair_use.dropped);
    out->dropped_rate_limit = load_rlx(&s->limit.dropped);
    out->dropped_paused = load_rlx(&s->dropped_paused);
    out->created_ns = s->created_ns;
    out->last_packet_ns = load_rlx(&s->last_packet_ns);
    out->subscribers = load_rlx(&s->subscribers)->count;
    out->packets_per_second =
        now > s->older.at
            ? (double)(out->packets_received - s->older.packets) * 1e9 / (double)(now - s->older.at)
            : 0.0;
}

/* Names are built from zeroed memory by addr_to_sockaddr, so bytes compare. */
static bool same_name(const union sockaddr_any *a, const union sockaddr_any *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* A set of subscribers, open addressing, that lives for one call of subscriber_list_add. */
struct name_set {
    struct hash_key key;
    size_t mask;
    struct subscriber **slot;
};

static int name_set_init(struct name_set *set, size_t members)
{
    size_t slots = 8;
    int rc = hash_key_init(&set->key);

    if (rc)
        return rc;
    while (slots < 2 * members)
        slots *= 2;
    set->slot = calloc(slots, sizeof *set->slot);
    if (!set->slot)
        return -ENOMEM;
    set->mask = slots - 1;
    return 0;
}

/* Where `name` is, or the empty slot where it belongs. */
static struct subscriber **name_set_find(struct name_set *set, const union sockaddr_any *name)
{
    size_t i = hash_bytes(&set->key, name, sizeof *name) & set->mask;

    while (set->slot[i] && !same_name(&set->slot[i]->name, name))
        i = (i + 1) & set->mask;
    return &set->slot[i];
}

static int subscriber_new(const struct rf_addr *addr, int family, uint64_t since,
                          struct subscriber **out)
{
    struct subscriber *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    if (addr_to_sockaddr(&s->name, addr, family) == 0) {
        free(s);
        return -EAFNOSUPPORT;
    }
    s->segment_limit = UINT16_MAX;
    s->since_ns = since;
    *out = s;
    return 0;
}

/* Appends to `list` (room for n more) those that are new to `set`; undone by the caller. */
static int append_new(struct subscriber_list *list, struct name_set *set,
                      const struct rf_addr *addrs, size_t n, int family, uint32_t max,
                      uint64_t now, bool *added)
{
    uint64_t last = list->count ? list->item[list->count - 1]->since_ns : 0;

    for (size_t i = 0; i < n; i++) {
        struct subscriber *s;
        int rc = subscriber_new(&addrs[i], family, now > last ? now : last + 1, &s);

        if (rc)
            return rc;
        struct subscriber **slot = name_set_find(set, &s->name);

        added[i] = *slot == NULL;
        if (!added[i]) {
            free(s);
            continue;
        }
        if (list->count == max) {
            free(s);
            return -EAGAIN;
        }
        *slot = s;
        last = s->since_ns;
        list->item[list->count++] = s;
    }
    return 0;
}

/* A set of the list's subscribers. */
static int name_set_of(struct name_set *set, const struct subscriber_list *list, size_t more)
{
    int rc = name_set_init(set, list->count + more);

    for (uint32_t i = 0; rc == 0 && i < list->count; i++)
        *name_set_find(set, &list->item[i]->name) = list->item[i];
    return rc;
}

int subscriber_list_add(struct subscriber_list *old, const struct rf_addr *addrs, size_t n,
                        int family, uint32_t max, uint64_t now, bool *added,
                        struct subscriber_list **out)
{
    struct name_set set;
    struct subscriber_list *list = list_new((uint32_t)(old->count + n));
    int rc;

    if (!list)
        return -ENOMEM;
    rc = name_set_of(&set, old, n);
    if (rc) {
        free(list);
        return rc;
    }
    list->count = old->count;
    memcpy(list->item, old->item, old->count * sizeof *list->item);
    rc = append_new(list, &set, addrs, n, family, max, now, added);
    free(set.slot);
    if (rc || list->count == old->count) {
        for (uint32_t i = old->count; i < list->count; i++)
            free(list->item[i]);
        free(list);
        if (rc == 0)
            *out = old;
        return rc;
    }
    *out = list;
    return 0;
}

/* Marks those that are to go and collects them in `removed` (room for n). */
static void mark_leaving(struct name_set *set, const struct rf_addr *addrs, size_t n, int family,
                         bool *found, struct subscriber_list *removed)
{
    for (size_t i = 0; i < n; i++) {
        union sockaddr_any name;
        struct subscriber *s = NULL;

        if (addr_to_sockaddr(&name, &addrs[i], family) != 0)
            s = *name_set_find(set, &name);
        found[i] = s && !s->leaving;
        if (found[i]) {
            s->leaving = true;
            removed->item[removed->count++] = s;
        }
    }
}

static struct subscriber_list *list_of_staying(const struct subscriber_list *old, uint32_t count)
{
    struct subscriber_list *list = list_new(count);
    uint32_t at = 0;

    for (uint32_t i = 0; list && i < old->count; i++) {
        if (!old->item[i]->leaving)
            list->item[at++] = old->item[i];
    }
    return list;
}

int subscriber_list_remove(struct subscriber_list *old, const struct rf_addr *addrs, size_t n,
                           int family, bool *found, struct subscriber_list **out,
                           struct subscriber_list **removed)
{
    struct name_set set;
    struct subscriber_list *gone = list_new((uint32_t)n), *list = NULL;
    int rc;

    if (!gone)
        return -ENOMEM;
    gone->count = 0;
    rc = name_set_of(&set, old, 0);
    if (rc) {
        free(gone);
        return rc;
    }
    mark_leaving(&set, addrs, n, family, found, gone);
    free(set.slot);
    if (gone->count > 0)
        list = list_of_staying(old, old->count - gone->count);
    if (!list) {
        for (uint32_t i = 0; i < gone->count; i++)
            gone->item[i]->leaving = false;
        rc = gone->count > 0 ? -ENOMEM : 0;
        free(gone);
        if (rc == 0)
            *out = old;
        return rc;
    }
    *out = list;
    *removed = gone;
    return 0;
}
