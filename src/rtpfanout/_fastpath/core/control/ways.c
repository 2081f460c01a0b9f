#include "ways.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void subscribers_publish(struct rf_engine *e, struct session *s, struct subscriber_list *old,
                    struct subscriber_list *list)
{
    if (list == old)
        return;
    engine_count_reporters(e, old->reporters, list->reporters);
    store_rls(&s->subscribers, list); /* pairs with the acquire in plan_session */
    if (old->deliveries && old->deliveries != list->deliveries)
        qsbr_retire(&e->qsbr, &old->deliveries->retired);
    reporters_retire(old->reporters, list->reporters, &e->qsbr);
    qsbr_retire(&e->qsbr, &old->retired);
}

int delivery_place(const struct subscriber_list *list, const struct delivery *wanted,
                 struct delivery_table **table)
{
    unsigned number = delivery_find(list->deliveries, wanted);

    *table = list->deliveries;
    return number ? (int)number
                  : delivery_add(list->deliveries, subscriber_list_deliveries(list), wanted, table);
}

struct delivery delivery_from(const uint8_t from[16])
{
    struct delivery d = {.ipv4 = ip_is_ipv4(from)};

    memcpy(d.from, from, sizeof d.from);
    return d;
}

struct ways ways_open(struct rf_engine *e)
{
    struct ways w = {load_rlx(&e->local), ip_is_known(e->egress) ? e->egress : NULL, -1};

    if (!w.egress && w.local->several && sock_is_wildcard(&e->sock[0]))
        w.probe = sock_open_probe(e->sock[0].family);
    return w;
}

void ways_close(struct ways *w)
{
    if (w->probe >= 0)
        sock_close_probe(w->probe);
}

/* The delivery of who was added without one; false: the usual. */
static bool way_to(const struct ways *w, const struct subscriber *s, struct delivery *out)
{
    struct rf_addr to, from;

    addr_from_sockaddr(&to, &s->name);
    if (w->egress) {
        *out = delivery_from(w->egress);
        return out->ipv4 == addr_is_ipv4(&to);
    }
    if (w->probe < 0 || sock_probe(w->probe, &s->name, &from) != 0)
        return false;
    *out = (struct delivery){.interface = local_set_interface(w->local, from.ip),
                             .ipv4 = addr_is_ipv4(&to)};
    return out->interface != 0;
}

void ways_find(const struct ways *w, struct subscriber_list *list, uint32_t begin,
                      const struct delivery_table *shared)
{
    for (uint32_t i = begin; (w->egress || w->probe >= 0) && i < list->count; i++) {
        struct subscriber *s = list->item[i];
        struct delivery *has = delivery_at(list->deliveries, subscriber_delivery(s)), wanted;
        struct delivery_table *table;

        if (has && has->interface == 0)
            continue;
        int number = way_to(w, s, &wanted) ? delivery_place(list, &wanted, &table) : DELIVERY_USUAL;

        if (number > 0 && table != list->deliveries) {
            if (list->deliveries != shared)
                free(list->deliveries);
            list->deliveries = table;
        }
        subscriber_set_delivery(s, number > 0 ? (unsigned)number : DELIVERY_USUAL);
    }
}

static void follow_source(struct rf_engine *e, struct session *s, const struct ways *ways)
{
    struct subscriber_list *old = load_rlx(&s->subscribers), *list;

    if (old->count == 0 || subscriber_list_copy(old, old->deliveries, &list) != 0)
        return;
    ways_find(ways, list, 0, old->deliveries);
    subscribers_publish(e, s, old, list);
}

/* One session at a time: nobody waits for all of them. */
void rf_follow_sources(struct rf_engine *e)
{
    pthread_mutex_lock(&e->control);
    struct ways ways = ways_open(e);
    uint32_t count = ways.egress || ways.probe < 0 ? 0 : e->sessions.used;

    for (uint32_t i = 0; i < count; i++) {
        struct session *s = session_at(&e->sessions, i);

        if (s->in_use)
            follow_source(e, s, &ways);
        pthread_mutex_unlock(&e->control);
        pthread_mutex_lock(&e->control);
        qsbr_reclaim(&e->qsbr);
        ways.local = load_rlx(&e->local);
    }
    pthread_mutex_unlock(&e->control);
    ways_close(&ways);
}

int rf_local_addresses(struct rf_engine *e, const struct rf_addr *addrs, size_t n)
{
    struct local_set *set = local_set_new(addrs, (uint32_t)n), *old;

    if (!set)
        return -ENOMEM;
    pthread_mutex_lock(&e->control);
    qsbr_reclaim(&e->qsbr);
    old = load_rlx(&e->local);
    set->number = old->number + 1;
    store_rls(&e->local, set); /* pairs with the acquire in is_own */
    qsbr_retire(&e->qsbr, &old->retired);
    pthread_mutex_unlock(&e->control);
    return 0;
}
