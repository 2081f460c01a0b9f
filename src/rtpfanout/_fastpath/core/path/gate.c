#include "gate.h"

bool gate_add(struct gate *g, uint8_t *data, uint32_t len, const struct datagram *d)
{
    g->arrival[g->count++] = (struct arrival){.data = data, .len = len, .datagram = d};
    return g->count == GATE_BLOCK;
}

bool gate_add_parcel(struct gate *g, const struct parcel *p)
{
    struct arrival *a = &g->arrival[g->count];
    bool full = gate_add(g, p->datagram.data, p->datagram.len, &p->datagram);

    a->owner = p->owner;
    return full;
}

/* Whether it is we who sent it. */
static bool is_own(const struct gate *g, const struct rf_addr *source)
{
    if (g->side_ports ? !side_ports_are_ours(g->side_ports, source->port)
                      : source->port != g->own->port)
        return false;
    if (!ip_is_wildcard(g->own->ip))
        return memcmp(source->ip, g->own->ip, 16) == 0;
    return g->local && local_set_has(load_acq(g->local), source->ip);
}

/* A cookie that is all zeros is of who has none yet. */
static bool has_cookie(const struct gate *g, const struct arrival *a)
{
    const uint8_t *cookie = rfo_cookie(a->data);

    return cookie && !rfo_is_zero(cookie, cookie + RFO_COOKIE_LEN) &&
           cookie_is_ours(&g->proofs->cookies, cookie, &a->datagram->source);
}

/* By a token of ours, or as one who is asked for his consent. */
static bool is_expected(const struct gate *g, const struct arrival *a)
{
    const uint8_t *claims = rfo_claims(a->data);

    return claims ? stamp_is_ours(&g->proofs->stamps, claims)
                  : awaited_has(&g->proofs->awaited, &a->datagram->source);
}

/* Where a well-formed control datagram waits, by what it proves. */
static enum notice_room room_of(const struct gate *g, const struct arrival *a)
{
    if (a->data[RFO_KIND_OFFSET] == RFO_MOVE)
        return ROOM_MOVES;
    if (!g->proofs)
        return ROOM_STRANGERS;
    if (has_cookie(g, a))
        return ROOM_KNOWN;
    return is_expected(g, a) ? ROOM_INVITED : ROOM_STRANGERS;
}

/* For the control plane? Copied into the mailbox, so nothing of the datagram is kept. */
static enum drop_reason take_foreign(struct gate *g, const struct arrival *a)
{
    if (!rfo_begins(a->data, a->len))
        return DROP_not_rtp;
    if (!rfo_is_well_formed(a->data, a->len))
        return DROP_control_malformed;
    if (a->datagram->source.port == 0)
        return DROP_no_port;
    enum notice_room room = room_of(g, a);

    if (!mailbox_post_datagram(g->mailbox, room, &a->datagram->source, a->datagram->local,
                               a->data, a->len))
        return room == ROOM_KNOWN ? DROP_control_known_full : DROP_control_full;
    g->posted |= 1u << room_queue(room);
    return DROP_control;
}

/* A notice about the session, unless one of the kind waits. The flag is cleared by who takes
 * the notice (rf_notices). */
static void notify(struct gate *g, struct session *s, enum rf_notice_kind kind,
                   const struct rf_addr *source)
{
    uint32_t bit = 1u << kind;

    if (load_rlx(&s->noticed) & bit || fetch_or_acq_rel(&s->noticed, bit) & bit)
        return;
    if (mailbox_post_session(g->mailbox, kind, session_handle(s), source))
        g->posted |= 1u << RF_QUEUE_KNOWN;
    else
        fetch_and_acq_rel(&s->noticed, ~bit);
}

/* Whether such a thing is to come to a side port; else the reason stands in it. */
static bool is_of_port(struct arrival *a)
{
    if (a->datagram->kind == PORT_CLOSED) {
        a->kind = RTP_FOREIGN;
        a->reason = DROP_closed_port;
        return false;
    }
    if (a->kind == RTP_FOREIGN) { /* it would be answered from the main one */
        a->reason = DROP_not_rtp;
        return false;
    }
    if (a->kind == RTP_PACKET && port_is_rtcp(a->datagram->kind))
        a->kind = RTP_MALFORMED;
    return true;
}

/* What the packet is, and for RTP the key to look it up by: its neighbour's, if they are alike. */
static void classify(struct gate *g, struct arrival *a, const struct arrival *previous)
{
    uint32_t ssrc = 0;

    if (is_own(g, &a->datagram->source)) {
        a->kind = RTP_FOREIGN;
        a->reason = DROP_loop;
        return;
    }
    a->kind = rtp_classify(a->data, a->len, g->check_padding, &ssrc);
    if (a->datagram->kind != PORT_RTP && !is_of_port(a))
        return;
    if (a->kind != RTP_PACKET) {
        a->reason = a->kind == RTP_CONTROL   ? DROP_rtcp
                    : a->kind == RTP_FOREIGN ? take_foreign(g, a)
                                             : DROP_malformed;
        return;
    }
    if (a->datagram->kind == PORT_SESSION_RTP) {
        a->key = (struct table_key){ssrc, &a->datagram->source, 0}; /* not looked up */
        return;
    }
    if (previous && previous->kind == RTP_PACKET && previous->datagram == a->datagram &&
        previous->key.ssrc == ssrc)
        a->key = previous->key;
    else
        a->key = table_key(g->table, ssrc, &a->datagram->source);
    table_prefetch(g->table, &a->key);
}

/* No session admits it; but one may latch on to it. */
static void refuse(struct gate *g, struct arrival *a, struct session *latching)
{
    a->reason = DROP_wrong_source;
    if (latching)
        a->refuser = latching;
    if (latching && a->datagram->source.port == 0) {
        a->reason = DROP_no_port;
    } else if (latching) {
        a->reason = DROP_latching;
        notify(g, latching, RF_NOTICE_SOURCE, &a->datagram->source);
    }
}

/* The SSRC is known, but not from this source alone. */
static void look_up_network(struct gate *g, struct arrival *a)
{
    struct session *latching;

    a->session = table_match(g->table, &a->key, g->now, &latching);
    a->by_network = a->session != NULL;
    if (!a->session)
        refuse(g, a, latching);
}

/* Whose own port it came to, whatever its SSRC. */
static void look_up_port(struct gate *g, struct arrival *a)
{
    const struct side_port *port = side_port_at(g->side_ports, a->datagram->port);
    struct session *latching;

    a->reason = DROP_closed_port;
    if (!port)
        return;
    a->refuser = port->session;
    if (session_admits(port->session, &a->datagram->source, g->now, &a->by_network, &latching))
        a->session = port->session;
    else
        refuse(g, a, latching);
}

static void look_up(struct gate *g, struct arrival *a)
{
    if (a->kind != RTP_PACKET)
        return;
    if (a->datagram->kind == PORT_SESSION_RTP) {
        look_up_port(g, a);
        return;
    }
    a->session = table_find(g->table, &a->key, &a->refuser);
    a->reason = DROP_unknown_ssrc;
    if (!a->session && a->refuser)
        look_up_network(g, a);
    if (a->session) /* which is noted in it if it gets in: the misses overlap here */
        reception_prefetch(session_reception(g->table->sessions, a->session));
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
    store_rlx(&a->session->last_packet_ns, g->now); /* it is not silent, whoever hears it */
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

/* What its own packets are asked beyond the source; they count as life of the session. */
static bool gating_admits(struct gate *g, struct arrival *a, unsigned gating)
{
    struct session *s = a->session;

    store_rlx(&s->last_packet_ns, g->now);
    if (gating & GATING_PAUSED) {
        a->reason = DROP_paused;
        counter_add(&s->dropped_paused, 1);
        return false;
    }
    a->reason = DROP_rate_limit;
    return !(gating & GATING_LIMITED) || within_limit(&s->limit, a->len, g->now);
}

/* Whether the session that was found may have the packet; else the reason stands in it. */
static bool admit(struct gate *g, struct arrival *a)
{
    if (!a->session)
        return false;
    if (!is_ours(g, a)) {
        a->reason = DROP_misrouted;
        return false;
    }
    if (a->by_network && comes_back(a->session, &a->datagram->source)) {
        a->reason = DROP_loop;
        return false;
    }
    unsigned gating = load_rlx(&a->session->gating);

    if (gating && !gating_admits(g, a, gating))
        return false;
    a->reason = DROP_overload;
    return fair_admits(&g->fair, a->session);
}

static void count_drop(struct gate *g, const struct arrival *a)
{
    struct session *s = a->session ? a->session : a->refuser;

    if (s)
        session_count_refusal(s, a->reason);
    stats_count_drop(g->counters, a->reason);
}

/* Copies may be to leave from the address that its source speaks to. */
static void hear(struct gate *g, const struct arrival *a)
{
    const uint8_t *local = a->datagram->local;
    struct session *s = a->session;

    if (!ip_is_known(local) || !g->local)
        return;
    const struct local_set *set = load_acq(g->local);

    if (set->number == s->heard_in && memcmp(s->heard, local, sizeof s->heard) == 0)
        return;
    memcpy(s->heard, local, sizeof s->heard);
    s->heard_interface = local_set_interface(set, local);
    s->heard_in = set->number;
}

void gate_pass(struct gate *g)
{
    for (uint32_t i = 0; i < g->count; i++)
        classify(g, &g->arrival[i], i > 0 ? &g->arrival[i - 1] : NULL);
    for (uint32_t i = 0; i < g->count; i++)
        look_up(g, &g->arrival[i]);
    for (uint32_t i = 0; i < g->count; i++) {
        struct arrival *a = &g->arrival[i];

        if (admit(g, a)) {
            hear(g, a);
            continue;
        }
        g->fair.strangers += a->session == NULL;
        if (!a->handed_over)
            count_drop(g, a);
        a->session = NULL;
    }
}
