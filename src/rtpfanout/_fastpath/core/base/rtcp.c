#include "rtcp.h"

#include <string.h>

#include "rtp.h"

enum {
    SDES_CNAME = 1,
    FMT_NACK = 1,  /* of RTPFB */
    FMT_PLI = 1,   /* of PSFB */
    FMT_FIR = 4,
    FMT_AFB = 15,  /* application layer feedback: REMB among others */
    FEEDBACK_LEN = 12, /* up to and with the SSRC of the media */
    FIR_ENTRY_LEN = 8,
    REMB_LEN = 20, /* without the SSRCs */
};

static void write_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* Chunks of items that end with a zero byte, each chunk padded to a word. */
static bool sdes_is_valid(const uint8_t *p, size_t len, unsigned chunks)
{
    size_t at = 4;

    for (; chunks > 0; chunks--) {
        if (len - at < 8)
            return false;
        at += 4;
        while (at < len && p[at] != 0) {
            if (len - at < 2 || len - at < 2u + p[at + 1])
                return false;
            at += 2u + p[at + 1];
        }
        if (at >= len)
            return false;
        at = (at / 4 + 1) * 4; /* the packet's length is in words, so that is not beyond it */
    }
    return true;
}

static bool holds_what_it_says(const struct rtcp_packet *p)
{
    switch (p->type) {
    case RTCP_SR: return p->len >= RTCP_SR_LEN + (size_t)RTCP_BLOCK_LEN * p->count;
    case RTCP_RR: return p->len >= 8 + (size_t)RTCP_BLOCK_LEN * p->count;
    case RTCP_SDES: return sdes_is_valid(p->data, p->len, p->count);
    case RTCP_BYE: return p->len >= 4 + 4 * (size_t)p->count;
    case RTCP_APP:
    case RTCP_RTPFB:
    case RTCP_PSFB: return p->len >= FEEDBACK_LEN;
    default: return p->len >= 8;
    }
}

/* 0 or how many bytes the packet takes, padding included. */
static size_t read_packet(const uint8_t *data, size_t left, struct rtcp_packet *out)
{
    if (left < RTCP_HEADER_LEN || data[0] >> 6 != RTP_VERSION || data[1] < RTCP_TYPE_FIRST ||
        data[1] > RTCP_TYPE_LAST)
        return 0;
    size_t size = 4 * (size_t)(rtp_read_u16(data + 2) + 1), padding = 0;

    if (size > left)
        return 0;
    bool padded = data[0] & RTP_PADDING;

    if (padded) {
        padding = data[size - 1];
        if (size != left || padding == 0 || padding % 4 != 0 || padding > size - RTCP_HEADER_LEN)
            return 0;
    }
    *out = (struct rtcp_packet){
        .data = data,
        .len = (uint32_t)(size - padding),
        .type = data[1],
        .count = data[0] & 0x1f,
        .padded = padded,
    };
    return size;
}

bool rtcp_is_valid(const uint8_t *data, size_t len)
{
    struct rtcp_packet p;
    size_t at = 0;

    while (at < len) {
        size_t size = read_packet(data + at, len - at, &p);

        if (size == 0 || !holds_what_it_says(&p))
            return false;
        at += size;
    }
    return len > 0;
}

bool rtcp_next(const uint8_t *data, size_t len, size_t *at, struct rtcp_packet *out)
{
    size_t size = *at < len ? read_packet(data + *at, len - *at, out) : 0;

    *at += size;
    return size > 0;
}

uint32_t rtcp_sender(const uint8_t *data, size_t len)
{
    return len >= 8 ? rtp_read_u32(data + 4) : 0;
}

/* Calls for each SSRC that the packet is about. */
static unsigned about(const struct rtcp_packet *p, uint32_t ssrc[RTCP_SSRCS], unsigned n)
{
    size_t at, step = 0;

    if (p->type == RTCP_SR || p->type == RTCP_RR) {
        at = p->type == RTCP_SR ? RTCP_SR_LEN : 8;
        step = RTCP_BLOCK_LEN;
    } else if (p->type == RTCP_PSFB && p->count == FMT_FIR) {
        at = FEEDBACK_LEN;
        step = FIR_ENTRY_LEN;
    } else if (p->type == RTCP_PSFB && p->count == FMT_AFB) {
        at = REMB_LEN;
        step = 4;
    } else if (p->type == RTCP_PSFB || p->type == RTCP_RTPFB) {
        at = 8;
    } else {
        return n;
    }
    size_t end = p->type == RTCP_SR || p->type == RTCP_RR ? at + step * p->count : p->len;

    for (; n < RTCP_SSRCS && at + 4 <= end; at += step) {
        uint32_t one = rtp_read_u32(p->data + at);
        bool known = false;

        for (unsigned i = 0; i < n; i++)
            known |= ssrc[i] == one;
        if (!known)
            ssrc[n++] = one;
        if (step == 0)
            break;
    }
    return n;
}

unsigned rtcp_media(const uint8_t *data, size_t len, uint32_t ssrc[RTCP_SSRCS])
{
    struct rtcp_packet p;
    unsigned n = 0;

    for (size_t at = 0; rtcp_next(data, len, &at, &p);)
        n = about(&p, ssrc, n);
    return n;
}

bool rtcp_find_sender_report(const uint8_t *data, size_t len, uint32_t ssrc,
                             struct rtcp_sender_report *out)
{
    struct rtcp_packet p;
    bool found = false;

    for (size_t at = 0; rtcp_next(data, len, &at, &p);) {
        if (p.type != RTCP_SR || rtp_read_u32(p.data + 4) != ssrc)
            continue;
        *out = (struct rtcp_sender_report){
            .data = p.data,
            .blocks = p.count,
            .ntp = (uint64_t)rtp_read_u32(p.data + 8) << 32 | rtp_read_u32(p.data + 12),
            .rtp_time = rtp_read_u32(p.data + 16),
        };
        found = true;
    }
    return found;
}

/* In its first chunk. */
static bool has_cname(const struct rtcp_packet *p)
{
    size_t at = 8;

    while (at + 2 <= p->len && p->data[at] != 0) {
        if (p->data[at] == SDES_CNAME)
            return true;
        at += 2u + p->data[at + 1];
    }
    return false;
}

bool rtcp_find_cname(const uint8_t *data, size_t len, uint32_t ssrc, struct rtcp_packet *out)
{
    for (size_t at = 0; rtcp_next(data, len, &at, out);) {
        if (out->type == RTCP_SDES && out->count > 0 && rtp_read_u32(out->data + 4) == ssrc &&
            has_cname(out))
            return true;
    }
    return false;
}

bool rtcp_has_bye(const uint8_t *data, size_t len)
{
    struct rtcp_packet p;

    for (size_t at = 0; rtcp_next(data, len, &at, &p);) {
        if (p.type == RTCP_BYE)
            return true;
    }
    return false;
}

static void read_blocks(const struct rtcp_packet *p, uint32_t ssrc, struct rtcp_about *out)
{
    const uint8_t *b = p->data + (p->type == RTCP_SR ? RTCP_SR_LEN : 8);

    for (unsigned i = 0; i < p->count; i++, b += RTCP_BLOCK_LEN) {
        if (rtp_read_u32(b) != ssrc)
            continue;
        uint32_t lost = rtp_read_u32(b + 4) & 0xffffff;

        out->has_block = true;
        out->block = (struct rtcp_block){
            .ssrc = ssrc,
            .fraction = b[4],
            .lost = lost & 0x800000 ? (int32_t)lost - 0x1000000 : (int32_t)lost,
            .sequence = rtp_read_u32(b + 8),
            .jitter = rtp_read_u32(b + 12),
            .lsr = rtp_read_u32(b + 16),
            .dlsr = rtp_read_u32(b + 20),
        };
    }
}

static void read_nacks(const struct rtcp_packet *p, struct rtcp_about *out)
{
    for (size_t at = FEEDBACK_LEN; at + 4 <= p->len; at += 4)
        out->nacked += 1 + (uint32_t)__builtin_popcount(rtp_read_u16(p->data + at + 2));
}

static bool names(const struct rtcp_packet *p, size_t at, size_t step, uint32_t ssrc)
{
    for (; at + 4 <= p->len; at += step) {
        if (rtp_read_u32(p->data + at) == ssrc)
            return true;
    }
    return false;
}

static void read_bitrate(const struct rtcp_packet *p, uint32_t ssrc, struct rtcp_about *out)
{
    if (p->len < REMB_LEN || memcmp(p->data + 12, "REMB", 4) != 0 ||
        !names(p, REMB_LEN, 4, ssrc))
        return;
    unsigned exponent = p->data[17] >> 2;
    uint64_t mantissa = (uint64_t)(p->data[17] & 3) << 16 | rtp_read_u16(p->data + 18);

    out->has_bitrate = true;
    out->bitrate = exponent > 46 ? UINT64_MAX : mantissa << exponent;
}

struct rtcp_about rtcp_read(const uint8_t *data, size_t len, uint32_t ssrc)
{
    struct rtcp_about out = {0};
    struct rtcp_packet p;

    for (size_t at = 0; rtcp_next(data, len, &at, &p);) {
        if (p.type == RTCP_SR || p.type == RTCP_RR) {
            read_blocks(&p, ssrc, &out);
        } else if (p.type == RTCP_RTPFB && p.count == FMT_NACK) {
            if (rtp_read_u32(p.data + 8) == ssrc)
                read_nacks(&p, &out);
        } else if (p.type == RTCP_PSFB && p.count == FMT_PLI) {
            out.pli |= rtp_read_u32(p.data + 8) == ssrc;
        } else if (p.type == RTCP_PSFB && p.count == FMT_FIR) {
            out.fir |= names(&p, FEEDBACK_LEN, FIR_ENTRY_LEN, ssrc);
        } else if (p.type == RTCP_PSFB && p.count == FMT_AFB) {
            read_bitrate(&p, ssrc, &out);
        }
    }
    return out;
}

/* The header, for `len` bytes in all. */
static uint8_t *begin(uint8_t *p, enum rtcp_type type, unsigned count, size_t len, uint32_t sender)
{
    p[0] = (uint8_t)(RTP_VERSION << 6 | count);
    p[1] = (uint8_t)type;
    p[2] = (uint8_t)((len / 4 - 1) >> 8);
    p[3] = (uint8_t)(len / 4 - 1);
    write_u32(p + 4, sender);
    return p;
}

size_t rtcp_write_receiver_report(uint8_t *out, size_t at, uint32_t sender,
                                  const struct rtcp_block *block)
{
    size_t len = 8 + (block ? RTCP_BLOCK_LEN : 0u);
    uint8_t *b = begin(out + at, RTCP_RR, block ? 1 : 0, len, sender) + 8;

    if (block) {
        write_u32(b, block->ssrc);
        write_u32(b + 4, (uint32_t)block->fraction << 24 | ((uint32_t)block->lost & 0xffffff));
        write_u32(b + 8, block->sequence);
        write_u32(b + 12, block->jitter);
        write_u32(b + 16, block->lsr);
        write_u32(b + 20, block->dlsr);
    }
    return at + len;
}

size_t rtcp_write_cname(uint8_t *out, size_t at, uint32_t sender, const char *cname)
{
    size_t text = strlen(cname), len = (8 + 2 + text) / 4 * 4 + 4; /* one zero byte at least */
    uint8_t *p = begin(out + at, RTCP_SDES, 1, len, sender);

    memset(p + 8, 0, len - 8);
    p[8] = SDES_CNAME;
    p[9] = (uint8_t)text;
    memcpy(p + 10, cname, text);
    return at + len;
}

size_t rtcp_write_bye(uint8_t *out, size_t at, uint32_t sender)
{
    begin(out + at, RTCP_BYE, 1, 8, sender);
    return at + 8;
}

size_t rtcp_write_pli(uint8_t *out, size_t at, uint32_t sender, uint32_t media)
{
    write_u32(begin(out + at, RTCP_PSFB, FMT_PLI, FEEDBACK_LEN, sender) + 8, media);
    return at + FEEDBACK_LEN;
}

size_t rtcp_write_fir(uint8_t *out, size_t at, uint32_t sender, uint32_t media, uint8_t number)
{
    size_t len = FEEDBACK_LEN + FIR_ENTRY_LEN;
    uint8_t *p = begin(out + at, RTCP_PSFB, FMT_FIR, len, sender);

    write_u32(p + 8, 0); /* RFC 5104 section 4.3.1.2: not used */
    write_u32(p + 12, media);
    write_u32(p + 16, (uint32_t)number << 24);
    return at + len;
}

size_t rtcp_write_nack(uint8_t *out, size_t at, uint32_t sender, uint32_t media, const uint16_t *sequence,
                       unsigned n)
{
    uint8_t *p = out + at + FEEDBACK_LEN;

    for (unsigned i = 0; i < n; p += 4) {
        uint16_t first = sequence[i++], also = 0;

        for (unsigned ahead; i < n && (ahead = (uint16_t)(sequence[i] - first)) - 1 < 16; i++)
            also |= (uint16_t)(1u << (ahead - 1));
        write_u32(p, (uint32_t)first << 16 | also);
    }
    size_t len = (size_t)(p - (out + at));

    write_u32(begin(out + at, RTCP_RTPFB, FMT_NACK, len, sender) + 8, media);
    return at + len;
}

size_t rtcp_write_bitrate(uint8_t *out, size_t at, uint32_t sender, uint32_t media, uint64_t bitrate)
{
    size_t len = REMB_LEN + 4;
    uint8_t *p = begin(out + at, RTCP_PSFB, FMT_AFB, len, sender);
    unsigned exponent = 0;

    for (; bitrate > 0x3ffff; bitrate >>= 1)
        exponent++;
    write_u32(p + 8, 0);
    memcpy(p + 12, "REMB", 4);
    write_u32(p + 16, UINT32_C(1) << 24 | exponent << 18 | (uint32_t)bitrate);
    write_u32(p + 20, media);
    return at + len;
}
