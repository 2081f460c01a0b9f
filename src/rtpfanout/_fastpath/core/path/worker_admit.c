/* What a worker takes in: buffers and parcels through the gate, into the runs of their sessions. */
#include "worker.h"

#include <arpa/inet.h>

enum { CLOCKS_STEADY_NS = 20000 }; /* from one block to the next */

static uint16_t mark_of(const struct session *s, const struct datagram *d, unsigned gating)
{
    if (!(gating & GATING_MARKED)) /* the mark is in another cache line */
        return 0;
    uint16_t mark = load_rlx(&s->mark);

    return mark == MARK_COPY ? (uint16_t)(MARKED | (d->tos & MARK_DSCP)) : mark;
}

/* By CLOCK_MONOTONIC; `received_ns` is of CLOCK_REALTIME, or 0. */
static uint64_t came_at(const struct worker *w, uint64_t received_ns)
{
    uint64_t at = received_ns - w->clocks_ahead;

    return received_ns != 0 && at < w->gate.now ? at : w->gate.now;
}

/* What packets that came at once tell of how their session is received. */
static void note_reception(struct worker *w, const struct arrival *a, const struct packet *first,
                           unsigned n)
{
    struct session *s = a->session;
    struct reception *r = session_reception(w->gate.table->sessions, s);
    struct reception_packet p = {.now = came_at(w, a->datagram->received_ns),
                                 .several = load_rlx(&s->gating) & GATING_ANY};

    for (unsigned i = 0; i < n;) {
        p.data = a[i].data;
        p.len = a[i].len;
        if (reception_take(r, &p))
            session_keep_sets(s, &w->spares, (enum rf_encoding)load_rlx(&r->encoding),
                              payload_of(p.data, p.len), w->gate.now);
        if (++i < n)
            i += reception_take_alike(r, first + i, n - i, p.now);
    }
}

/* Of several SSRCs: of the one that its reception follows, and of the one that repairs that. */
static void note_repairs(struct worker *w, const struct arrival *a, unsigned n)
{
    struct session *s = a->session;
    uint32_t followed = ntohl(load_rlx(&session_reception(w->gate.table->sessions, s)->ssrc));

    for (unsigned i = 0; i < n; i++) {
        uint32_t ssrc = rtp_read_u32(a[i].data + RTP_SSRC_OFFSET);

        if ((ssrc ^ followed) <= 1)
            feedback_note_packet(s->feedback, ssrc, (uint16_t)rtp_read_u16(a[i].data + 2),
                                 w->gate.now);
    }
}

/* `n` packets of one datagram and one session. */
static void accept_packets(struct worker *w, const struct arrival *a, unsigned n)
{
    struct packet *first = &w->packets[w->packet_count];
    struct session *s = a->session;
    unsigned gating = load_rlx(&s->gating);
    uint32_t subscribers = subscribers_served(load_acq(&s->subscribers));
    uint16_t mark = mark_of(s, a->datagram, gating);
    uint64_t bytes = 0;

    if (!s->run.first)
        w->sessions[w->session_count++] = s;
    for (unsigned i = 0; i < n; i++) {
        struct packet *p = &w->packets[w->packet_count++];

        *p = (struct packet){.bytes = {a[i].data, a[i].len},
                             .received_ns = a->datagram->received_ns,
                             .mark = mark};
        budget_charge(&w->budget, subscribers, run_append(&s->run, p, w->gso));
        bytes += a[i].len;
    }
    counter_add(&s->counters.packets_received, n);
    counter_add(&s->counters.bytes_received, bytes);
    store_rlx(&s->last_packet_ns, w->now);
    counter_add(&w->counters.packets_forwarded, n);
    note_reception(w, a, first, n);
    if (gating & GATING_FEEDBACK) {
        s->feedback->fed_from = a->datagram->source;
        s->feedback->fed_to = a->datagram->port;
        if (load_acq(&s->feedback->repairs))
            note_repairs(w, a, n);
    }
}

/* What was held, and goes before the packet by which that was found out. */
static void accept_held(struct worker *w, uint8_t number)
{
    struct hold *hold = hold_at(&w->gate.holding, number);
    struct arrival before = {.session = hold->session};
    struct held *held;

    if (w->packet_count + hold->packets + GATE_BLOCK > TURN_PACKETS)
        worker_fan_out(w);
    for (held = hold_take(&w->gate.holding, hold); held; held = held->next) {
        before.data = held->datagram.data;
        before.len = held->datagram.len;
        before.datagram = &held->datagram;
        accept_packets(w, &before, 1);
    }
}

/* How long it has waited since the kernel received it, where `now` is CLOCK_REALTIME. */
static uint64_t age_of(const struct datagram *d, uint64_t now)
{
    return d->received_ns != 0 && now > d->received_ns ? now - d->received_ns : 0;
}

/* Of the buffers that were taken to the gate nothing is needed any more, see ingress.h. */
void worker_settle(struct worker *w)
{
    ingress_settle(w->ingress, w->settled, w->taken);
    w->settled = w->taken;
}

/* CLOCK_REALTIME, and by how much it is ahead of CLOCK_MONOTONIC. Who loses his CPU between the two
 * looks again: it would be taken for jitter. */
static uint64_t read_clocks(struct worker *w, uint64_t *now)
{
    uint64_t realtime, ahead;
    unsigned tries = 0;

    do {
        *now = clock_ns(CLOCK_MONOTONIC);
        realtime = clock_ns(CLOCK_REALTIME);
        ahead = realtime - *now;
    } while (ahead - w->clocks_ahead + CLOCKS_STEADY_NS > 2 * CLOCKS_STEADY_NS && ++tries < 3);
    w->clocks_ahead = ahead;
    return realtime;
}

/* How many from `a` on came at once, and to one session. */
static unsigned count_together(const struct arrival *a, const struct arrival *end)
{
    unsigned n = 1;

    while (a + n < end && a[n].session == a->session && a[n].datagram == a->datagram && !a[n].first)
        n++;
    return n;
}

static void accept_block(struct worker *w)
{
    const struct arrival *a = w->gate.arrival, *end = a + w->gate.count;

    for (const struct arrival *each = a; each < end; each++) {
        if (each->session && !each->alike)
            __builtin_prefetch(load_rlx(&each->session->subscribers));
    }
    while (a < end) {
        unsigned n = count_together(a, end);

        if (a->first)
            accept_held(w, a->first);
        if (a->session)
            accept_packets(w, a, n);
        a += n;
    }
}

/* What was admitted is sent before it becomes too much for a time, see budget.h. */
static void pass_gate(struct worker *w)
{
    if (w->gate.count == 0)
        return;
    uint64_t now, realtime = read_clocks(w, &now);

    store_rlx(&w->alive_ns, now);
    budget_learn(&w->budget, now - w->gate.now);
    w->gate.now = now;
    fair_block(&w->gate.fair, w->gate.now,
               age_of(w->gate.arrival[w->gate.count - 1].datagram, realtime));
    gate_pass(&w->gate);
    accept_block(w);
    w->gate.count = 0;
    if (budget_is_spent(&w->budget) || w->packet_count + GATE_BLOCK > TURN_PACKETS) {
        worker_fan_out(w);
        worker_settle(w); /* but for the one at hand */
        budget_renew(&w->budget, true);
        qsbr_quiescent(w->qsbr, w->options.index);
        w->out_of_time = worker_out_of_time(w);
    }
}

/* Every packet of the buffer: to the gate, or dropped. */
static void take_datagram(struct worker *w, const struct datagram *d)
{
    uint32_t at = 0;

    counter_add(&w->counters.bytes_received, d->len);
    if (d->truncated) {
        counter_add(&w->counters.packets_received, 1);
        stats_count_drop(&w->counters, DROP_truncated);
        return;
    }
    do {
        uint32_t left = d->len - at, len = left < d->segment ? left : d->segment;

        counter_add(&w->counters.packets_received, 1);
        if (w->out_of_time)
            stats_count_drop(&w->counters, DROP_overload);
        else if (gate_add(&w->gate, d->data + at, len, d))
            pass_gate(w);
        at += len;
    } while (at < d->len);
}

/* From inboxes come packets that another worker has counted as received. A time of its own, so that
 * buffers which take all of theirs leave it some. */
void worker_admit_inbox(struct worker *w)
{
    uint64_t end = (w->gate.now > w->now ? w->gate.now : w->now) + TURN_NS;
    struct parcel *p;

    while (inbox_held(w->inbox) < INBOX_TURN && w->gate.now < end && (p = inbox_take(w->inbox))) {
        if (w->out_of_time)
            stats_count_drop(&w->counters, DROP_overload);
        else if (gate_add_parcel(&w->gate, p))
            pass_gate(w);
    }
    pass_gate(w);
}

static enum port_kind kind_of(const struct worker *w, uint16_t number)
{
    if (number == 0)
        return PORT_RTP;
    const struct side_port *port = w->side_ports ? side_port_at(w->side_ports, number) : NULL;

    return port ? port->kind : PORT_CLOSED;
}

/* Until the turn has lasted long enough; the others are for the next one. */
void worker_admit_buffers(struct worker *w)
{
    while (w->taken < w->filled && w->gate.now < w->now + TURN_NS) {
        struct datagram *d = &w->datagrams[w->taken];

        ingress_datagram(w->ingress, w->taken, d);
        d->kind = kind_of(w, d->port);
        take_datagram(w, d);
        w->taken++;
        if (w->gate.count == 0 && w->packet_count == 0) /* all that came so far has left */
            worker_settle(w);
    }
    pass_gate(w);
}
