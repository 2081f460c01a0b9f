/* The facade of core.h: figures of sessions, and housekeeping, under the writer mutex. sources.c
 * and subscription.c have the calls that change something. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"

int rf_session_stats(struct rf_engine *e, uint64_t handle, uint64_t now,
                     struct rf_session_stats *out)
{
    struct session *s = control_find(e, handle);

    if (s)
        session_snapshot(s, now, out);
    return control_done(e, s);
}

int rf_session_latency(struct rf_engine *e, uint64_t handle, struct rf_latency *first,
                       struct rf_latency *last)
{
    struct session *s = control_find(e, handle);

    if (s) {
        memset(first, 0, sizeof *first);
        memset(last, 0, sizeof *last);
        latency_sum(first, &s->latency->first);
        latency_sum(last, &s->latency->last);
    }
    return control_done(e, s);
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

static bool is_idle(struct session *s, uint64_t now, uint64_t timeout_of_all)
{
    uint64_t timeout = s->idle_timeout ? s->idle_timeout : timeout_of_all;

    if (timeout == 0 || timeout == RF_IDLE_FOREVER)
        return false;
    uint64_t last = load_rlx(&s->last_packet_ns);
    uint64_t since = last > s->created_ns ? last : s->created_ns;

    return now > since && now - since >= timeout;
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
