#include "follow.h"
#include "rtp.h"

static const uint64_t candidate_ns = UINT64_C(5000000000); /* after which it begins anew, */
static const uint64_t steady_ns = UINT64_C(100000000);     /* or another may take its place; */
static const uint64_t rival_ns = UINT64_C(1000000000);     /* beside the followed one */

/* How long the followed SSRC has been silent, by our clock and by when the kernel received: what
 * has waited in the queue meanwhile was no silence. */
static bool is_silent(struct ssrcs *k, const struct datagram *d, uint64_t now)
{
    uint64_t last = load_rlx(&k->last_ns[0]), received = k->alive_received_ns;

    if (now < last + FOLLOW_SILENCE_NS)
        return false;
    /* A clock that was set back tells nothing. */
    return received == 0 || d->received_ns < received ||
           d->received_ns - received >= FOLLOW_SILENCE_NS;
}

static void follow(struct ssrcs *k, const struct datagram *d, uint32_t ssrc, uint8_t payload_type,
                   uint64_t now)
{
    ssrcs_follow(k, ssrc, payload_type, now);
    ssrcs_note_type(k, payload_type);
    k->alive_received_ns = d->received_ns;
    k->candidate.count = 0;
    k->has_rival = false;
    k->untold = true;
}

static void admit(struct ssrcs *k, const struct datagram *d, uint32_t ssrc, uint8_t payload_type,
                  uint64_t now)
{
    uint64_t what = ssrc_what(ssrc, payload_type);

    store_rlx(&k->last_ns[0], now);
    if (load_rlx(&k->what[0]) != what) {
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

/* It came long enough while the followed one came, too: two at once are no restart. What it sends is
 * kept again when the other is silent. */
static enum follow_verdict wait_for(struct ssrcs *k, const struct datagram *d, uint64_t now,
                                    enum follow_verdict verdict)
{
    struct ssrc_candidate *c = &k->candidate;

    if (k->has_rival && k->rival == c->ssrc && !is_silent(k, d, now))
        return FOLLOW_REFUSE;
    if (now >= c->began_ns + rival_ns && !is_silent(k, d, now)) {
        k->rival = c->ssrc;
        k->has_rival = true;
        return FOLLOW_REFUSE;
    }
    return verdict;
}

enum follow_verdict follow_judge(struct session *s, const uint8_t *packet,
                                 const struct datagram *d, uint32_t ssrc, uint64_t now)
{
    struct ssrcs *k = s->ssrcs;
    struct ssrc_candidate *c = &k->candidate;
    uint8_t payload_type = packet[1] & RTP_PAYLOAD_TYPE;
    uint16_t sequence = (uint16_t)rtp_read_u16(packet + RTP_SEQUENCE_OFFSET);

    if (ssrcs_is_followed(k, ssrc)) {
        admit(k, d, ssrc, payload_type, now);
        return FOLLOW_ADMIT;
    }
    if (load_rlx(&k->what[0]) == 0 || (s->ssrc != 0 && s->ssrc == ssrc)) {
        follow(k, d, ssrc, payload_type, now);
        return FOLLOW_SWITCH;
    }
    if (!ssrcs_knows_type(k, payload_type))
        return FOLLOW_REFUSE;
    if (is_candidate(c, d, ssrc, now)) {
        count(c, sequence, now);
        if (c->count == FOLLOW_IN_SEQUENCE && is_silent(k, d, now)) {
            follow(k, d, ssrc, payload_type, now);
            return FOLLOW_PASS;
        }
        return wait_for(k, d, now, FOLLOW_WAIT);
    }
    if (c->count > 1 && now < c->last_ns + steady_ns)
        return FOLLOW_REFUSE;
    *c = (struct ssrc_candidate){d->source, ssrc, (uint16_t)(sequence + 1), 1, now, now};
    return wait_for(k, d, now, FOLLOW_WAIT_ALONE);
}
