#include "gate.h"

bool gate_add(struct gate *g, uint8_t *data, uint32_t len, const struct datagram *d)
{
    g->arrival[g->count++] = (struct arrival){.data = data, .len = len, .datagram = d};
    return g->count == GATE_BLOCK;
}

/* What the packet is, and for RTP the key to look it up by: its neighbour's, if they are alike. */
static void classify(struct gate *g, struct arrival *a, const struct arrival *previous)
{
    uint32_t ssrc = 0;

    a->kind = rtp_classify(a->data, a->len, g->check_padding, &ssrc);
    if (a->kind != RTP_PACKET) {
        a->reason = a->kind == RTP_CONTROL   ? DROP_rtcp
                    : a->kind == RTP_FOREIGN ? DROP_not_rtp
                                             : DROP_malformed;
        return;
    }
    if (previous && previous->kind == RTP_PACKET && previous->datagram == a->datagram &&
        previous->key.ssrc == ssrc)
        a->key = previous->key;
    else
        a->key = table_key(g->table, ssrc, &a->datagram->source);
    table_prefetch(g->table, &a->key);
}

static void look_up(struct gate *g, struct arrival *a)
{
    bool ssrc_known = false;

    if (a->kind != RTP_PACKET)
        return;
    a->session = table_find_key(g->table, &a->key, &ssrc_known);
    a->reason = ssrc_known ? DROP_wrong_source : DROP_unknown_ssrc;
    if (a->session) {
        __builtin_prefetch(&a->session->counters, 1);
        __builtin_prefetch(load_rlx(&a->session->subscribers));
    }
}

static bool owns(struct gate *g, struct session *s)
{
    uint32_t me = g->worker + 1, owner = load_rlx(&s->owner);

    return owner == me || (owner == 0 && compare_exchange_acq_rel(&s->owner, &owner, me));
}

/* Whether the session that was found may have the packet; else the reason stands in it. */
static bool admit(struct gate *g, struct arrival *a)
{
    if (!a->session)
        return false;
    if (!owns(g, a->session)) {
        a->reason = DROP_misrouted;
        return false;
    }
    a->reason = DROP_overload;
    return fair_admits(&g->fair, a->session, subscribers_served(load_acq(&a->session->subscribers)));
}

void gate_pass(struct gate *g)
{
    for (uint32_t i = 0; i < g->count; i++)
        classify(g, &g->arrival[i], i > 0 ? &g->arrival[i - 1] : NULL);
    for (uint32_t i = 0; i < g->count; i++)
        look_up(g, &g->arrival[i]);
    for (uint32_t i = 0; i < g->count; i++) {
        struct arrival *a = &g->arrival[i];

        if (admit(g, a))
            continue;
        stats_count_drop(g->counters, a->reason);
        a->session = NULL;
    }
}
