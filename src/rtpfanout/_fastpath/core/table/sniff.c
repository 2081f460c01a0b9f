#include "sniff.h"

enum {
    ENOUGH = 32,      /* that fit, where something typical was among them */
    ENOUGH_BARE = 64, /* else */
    RIVAL = 8,        /* that fit another */
    MOST = 250,       /* then all are halved */
    NEVER_SURER = 80, /* percent, without anything typical */
};

static const enum rf_encoding candidates[SNIFF_ENCODINGS] = {
    RF_ENCODING_H264, RF_ENCODING_H265, RF_ENCODING_VP8,  RF_ENCODING_VP9,
    RF_ENCODING_AV1,  RF_ENCODING_MP2T, RF_ENCODING_OPUS,
};
enum { OPUS = SNIFF_ENCODINGS - 1 };

void votes_begin(struct votes *v)
{
    for (unsigned i = 0; i < SNIFF_ENCODINGS; i++) {
        store_rls(&v->fits[i], 0);
        store_rls(&v->refused[i], 0);
    }
    store_rls(&v->typical, 0);
    store_rls(&v->opus_next, 0);
}

static void halve(struct votes *v)
{
    for (unsigned i = 0; i < SNIFF_ENCODINGS; i++) {
        store_rls(&v->fits[i], load_rlx(&v->fits[i]) / 2);
        store_rls(&v->refused[i], load_rlx(&v->refused[i]) / 2);
    }
}

static void count(struct votes *v, unsigned i, enum payload_fit fit)
{
    _Atomic uint8_t *votes = fit == PAYLOAD_REFUSED ? &v->refused[i] : &v->fits[i];
    uint8_t n = load_rlx(votes) + 1;

    store_rls(votes, n);
    if (fit == PAYLOAD_IS_TYPICAL)
        store_rls(&v->typical, (uint8_t)(load_rlx(&v->typical) | 1u << i));
    if (n >= MOST)
        halve(v);
}

/* An Opus packet tells how long it lasts, and so when the next begins. Silence may be left out. */
static void count_opus(struct votes *v, const struct ballot *b)
{
    uint32_t samples = payload_opus_samples(b->payload), next = load_rlx(&v->opus_next);
    bool follows = b->in_order && next != 0;
    uint32_t left_out = b->timestamp - next;

    if (samples == 0)
        count(v, OPUS, PAYLOAD_REFUSED);
    else if (follows && left_out == 0)
        count(v, OPUS, PAYLOAD_FITS);
    else if (follows && (left_out > 10 * 48000 || left_out % 120 != 0))
        count(v, OPUS, PAYLOAD_REFUSED);
    store_rls(&v->opus_next, samples ? b->timestamp + samples : 0);
}

static int score(const struct votes *v, unsigned i)
{
    bool typical = load_rlx(&v->typical) >> i & 1;

    return load_rlx(&v->fits[i]) - 4 * load_rlx(&v->refused[i]) + (typical ? 4 : 0);
}

/* Whether nothing else can be it. */
static bool is_known(const struct votes *v, unsigned i)
{
    unsigned fits = load_rlx(&v->fits[i]), refused = load_rlx(&v->refused[i]);
    bool typical = load_rlx(&v->typical) >> i & 1;

    if (fits < (typical ? ENOUGH : ENOUGH_BARE) || refused * 50 > fits)
        return false;
    for (unsigned other = 0; other < SNIFF_ENCODINGS; other++) {
        unsigned others = load_rlx(&v->fits[other]);

        if (other != i && others > RIVAL && load_rlx(&v->refused[other]) * 10u <= others)
            return false;
    }
    return true;
}

enum rf_encoding votes_take(struct votes *v, const struct ballot *b, bool *known)
{
    unsigned best = SNIFF_ENCODINGS;
    int most = 0;

    for (unsigned i = 0; i < OPUS; i++)
        count(v, i, payload_fits(candidates[i], b->payload, b->begins));
    count_opus(v, b);
    for (unsigned i = 0; i < SNIFF_ENCODINGS; i++) {
        if (score(v, i) > most) {
            most = score(v, i);
            best = i;
        }
    }
    *known = best < SNIFF_ENCODINGS && is_known(v, best);
    return best < SNIFF_ENCODINGS ? candidates[best] : RF_ENCODING_UNKNOWN;
}

unsigned votes_count(const struct votes *v)
{
    return (unsigned)load_rlx(&v->fits[0]) + load_rlx(&v->refused[0]);
}

uint8_t votes_sureness(const struct votes *v, enum rf_encoding encoding)
{
    for (unsigned i = 0; i < SNIFF_ENCODINGS; i++) {
        if (candidates[i] != encoding)
            continue;
        unsigned fits = load_acq(&v->fits[i]), all = fits + load_acq(&v->refused[i]);
        unsigned most = load_acq(&v->typical) >> i & 1 ? 99 : NEVER_SURER;
        unsigned percent = all ? 100 * fits / all : 0;

        return (uint8_t)(percent < most ? percent : most);
    }
    return 0;
}
