#include "ssrcs.h"

static const uint64_t shown_ns = UINT64_C(10000000000);
static const uint64_t steady_ns = UINT64_C(100000000); /* for which who came once keeps his place; */
static const uint64_t pause_ns = UINT64_C(5000000000);  /* after which another begins anew; */
static const uint64_t gone_ns = UINT64_C(60000000000); /* after which its place may be taken */

/* A reader that meets it half-written finds no SSRC there, or another one after it. */
static void begin(struct ssrcs *k, unsigned at, uint64_t what, uint64_t now)
{
    store_rls(&k->what[at], 0);
    store_rls(&k->since_ns[at], now);
    store_rls(&k->last_ns[at], now);
    store_rls(&k->what[at], what);
}

bool ssrcs_note(struct ssrcs *k, uint32_t ssrc, uint8_t payload_type, uint64_t now)
{
    unsigned oldest = 0;

    for (unsigned i = 0; i < SSRCS_MOST; i++) {
        uint64_t what = load_rlx(&k->what[i]);

        if (what != 0 && (uint32_t)what == ssrc) {
            store_rlx(&k->last_ns[i], now);
            if (what != ssrc_what(ssrc, payload_type))
                store_rls(&k->what[i], ssrc_what(ssrc, payload_type));
            return false;
        }
        if (load_rlx(&k->last_ns[i]) < load_rlx(&k->last_ns[oldest]))
            oldest = i; /* a place that was never used is older than any */
    }
    begin(k, oldest, ssrc_what(ssrc, payload_type), now);
    return true;
}

void ssrcs_expect(struct ssrcs *k, uint64_t followed)
{
    uint8_t payload_type = followed >> 32 & 127;

    if (followed != ssrc_what((uint32_t)followed, payload_type))
        return;
    store_rlx(&k->what[0], followed | SSRC_EXPECTED);
    ssrcs_note_type(k, payload_type);
}

void ssrcs_follow(struct ssrcs *k, uint32_t ssrc, uint8_t payload_type, uint64_t now)
{
    begin(k, 0, ssrc_what(ssrc, payload_type), now);
    for (unsigned i = 0; i < SSRCS_OTHERS; i++) {
        if (k->other[i].ssrc == ssrc)
            k->other[i].packets = 0;
    }
}

/* What its place is worth: to be had are those of a flood, of SSRCs that come once each. */
static uint64_t worth(const struct ssrc_other *o, uint64_t now)
{
    bool is_here = now < o->last_ns + (o->is_another ? gone_ns : pause_ns);

    if (o->packets == 0 || !is_here)
        return 0;
    return o->packets > 1 || now < o->last_ns + steady_ns ? UINT64_MAX : o->last_ns;
}

/* Where more take turns than there are places somebody has to stay, or all look new for ever. */
static bool may_displace(struct ssrcs *k)
{
    return k->newcomers++ * UINT32_C(2654435769) >> 31 == 0;
}

static struct ssrc_other *place_for(struct ssrcs *k, uint32_t ssrc, uint64_t now)
{
    struct ssrc_other *least = &k->other[0];

    for (unsigned i = 0; i < SSRCS_OTHERS; i++) {
        struct ssrc_other *o = &k->other[i];

        if (o->packets > 0 && o->ssrc == ssrc)
            return o;
        if (worth(o, now) < worth(least, now))
            least = o;
    }
    if (worth(least, now) == UINT64_MAX || (worth(least, now) > 0 && !may_displace(k)))
        return NULL;
    *least = (struct ssrc_other){.ssrc = ssrc};
    return least;
}

struct ssrc_other *ssrcs_note_other(struct ssrcs *k, uint32_t ssrc, uint64_t received_ns, uint64_t now)
{
    struct ssrc_other *o = place_for(k, ssrc, now);

    if (!o)
        return NULL;
    if (o->packets == 0 || now >= o->last_ns + pause_ns) {
        o->first_ns = now;
        o->first_received_ns = received_ns;
        o->packets = 0;
    }
    o->packets = (uint16_t)(o->packets + (o->packets < UINT16_MAX));
    o->last_ns = now;
    return o;
}

static bool read_one(struct ssrcs *k, unsigned at, struct rf_source_ssrc *out)
{
    uint64_t what = load_acq(&k->what[at]);

    out->ssrc = (uint32_t)what;
    out->payload_type = what >> 32 & 127;
    out->since_ns = load_acq(&k->since_ns[at]);
    out->last_ns = load_acq(&k->last_ns[at]);
    return what != 0 && !(what & SSRC_EXPECTED) && (uint32_t)load_acq(&k->what[at]) == out->ssrc;
}

unsigned ssrcs_read(struct ssrcs *k, struct rf_source_ssrc *out)
{
    uint64_t latest = 0;
    unsigned n = 0, shown = 0;

    for (unsigned i = 0; i < SSRCS_MOST; i++) {
        struct rf_source_ssrc one;

        if (!read_one(k, i, &one))
            continue;
        unsigned at = n++;

        for (; at > 0 && out[at - 1].since_ns < one.since_ns; at--)
            out[at] = out[at - 1];
        out[at] = one;
        latest = one.last_ns > latest ? one.last_ns : latest;
    }
    for (unsigned i = 0; i < n; i++) {
        if (latest - out[i].last_ns <= shown_ns)
            out[shown++] = out[i];
    }
    return shown;
}
