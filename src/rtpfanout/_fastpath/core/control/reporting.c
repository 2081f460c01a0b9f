/* The facade of core.h: a session's RTCP, under the writer mutex. */
#include <errno.h>
#include <stdlib.h>

#include "ways.h"

/* `found` has room for n. */
static int change(struct rf_engine *e, struct session *s, const struct rf_addr *addrs, size_t n,
                  enum rf_rtcp rtcp, struct subscriber **found)
{
    struct subscriber_list *old = load_rlx(&s->subscribers), *list = old;
    struct reporters *set;
    int rc = subscriber_list_find(old, addrs, n, e->sock[0].family, found);

    if (rc == 0)
        rc = reporters_change(old->reporters, found, n, rtcp, ++s->reporter_sets, &set);
    if (rc || set == old->reporters)
        return rc;
    rc = subscriber_list_copy(old, old->deliveries, &list);
    if (rc) {
        reporters_give_up(set, old->reporters);
        return rc;
    }
    list->reporters = set;
    subscribers_publish(e, s, old, list);
    fetch_or_acq_rel(&s->gating, (uint16_t)GATING_FEEDBACK);
    return 0;
}

int rf_subscribers_rtcp(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                        enum rf_rtcp rtcp)
{
    struct subscriber **found;
    int rc = 0;

    if (rtcp > RF_RTCP_NEXT_PORT)
        return -EINVAL;
    found = calloc(n + 1, sizeof(struct subscriber *));
    if (!found)
        return -ENOMEM;
    struct session *s = control_find(e, handle);

    qsbr_reclaim(&e->qsbr);
    if (s)
        rc = change(e, s, addrs, n, rtcp, found);
    free(found);
    return control_done(e, s) ? -ENOENT : rc;
}

static void snapshot(struct session *s, struct rf_feedback *out)
{
    const struct reporters *set = load_rlx(&s->subscribers)->reporters;

    out->handle = session_handle(s);
    feedback_snapshot(s->feedback, out);
    out->reporters = set ? set->count : 0;
}

int rf_session_feedback(struct rf_engine *e, uint64_t handle, struct rf_feedback *out)
{
    struct session *s = control_find(e, handle);

    if (s)
        snapshot(s, out);
    return control_done(e, s);
}

size_t rf_sessions_feedback(struct rf_engine *e, struct rf_feedback *out, size_t capacity)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        struct session *s = session_at(&e->sessions, i);

        /* Of others the figures are zero, and take no memory as long as nobody looks. */
        if (!s->in_use || !(load_rlx(&s->gating) & GATING_FEEDBACK))
            continue;
        if (n < capacity)
            snapshot(s, &out[n]);
        n++;
    }
    pthread_mutex_unlock(&e->control);
    return n;
}

int rf_session_keyframe_format(struct rf_engine *e, uint64_t handle, unsigned format)
{
    if (format == 0 || format > (RF_KEYFRAME_PLI | RF_KEYFRAME_FIR))
        return -EINVAL;
    struct session *s = control_find(e, handle);

    if (s) {
        fetch_or_acq_rel(&s->gating, (uint16_t)GATING_FEEDBACK);
        store_rlx(&s->feedback->format, (uint8_t)format);
    }
    return control_done(e, s);
}

int rf_session_report_class(struct rf_engine *e, uint64_t handle, unsigned subscriber_class)
{
    if (subscriber_class > RF_CLASSES)
        return -EINVAL;
    struct session *s = control_find(e, handle);

    if (s) {
        fetch_or_acq_rel(&s->gating, (uint16_t)GATING_FEEDBACK);
        store_rlx(&s->feedback->class,
                  (uint8_t)(subscriber_class < RF_CLASSES ? subscriber_class + 1 : 0));
    }
    return control_done(e, s);
}

int rf_session_repair(struct rf_engine *e, uint64_t handle, bool on)
{
    struct repair *fresh = on ? calloc(1, sizeof *fresh) : NULL;

    if (on && !fresh)
        return -ENOMEM;
    struct session *s = control_find(e, handle);

    if (s) {
        fetch_or_acq_rel(&s->gating, (uint16_t)GATING_FEEDBACK);
        if (on && !load_rlx(&s->feedback->repair)) {
            store_rls(&s->feedback->repair, fresh);
            fresh = NULL;
        }
        store_rls(&s->feedback->repairs, on);
    }
    free(fresh);
    return control_done(e, s);
}

int rf_session_want_keyframe(struct rf_engine *e, uint64_t handle)
{
    struct session *s = control_find(e, handle);
    bool may = s && load_rlx(&s->feeder) != 0;

    if (may) {
        fetch_or_acq_rel(&s->gating, (uint16_t)GATING_FEEDBACK);
        store_seq(&s->feedback->wanted, true);
    }
    return control_done(e, s) ? -ENOENT : may ? 0 : -EHOSTUNREACH;
}

void engine_note_feeder(struct rf_engine *e, struct session *s, const struct rf_source *source)
{
    const struct rf_network *n = &source->network;
    bool one = source->policy == RF_EXACT ||
               (source->policy == RF_NETWORK && !n->anybody && n->prefix == 128);
    uint64_t was = load_rlx(&s->feeder),
             feeder = one ? rtcp_feeder(&e->table, source->policy == RF_EXACT ? &source->exact
                                                                              : &n->addr)
                          : 0;

    familiar_count_host(e->table.familiar, feeder, 1);
    store_rlx(&s->feeder, feeder);
    familiar_count_host(e->table.familiar, was, -1);
    if (load_rlx(&s->gating) & GATING_FEEDBACK)
        store_rlx(&s->feedback->forget, true);
}

void engine_forget_familiar(struct rf_engine *e, struct session *s)
{
    familiar_count_host(e->table.familiar, load_rlx(&s->feeder), -1);
    engine_count_reporters(e, load_rlx(&s->subscribers)->reporters, NULL);
}

struct counting {
    struct familiar *familiar;
    int by;
};

static void count_one(struct reporter *r, void *with)
{
    const struct counting *c = with;
    struct rf_addr addr;

    addr_from_sockaddr(&addr, &r->subscriber->name);
    familiar_count_pair(c->familiar, &addr, c->by);
}

void engine_count_reporters(struct rf_engine *e, const struct reporters *old,
                            const struct reporters *next)
{
    struct counting more = {e->table.familiar, 1}, less = {e->table.familiar, -1};

    if (old == next)
        return;
    reporters_each_beyond(next, old, count_one, &more);
    reporters_each_beyond(old, next, count_one, &less);
}

void engine_say_goodbye(struct rf_engine *e, struct session *s)
{
    const struct subscriber_list *list = load_rlx(&s->subscribers);
    struct media_clock m = rtcp_media_clock(&e->sessions, s);
    uint8_t message[FEEDBACK_MESSAGE];
    size_t len = list->reporters ? feedback_bye(s->feedback, m.ssrc, message) : 0;
    uint64_t sent = 0, failed = 0;

    for (uint32_t i = 0; len > 0 && i < list->reporters->count; i++) {
        struct reporter *r = list->reporters->item[i];
        const struct delivery *d =
            delivery_at(list->deliveries, subscriber_delivery(r->subscriber));
        struct rf_addr to;

        if (load_rlx(&r->subscriber->withheld))
            continue;
        addr_from_sockaddr(&to, &r->name);
        if (sock_send(&e->sock[0], &to, !d ? NULL : d->interface ? s->heard : d->from, message,
                      len) == 0)
            sent++;
        else
            failed++;
    }
    pthread_mutex_lock(&e->control);
    e->rtcp_sent += sent;
    e->rtcp_send_failures += failed;
    pthread_mutex_unlock(&e->control);
}
