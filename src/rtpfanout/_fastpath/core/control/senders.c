/* The facade of core.h: what is said of senders, how they are read, and when they are not let in. */
#include <stdlib.h>
#include <string.h>

#include "engine.h"

void engine_set_reading(struct rf_engine *e, struct session *s, unsigned how)
{
    static const unsigned bits = GATING_PADDING | GATING_NO_PADDING | GATING_NO_RTCP | GATING_SRTP;
    uint32_t without = load_rlx(&e->table.without_rtcp);

    without -= load_rlx(&s->gating) & GATING_NO_RTCP ? 1 : 0;
    without += how & RF_READ_NO_RTCP ? 1 : 0;
    gate_by(s, bits,
            (how & RF_READ_PADDING ? GATING_PADDING : 0) |
                (how & RF_READ_NO_PADDING ? GATING_NO_PADDING : 0) |
                (how & RF_READ_NO_RTCP ? GATING_NO_RTCP : 0) |
                (how & RF_READ_SRTP ? GATING_SRTP : 0));
    store_rlx(&e->table.without_rtcp, without);
}

int rf_session_read(struct rf_engine *e, uint64_t handle, unsigned how)
{
    struct session *s = control_find(e, handle);

    if (s)
        engine_set_reading(e, s, how);
    return control_done(e, s);
}

int rf_session_pause(struct rf_engine *e, uint64_t handle, bool paused)
{
    struct session *s = control_find(e, handle);

    if (s)
        gate_by(s, GATING_PAUSED, paused ? GATING_PAUSED : 0);
    pthread_mutex_unlock(&e->control);
    if (!s || !paused)
        return s ? 0 : -ENOENT;
    qsbr_synchronize(&e->qsbr);
    s = control_find(e, handle);
    if (s) /* what was held until now is not to leave later */
        session_end_waits(s);
    pthread_mutex_unlock(&e->control);
    return 0;
}

int rf_session_limit(struct rf_engine *e, uint64_t handle, uint64_t bits_per_second)
{
    struct session *s = control_find(e, handle);

    if (s) {
        store_rlx(&s->limit.bits_per_second, bits_per_second);
        gate_by(s, GATING_LIMITED, bits_per_second > 0 ? GATING_LIMITED : 0);
    }
    return control_done(e, s);
}

int rf_session_idle_timeout(struct rf_engine *e, uint64_t handle, uint64_t idle_timeout)
{
    struct session *s = control_find(e, handle);

    if (s)
        s->idle_timeout = idle_timeout;
    return control_done(e, s);
}

int rf_session_ssrcs(struct rf_engine *e, uint64_t handle, struct rf_source_ssrc *out)
{
    struct session *s = control_find(e, handle);
    int n = s && s->any_ssrc ? (int)ssrcs_read(s->ssrcs, out) : 0, rc = control_done(e, s);

    return rc ? rc : n;
}

int rf_session_wrong_source(struct rf_engine *e, uint64_t handle, struct rf_addr *out)
{
    struct session *s = control_find(e, handle);

    if (s && !session_wrong_source(s, out))
        memset(out, 0, sizeof *out);
    return control_done(e, s);
}

static int later(const void *a, const void *b)
{
    uint64_t left = ((const struct rf_knock *)a)->last_ns, right = ((const struct rf_knock *)b)->last_ns;

    return (left < right) - (left > right);
}

/* The session that has packets of it by now, or NULL. */
static struct session *host_of(struct rf_engine *e, const struct rf_knock *k)
{
    struct session *s = session_by_handle(&e->sessions, k->handle), *latching;
    struct table_key key = table_key(&e->table, k->ssrc, &k->source);
    bool by_network;

    if (s && s->at_own_port)
        return session_admits(s, &k->source, k->last_ns, &by_network, &latching) ? s : NULL;
    if ((s = table_find(&e->table, &key)))
        return s;
    if (table_namesake(&e->table, &key, &s) && !s)
        s = table_match(&e->table, &key, k->last_ns, &latching);
    return s ? s : table_match_sender(&e->table, &k->source, k->last_ns, &latching);
}

/* Whether he is a stranger still. Who is on probation has a session already, which follows another. */
static bool knocks_still(struct rf_engine *e, const struct rf_knock *k)
{
    struct session *s = host_of(e, k);

    if (!s)
        return true;
    return k->reason == DROP_probation && session_handle(s) == k->handle &&
           load_rlx(&s->gating) & GATING_FOLLOW && !ssrcs_is_followed(s->ssrcs, k->ssrc);
}

static size_t drop_admitted(struct rf_engine *e, struct rf_knock *k, size_t count)
{
    size_t left = 0;

    pthread_mutex_lock(&e->control);
    for (size_t i = 0; i < count; i++) {
        if (knocks_still(e, &k[i]))
            k[left++] = k[i];
    }
    pthread_mutex_unlock(&e->control);
    return left;
}

int rf_knocks(struct rf_engine *e, struct rf_knock *out, size_t capacity)
{
    struct rf_knock *all = calloc(e->worker_count, RF_KNOCKS * sizeof *all);
    size_t n = 0;

    if (!all)
        return -ENOMEM;
    for (uint32_t i = 0; i < e->worker_count; i++)
        n += knocks_read(e->worker[i]->gate.knocks, all + n);
    n = drop_admitted(e, all, n);
    qsort(all, n, sizeof *all, later);
    n = n < RF_KNOCKS ? n : RF_KNOCKS;
    n = n < capacity ? n : capacity;
    memcpy(out, all, n * sizeof *out);
    free(all);
    return (int)n;
}
