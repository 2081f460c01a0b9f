/* Whether the session that was found may have the packet. */
#include "gate.h"

/* The flag is cleared by who takes the notice (rf_notices). */
bool gate_notify(struct gate *g, struct session *s, enum rf_notice_kind kind,
                 const struct rf_addr *source)
{
    uint32_t bit = 1u << kind;

    if (load_rlx(&s->noticed) & bit || fetch_or_acq_rel(&s->noticed, bit) & bit)
        return false;
    if (mailbox_post_session(g->mailbox, kind, session_handle(s), source)) {
        g->posted |= 1u << RF_QUEUE_KNOWN;
        return true;
    }
    fetch_and_acq_rel(&s->noticed, ~bit);
    return false;
}

/* Whose it is: who comes first, and who comes first after that one has ended. */
static uint16_t owner_of(struct gate *g, struct session *s)
{
    uint16_t me = (uint16_t)(g->worker + 1), owner = load_rlx(&s->owner);

    for (;;) {
        uint16_t who = owner & OWNER_MASK, mine = (uint16_t)((owner & ~OWNER_MASK) | me);

        if (who == me || (who != 0 && !inbox_is_closed(g->inboxes[who - 1])))
            return owner;
        if (compare_exchange_acq_rel(&s->owner, &owner, mine))
            return mine;
    }
}

/* Into the inbox of its session's owner. */
static bool hand_over(struct gate *g, const struct arrival *a, uint16_t owner)
{
    struct parcel p = {*a->datagram, owner};
    unsigned who = (owner & OWNER_MASK) - 1u;

    p.datagram.data = a->data;
    p.datagram.len = p.datagram.segment = a->len;
    /* It is not silent, whoever hears it; but of one that follows an SSRC its owner has to say so. */
    if (a->kind == RTP_PACKET && !(load_rlx(&a->session->gating) & GATING_FOLLOW))
        store_rlx(&a->session->last_packet_ns, g->now);
    if (!inbox_post(g->inboxes[who], &p, &g->counters->handed_over))
        return false;
    g->called |= UINT64_C(1) << who;
    return true;
}

/* Whether this worker may forward it; else it is handed over, or misrouted. So is what was handed
 * over, when the session has lost its owner since: another may have had the source's next one. */
static bool is_ours(struct gate *g, struct arrival *a)
{
    if (a->owner)
        return load_rlx(&a->session->owner) == a->owner;
    uint16_t owner = owner_of(g, a->session);

    if ((owner & OWNER_MASK) == g->worker + 1)
        return true;
    if (g->holding.latching > 0)
        gate_recall(g, a); /* the same way, and first */
    a->handed_over = hand_over(g, a, owner);
    return false;
}

static bool is_subscriber(const struct subscriber_list *list, const struct rf_addr *addr)
{
    union sockaddr_any ipv4, ipv6; /* both may be in a list, where one is refused */

    if (list->count == 0)
        return false;
    addr_to_sockaddr(&ipv4, addr, AF_INET);
    addr_to_sockaddr(&ipv6, addr, AF_INET6);
    for (uint32_t i = 0; i < list->count; i++) {
        const union sockaddr_any *name = &list->item[i]->name;

        if (memcmp(name, name->any.sa_family == AF_INET ? &ipv4 : &ipv6, sizeof *name) == 0)
            return true;
    }
    return false;
}

/* A packet that a network admits, from one of those it would go to: two servers subscribed to
 * each other. Asked when the source is another than the last, or somebody has subscribed since. */
static bool comes_back(struct session *s, const struct rf_addr *source)
{
    const struct subscriber_list *list = load_acq(&s->subscribers);
    uint64_t newest = list->count ? list->item[list->count - 1]->since_ns : 0;

    if (newest <= s->last_newest_ns && addr_equal(&s->last_source, source))
        return false;
    if (is_subscriber(list, source))
        return true;
    s->last_source = *source;
    s->last_newest_ns = newest;
    return false;
}

static bool within_limit(struct rate_limit *limit, uint32_t len, uint64_t now)
{
    const uint64_t burst_bits = 8 * 65536, burst_ns = 100000000, second = 1000000000;
    uint64_t bits_per_second = load_rlx(&limit->bits_per_second);

    if (bits_per_second == 0)
        return true;
    uint64_t burst = burst_bits * second / bits_per_second, full = limit->full_at;

    if (burst < burst_ns)
        burst = burst_ns;
    if (full < now)
        full = now;
    if (full > now + burst) /* the limit was lower before */
        full = now + burst;
    full += (uint64_t)len * 8 * second / bits_per_second;
    if (full > now + burst) {
        counter_add(&limit->dropped, 1);
        return false;
    }
    limit->full_at = full;
    return true;
}

/* The control plane hears of each change of the SSRC, but no more often than it can bear from a source
 * that sends ever others. */
static void tell_of_ssrc(struct gate *g, struct arrival *a)
{
    const uint64_t pause_ns = UINT64_C(100000000);
    struct ssrcs *k = a->session->ssrcs;

    if (k->told_ns != 0 && g->now < k->told_ns + pause_ns)
        return;
    if (!gate_notify(g, a->session, RF_NOTICE_SSRC, &a->datagram->source))
        return;
    k->told_ns = g->now;
    k->untold = false;
}

/* What is held goes first, behind what does so already. */
static void let_first(struct gate *g, struct arrival *a, struct hold *hold)
{
    if (hold && a->first)
        hold_join(&g->holding, hold_at(&g->holding, a->first), hold);
    else if (hold)
        a->first = hold_number(&g->holding, hold);
}

/* Whether it belongs to the SSRC that is followed; what may yet come to that is held. */
static bool is_followed(struct gate *g, struct arrival *a)
{
    struct session *s = a->session;
    enum follow_verdict v = follow_judge(s, a->data, a->datagram, a->key.ssrc, g->now);

    if (v == FOLLOW_ADMIT)
        return true;
    if (v == FOLLOW_OTHER) { /* a stranger, who knocks */
        a->refuser = s;
        a->session = NULL;
        return false;
    }
    a->passes = v == FOLLOW_PASS;
    if (a->passes)
        let_first(g, a, hold_part(&g->holding, s));
    if (v == FOLLOW_SWITCH || v == FOLLOW_WAIT_ALONE)
        gate_drop_held(g, s);
    if (v == FOLLOW_WAIT || v == FOLLOW_WAIT_ALONE)
        a->held = hold_add(&g->holding, s, a->datagram, a->data, a->len, g->now);
    return v <= FOLLOW_PASS;
}

/* A session that takes more than one SSRC. */
static bool ssrc_admits(struct gate *g, struct arrival *a, unsigned gating)
{
    struct ssrcs *k = a->session->ssrcs;

    a->reason = DROP_probation;
    if (gating & GATING_ANY)
        k->untold |= ssrcs_note(k, a->key.ssrc, a->data[1] & RTP_PAYLOAD_TYPE, g->now);
    else if (!is_followed(g, a))
        return false;
    if (k->untold)
        tell_of_ssrc(g, a);
    return true;
}

/* What its own packets are asked beyond the source; they count as life of the session. */
static bool gating_admits(struct gate *g, struct arrival *a, unsigned gating)
{
    struct session *s = a->session;

    if (gating & GATING_PAUSED) {
        store_rlx(&s->last_packet_ns, g->now);
        a->reason = DROP_paused;
        counter_add(&s->dropped_paused, 1);
        return false;
    }
    if (gating & GATING_AWAITED) {
        gate_recall(g, a);
        if (!hold_oldest(&g->holding, s)) /* else it may be another port of the source */
            fetch_and_acq_rel(&s->gating, (uint16_t)~GATING_AWAITED);
    }
    if (gating & (GATING_FOLLOW | GATING_ANY) && !ssrc_admits(g, a, gating))
        return false;
    store_rlx(&s->last_packet_ns, g->now);
    a->reason = DROP_rate_limit;
    return !(gating & GATING_LIMITED) || a->passes || within_limit(&s->limit, a->len, g->now);
}

/* Whether the session that was found may have the packet; else the reason stands in it. */
bool gate_admits(struct gate *g, struct arrival *a)
{
    if (!a->session)
        return false;
    if (!is_ours(g, a)) {
        a->reason = DROP_misrouted;
        return false;
    }
    if (a->kind == RTP_CONTROL) {
        stats_count_rtcp(g->counters, rtcp_take(&g->rtcp, g->table, a->session, a->datagram, a->data,
                                                a->len, g->now));
        return false;
    }
    if (a->by_network && comes_back(a->session, &a->datagram->source)) {
        a->reason = DROP_loop;
        return false;
    }
    unsigned gating = load_rlx(&a->session->gating);

    if (gating & GATING_ASKED && !gating_admits(g, a, gating))
        return false;
    a->reason = DROP_overload;
    return a->passes || fair_admits(&g->fair, a->session);
}
