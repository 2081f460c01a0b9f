#include "follow.h"
#include "rtp.h"

static const uint64_t candidate_ns = UINT64_C(5000000000); /* after which it begins anew, */
static const uint64_t steady_ns = UINT64_C(100000000);     /* or another may take its place */

/* Whether the followed SSRC has been silent for so long, by our clock and by when the kernel received:
 * what has waited in the queue meanwhile was no silence. */
static bool is_silent(struct ssrcs *k, const struct datagram *d, uint64_t silence, uint64_t now)
{
    uint64_t last = load_rlx(&k->last_ns[0]), received = k->alive_received_ns;

    if (now < last + silence)
        return false;
    /* A clock that was set back tells nothing. */
    return received == 0 || d->received_ns < received || d->received_ns - received >= silence;
}

static void follow(struct ssrcs *k, const struct datagram *d, uint32_t ssrc, uint8_t payload_type,
                   uint64_t now)
{
    ssrcs_follow(k, ssrc, payload_type, now);
    ssrcs_note_type(k, payload_type);
    k->alive_received_ns = d->received_ns;
    k->feeder = d->source;
    k->candidate.count = 0;
    k->untold = true;
}

static void admit(struct ssrcs *k, const struct datagram *d, uint32_t ssrc, uint8_t payload_type,
                  uint64_t now)
{
    uint64_t what = ssrc_what(ssrc, payload_type), was = load_rlx(&k->what[0]);

    store_rlx(&k->last_ns[0], now);
    if (was != what) {
        if (was & SSRC_EXPECTED) {
            store_rls(&k->since_ns[0], now);
            k->feeder = d->source;
            k->untold = true;
        }
        store_rls(&k->what[0], what);
        ssrcs_note_type(k, payload_type);
    }
    k->alive_received_ns = d->received_ns;
}

static bool is_candidate(const struct ssrc_candidate *c, const struct datagram *d, uint32_t ssrc,
                         uint64_t now)
{
    return c->count > 0 && c->ssrc == ssrc && addr_equal(&c->source, &d->source) &&
           now < c->last_ns + candidate_ns;
}

/* In sequence, or from here on. */
static void count(struct ssrc_candidate *c, uint16_t sequence, uint64_t now)
{
    c->count = (uint16_t)(sequence == c->next ? c->count + (c->count < FOLLOW_IN_SEQUENCE) : 1);
    c->next = (uint16_t)(sequence + 1);
    c->last_ns = now;
}

/* For how long the two sent at once, by our clock and by when the kernel received: what has waited in
 * a queue came earlier. */
static uint64_t together_ns(struct ssrcs *k, const struct ssrc_other *o)
{
    uint64_t last = load_rlx(&k->last_ns[0]), received = k->alive_received_ns;
    uint64_t ours = last > o->first_ns ? last - o->first_ns : 0, kernels = 0;

    if (received == 0 || o->first_received_ns == 0)
        return ours;
    if (received > o->first_received_ns)
        kernels = received - o->first_received_ns;
    return ours < kernels ? ours : kernels;
}

/* Whether it may take the place of the followed one by now. */
static bool may_follow(struct ssrcs *k, const struct ssrc_other *o, const struct datagram *d,
                       uint64_t now)
{
    uint64_t silence = FOLLOW_AFTER * together_ns(k, o);

    return is_silent(k, d, silence > FOLLOW_SILENCE_NS ? silence : FOLLOW_SILENCE_NS, now);
}

/* Another than the followed one, of a payload type that was admitted. */
static enum follow_verdict try(struct ssrcs *k, const struct ssrc_other *o, const uint8_t *packet,
                               const struct datagram *d, uint64_t now)
{
    struct ssrc_candidate *c = &k->candidate;
    uint16_t sequence = (uint16_t)rtp_read_u16(packet + RTP_SEQUENCE_OFFSET);

    if (is_candidate(c, d, o->ssrc, now)) {
        count(c, sequence, now);
        if (c->count < FOLLOW_IN_SEQUENCE || o->packets < FOLLOW_IN_SEQUENCE ||
            !may_follow(k, o, d, now))
            return FOLLOW_WAIT;
        follow(k, d, o->ssrc, packet[1] & RTP_PAYLOAD_TYPE, now);
        return FOLLOW_PASS;
    }
    if (c->count > 1 && now < c->last_ns + steady_ns)
        return FOLLOW_REFUSE;
    *c = (struct ssrc_candidate){d->source, o->ssrc, (uint16_t)(sequence + 1), 1, now};
    return FOLLOW_WAIT_ALONE;
}

enum follow_verdict follow_judge(struct session *s, const uint8_t *packet,
                                 const struct datagram *d, uint32_t ssrc, uint64_t now)
{
    struct ssrcs *k = s->ssrcs;
    uint8_t payload_type = packet[1] & RTP_PAYLOAD_TYPE;

    if (ssrcs_is_followed(k, ssrc)) {
        admit(k, d, ssrc, payload_type, now);
        return FOLLOW_ADMIT;
    }
    if (load_rlx(&k->what[0]) == 0 || (s->ssrc != 0 && s->ssrc == ssrc)) {
        follow(k, d, ssrc, payload_type, now);
        return FOLLOW_SWITCH;
    }
    if (load_rlx(&k->last_ns[0]) == 0) { /* the one that was followed may come as well from here on */
        store_rlx(&k->last_ns[0], now);
        k->alive_received_ns = d->received_ns;
    }
    struct ssrc_other *other = ssrcs_note_other(k, ssrc, d->received_ns, now);

    if (!other || other->is_another || !ssrcs_knows_type(k, payload_type))
        return FOLLOW_OTHER;
    if (together_ns(k, other) >= FOLLOW_TOGETHER_NS) {
        other->is_another = true;
        return FOLLOW_OTHER;
    }
    return try(k, other, packet, d, now);
}
