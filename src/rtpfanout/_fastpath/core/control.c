/* The facade of core.h: subscribers come and go, and figures are read, under the writer mutex.
 * sources.c has the sessions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

int rf_session_stats(struct rf_engine *e, uint64_t handle, uint64_t now,
                     struct rf_session_stats *out)
{
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s)
        session_snapshot(s, now, out);
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

int rf_session_latency(struct rf_engine *e, uint64_t handle, struct rf_latency *first,
                       struct rf_latency *last)
{
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        memset(first, 0, sizeof *first);
        memset(last, 0, sizeof *last);
        latency_sum(first, &s->latency->first);
        latency_sum(last, &s->latency->last);
    }
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

size_t rf_sessions_stats(struct rf_engine *e, uint64_t now, struct rf_session_stats *out,
                         size_t capacity)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        struct session *s = session_at(&e->sessions, i);

        if (!s->in_use)
            continue;
        if (n < capacity)
            session_snapshot(s, now, &out[n]);
        n++;
    }
    pthread_mutex_unlock(&e->control);
    return n;
}

static bool reaches_all(const struct sock *s, const struct rf_addr *addrs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!(addr_is_ipv4(&addrs[i]) ? sock_sends_ipv4(s) : sock_sends_ipv6(s)))
            return false;
    }
    return true;
}

int rf_subscribers_add(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                       uint64_t now, bool *added)
{
    struct subscriber_list *old, *list;
    int rc = -ENOENT;

    pthread_mutex_lock(&e->control);
    qsbr_reclaim(&e->qsbr);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s && !reaches_all(&e->sock[0], addrs, n)) {
        rc = -EAFNOSUPPORT;
    } else if (s) {
        old = load_rlx(&s->subscribers);
        rc = subscriber_list_add(old, addrs, n, e->sock[0].family, e->max_subscribers, now,
                                 added, &list);
        if (rc == 0 && list != old) {
            /* Pairs with the acquire in plan_session. */
            store_rls(&s->subscribers, list);
            qsbr_retire(&e->qsbr, &old->retired);
        }
    }
    pthread_mutex_unlock(&e->control);
    return rc;
}

int rf_subscribers_remove(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs,
                          size_t n, bool *found)
{
    struct subscriber_list *old, *list, *removed = NULL;
    int rc = -ENOENT;

    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        old = load_rlx(&s->subscribers);
        rc = subscriber_list_remove(old, addrs, n, e->sock[0].family, found, &list, &removed);
        if (rc == 0 && list != old) {
            store_rls(&s->subscribers, list);
            qsbr_retire(&e->qsbr, &old->retired);
        }
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

int rf_subscribers(struct rf_engine *e, uint64_t handle, uint64_t after,
                   struct rf_subscriber_stats *out, size_t capacity, size_t *count)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        struct subscriber_list *list = load_rlx(&s->subscribers);

        for (uint32_t i = first_after(list, after); i < list->count && n < capacity; i++) {
            struct subscriber *from = list->item[i];

            addr_from_sockaddr(&out[n].addr, &from->name);
            out[n].since_ns = from->since_ns;
            out[n].packets_sent = load_rlx(&from->packets_sent);
            out[n++].send_failures = load_rlx(&from->send_failures);
        }
        *count = n;
    }
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

static bool is_idle(struct session *s, uint64_t now, uint64_t timeout)
{
    uint64_t last = load_rlx(&s->last_packet_ns);
    uint64_t since = last > s->created_ns ? last : s->created_ns;

    return timeout != 0 && now > since && now - since >= timeout;
}

size_t rf_engine_tick(struct rf_engine *e, uint64_t now, uint64_t idle_timeout, uint64_t *idle,
                      size_t capacity)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    qsbr_reclaim(&e->qsbr);
    engine_read_kernel_drops(e);
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        struct session *s = session_at(&e->sessions, i);

        if (!s->in_use)
            continue;
        session_roll_rate(s, now);
        if (n < capacity && is_idle(s, now, idle_timeout))
            idle[n++] = session_handle(s);
    }
    pthread_mutex_unlock(&e->control);
    return n;
}
