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

/* Which SSRCs it takes: while it is in no index, or between those that take any. */
static void set_ssrc_policy(struct session *s, enum rf_ssrc_policy policy)
{
    s->any_ssrc = policy != RF_SSRC_EXACT;
    gate_by(s, GATING_FOLLOW | GATING_ANY,
            policy == RF_SSRC_FOLLOW ? GATING_FOLLOW
            : policy == RF_SSRC_ANY  ? GATING_ANY
                                     : 0);
}

static struct table_claim claim_of(const struct rf_source *source, const struct source_rule *rule,
                                   uint32_t ssrc)
{
    return (struct table_claim){ssrc, source->ssrc_policy != RF_SSRC_EXACT, exact_of(source), rule};
}

/* What it needs to take more than one SSRC. */
static int give_ssrcs(struct session *s, enum rf_ssrc_policy policy, uint64_t followed)
{
    if (policy != RF_SSRC_EXACT && !s->ssrcs && (s->ssrcs = calloc(1, sizeof *s->ssrcs)) &&
        policy == RF_SSRC_FOLLOW)
        ssrcs_expect(s->ssrcs, followed);
    return policy == RF_SSRC_EXACT || s->ssrcs ? 0 : -ENOMEM;
}

/* Under both mutexes. The record has the rule then; before, it is the caller's. */
static int add(struct rf_engine *e, const struct rf_source *source, struct source_rule *rule,
               uint32_t ssrc, uint64_t now, uint64_t *handle)
{
    struct table_claim claim = claim_of(source, rule, ssrc);
    struct session *s;
    /* Asked first, so that a full pool does not hide it. */
    int rc = source->own_port ? 0 : table_reserve(&e->table, NULL, &claim);

    if (rc == 0)
        rc = session_new(&e->sessions, &source->exact, ssrc, now, &s);
    if (rc)
        return rc;
    s->at_own_port = source->own_port;
    s->exact = source->policy == RF_EXACT && !source->own_port;
    store_rlx(&s->rule, rule);
    engine_note_feeder(e, s, source);
    set_ssrc_policy(s, source->ssrc_policy);
    rc = give_ssrcs(s, source->ssrc_policy, source->followed);
    if (rc == 0 && !source->own_port)
        rc = table_insert(&e->table, s);
    if (rc) {
        store_rlx(&s->rule, NULL);
        engine_forget_familiar(e, s);
        session_release(&e->sessions, s);
    } else {
        session_show(&e->sessions, s);
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
        engine_set_reading(e, s, 0);
        gate_by(s, GATING_UNHEARD, GATING_UNHEARD);
        engine_keep_reception(e, s);
        session_hide(&e->sessions, s);
        s->in_use = false; /* no other control call finds it from here on */
    }
    end(e);
    if (!s)
        return -ENOENT;

    qsbr_synchronize(&e->qsbr);
    ports_free(had);
    if (load_rlx(&s->gating) & GATING_FEEDBACK && alias_forget(e->table.aliases, s->index))
        qsbr_synchronize(&e->qsbr); /* who found it by that */
    engine_say_goodbye(e, s);
    pthread_mutex_lock(&e->control);
    engine_forget_familiar(e, s);
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
        table_changed(&m->engine->table);
        qsbr_retire(&m->engine->qsbr, &m->was->retired);
        return;
    }
    leave_chain(m);
    if (rule) {
        store_rlx(&s->rule, rule);
        table_put_network(&m->engine->table, s);
    }
}

/* Nobody feeds it, nor is anybody in the middle of a turn with it: any worker may have it, and what
 * SSRC comes first. */
static void begin_anew(struct session *s)
{
    if (s->ssrcs)
        memset(s->ssrcs, 0, sizeof *s->ssrcs);
    session_lose_owner(s);
    gate_by(s, GATING_UNHEARD, 0);
}

static void move(struct move *m, const struct rf_source *source, struct source_rule *rule)
{
    bool gap = needs_gap(m->session, m->was, source, rule);

    if (gap || admits_none(m->session->exact, m->was)) {
        gate_by(m->session, GATING_UNHEARD, GATING_UNHEARD);
        if (!gap)
            await_readers(m->engine);
        else if (m->session->exact)
            leave_source(m);
        else
            leave_chain(m);
        begin_anew(m->session);
    }
    if (source->policy == RF_EXACT)
        enter_source(m, &source->exact);
    change_rule(m, rule);
    if (source->policy != RF_EXACT)
        leave_source(m);
    await_readers(m->engine);
}

/* Whether the same may feed it, at its own port. */
static bool same_feeders(const struct source_rule *a, const struct source_rule *b)
{
    return a->has_exact == b->has_exact && addr_equal(&a->exact, &b->exact) &&
           (a->has_exact || (a->kind == b->kind && rule_same_network(a, b)));
}

/* At its own port: who reads that meets the old rule or the new one. What SSRC it has there is of
 * interest only to those who follow it; another source begins with another one. */
static void move_at_port(struct move *m, const struct rf_source *source, struct source_rule *rule,
                         uint32_t ssrc)
{
    struct session *s = m->session;
    bool anew = ssrc != s->ssrc || (source->ssrc_policy != RF_SSRC_EXACT) != s->any_ssrc ||
                !same_feeders(m->was, rule);

    if (anew)
        gate_by(s, GATING_FOLLOW | GATING_ANY, 0);
    store_rls(&s->rule, rule);
    qsbr_retire(&m->engine->qsbr, &m->was->retired);
    await_readers(m->engine);
    if (anew && s->ssrcs)
        memset(s->ssrcs, 0, sizeof *s->ssrcs);
    if (ssrc != s->ssrc) /* else who follows it may be reading it */
        s->ssrc = ssrc;
    set_ssrc_policy(s, source->ssrc_policy);
}

/* To another port, or another SSRC: out of where it is found for a grace period before it is found
 * there. There is room for that, and nobody takes its place: `sources` is held. */
static void change_place(struct move *m, const struct rf_source *source, struct source_rule *rule,
                         uint32_t ssrc, struct ssrc_refusals *fresh)
{
    struct session *s = m->session;
    struct session_ports had = {NULL, NULL};

    gate_by(s, GATING_UNHEARD, GATING_UNHEARD);
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
    set_ssrc_policy(s, source->ssrc_policy);
    session_change_ssrc(s, ssrc, fresh);
    begin_anew(s);
    if (!source->own_port)
        (void)table_insert(&m->engine->table, s);
}

/* Under both mutexes; `rule` is the session's when it succeeds. */
static int retune(struct move *m, const struct rf_source *source, struct source_rule *rule,
                  uint32_t ssrc)
{
    struct table_claim claim = claim_of(source, rule, ssrc);
    struct session *s = m->session;
    int rc = source->own_port ? 0 : table_reserve(&m->engine->table, s, &claim);

    if (rc || (rc = give_ssrcs(s, source->ssrc_policy, 0)))
        return rc;
    if (!source->pins)
        session_end_waits(s);
    engine_note_feeder(m->engine, s, source);
    m->was = load_rlx(&s->rule);
    if (source->own_port && s->at_own_port) {
        move_at_port(m, source, rule, ssrc);
        return 0;
    }
    if (source->own_port == s->at_own_port && claim.any_ssrc == s->any_ssrc && ssrc == s->ssrc) {
        set_ssrc_policy(s, source->ssrc_policy);
        move(m, source, rule);
        return 0;
    }
    struct ssrc_refusals *fresh = calloc(1, sizeof *fresh);

    if (!fresh)
        return -ENOMEM;
    change_place(m, source, rule, ssrc, fresh);
    return 0;
}

/* With `ssrc`; NULL: with the one that it has. */
static int move_to(struct rf_engine *e, uint64_t handle, const struct rf_source *source,
                   const uint32_t *ssrc, uint64_t now)
{
    struct source_rule *rule;
    int rc = rule_of(source, now, &rule);

    if (rc)
        return rc;
    begin(e);
    qsbr_reclaim(&e->qsbr);
    struct move m = {e, session_by_handle(&e->sessions, handle), NULL};

    rc = m.session ? retune(&m, source, rule, ssrc ? *ssrc : m.session->ssrc) : -ENOENT;
    if (rc == 0 && source->pins)
        session_begin_waits(m.session);
    end(e);
    if (rc)
        free(rule);
    return rc;
}

int rf_session_move(struct rf_engine *e, uint64_t handle, const struct rf_source *source,
                    uint64_t now)
{
    return move_to(e, handle, source, NULL, now);
}

int rf_session_retune(struct rf_engine *e, uint64_t handle, const struct rf_source *source,
                      uint32_t ssrc, uint64_t now)
{
    return move_to(e, handle, source, &ssrc, now);
}
