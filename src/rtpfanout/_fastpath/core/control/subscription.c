/* The facade of core.h: who gets a session's packets, under the writer mutex. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ways.h"

static bool reaches_all(const struct sock *s, const struct rf_addr *addrs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!(addr_is_ipv4(&addrs[i]) ? sock_sends_ipv4(s) : sock_sends_ipv6(s)))
            return false;
    }
    return true;
}

static bool tells_from(const struct rf_terms *terms)
{
    return ip_is_known(terms->from);
}

/* Under the mutex, of a session that is there. */
static int add(struct rf_engine *e, struct session *s, const struct rf_addr *addrs, size_t n,
               struct joining *joining, bool *added)
{
    struct subscriber_list *old = load_rlx(&s->subscribers), *list;
    int number = 0;

    if (tells_from(joining->terms)) {
        struct delivery wanted = delivery_from(joining->terms->from);

        number = delivery_place(old, &wanted, &joining->deliveries);
        joining->delivery = number > 0 ? (unsigned)number : DELIVERY_USUAL;
    }
    int rc = number < 0 ? number : subscriber_list_add(old, addrs, n, joining, added, &list);

    if (rc) {
        if (joining->deliveries != old->deliveries)
            free(joining->deliveries);
        return rc;
    }
    if (list != old && !tells_from(joining->terms)) {
        struct ways ways = ways_open(e);

        ways_find(&ways, list, old->count, old->deliveries);
        ways_close(&ways);
    }
    subscribers_publish(e, s, old, list);
    return 0;
}

int rf_subscribers_add(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                       const struct rf_terms *terms, uint64_t now, bool *added)
{
    struct joining joining = {e->sock[0].family, e->max_subscribers, now, terms};
    int rc = -ENOENT;

    if (terms->subscriber_class >= RF_CLASSES)
        return -EINVAL;
    struct session *s = control_find(e, handle);

    qsbr_reclaim(&e->qsbr);
    if (s && !(terms->withheld & RF_WITHHELD_REFUSED) && !reaches_all(&e->sock[0], addrs, n))
        rc = -EAFNOSUPPORT;
    else if (s)
        rc = add(e, s, addrs, n, &joining, added);
    pthread_mutex_unlock(&e->control);
    return rc;
}

/* Those of `addrs` have no RTCP any more. `*set` is what is left, for the list without them. */
static int leave_reporters(struct rf_engine *e, struct session *s, const struct rf_addr *addrs, size_t n,
                           struct reporters **set)
{
    struct subscriber_list *list = load_rlx(&s->subscribers);
    struct subscriber **found;
    int rc = -ENOMEM;

    *set = list->reporters;
    if (!list->reporters)
        return 0;
    found = calloc(n + 1, sizeof(struct subscriber *));
    if (found)
        rc = subscriber_list_find(list, addrs, n, e->sock[0].family, found);
    if (rc == 0)
        rc = reporters_change(list->reporters, found, n, RF_RTCP_OFF, ++s->reporter_sets, set);
    free(found);
    return rc;
}

int rf_subscribers_remove(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs,
                          size_t n, bool *found)
{
    struct subscriber_list *old, *list, *removed = NULL;
    int rc = -ENOENT;

    struct session *s = control_find(e, handle);

    if (s) {
        struct reporters *set;

        old = load_rlx(&s->subscribers);
        rc = leave_reporters(e, s, addrs, n, &set);
        if (rc == 0)
            rc = subscriber_list_remove(old, addrs, n, e->sock[0].family, found, &list, &removed);
        if (rc == 0 && list != old)
            list->reporters = set;
        if (rc == 0)
            subscribers_publish(e, s, old, list);
        else
            reporters_give_up(set, old->reporters);
    }
    pthread_mutex_unlock(&e->control);
    if (removed) {
        qsbr_synchronize(&e->qsbr);
        subscriber_list_free(removed);
    }
    return rc;
}

/* Index of the first whose `since_ns` is above `after`. */
static uint32_t first_after(const struct subscriber_list *list, uint64_t after)
{
    uint32_t low = 0, high = list->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (list->item[middle]->since_ns > after)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static struct rf_terms terms_of(const struct subscriber_list *list, struct subscriber *s)
{
    const struct delivery *d = delivery_at(list->deliveries, subscriber_delivery(s));
    struct rf_terms terms = {
        .lease_until = s->lease_until,
        .subscriber_class = subscriber_class(s),
        .withheld = load_rlx(&s->withheld),
        .rtcp = (uint8_t)reporter_rtcp(reporters_find(list->reporters, s)),
    };

    if (d)
        memcpy(terms.from, d->from, sizeof terms.from);
    return terms;
}

static double secs_of(uint32_t us)
{
    return us == UINT32_MAX ? -1 : us / 1e6;
}

static struct rf_report report_of(struct reporter *r)
{
    struct rf_report out = {.jitter_secs = -1, .round_trip_secs = -1};

    if (!r)
        return out;
    out.at_ns = load_rlx(&r->report.at_ns);
    out.fraction = load_rlx(&r->report.fraction) / 256.0;
    out.lost = load_rlx(&r->report.lost);
    out.jitter_secs = secs_of(load_rlx(&r->report.jitter_us));
    out.round_trip_secs = secs_of(load_rlx(&r->report.round_trip_us));
    return out;
}

int rf_subscribers(struct rf_engine *e, uint64_t handle, uint64_t after,
                   struct rf_subscriber_stats *out, size_t capacity, size_t *count)
{
    size_t n = 0;

    struct session *s = control_find(e, handle);

    if (s) {
        struct subscriber_list *list = load_rlx(&s->subscribers);

        for (uint32_t i = first_after(list, after); i < list->count && n < capacity; i++) {
            struct subscriber *from = list->item[i];

            addr_from_sockaddr(&out[n].addr, &from->name);
            out[n].since_ns = from->since_ns;
            out[n].packets_sent = load_rlx(&from->packets_sent);
            out[n].send_failures = load_rlx(&from->send_failures);
            out[n].report = report_of(reporters_find(list->reporters, from));
            out[n++].terms = terms_of(list, from);
        }
        *count = n;
    }
    return control_done(e, s);
}

int rf_subscribers_find(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                        struct rf_terms *out, bool *found)
{
    struct subscriber **subscriber = calloc(n + 1, sizeof(struct subscriber *));
    int rc = subscriber ? -ENOENT : -ENOMEM;

    struct session *s = control_find(e, handle);

    if (s && subscriber)
        rc = subscriber_list_find(load_rlx(&s->subscribers), addrs, n, e->sock[0].family,
                                  subscriber);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        found[i] = subscriber[i] != NULL;
        if (found[i])
            out[i] = terms_of(load_rlx(&s->subscribers), subscriber[i]);
    }
    pthread_mutex_unlock(&e->control);
    free(subscriber);
    return rc;
}

/* `found` has room for n. */
static int deliver(struct rf_engine *e, struct session *s, const struct rf_addr *addrs, size_t n,
                   const struct delivery *wanted, struct subscriber **found)
{
    struct subscriber_list *old = load_rlx(&s->subscribers), *list = old;
    struct delivery_table *table;
    int rc = subscriber_list_find(old, addrs, n, e->sock[0].family, found);
    int number = rc ? rc : delivery_place(old, wanted, &table);

    if (number < 0)
        return number;
    if (number > 0 && table != old->deliveries) {
        rc = subscriber_list_copy(old, table, &list);
        if (rc) {
            free(table);
            return rc;
        }
    }
    subscribers_publish(e, s, old, list); /* first, so that few take the number for the usual */
    for (size_t i = 0; i < n; i++) {
        if (found[i])
            subscriber_set_delivery(found[i], (unsigned)number);
    }
    return 0;
}

int rf_subscribers_deliver(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                           const uint8_t from[16])
{
    struct subscriber **found = calloc(n + 1, sizeof(struct subscriber *));
    struct delivery wanted = delivery_from(from);
    int rc = found ? -ENOENT : -ENOMEM;

    struct session *s = control_find(e, handle);

    qsbr_reclaim(&e->qsbr);
    if (s && found)
        rc = deliver(e, s, addrs, n, &wanted, found);
    pthread_mutex_unlock(&e->control);
    free(found);
    return rc;
}

int rf_subscribers_withhold(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs,
                            size_t n, uint8_t reason, bool on, size_t *changed)
{
    int rc = -ENOENT;

    struct session *s = control_find(e, handle);

    if (s)
        rc = subscriber_list_withhold(load_rlx(&s->subscribers), addrs, n, e->sock[0].family,
                                      reason, on, changed);
    pthread_mutex_unlock(&e->control);
    /* A turn may have begun before: who asked for silence has it only after the grace period, also
     * if another call made the change. */
    if (rc == 0 && on)
        qsbr_synchronize(&e->qsbr);
    return rc;
}

static bool is_over(const struct subscriber *s, uint32_t now_secs)
{
    return s->lease_until != 0 && s->lease_until <= now_secs;
}

int rf_subscribers_expired(struct rf_engine *e, uint64_t handle, uint32_t now_secs,
                           struct rf_addr *out, size_t capacity, size_t *count)
{
    size_t n = 0;

    struct session *s = control_find(e, handle);

    if (s) {
        struct subscriber_list *list = load_rlx(&s->subscribers);

        for (uint32_t i = 0; i < list->count; i++) {
            if (!is_over(list->item[i], now_secs))
                continue;
            if (n < capacity)
                addr_from_sockaddr(&out[n], &list->item[i]->name);
            n++;
        }
        *count = n;
    }
    return control_done(e, s);
}
