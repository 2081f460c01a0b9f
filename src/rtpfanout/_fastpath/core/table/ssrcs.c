#include "ssrcs.h"

static const uint64_t shown_ns = UINT64_C(10000000000);

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

void ssrcs_follow(struct ssrcs *k, uint32_t ssrc, uint8_t payload_type, uint64_t now)
{
    begin(k, 0, ssrc_what(ssrc, payload_type), now);
}

static bool read_one(struct ssrcs *k, unsigned at, struct rf_source_ssrc *out)
{
    uint64_t what = load_acq(&k->what[at]);

    out->ssrc = (uint32_t)what;
    out->payload_type = what >> 32 & 127;
    out->since_ns = load_acq(&k->since_ns[at]);
    out->last_ns = load_acq(&k->last_ns[at]);
    return what != 0 && (uint32_t)load_acq(&k->what[at]) == out->ssrc;
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
