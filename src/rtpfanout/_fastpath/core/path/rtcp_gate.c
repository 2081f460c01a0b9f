#include "rtcp_gate.h"

#include <errno.h>
#include <stdlib.h>

enum {
    /* Datagrams a second, of those from whom RTCP is expected, and of strangers. */
    FAMILIAR_A_SECOND = 20000,
    STRANGERS_A_SECOND = 2000,
    EACH_A_SECOND = 50, /* of one subscriber, of one session's source */
    ADDRESSES = 1 << 14, /* buckets for those; they share one rarely */
    NAMESAKES = 64,     /* sessions of one SSRC that are looked at */
};

#define SECOND UINT64_C(1000000000)

int rtcp_gate_init(struct rtcp_gate *g)
{
    g->address_full_at = calloc(ADDRESSES, sizeof *g->address_full_at);
    return g->address_full_at ? 0 : -ENOMEM;
}

void rtcp_gate_destroy(struct rtcp_gate *g)
{
    free(g->address_full_at);
}

uint64_t rtcp_feeder(const struct table *t, const struct rf_addr *addr)
{
    return familiar_host(&t->key, addr);
}

static bool within(uint64_t *full_at, uint64_t now, uint64_t each, uint64_t at_once)
{
    uint64_t full = (*full_at > now ? *full_at : now) + each;

    if (full > now + at_once)
        return false;
    *full_at = full;
    return true;
}

/* Strangers have a bucket of their own, and each address from where RTCP is expected: nobody takes an
 * other's place. A tenth of a second's at once; of an address a second's. */
static bool within_rate(struct rtcp_gate *g, const struct familiarity *f, uint64_t now)
{
    uint64_t n = f->reporters > 0 ? f->reporters + (f->sources > 0) : f->sources;

    if (n == 0)
        return within(&g->strangers_full_at, now, SECOND / STRANGERS_A_SECOND, SECOND / 10);
    return within(&g->address_full_at[f->hash >> 24 & (ADDRESSES - 1)], now,
                  SECOND / EACH_A_SECOND / n, SECOND) &&
           within(&g->full_at, now, SECOND / FAMILIAR_A_SECOND, SECOND / 10);
}

static bool is_source(const struct table *t, struct session *s, const struct rf_addr *from)
{
    uint64_t feeder = load_rlx(&s->feeder);

    return feeder != 0 && feeder == rtcp_feeder(t, from);
}

static unsigned owner_of(const struct session *s)
{
    return load_rlx(&s->owner) & OWNER_MASK;
}

static struct reporter *look_for(struct session *s, const struct rf_addr *from)
{
    return reporters_match(load_acq(&s->subscribers)->reporters, from);
}

/* A session that is in no index by its SSRC: whose source that is or, where `reporter` isn't NULL, whose
 * subscriber. */
static struct session *find_alias(const struct table *t, uint32_t ssrc, const struct rf_addr *from,
                                  struct reporter **reporter)
{
    unsigned way = 0;
    uint32_t index;

    while (alias_next(t->aliases, ssrc, &way, &index)) {
        struct session *s = session_at(t->sessions, index);

        if (load_rlx(&s->gating) & GATING_UNHEARD) /* or its owner would note it once more */
            continue;
        if (reporter)
            *reporter = look_for(s, from);
        if (reporter ? *reporter != NULL : is_source(t, s, from))
            return s;
    }
    return NULL;
}

/* First those whose own packets come from that very address or the port below: many may share an IP
 * address and an SSRC. `feeds`: some session's source has that IP address. */
static struct session *find_source(const struct table *t, uint32_t ssrc, const struct rf_addr *from,
                                   bool feeds, uint64_t now)
{
    struct rf_addr at = *from;
    struct session *namesake, *latching, *s = NULL;
    struct table_key key = table_key(t, ssrc, from);

    for (int below = 0; !s && below < 2; below++, at.port--) {
        struct table_key exact = table_key(t, ssrc, &at);

        s = table_find(t, &exact);
    }
    if (s || (s = find_alias(t, ssrc, from, NULL)))
        return s;
    if (!(namesake = table_namesake(t, &key, &s)) || s)
        return s;
    for (unsigned looked = 0; feeds && namesake && looked < NAMESAKES; looked++) {
        if (is_source(t, namesake, from))
            return namesake;
        namesake = load_acq(&namesake->ssrc_next);
    }
    return table_match(t, &key, now, &latching);
}

/* NULL: it is nobody of any session of that SSRC; `*known`: there is one. `reports`: who has RTCP may be
 * there. */
static struct reporter *find_reporter(const struct table *t, uint32_t ssrc, const struct rf_addr *from,
                                      bool reports, struct session **session, bool *known)
{
    struct table_key key = table_key(t, ssrc, from);
    struct session *fed, *s;
    struct reporter *r = NULL;

    if (reports && (*session = find_alias(t, ssrc, from, &r)))
        return r;
    s = table_namesake(t, &key, &fed);
    *known |= s != NULL;
    for (unsigned looked = 0; reports && s && looked < NAMESAKES; looked++, s = load_acq(&s->ssrc_next)) {
        r = look_for(s, from);
        *session = s;
        if (r)
            return r;
    }
    return NULL;
}

/* One that takes any SSRC of its source. */
static struct session *find_sender(const struct table *t, const struct rf_addr *from, uint64_t now)
{
    struct rf_addr at = *from;
    struct session *s = NULL, *latching;

    for (int below = 0; !s && below < 2 && table_has_senders(t); below++, at.port--)
        s = table_match_sender(t, &at, now, &latching);
    return s;
}

/* NULL: it is from neither. */
static struct session *find_at_port(const struct table *t, const struct side_ports *ports,
                                    const struct datagram *d, uint64_t now)
{
    const struct side_port *port = side_port_at(ports, d->port);
    struct session *s = port ? port->session : NULL, *latching;
    bool by_network;

    if (!s)
        return NULL;
    return is_source(t, s, &d->source) ||
                   session_admits(s, &d->source, now, &by_network, &latching) ||
                   look_for(s, &d->source)
               ? s
               : NULL;
}

static struct session *find(struct rtcp_gate *g, const struct table *t, const struct side_ports *ports,
                            const struct datagram *d, const uint8_t *data, uint32_t len, bool limited,
                            uint64_t now, enum rtcp_verdict *why)
{
    struct familiarity f = familiar_with(t->familiar, &d->source);
    uint32_t media[RTCP_SSRCS];
    bool known = false;

    *why = RTCP_DROPPED_rate;
    if (limited && !within_rate(g, &f, now))
        return NULL;
    *why = RTCP_DROPPED_malformed;
    if (!rtcp_is_valid(data, len))
        return NULL;
    *why = RTCP_DROPPED_unknown_sender;
    if (d->kind == PORT_SESSION_RTP || d->kind == PORT_SESSION_RTCP)
        return find_at_port(t, ports, d, now);
    uint32_t sender = rtcp_sender(data, len);
    struct session *s = find_source(t, sender, &d->source, f.sources > 0, now);

    if (s)
        return s;
    unsigned n = rtcp_media(data, len, media);

    for (unsigned i = 0; i < n; i++) {
        if (find_reporter(t, media[i], &d->source, f.reporters > 0, &s, &known))
            return s;
    }
    s = find_sender(t, &d->source, now);
    if (s)
        return s;
    struct table_key key = table_key(t, sender, &d->source);

    if (!known && !table_namesake(t, &key, &s))
        *why = RTCP_DROPPED_wrong_ssrc;
    return NULL;
}

/* Of a session that nobody owns: there is nothing to compare it with yet. */
struct session *rtcp_find(struct rtcp_gate *g, const struct table *t, const struct side_ports *ports,
                          const struct datagram *d, const uint8_t *data, uint32_t len, bool limited,
                          uint64_t now, enum rtcp_verdict *why)
{
    struct session *s = find(g, t, ports, d, data, len, limited, now, why);

    if (!s || (owner_of(s) != 0 && !(load_rlx(&s->gating) & GATING_UNHEARD)))
        return s;
    *why = RTCP_DROPPED_implausible;
    return NULL;
}

/* RFC 3550 section 6.4.1, of the packets that the session is received by. */
struct media_clock rtcp_media_clock(const struct session_pool *p, const struct session *s)
{
    const struct reception *r = session_reception(p, s);
    struct reception_view v;
    enum rf_origin from;

    (void)reception_read(r, &v); /* it is the owner who asks: the fields belong together */
    uint32_t rate = reception_clock(v.asked, v.encoding, v.payload_type, &from);
    uint64_t expected = v.before + v.highest - v.base + 1;
    struct media_clock m = {.ssrc = v.packet_ns ? v.ssrc : s->ssrc, .rate = rate};

    if (v.packet_ns == 0)
        return m;
    m.at_ns = v.frame_ns;
    m.timestamp = v.timestamp;
    m.keyframes = payload_has_keyframes(v.encoding) ? v.keyframes : 0;
    m.expected = expected;
    m.received = expected - v.lost + v.duplicates;
    m.sequence = v.highest - 65536; /* it counts one cycle more */
    m.jitter = (uint32_t)((uint64_t)v.jitter * rate / (UINT64_C(1000000000) * 16 >> JITTER_BITS));
    return m;
}

static void put_due(struct rtcp_gate *g, struct session *s)
{
    struct feedback *f = s->feedback;

    if (f->due)
        return;
    f->due = true;
    f->due_next = g->due;
    g->due = s;
}

static bool is_of(const struct media_clock *m, const uint8_t *data, uint32_t len)
{
    return rtcp_sender(data, len) == m->ssrc;
}

/* A session of several SSRCs: the one that is spoken of. */
static void choose_ssrc(struct media_clock *m, const uint8_t *data, uint32_t len, bool from_source)
{
    uint32_t media[RTCP_SSRCS], ssrc = rtcp_sender(data, len);
    unsigned n = from_source ? 0 : rtcp_media(data, len, media);

    for (unsigned i = 0; i < n; i++) {
        if (media[i] == m->ssrc)
            return;
        ssrc = media[0];
    }
    m->several = true;
    m->other = ssrc != m->ssrc;
    m->ssrc = ssrc;
}

/* Who is sent several sessions, or sends one, tells of all in one datagram. Of sessions with another owner
 * it is not heard. */
static void take_more(struct rtcp_gate *g, const struct table *t, const struct session *first,
                      const struct datagram *d, const uint8_t *data, uint32_t len, uint64_t now)
{
    uint32_t media[RTCP_SSRCS];
    unsigned n = rtcp_media(data, len, media);
    bool known = false;

    for (unsigned i = 0; i < n; i++) {
        struct session *s;
        struct reporter *r = find_reporter(t, media[i], &d->source, true, &s, &known);

        if (!r || s == first || owner_of(s) != owner_of(first) ||
            load_rlx(&s->gating) & (GATING_PAUSED | GATING_UNHEARD))
            continue;
        struct media_clock m = rtcp_media_clock(t->sessions, s);

        fetch_or_acq_rel(&s->gating, (uint16_t)GATING_FEEDBACK);
        feedback_take_reporter(s->feedback, r, data, len, &m, now);
        put_due(g, s);
    }
}

/* Of which packets came lately. Where it takes one alone that is asked elsewhere. */
static bool sends(const struct session *s, uint32_t ssrc)
{
    struct rf_source_ssrc now[SSRCS_MOST];
    unsigned n = load_rlx(&s->gating) & GATING_ANY ? ssrcs_read(s->ssrcs, now) : 0;
    bool has = n == 0;

    for (unsigned i = 0; i < n; i++)
        has |= now[i].ssrc == ssrc;
    return has;
}

enum rtcp_verdict rtcp_take(struct rtcp_gate *g, const struct table *t, struct session *s,
                            const struct datagram *d, const uint8_t *data, uint32_t len, uint64_t now)
{
    struct media_clock m = rtcp_media_clock(t->sessions, s);
    struct feedback *f = s->feedback;
    enum rtcp_verdict verdict;

    if (load_rlx(&s->gating) & GATING_PAUSED)
        return RTCP_DROPPED_paused;
    if (load_rlx(&f->forget) && exchange_seq(&f->forget, false))
        feedback_begin(f); /* first: what is to be taken now is of the source that it has now */
    fetch_or_acq_rel(&s->gating, (uint16_t)GATING_FEEDBACK);
    struct reporter *r = reporters_match(load_acq(&s->subscribers)->reporters, &d->source);
    bool srtp = load_rlx(&s->gating) & GATING_SRTP;
    /* A subscriber may say that it has any SSRC. */
    bool from_source = !r || (is_of(&m, data, len) && is_source(t, s, &d->source));

    /* While it moves, its old source is still found by where it was. */
    if (from_source && load_rlx(&s->feeder) != 0 && !is_source(t, s, &d->source))
        return RTCP_DROPPED_unknown_sender;
    if (load_rlx(&s->gating) & GATING_ANY || load_rlx(&s->own_port))
        choose_ssrc(&m, data, len, from_source);
    if (from_source && !sends(s, m.ssrc))
        return RTCP_DROPPED_implausible; /* its clock would be nobody's */
    if (from_source) {
        verdict = feedback_take_source(f, data, len, srtp, &m, now);
        if (is_source(t, s, &d->source)) {
            f->spoken_by = d->source;
            f->spoken_to = d->port;
            f->spoken_ns = now;
        }
    } else {
        verdict = feedback_take_reporter(f, r, data, len, &m, now);
    }
    put_due(g, s);
    take_more(g, t, s, d, data, len, now);
    return verdict;
}
