#include "feedback.h"

#include <stdio.h>
#include <string.h>

enum {
    TAKEN_A_SECOND = 50,
    PLAUSIBLE_SECS = 10,
    USUAL_RATE = 90000, /* Hz, where the clock rate is not known */
    KEYFRAME_PERCENT = 20,
};

#define SECOND UINT64_C(1000000000)

bool feedback_admits(uint64_t *full_at, uint64_t now)
{
    uint64_t full = *full_at > now ? *full_at : now;

    full += SECOND / TAKEN_A_SECOND;
    if (full > now + SECOND)
        return false;
    *full_at = full;
    return true;
}

static enum rtcp_verdict kind_of(const uint8_t *data, size_t len, const struct rtcp_about *a)
{
    if (a->pli || a->fir)
        return RTCP_TAKEN_keyframe_request;
    if (a->nacked > 0)
        return RTCP_TAKEN_nack;
    if (a->has_bitrate)
        return RTCP_TAKEN_bitrate;
    if (a->has_block)
        return RTCP_TAKEN_receiver_report;
    return rtcp_has_bye(data, len) ? RTCP_TAKEN_bye : RTCP_TAKEN_other;
}

/* Whether its RTP time is near the clock of the packets. */
static bool is_plausible(const struct rtcp_sender_report *sr, const struct media_clock *m,
                         uint64_t now)
{
    uint64_t rate = m->rate ? m->rate : USUAL_RATE;

    if (m->at_ns == 0 || m->at_ns > now)
        return false;
    if (m->other) /* its clock is not known */
        return true;
    uint32_t expected = m->timestamp + (uint32_t)((now - m->at_ns) / 1000 * rate / 1000000);
    int64_t off = (int32_t)(sr->rtp_time - expected);

    return off <= PLAUSIBLE_SECS * (int64_t)rate && -off <= PLAUSIBLE_SECS * (int64_t)rate;
}

static void report_came(struct feedback *f, size_t len, uint64_t now)
{
    f->report_len = (uint16_t)len;
    f->report_number++;
    store_rlx(&f->report_ns, now);
    counter_add(&f->counters.sender_reports, 1);
}

enum rtcp_verdict feedback_take_source(struct feedback *f, const uint8_t *data, size_t len, bool whole,
                                       const struct media_clock *m, uint64_t now)
{
    struct rtcp_sender_report sr;

    if (!feedback_admits(&f->full_at, now))
        return RTCP_DROPPED_rate;
    if (whole) {
        if (data[1] != RTCP_SR || len > FEEDBACK_REPORT)
            return RTCP_TAKEN_other;
        memcpy(f->report, data, len);
        report_came(f, len, now);
        return RTCP_TAKEN_sender_report;
    }
    if (!rtcp_find_sender_report(data, len, m->ssrc, &sr))
        return rtcp_has_bye(data, len) ? RTCP_TAKEN_bye : RTCP_TAKEN_other;
    if (!is_plausible(&sr, m, now))
        return RTCP_DROPPED_implausible;
    feedback_keep_report(f, &sr, data, len, m->several, now);
    report_came(f, f->report_len, now);
    return RTCP_TAKEN_sender_report;
}

/* When the report that the block speaks of was passed on; 0: nobody knows. */
static uint64_t passed_at(const struct feedback *f, const struct reporter *r, uint32_t lsr)
{
    for (unsigned i = 0; i < FEEDBACK_PASSED; i++) {
        if (f->passed[i].ntp == lsr && f->passed[i].at_ns > 0)
            /* To who joined since it was passed on later. */
            return lsr == f->report_ntp && r->passed == f->report_number ? r->passed_ns
                                                                         : f->passed[i].at_ns;
    }
    return 0;
}

/* RFC 3550 section 6.4.1, by our own clock. */
static uint32_t round_trip_us(const struct feedback *f, const struct reporter *r,
                              const struct rtcp_block *b, uint64_t now)
{
    uint64_t then = b->lsr ? passed_at(f, r, b->lsr) : 0;
    uint64_t held = (uint64_t)b->dlsr * SECOND >> 16;

    if (then == 0 || then + held > now || now - then - held > FEEDBACK_FRESH_NS)
        return UINT32_MAX;
    return (uint32_t)((now - then - held) / 1000);
}

static void note_block(struct feedback *f, struct reporter *r, const struct rtcp_block *b,
                       const struct media_clock *m, uint64_t now)
{
    uint32_t trip = round_trip_us(f, r, b, now);
    uint64_t jitter = m->rate ? (uint64_t)b->jitter * 1000000 / m->rate : UINT32_MAX;

    store_rlx(&r->report.fraction, b->fraction);
    store_rlx(&r->report.lost, b->lost);
    store_rlx(&r->report.jitter_us, jitter < UINT32_MAX ? (uint32_t)jitter : UINT32_MAX);
    if (trip != UINT32_MAX) /* a receiver may report before it has had a report */
        store_rlx(&r->report.round_trip_us, trip);
    store_rlx(&r->report.at_ns, now);
}

enum rtcp_verdict feedback_take_reporter(struct feedback *f, struct reporter *r, const uint8_t *data,
                                         size_t len, const struct media_clock *m, uint64_t now)
{
    if (!feedback_admits(&r->full_at, now))
        return RTCP_DROPPED_rate;
    struct rtcp_about a = rtcp_read(data, len, m->ssrc);

    if (a.has_block) {
        counter_add(&f->counters.receiver_reports, 1);
        note_block(f, r, &a.block, m, now);
    }
    if (a.has_bitrate) {
        r->bitrate = a.bitrate;
        r->bitrate_ns = now;
    }
    counter_add(&f->counters.packets_nacked, a.nacked);
    if (a.pli || a.fir)
        feedback_want_keyframe(f, subscriber_class(r->subscriber) == RF_CLASS_PILOT, m, now);
    return kind_of(data, len, &a);
}

void feedback_begin(struct feedback *f)
{
    f->report_len = f->cname_len = 0;
    memset(f->others, 0, sizeof f->others);
    f->spoken_ns = 0;
    f->fed_from.port = 0;
    f->expected_prior = f->received_prior = 0;
    if (load_acq(&f->repair))
        load_rlx(&f->repair)->begun = false;
}

/* They may be passed on for the first time. */
static void note_others(struct feedback *f, uint64_t now)
{
    for (unsigned i = 0; i < FEEDBACK_OTHERS; i++) {
        const struct other_report *o = &f->others[i];
        unsigned at = o->number % FEEDBACK_PASSED;

        if (o->at_ns == 0 || f->report_number - o->number >= FEEDBACK_PASSED ||
            f->passed[at].ntp == o->ntp)
            continue;
        f->passed[at].ntp = o->ntp;
        f->passed[at].at_ns = now;
    }
}

void feedback_pass(struct feedback *f, const struct reporters *set, uint64_t now)
{
    if (f->passed_number != f->report_number) {
        unsigned i = f->report_number % FEEDBACK_PASSED;

        f->passed[i].ntp = f->report_ntp;
        f->passed[i].at_ns = now;
        note_others(f, now);
    }
    f->passed_number = f->report_number;
    f->passed_set = set->number;
    f->passed_ns = now;
    f->packet = (struct packet){.bytes = {f->report, f->report_len}};
}

/* Whether somebody has been asked and may still answer. */
static void learn(struct keyframe_request *k, const struct media_clock *m, uint64_t now)
{
    if (k->pending && (m->keyframes != k->keyframes ||
                       (k->repeats == 0 && now - k->asked_ns >= KEYFRAME_REPEAT_NS)))
        k->pending = false;
    if (m->keyframes != k->keyframes)
        k->urgent_ns = k->others_ns = 0; /* who wanted one has it */
}

void feedback_want_keyframe(struct feedback *f, bool urgent, const struct media_clock *m, uint64_t now)
{
    struct keyframe_request *k = &f->request;
    uint64_t *wanted = urgent ? &k->urgent_ns : &k->others_ns;

    counter_add(&f->counters.keyframe_requests, 1);
    learn(k, m, now);
    /* One that is on its way is everybody's. */
    if (k->pending && (m->keyframes > 0 || now - k->asked_ns < KEYFRAME_URGENT_NS))
        return;
    if (*wanted == 0)
        *wanted = now;
    k->ssrc = m->ssrc;
    k->keyframes = m->keyframes;
}

void feedback_count_run(struct feedback *f, uint64_t bytes, bool keyframe, uint64_t now)
{
    struct keyframe_request *k = &f->request;

    if (now - k->window_ns >= KEYFRAME_SHARE_NS) {
        bool next = now - k->window_ns < 2 * KEYFRAME_SHARE_NS;

        k->bytes[1] = next ? k->bytes[0] : 0;
        k->keyframe_bytes[1] = next ? k->keyframe_bytes[0] : 0;
        k->bytes[0] = k->keyframe_bytes[0] = 0;
        k->window_ns = now;
    }
    k->bytes[0] += bytes;
    k->keyframe_bytes[0] += keyframe ? bytes : 0;
}

static bool costs_too_much(const struct keyframe_request *k)
{
    return (k->keyframe_bytes[0] + k->keyframe_bytes[1]) * 100 >
           (k->bytes[0] + k->bytes[1]) * KEYFRAME_PERCENT;
}

static bool is_over(uint64_t since, uint64_t now, uint64_t wait)
{
    return since == 0 || now - since >= wait;
}

/* Whether the source is to be asked now; `*repeated`: once more. */
static bool asks(struct feedback *f, const struct media_clock *m, uint64_t now)
{
    struct keyframe_request *k = &f->request;
    bool wanted = (k->urgent_ns && is_over(k->asked_ns, now, KEYFRAME_URGENT_NS)) ||
                  (k->others_ns && is_over(k->asked_ns, now, KEYFRAME_OTHERS_NS));

    learn(k, m, now);
    if (wanted && (k->urgent_ns || k->others_ns)) {
        if (costs_too_much(k))
            return false;
        k->repeats = KEYFRAME_REPEATS;
        k->number++;
    } else if (k->pending && k->repeats > 0 && m->keyframes > 0 &&
               now - k->asked_ns >= KEYFRAME_REPEAT_NS) {
        k->repeats--;
    } else {
        return false;
    }
    k->urgent_ns = k->others_ns = 0;
    k->keyframes = m->keyframes;
    k->asked_ns = now;
    k->pending = true;
    return true;
}

/* RFC 3550 sections 6.4.1 and A.3. */
static struct rtcp_block own_block(struct feedback *f, const struct media_clock *m, uint64_t now)
{
    uint64_t expected = m->expected - f->expected_prior, received = m->received - f->received_prior;
    int64_t lost = (int64_t)(m->expected - m->received);
    uint64_t came;
    uint32_t lsr = feedback_last_report(f, m->ssrc, &came);

    f->expected_prior = m->expected;
    f->received_prior = m->received;
    return (struct rtcp_block){
        .ssrc = m->ssrc,
        .fraction = expected > received && expected < UINT32_MAX
                        ? (uint8_t)(((expected - received) << 8) / expected)
                        : 0,
        .lost = (int32_t)(lost > 0x7fffff ? 0x7fffff : lost < -0x800000 ? -0x800000 : lost),
        .sequence = m->sequence,
        .jitter = m->jitter,
        .lsr = lsr,
        .dlsr = came ? (uint32_t)(((now - came) / 1000 << 16) / 1000000) : 0,
    };
}

static size_t begin_message(uint8_t *out, uint32_t own, const struct rtcp_block *block)
{
    char cname[32];

    snprintf(cname, sizeof cname, "rtpfanout@%08x", (unsigned)own); /* RFC 7022: it names no host */
    return rtcp_write_cname(out, rtcp_write_receiver_report(out, 0, own, block), own, cname);
}

static bool has_report_due(const struct feedback *f, const struct media_clock *m, uint64_t now)
{
    uint64_t came = load_rlx(&f->report_ns);

    return came > 0 && f->spoken_ns > 0 && now - came < FEEDBACK_SPEAKS_NS &&
           now - f->reported_ns >= FEEDBACK_EVERY_NS && m->expected > 0;
}

/* With what those say whose reports go into ours. */
static size_t write_report(struct feedback *f, uint8_t *out, uint32_t own, const struct reporters *set,
                           const struct media_clock *m, uint64_t now)
{
    struct rtcp_block block = own_block(f, m, now);
    unsigned class = load_rlx(&f->class);
    struct merged all = {0, UINT64_MAX};

    if (class > 0)
        all = merged_report(set, (enum rf_class)(class - 1), now);
    if (all.fraction > block.fraction)
        block.fraction = all.fraction;
    size_t at = begin_message(out, own, &block);

    f->reported_ns = now;
    counter_add(&f->counters.reports_sent, 1);
    if (all.bitrate == UINT64_MAX)
        return at;
    counter_add(&f->counters.bitrates_sent, 1);
    return rtcp_write_bitrate(out, at, own, m->ssrc, all.bitrate);
}

static size_t write_requests(struct feedback *f, uint8_t *out, size_t at, uint32_t own)
{
    unsigned format = load_rlx(&f->format);

    counter_add(&f->counters.keyframe_requests_sent, 1);
    if (format != RF_KEYFRAME_FIR)
        at = rtcp_write_pli(out, at, own, f->request.ssrc);
    if (format & RF_KEYFRAME_FIR)
        at = rtcp_write_fir(out, at, own, f->request.ssrc, f->request.number);
    return at;
}

size_t feedback_compose(struct feedback *f, uint8_t out[FEEDBACK_MESSAGE], uint32_t own,
                        const struct reporters *set, const struct media_clock *m, uint64_t now)
{
    bool reports = has_report_due(f, m, now), requests = asks(f, m, now);
    uint16_t missing[REPAIR_AT_ONCE];
    struct repair *repair = load_acq(&f->repairs) ? load_acq(&f->repair) : NULL;
    unsigned n = repair ? repair_ask(repair, missing, now) : 0;

    if (!reports && !requests && n == 0)
        return 0;
    size_t at = reports ? write_report(f, out, own, set, m, now) : begin_message(out, own, NULL);

    if (requests)
        at = write_requests(f, out, at, own);
    if (n > 0) {
        counter_add(&f->counters.packets_asked, n);
        at = rtcp_write_nack(out, at, own, repair->ssrc, missing, n);
    }
    return at;
}

struct rf_addr feedback_source(const struct feedback *f, uint64_t now, uint16_t *port, bool *next)
{
    bool speaks = f->spoken_ns > 0 && now - f->spoken_ns < 2 * FEEDBACK_SPEAKS_NS &&
                  memcmp(f->spoken_by.ip, f->fed_from.ip, sizeof f->fed_from.ip) == 0;
    struct rf_addr to = speaks ? f->spoken_by : f->fed_from;

    *next = !speaks;
    *port = speaks ? f->spoken_to : f->fed_to;
    if (!speaks && to.port != 0)
        to.port++; /* RFC 3550 section 11 */
    return to;
}

size_t feedback_bye(const struct feedback *f, uint32_t ssrc, uint8_t out[FEEDBACK_MESSAGE])
{
    size_t at = rtcp_write_receiver_report(out, 0, ssrc, NULL);

    if (f->cname_len > 0 && f->cname_len + at + 8 <= FEEDBACK_MESSAGE) {
        memcpy(out + at, f->report + RTCP_SR_LEN, f->cname_len);
        at += f->cname_len;
    }
    return rtcp_write_bye(out, at, ssrc);
}

void feedback_snapshot(struct feedback *f, struct rf_feedback *out)
{
#define X(name, help) out->name = load_rlx(&f->counters.name);
    RF_FEEDBACK_FIELDS(X)
#undef X
    out->sender_report_ns = load_rlx(&f->report_ns);
}
