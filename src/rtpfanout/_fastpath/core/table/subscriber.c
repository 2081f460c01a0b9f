#include "subscriber.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

_Static_assert(sizeof(struct subscriber) == CACHE_LINE, "it grew, times 10,000 for a session");

struct subscriber_list *subscriber_list_new(uint32_t count)
{
    struct subscriber_list *list =
        malloc(sizeof *list + count * sizeof(struct subscriber *));

    if (list) {
        list->count = count;
        list->deliveries = NULL;
        list->reporters = NULL;
        store_rlx(&list->withheld, 0);
    }
    return list;
}

void subscriber_list_free(struct subscriber_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        free(list->item[i]);
    free(list->deliveries);
    for (uint32_t i = 0; list->reporters && i < list->reporters->count; i++)
        free(list->reporters->item[i]);
    free(list->reporters);
    free(list);
}

/* One that the socket can't send to has a name all the same, as nothing is sent to who is refused. */
static void name_of(union sockaddr_any *out, const struct rf_addr *addr, int family)
{
    if (addr_to_sockaddr(out, addr, family) == 0)
        addr_to_sockaddr(out, addr, AF_INET6);
}

uint32_t subscriber_list_deliveries(const struct subscriber_list *list)
{
    uint32_t used = 0;

    for (uint32_t i = 0; list->deliveries && i < list->count; i++)
        used |= UINT32_C(1) << subscriber_delivery(list->item[i]);
    return used;
}

/* Names are built from zeroed memory by addr_to_sockaddr, so bytes compare. */
static bool same_name(const union sockaddr_any *a, const union sockaddr_any *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* A set of subscribers, open addressing, that lives for one call: to add, remove or find many. */
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

static int subscriber_new(const struct rf_addr *addr, const struct joining *j, uint64_t since,
                          struct subscriber **out)
{
    const struct rf_terms *terms = j->terms;
    struct subscriber *s = calloc(1, sizeof *s);

    if (!s)
        return -ENOMEM;
    if (addr_to_sockaddr(&s->name, addr, j->family) == 0) {
        if (!(terms->withheld & RF_WITHHELD_REFUSED)) {
            free(s);
            return -EAFNOSUPPORT;
        }
        name_of(&s->name, addr, j->family);
    }
    s->segment_limit = UINT16_MAX;
    s->since_ns = since;
    s->lease_until = terms->lease_until;
    store_rlx(&s->traits, terms->subscriber_class & TRAIT_CLASS);
    subscriber_set_delivery(s, j->delivery);
    store_rlx(&s->withheld, terms->withheld);
    *out = s;
    return 0;
}

/* Appends to `list` (room for n more) those that are new to `set`; undone by the caller. */
static int append_new(struct subscriber_list *list, struct name_set *set,
                      const struct rf_addr *addrs, size_t n, const struct joining *j, bool *added)
{
    uint64_t last = list->count ? list->item[list->count - 1]->since_ns : 0;

    for (size_t i = 0; i < n; i++) {
        struct subscriber *s;
        int rc = subscriber_new(&addrs[i], j, j->now > last ? j->now : last + 1, &s);

        if (rc)
            return rc;
        struct subscriber **slot = name_set_find(set, &s->name);

        added[i] = *slot == NULL;
        if (!added[i]) {
            free(s);
            continue;
        }
        if (list->count >= j->max && !(load_rlx(&s->withheld) & RF_WITHHELD_REFUSED)) {
            free(s);
            return -EAGAIN;
        }
        *slot = s;
        last = s->since_ns;
        list->item[list->count++] = s;
        if (load_rlx(&s->withheld))
            store_rlx(&list->withheld, load_rlx(&list->withheld) + 1);
    }
    return 0;
}

static void renew(struct subscriber *s, const struct joining *j)
{
    uint8_t others = load_rlx(&s->traits) & (uint8_t)~TRAIT_CLASS;

    s->lease_until = j->terms->lease_until;
    store_rlx(&s->traits, others | (j->terms->subscriber_class & TRAIT_CLASS));
    if (j->delivery != DELIVERY_USUAL)
        subscriber_set_delivery(s, j->delivery);
}

static void renew_known(struct name_set *set, const struct rf_addr *addrs, size_t n,
                        const struct joining *j, const bool *added)
{
    for (size_t i = 0; i < n; i++) {
        union sockaddr_any name;

        if (added[i])
            continue;
        name_of(&name, &addrs[i], j->family);
        renew(*name_set_find(set, &name), j);
    }
}

/* Without a set: for one address that is the faster way by far. */
static struct subscriber *look_along(const struct subscriber_list *list, const struct rf_addr *addr,
                                     int family)
{
    union sockaddr_any name;

    name_of(&name, addr, family);
    for (uint32_t i = 0; i < list->count; i++) {
        if (same_name(&list->item[i]->name, &name))
            return list->item[i];
    }
    return NULL;
}

/* A set of the list's subscribers. */
static int name_set_of(struct name_set *set, const struct subscriber_list *list, size_t more)
{
    int rc = name_set_init(set, list->count + more);

    for (uint32_t i = 0; rc == 0 && i < list->count; i++)
        *name_set_find(set, &list->item[i]->name) = list->item[i];
    return rc;
}

/* Undoes append_new, where it failed or nothing was new. */
static void give_up(struct subscriber_list *list, uint32_t old_count)
{
    for (uint32_t i = old_count; i < list->count; i++)
        free(list->item[i]);
    free(list);
}

static struct delivery_table *joins_table(const struct subscriber_list *old,
                                          const struct joining *j)
{
    return j->deliveries ? j->deliveries : old->deliveries;
}

static int add_many(struct subscriber_list *old, const struct rf_addr *addrs, size_t n,
                    const struct joining *j, bool *added, struct subscriber_list **out)
{
    struct name_set set;
    struct subscriber_list *list = subscriber_list_new((uint32_t)(old->count + n));
    int rc;

    if (!list)
        return -ENOMEM;
    rc = name_set_of(&set, old, n);
    if (rc) {
        free(list);
        return rc;
    }
    list->count = old->count;
    store_rlx(&list->withheld, load_rlx(&old->withheld));
    list->deliveries = joins_table(old, j);
    list->reporters = old->reporters;
    memcpy(list->item, old->item, old->count * sizeof *list->item);
    rc = append_new(list, &set, addrs, n, j, added);
    if (rc == 0)
        renew_known(&set, addrs, n, j, added);
    free(set.slot);
    if (rc || (list->count == old->count && list->deliveries == old->deliveries)) {
        give_up(list, old->count);
        if (rc == 0)
            *out = old;
        return rc;
    }
    *out = list;
    return 0;
}

int subscriber_list_add(struct subscriber_list *old, const struct rf_addr *addrs, size_t n,
                        const struct joining *joining, bool *added, struct subscriber_list **out)
{
    struct subscriber *known = n == 1 ? look_along(old, addrs, joining->family) : NULL;

    if (!known || joins_table(old, joining) != old->deliveries)
        return add_many(old, addrs, n, joining, added, out);
    renew(known, joining);
    added[0] = false;
    *out = old;
    return 0;
}

static bool is_leaving(const struct subscriber *s)
{
    return load_rlx(&s->traits) & TRAIT_LEAVING;
}

static void set_leaving(struct subscriber *s, bool on)
{
    uint8_t others = load_rlx(&s->traits) & (uint8_t)~TRAIT_LEAVING;

    store_rlx(&s->traits, (uint8_t)(on ? others | TRAIT_LEAVING : others));
}

/* Marks those that are to go and collects them in `removed` (room for n). */
static void mark_leaving(struct name_set *set, const struct rf_addr *addrs, size_t n, int family,
                         bool *found, struct subscriber_list *removed)
{
    for (size_t i = 0; i < n; i++) {
        union sockaddr_any name;

        name_of(&name, &addrs[i], family);
        struct subscriber *s = *name_set_find(set, &name);

        found[i] = s && !is_leaving(s);
        if (found[i]) {
            set_leaving(s, true);
            removed->item[removed->count++] = s;
        }
    }
}

static struct subscriber_list *list_of_staying(const struct subscriber_list *old, uint32_t count)
{
    struct subscriber_list *list = subscriber_list_new(count);
    uint32_t at = 0;

    if (list) {
        list->deliveries = old->deliveries;
        list->reporters = old->reporters;
    }
    for (uint32_t i = 0; list && i < old->count; i++) {
        if (is_leaving(old->item[i]))
            continue;
        list->item[at++] = old->item[i];
        if (load_rlx(&old->item[i]->withheld))
            store_rlx(&list->withheld, load_rlx(&list->withheld) + 1);
    }
    return list;
}

int subscriber_list_remove(struct subscriber_list *old, const struct rf_addr *addrs, size_t n,
                           int family, bool *found, struct subscriber_list **out,
                           struct subscriber_list **removed)
{
    struct name_set set;
    struct subscriber_list *gone = subscriber_list_new((uint32_t)n), *list = NULL;
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
            set_leaving(gone->item[i], false);
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

/* Whether that changed anything. */
static bool set_withheld(struct subscriber_list *list, struct subscriber *s, uint8_t reason,
                         bool on)
{
    uint8_t before = load_rlx(&s->withheld);
    uint8_t after = on ? before | reason : before & (uint8_t)~reason;

    store_rlx(&s->withheld, after);
    if (!before != !after)
        store_rlx(&list->withheld, load_rlx(&list->withheld) + (after ? 1 : -1u));
    return before != after;
}

int subscriber_list_find(struct subscriber_list *list, const struct rf_addr *addrs, size_t n,
                         int family, struct subscriber **found)
{
    struct name_set set = {.slot = NULL};
    int rc = n > 1 ? name_set_of(&set, list, 0) : 0;

    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        union sockaddr_any name;

        if (!set.slot) {
            found[i] = look_along(list, &addrs[i], family);
            continue;
        }
        name_of(&name, &addrs[i], family);
        found[i] = *name_set_find(&set, &name);
    }
    free(set.slot);
    return 0;
}

int subscriber_list_withhold(struct subscriber_list *list, const struct rf_addr *addrs, size_t n,
                             int family, uint8_t reason, bool on, size_t *changed)
{
    struct subscriber **found = calloc(n + 1, sizeof(struct subscriber *));
    int rc = found ? subscriber_list_find(list, addrs, n, family, found) : -ENOMEM;

    *changed = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        *changed += found[i] && set_withheld(list, found[i], reason, on);
    free(found);
    return rc;
}

int subscriber_list_copy(const struct subscriber_list *old, struct delivery_table *deliveries,
                         struct subscriber_list **out)
{
    struct subscriber_list *list = subscriber_list_new(old->count);

    if (!list)
        return -ENOMEM;
    list->deliveries = deliveries;
    list->reporters = old->reporters;
    store_rlx(&list->withheld, load_rlx(&old->withheld));
    memcpy(list->item, old->item, old->count * sizeof *list->item);
    *out = list;
    return 0;
}
