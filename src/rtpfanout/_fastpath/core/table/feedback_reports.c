/* The sender reports of a session's source as they are passed on: one, or those of several SSRCs together. */
#include "feedback.h"

#include <string.h>

#include "rtp.h"

static uint32_t ssrc_of(const struct feedback *f)
{
    return rtp_read_u32(f->report + 4);
}

/* Without what goes behind it. */
static uint16_t own_len(const struct feedback *f)
{
    return (uint16_t)(RTCP_SR_LEN + f->cname_len);
}

/* Where that SSRC's is, or may be: a free place, or that of the oldest. */
static struct other_report *place_for(struct feedback *f, uint32_t ssrc)
{
    struct other_report *place = &f->others[0];

    for (unsigned i = 0; i < FEEDBACK_OTHERS; i++) {
        struct other_report *o = &f->others[i];

        if (o->at_ns != 0 && o->ssrc == ssrc)
            return o;
        if (o->at_ns < place->at_ns)
            place = o;
    }
    return place;
}

/* The last one was of another SSRC, and makes room. */
static void put_aside(struct feedback *f)
{
    struct other_report *o = place_for(f, ssrc_of(f));

    if (own_len(f) > FEEDBACK_OTHER)
        return;
    *o = (struct other_report){
        .at_ns = load_rlx(&f->report_ns),
        .ssrc = ssrc_of(f),
        .number = f->report_number,
        .ntp = f->report_ntp,
        .len = own_len(f),
    };
    memcpy(o->bytes, f->report, o->len);
}

/* It is the last one again: its CNAME is known. */
static void take_back(struct feedback *f, uint32_t ssrc)
{
    struct other_report *o = place_for(f, ssrc);

    f->cname_len = 0;
    if (o->at_ns == 0 || o->ssrc != ssrc)
        return;
    f->cname_len = (uint16_t)(o->len - RTCP_SR_LEN);
    memcpy(f->report + RTCP_SR_LEN, o->bytes + RTCP_SR_LEN, f->cname_len);
    o->at_ns = 0;
}

/* Without its blocks, which are about others; then it has another first byte and length. */
static void keep_sender_report(struct feedback *f, const struct rtcp_sender_report *sr)
{
    memcpy(f->report, sr->data, RTCP_SR_LEN);
    f->report[0] &= 0xe0;
    f->report[2] = 0;
    f->report[3] = RTCP_SR_LEN / 4 - 1;
    f->report_ntp = (uint32_t)(sr->ntp >> 16);
}

/* A datagram without keeps the one before. */
static void keep_cname(struct feedback *f, const uint8_t *data, size_t len, uint32_t ssrc)
{
    struct rtcp_packet sdes;

    if (!rtcp_find_cname(data, len, ssrc, &sdes) || sdes.padded ||
        sdes.len > FEEDBACK_REPORT - RTCP_SR_LEN)
        return;
    memcpy(f->report + RTCP_SR_LEN, sdes.data, sdes.len);
    f->cname_len = (uint16_t)sdes.len;
}

static uint16_t put_others_behind(struct feedback *f, uint64_t now)
{
    uint16_t at = own_len(f);

    for (unsigned i = 0; i < FEEDBACK_OTHERS; i++) {
        const struct other_report *o = &f->others[i];

        if (o->at_ns == 0 || now - o->at_ns > FEEDBACK_FRESH_NS || at + o->len > FEEDBACK_REPORT)
            continue;
        memcpy(f->report + at, o->bytes, o->len);
        at = (uint16_t)(at + o->len);
    }
    return at;
}

void feedback_keep_report(struct feedback *f, const struct rtcp_sender_report *sr, const uint8_t *data,
                          size_t len, bool several, uint64_t now)
{
    uint32_t ssrc = rtp_read_u32(sr->data + 4);

    if (f->report_len > 0 && ssrc_of(f) != ssrc) {
        if (several)
            put_aside(f);
        take_back(f, ssrc);
    }
    keep_sender_report(f, sr);
    keep_cname(f, data, len, ssrc);
    f->report_len = several ? put_others_behind(f, now) : own_len(f);
}

uint32_t feedback_last_report(const struct feedback *f, uint32_t ssrc, uint64_t *came)
{
    *came = load_rlx(&f->report_ns);
    if (f->report_len > 0 && ssrc_of(f) == ssrc)
        return f->report_ntp;
    for (unsigned i = 0; i < FEEDBACK_OTHERS; i++) {
        *came = f->others[i].at_ns;
        if (*came != 0 && f->others[i].ssrc == ssrc)
            return f->others[i].ntp;
    }
    *came = 0;
    return 0;
}
