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
    if (a->kind != RTP_PACKET)
        return;
    if (previous && previous->kind == RTP_PACKET && previous->datagram == a->datagram &&
        previous->key.ssrc == ssrc)
        a->key = previous->key;
    else
        a->key = table_key(g->table, ssrc, &a->datagram->source);
    table_prefetch(g->table, &a->key);
}

static void look_up(struct gate *g, struct arrival *a)
{
    if (a->kind != RTP_PACKET)
        return;
    a->session = table_find_key(g->table, &a->key, &a->ssrc_known);
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

static enum drop_reason drop_reason(const struct arrival *a)
{
    switch (a->kind) {
    case RTP_PACKET:
        return a->session ? DROP_misrouted : a->ssrc_known ? DROP_wrong_source : DROP_unknown_ssrc;
    case RTP_CONTROL:
        return DROP_rtcp;
    case RTP_FOREIGN:
        return DROP_not_rtp;
    default:
        return DROP_malformed;
    }
}

void gate_pass(struct gate *g)
{
    for (uint32_t i = 0; i < g->count; i++)
        classify(g, &g->arrival[i], i > 0 ? &g->arrival[i - 1] : NULL);
    for (uint32_t i = 0; i < g->count; i++)
        look_up(g, &g->arrival[i]);
    for (uint32_t i = 0; i < g->count; i++) {
        struct arrival *a = &g->arrival[i];

        if (a->session && owns(g, a->session))
            continue;
        stats_count_drop(g->counters, drop_reason(a));
        a->session = NULL;
    }
}
