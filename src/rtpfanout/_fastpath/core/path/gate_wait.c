/* What waits at the gate: packets from where a session may latch on to their source, until it has; and
 * those of another SSRC than it follows. */
#include "gate.h"

/* The record of a session that has gone may be another's. */
static void give_up(struct gate *g, struct hold *hold)
{
    bool is_there = session_is_there(g->table->sessions, hold->handle);
    struct session *s = hold->session;

    if (hold->latches) {
        counter_add(&g->counters->dropped_latching, hold->packets);
        if (is_there)
            fetch_add_rlx(&s->dropped.latching, hold->packets);
    } else {
        counter_add(&g->counters->dropped_probation, hold->packets);
        if (is_there)
            fetch_add_rlx(&s->dropped.probation, hold->packets);
    }
    hold_give_up(&g->holding, hold);
}

void gate_sweep(struct gate *g, uint64_t now, bool all)
{
    struct hold *hold;

    while ((hold = hold_overdue(&g->holding, now, all)))
        give_up(g, hold);
}

void gate_drop_held(struct gate *g, struct session *s)
{
    struct hold *hold = hold_part(&g->holding, s);

    if (hold)
        give_up(g, hold);
}

/* Of which the control plane was told is kept, if need be in the place of another: that is the one which
 * may be pinned next. */
static struct hold *begin(struct gate *g, struct session *s, const struct rf_addr *source, bool told)
{
    struct hold *hold = hold_latch(&g->holding, s, source, g->now), *other;

    while (!hold && told && (other = hold_oldest(&g->holding, s))) {
        give_up(g, other);
        hold = hold_latch(&g->holding, s, source, g->now);
    }
    return hold;
}

bool gate_await(struct gate *g, const struct arrival *a)
{
    struct session *s = a->refuser;
    const struct rf_addr *source = &a->datagram->source;
    uint32_t changes = load_acq(&s->changes); /* before the pause is asked, which it counts */
    bool told = gate_notify(g, s, RF_NOTICE_SOURCE, source);

    if (load_acq(&s->gating) & GATING_PAUSED || !hold_fits(a->len))
        return false;
    struct hold *hold = hold_of_latch(&g->holding, s, source);

    if (hold && (hold->since != changes || g->now >= hold->due_ns)) {
        give_up(g, hold);
        hold = NULL;
    }
    if ((!hold && !(hold = begin(g, s, source, told))) ||
        !hold_append(&g->holding, hold, a->datagram, a->data, a->len))
        return false;
    if (!(load_rlx(&s->gating) & GATING_AWAITED))
        fetch_or_acq_rel(&s->gating, GATING_AWAITED);
    return true;
}

/* As if it came now; it is put back if it gets in. */
static void judge(struct gate *g, const struct arrival *a, struct hold *hold, struct held *p)
{
    struct arrival one = {
        .data = p->bytes,
        .len = p->datagram.len,
        .datagram = &p->datagram,
        .kind = RTP_PACKET,
        .by_network = a->by_network,
        .key = {.ssrc = rtp_read_u32(p->bytes + RTP_SSRC_OFFSET), .source = &p->datagram.source},
        .session = a->session,
    };

    if (!gate_admits(g, &one)) {
        if (!one.handed_over && !one.held)
            gate_count_drop(g, &one);
        return;
    }
    if (one.first)
        hold_join(&g->holding, hold, hold_at(&g->holding, one.first));
    hold_put_back(hold, p);
}

void gate_recall(struct gate *g, struct arrival *a)
{
    struct hold *hold = hold_of_latch(&g->holding, a->session, &a->datagram->source);
    struct held *p, *next;

    if (!hold)
        return;
    if (!session_waits(a->session, hold->since) || g->now >= hold->due_ns) {
        give_up(g, hold);
        return;
    }
    for (p = hold_release(&g->holding, hold); p; p = next) {
        next = p->next;
        judge(g, a, hold, p);
    }
    if (hold->packets > 0)
        a->first = hold_number(&g->holding, hold);
    else
        hold_give_up(&g->holding, hold);
}
