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

/* Payload types 64 to 95 with marker look like RTCP (RFC 5761 section 4): where some session says
 * that it has no RTCP here, it may be one of its packets. */
static bool may_be_rtp(const struct gate *g, const struct arrival *a)
{
    return load_rlx(&g->table->without_rtcp) > 0 && !port_is_rtcp(a->datagram->kind) &&
           rtp_header_len(a->data, a->len) > 0;
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

/* Whether it comes from where its neighbour came from, to where that came, with the same SSRC: then it is
 * the same session's, as frames come in bursts. */
static bool is_alike(const struct arrival *a, uint32_t ssrc, const struct arrival *previous)
{
    const struct datagram *d = a->datagram, *before = previous->datagram;

    if (a->kind != RTP_PACKET || previous->kind != RTP_PACKET || ssrc != previous->key.ssrc)
        return false;
    return d == before || (d->kind == before->kind && d->port == before->port &&
                           addr_equal(&d->source, &before->source));
}

/* What the packet is, and for RTP the key to look it up by. */
static void classify(struct gate *g, struct arrival *a, const struct arrival *previous)
{
    uint32_t ssrc = 0;

    a->kind = rtp_classify(a->data, a->len, &ssrc);
    if (previous && is_alike(a, ssrc, previous)) {
        a->alike = true;
        a->key = previous->key;
        return;
    }
    if (is_own(g, &a->datagram->source)) {
        a->kind = RTP_FOREIGN;
        a->reason = DROP_loop;
        return;
    }
    if (a->datagram->kind != PORT_RTP && !is_of_port(a))
        return;
    if (a->kind == RTP_CONTROL && may_be_rtp(g, a))
        ssrc = rtp_read_u32(a->data + RTP_SSRC_OFFSET);
    else if (a->kind != RTP_PACKET) {
        a->reason = a->kind == RTP_CONTROL   ? DROP_rtcp
                    : a->kind == RTP_FOREIGN ? take_foreign(g, a)
                                             : DROP_malformed;
        return;
    }
    if (a->datagram->kind == PORT_SESSION_RTP) {
        a->key = (struct table_key){.ssrc = ssrc, .source = &a->datagram->source}; /* not looked up */
        return;
    }
    a->key = table_key(g->table, ssrc, &a->datagram->source);
    table_prefetch(g->table, &a->key);
    if (g->senders)
        known_prefetch(&g->known, a->key.hash);
}

/* Whose it may be: what will be read and written of that begins to be loaded, for all of the block at once. */
static void peek(const struct gate *g, const struct arrival *a)
{
    const struct session_pool *pool = g->table->sessions;
    uint32_t at;

    if (a->alike || !a->key.hash || !index_peek(&g->table->by_source, a->key.hash, &at))
        return;
    session_prefetch(session_at(pool, at));
    reception_prefetch(&pool->reception_chunks[at / SESSION_CHUNK][at % SESSION_CHUNK]);
}

/* No session admits it; but one may latch on to it. */
static void await_latch(struct arrival *a, struct session *latching)
{
    a->refuser = latching;
    a->reason = a->datagram->source.port == 0 ? DROP_no_port : DROP_latching;
}

/* By_source does not know it. A session that has the SSRC for itself goes before one that takes any,
 * one that is fed before one that latches. */
static void look_up_others(struct gate *g, struct arrival *a)
{
    const struct rf_addr *source = &a->datagram->source;
    struct session *latching = NULL, *other = NULL;
    uint64_t epoch = table_epoch(g->table);

    a->reason = DROP_unknown_ssrc;
    a->refuser = table_namesake(g->table, &a->key, &a->session);
    if (a->refuser && !a->session) {
        a->reason = DROP_wrong_source;
        a->session = table_match(g->table, &a->key, g->now, &latching);
    }
    if (!a->session && g->senders) {
        a->session = table_match_sender(g->table, source, g->now, &other);
        if (a->session)
            known_put(&g->known, &a->key, a->session, epoch);
    }
    latching = latching ? latching : other;
    if (a->session) {
        a->by_network = session_is_wide(a->session);
    } else if (latching) {
        await_latch(a, latching);
    }
}

/* How the session reads it that has it, or may come to have it. */
static unsigned reading_of(const struct arrival *a)
{
    struct session *s = a->session || a->reason != DROP_latching ? a->session : a->refuser;

    return s ? load_rlx(&s->gating) : 0;
}

/* Of a packet with padding: whether that is to be asked, and is as it has to be. */
static bool padding_is_right(const struct gate *g, const struct arrival *a)
{
    unsigned gating = reading_of(a);

    if (gating & GATING_NO_PADDING || (!g->check_padding && !(gating & GATING_PADDING)))
        return true;
    return rtp_padding_fits(a->data, a->len);
}

/* It is of nobody after all. */
static void give_up(struct arrival *a, enum rtp_kind kind, enum drop_reason reason)
{
    a->session = a->refuser = NULL;
    a->kind = kind;
    a->reason = reason;
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
    a->reason = DROP_wrong_source;
    if (session_admits(port->session, &a->datagram->source, g->now, &a->by_network, &latching))
        a->session = port->session;
    else if (latching)
        await_latch(a, latching);
}

static void look_up_main(struct gate *g, struct arrival *a)
{
    a->session = table_find(g->table, &a->key);
    if (!a->session && g->senders && (a->session = known_find(&g->known, g->table, &a->key))) {
        a->by_network = session_is_wide(a->session);
        ssrcs_prefetch(a->session->ssrcs);
    }
    if (!a->session)
        look_up_others(g, a);
}

static void look_up_rtcp(struct gate *g, struct arrival *a)
{
    enum rtcp_verdict why;

    give_up(a, RTP_CONTROL, DROP_rtcp);
    a->session = rtcp_find(&g->rtcp, g->table, g->side_ports, a->datagram, a->data, a->len,
                           !a->owner, g->now, &why);
    if (!a->session)
        stats_count_rtcp(g->counters, why);
}

/* What was found for the packet before it. */
static void take_after(struct arrival *a, const struct arrival *previous)
{
    a->session = previous->session;
    a->refuser = previous->refuser;
    a->reason = previous->reason;
    a->by_network = previous->by_network;
}

static void look_up_rtp(struct gate *g, struct arrival *a)
{
    if (a->datagram->kind == PORT_SESSION_RTP)
        look_up_port(g, a);
    else
        look_up_main(g, a);
    if (a->session) /* which is noted in it if it gets in: the misses overlap here */
        reception_prefetch(session_reception(g->table->sessions, a->session));
}

static void look_up(struct gate *g, struct arrival *a)
{
    if (!a->key.source) {
        if (a->kind == RTP_CONTROL)
            look_up_rtcp(g, a);
        return;
    }
    if (a->alike && a[-1].kind == RTP_PACKET)
        take_after(a, a - 1);
    else
        look_up_rtp(g, a);
    if (a->kind == RTP_CONTROL) {
        if (reading_of(a) & GATING_NO_RTCP)
            a->kind = RTP_PACKET;
        else
            look_up_rtcp(g, a);
    }
    if (a->data[0] & RTP_PADDING && a->kind == RTP_PACKET && !padding_is_right(g, a))
        give_up(a, RTP_MALFORMED, DROP_malformed);
}

static inline void note_knock(struct gate *g, const struct arrival *a)
{
    const struct rf_addr *source = &a->datagram->source;

    if (!g->knocks)
        return;
    uint64_t hash = a->key.hash ? a->key.hash : table_key(g->table, a->key.ssrc, source).hash;

    knock(g->knocks, hash, source, a->data, a->reason, a->refuser, g->now);
}

static inline void count_drop(struct gate *g, const struct arrival *a)
{
    struct session *s = a->session ? a->session : a->refuser;

    stats_count_drop(g->counters, a->reason);
    if (s)
        session_count_refusal(s, a->reason, &a->datagram->source);
    if (a->kind == RTP_PACKET && !a->session)
        note_knock(g, a);
}

void gate_count_drop(struct gate *g, const struct arrival *a)
{
    count_drop(g, a);
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

/* Whether it is one of those that gate_admits has nothing to ask about, nearly all. */
static inline bool is_simple(const struct gate *g, const struct arrival *a)
{
    struct session *s = a->session;

    return s && a->kind == RTP_PACKET && !a->owner && !a->by_network && !g->fair.watching &&
           (load_rlx(&s->owner) & OWNER_MASK) == g->worker + 1 &&
           !(load_rlx(&s->gating) & GATING_ASKED);
}

void gate_pass(struct gate *g)
{
    g->senders = table_has_senders(g->table);
    for (uint32_t i = 0; i < g->count; i++)
        classify(g, &g->arrival[i], i > 0 ? &g->arrival[i - 1] : NULL);
    for (uint32_t i = 0; i < g->count; i++)
        peek(g, &g->arrival[i]);
    for (uint32_t i = 0; i < g->count; i++)
        look_up(g, &g->arrival[i]);
    for (uint32_t i = 0; i < g->count; i++) {
        struct arrival *a = &g->arrival[i];

        bool admitted = is_simple(g, a) || gate_admits(g, a);

        if (admitted ? !a->alike || a[-1].datagram != a->datagram || a[-1].session != a->session
                     : a->first && a->session)
            hear(g, a);
        if (admitted)
            continue;
        g->fair.strangers += a->session == NULL;
        if (a->reason == DROP_latching && gate_await(g, a)) {
            a->held = true;
            note_knock(g, a);
        }
        if (!a->handed_over && !a->held)
            count_drop(g, a);
        a->session = NULL;
    }
}
