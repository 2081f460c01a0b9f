/* The facade of core.h: sessions come and go, and who may feed them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ports.h"

/* A change of who feeds what: `sources` is held throughout, `control` but for grace periods. */
static void begin(struct rf_engine *e)
{
    pthread_mutex_lock(&e->sources);
    pthread_mutex_lock(&e->control);
}

static void end(struct rf_engine *e)
{
    pthread_mutex_unlock(&e->control);
    pthread_mutex_unlock(&e->sources);
}

static const struct rf_addr *exact_of(const struct rf_source *source)
{
    return source->policy == RF_EXACT ? &source->exact : NULL;
}

/* Under both mutexes. The record has the rule then; before, it is the caller's. */
static int add(struct rf_engine *e, const struct rf_source *source, struct source_rule *rule,
               uint32_t ssrc, uint64_t now, uint64_t *handle)
{
    struct session *s;
    /* Asked first, so that a full pool does not hide it. */
    int rc = source->own_port ? 0 : table_reserve(&e->table, NULL, ssrc, exact_of(source), rule);

    if (rc == 0)
        rc = session_new(&e->sessions, &source->exact, ssrc, now, &s);
    if (rc)
        return rc;
    s->at_own_port = source->own_port;
    s->exact = source->policy == RF_EXACT && !source->own_port;
    store_rlx(&s->rule, rule);
    rc = source->own_port ? 0 : table_insert(&e->table, s);
    if (rc) {
        store_rlx(&s->rule, NULL);
        session_release(&e->sessions, s);
    } else {
        *handle = session_handle(s);
    }
    return rc;
}

static int rule_of(const struct rf_source *source, uint64_t now, struct source_rule **rule)
{
    return source->own_port ? rule_new_whole(source, now, rule) : rule_new(source, now, rule);
}

int rf_session_add(struct rf_engine *e, const struct rf_source *source, uint32_t ssrc,
                   uint64_t now, uint64_t *handle)
{
    struct source_rule *rule;
    int rc = rule_of(source, now, &rule);

    if (rc)
        return rc;
    begin(e);
    qsbr_reclaim(&e->qsbr);
    rc = add(e, source, rule, ssrc, now, handle);
    end(e);
    if (rc)
        free(rule);
    return rc;
}

int rf_session_remove(struct rf_engine *e, uint64_t handle)
{
    begin(e);
    struct session *s = session_by_handle(&e->sessions, handle);
    struct session_ports had = {NULL, NULL};

    if (s) {
        if (s->at_own_port)
            had = ports_close(e, s);
        else
            table_remove(&e->table, s);
        ports_mark(e, s, 0);
        s->in_use = false; /* no other control call finds it from here on */
    }
    end(e);
    if (!s)
        return -ENOENT;

    qsbr_synchronize(&e->qsbr);
    ports_free(had);

    pthread_mutex_lock(&e->control);
    session_release(&e->sessions, s);
    pthread_mutex_unlock(&e->control);
    return 0;
}

/* Whether nobody feeds it: an exact source does, and a network. */
static bool admits_none(bool exact, const struct source_rule *rule)
{
    return !exact && rule->kind != RULE_ADMIT;
}

/* Whether the old source must be out for a grace period before the new one is in. Not so when
 * one of them holds the other: who is admitted in the meantime is so before or after anyway. */
static bool needs_gap(const struct session *s, const struct source_rule *was,
                      const struct rf_source *source, const struct source_rule *rule)
{
    bool exact = source->policy == RF_EXACT;

    if (admits_none(s->exact, was) || admits_none(exact, rule))
        return false;
    if (s->exact && exact)
        return !addr_equal(&s->source, &source->exact);
    if (s->exact)
        return !rule_covers(rule, &s->source);
    if (exact)
        return !rule_covers(was, &source->exact);
    return !rule_same_network(was, rule);
}

/* A session that is being moved; `control` is taken for each step, and given back for
 * grace periods. */
struct move {
    struct rf_engine *engine;
    struct session *session;
    struct source_rule *was; /* in the chain by it, or NULL */
};

static void await_readers(struct rf_engine *e)
{
    pthread_mutex_unlock(&e->control);
    qsbr_synchronize(&e->qsbr);
    pthread_mutex_lock(&e->control);
}

/* Out of the chain, with nobody left who looks at it there. */
static void leave_chain(struct move *m)
{
    if (!m->was)
        return;
    table_drop_network(&m->engine->table, m->session);
    await_readers(m->engine);
    store_rlx(&m->session->rule, NULL);
    free(m->was);
    m->was = NULL;
}

static void leave_source(struct move *m)
{
    if (m->session->exact) {
        table_drop_source(&m->engine->table, m->session);
        await_readers(m->engine);
    }
}

static void enter_source(struct move *m, const struct rf_addr *source)
{
    if (!m->session->exact) {
        m->session->source = *source;
        table_put_source(&m->engine->table, m->session);
    }
}

/* In place when its place in the chain stays: readers meet the old rule or the new one. */
static void change_rule(struct move *m, struct source_rule *rule)
{
    struct session *s = m->session;

    if (m->was && rule && rule_same_network(m->was, rule)) {
        store_rls(&s->rule, rule);
        qsbr_retire(&m->engine->qsbr, &m->was->retired);
        return;
    }
    leave_chain(m);
    if (rule) {
        store_rlx(&s->rule, rule);
        table_put_network(&m->engine->table, s);
    }
}

static void move(struct move *m, const struct rf_source *source, struct source_rule *rule)
{
    bool fed = !admits_none(m->session->exact, m->was);

    if (needs_gap(m->session, m->was, source, rule)) {
        if (m->session->exact)
            leave_source(m);
        else
            leave_chain(m);
        fed = false;
    }
    if (!fed)
        session_lose_owner(m->session);
    if (source->policy == RF_EXACT)
        enter_source(m, &source->exact);
    change_rule(m, rule);
    if (source->policy != RF_EXACT)
        leave_source(m);
    await_readers(m->engine);
}

/* At its own port: who reads that meets the old rule or the new one. */
static void move_at_port(struct move *m, struct source_rule *rule)
{
    store_rls(&m->session->rule, rule);
    qsbr_retire(&m->engine->qsbr, &m->was->retired);
    await_readers(m->engine);
}

/* From the main port to one of its own, or back: out of the one for a grace period before it is in
 * the other. */
static void change_port(struct move *m, const struct rf_source *source, struct source_rule *rule)
{
    struct session *s = m->session;
    struct session_ports had = {NULL, NULL};

    if (s->at_own_port)
        had = ports_close(m->engine, s);
    else
        table_remove(&m->engine->table, s);
    await_readers(m->engine);
    ports_free(had);
    free(m->was);
    store_rlx(&s->rule, rule);
    s->source = source->exact;
    s->at_own_port = source->own_port;
    s->exact = source->policy == RF_EXACT && !source->own_port;
    session_lose_owner(s);
    if (!source->own_port)
        (void)table_insert(&m->engine->table, s); /* for which there is room */
}

int rf_session_move(struct rf_engine *e, uint64_t handle, const struct rf_source *source,
                    uint64_t now)
{
    struct source_rule *rule;
    int rc = rule_of(source, now, &rule);

    if (rc)
        return rc;
    begin(e);
    qsbr_reclaim(&e->qsbr);
    struct move m = {e, session_by_handle(&e->sessions, handle), NULL};

    rc = !m.session           ? -ENOENT
         : source->own_port ? 0
                              : table_reserve(&e->table, m.session, m.session->ssrc,
                                              exact_of(source), rule);
    if (rc == 0) {
        m.was = load_rlx(&m.session->rule);
        if (source->own_port != m.session->at_own_port)
            change_port(&m, source, rule);
        else if (source->own_port)
            move_at_port(&m, rule);
        else
            move(&m, source, rule);
    }
    end(e);
    if (rc)
        free(rule);
    return rc;
}

static void gate_by(struct session *s, unsigned bit, bool on)
{
    unsigned gating = load_rlx(&s->gating);

    store_rlx(&s->gating, (uint16_t)(on ? gating | bit : gating & ~bit));
}

int rf_session_pause(struct rf_engine *e, uint64_t handle, bool paused)
{
    struct session *s = control_find(e, handle);

    if (s)
        gate_by(s, GATING_PAUSED, paused);
    pthread_mutex_unlock(&e->control);
    if (s && paused)
        qsbr_synchronize(&e->qsbr);
    return s ? 0 : -ENOENT;
}

int rf_session_limit(struct rf_engine *e, uint64_t handle, uint64_t bits_per_second)
{
    struct session *s = control_find(e, handle);

    if (s) {
        store_rlx(&s->limit.bits_per_second, bits_per_second);
        gate_by(s, GATING_LIMITED, bits_per_second > 0);
    }
    return control_done(e, s);
}

int rf_session_idle_timeout(struct rf_engine *e, uint64_t handle, uint64_t idle_timeout)
{
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s)
        s->idle_timeout = idle_timeout;
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
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
