/* What a worker does for a session's RTCP, once a run: passes the sender report on, and tells the source
 * what is to be told. Without packets nothing is said: there is nothing to say it about. */
#include "worker.h"

/* Our own SSRC beside the source's: the same for as long as the session is here. */
static uint32_t own_ssrc(const struct worker *w, const struct session *s)
{
    uint64_t handle = session_handle(s);
    uint32_t ssrc = (uint32_t)hash_bytes(&w->gate.table->key, &handle, sizeof handle);

    return ssrc == s->ssrc ? ~ssrc : ssrc;
}

/* Of our port, or of the one above; the main one where that isn't open. */
static const struct sock *sock_of(const struct worker *w, uint16_t port, bool next)
{
    uint16_t main_port = w->sock->bound.port, number = (uint16_t)((port ? port : main_port) + next);
    const struct side_port *side =
        number != main_port && w->gate.side_ports ? side_port_at(w->gate.side_ports, number) : NULL;

    return side ? &side->sock : w->sock;
}

/* To a source of one IP address alone, and one that its packets come from: nobody is answered who may have
 * forged another's. */
static void tell_source(struct worker *w, struct session *s)
{
    struct feedback *f = s->feedback;
    struct media_clock m = rtcp_media_clock(w->gate.table->sessions, s);
    uint16_t port;
    bool next;
    struct rf_addr to = feedback_source(f, w->gate.now, &port, &next);
    uint8_t message[FEEDBACK_MESSAGE];

    if (load_rlx(&f->wanted) && exchange_seq(&f->wanted, false))
        feedback_want_keyframe(f, true, &m, w->gate.now);
    if (to.port == 0 || load_rlx(&s->feeder) != rtcp_feeder(w->gate.table, &to))
        return;
    size_t len = feedback_compose(f, message, own_ssrc(w, s), load_acq(&s->subscribers)->reporters, &m,
                                  w->gate.now);

    if (len == 0)
        return;
    bool sent = sock_send(sock_of(w, port, next), &to, s->heard, message, len) == 0;

    counter_add(sent ? &w->counters.rtcp_sent : &w->counters.rtcp_send_failures, 1);
}

/* Where anybody of a network may feed it, RTCP is expected from who does. */
static void note_fed(const struct worker *w, const struct session *s)
{
    if (load_rlx(&s->feeder) == 0 && s->feedback->fed_from.port != 0)
        familiar_note_fed(w->gate.table->familiar,
                          rtcp_feeder(w->gate.table, &s->feedback->fed_from));
}

/* For the share that keyframes have of what is sent. */
static void note_run(const struct worker *w, struct session *s)
{
    const struct reception *r = session_reception(w->gate.table->sessions, s);
    bool keyframe = load_rlx(&r->keyframes) > 0 && load_rlx(&r->key_frame) == load_rlx(&r->frames);
    uint64_t bytes = 0;

    for (const struct packet *p = s->run.first; p; p = p->next)
        bytes += p->bytes.iov_len;
    if (bytes > 0)
        feedback_count_run(s->feedback, bytes, keyframe, w->gate.now);
}

/* Subscribers speak of what they are sent, and their sessions are in no index by that. */
static void note_alias(const struct worker *w, struct session *s)
{
    struct rf_source_ssrc now[SSRCS_MOST];

    if (load_rlx(&s->own_port))
        alias_note(w->gate.table->aliases,
                   rtcp_media_clock(w->gate.table->sessions, s).ssrc, s->index);
    if (!(load_rlx(&s->gating) & (GATING_FOLLOW | GATING_ANY)))
        return;
    for (unsigned n = ssrcs_read(s->ssrcs, now), i = 0; i < n; i++)
        alias_note(w->gate.table->aliases, now[i].ssrc, s->index);
}

/* The last report is of who sends now, where that is one alone: an SSRC that is followed no more says nothing
 * to who joins. */
static bool is_of_now(const struct worker *w, const struct session *s)
{
    return load_rlx(&s->gating) & GATING_ANY || load_rlx(&s->own_port) ||
           rtp_read_u32(s->feedback->report + 4) ==
               rtcp_media_clock(w->gate.table->sessions, s).ssrc;
}

void worker_feedback(struct worker *w, struct session *s)
{
    struct feedback *f = s->feedback;
    const struct subscriber_list *list = load_acq(&s->subscribers);

    f->due = false;
    if (load_rlx(&s->gating) & GATING_PAUSED)
        return;
    if (load_rlx(&f->forget) && exchange_seq(&f->forget, false))
        feedback_begin(f);
    note_run(w, s);
    note_fed(w, s);
    if (list->reporters)
        note_alias(w, s);
    if (feedback_passes(f, list->reporters, w->gate.now) && is_of_now(w, s))
        plan_report(&w->plan, s, list, w->gate.now);
    tell_source(w, s);
}
