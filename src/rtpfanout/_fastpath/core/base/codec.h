/* How video lies in RTP payloads: what payload.c and payload_fit.c read it by. */
#ifndef RF_CODEC_H
#define RF_CODEC_H

#include "media.h"
#include "rtp.h"

enum {
    H264_IDR = 5,
    H264_SPS = 7,
    H264_PPS = 8,
    H264_STAP_A = 24,
    H264_FU_A = 28,

    H265_IRAP_FIRST = 16,
    H265_IRAP_LAST = 21,
    H265_VPS = 32,
    H265_SPS = 33,
    H265_PPS = 34,
    H265_AP = 48,
    H265_FU = 49,

    FU_START = 0x80,
    FU_END = 0x40,
};

/* NAL units of H264 and H265: how long their header is, and what they are by it. */

static inline size_t nal_header(enum rf_encoding encoding)
{
    return encoding == RF_ENCODING_H265 ? 2 : 1;
}

static inline unsigned nal_type(enum rf_encoding encoding, const uint8_t *nal)
{
    return encoding == RF_ENCODING_H265 ? nal[0] >> 1 & 63 : nal[0] & 31;
}

static inline bool is_aggregation(enum rf_encoding encoding, unsigned type)
{
    return type == (encoding == RF_ENCODING_H265 ? H265_AP : H264_STAP_A);
}

static inline bool is_fragment(enum rf_encoding encoding, unsigned type)
{
    return type == (encoding == RF_ENCODING_H265 ? H265_FU : H264_FU_A);
}

static inline bool is_key(enum rf_encoding encoding, unsigned type)
{
    if (encoding == RF_ENCODING_H264)
        return type == H264_IDR || type == H264_SPS;
    return (type >= H265_IRAP_FIRST && type <= H265_IRAP_LAST) || type == H265_SPS;
}

static inline bool is_set(enum rf_encoding encoding, unsigned type)
{
    if (encoding == RF_ENCODING_H264)
        return type == H264_SPS || type == H264_PPS;
    return type >= H265_VPS && type <= H265_PPS;
}

/* The NAL unit at `*at` of an aggregation packet, which moves behind it. */
static inline bool next_aggregated(struct payload p, size_t *at, struct payload *nal)
{
    if (p.len < *at + 2)
        return false;
    size_t len = rtp_read_u16(p.bytes + *at);

    if (len == 0 || len > p.len - *at - 2)
        return false;
    *nal = (struct payload){p.bytes + *at + 2, len};
    *at += 2 + len;
    return true;
}

/* Behind the payload descriptor; 0: it is cut short. */
static inline size_t vp8_descriptor(struct payload p)
{
    size_t at = 1;

    if (p.len < 2)
        return 0;
    if (p.bytes[0] & 0x80) {
        uint8_t has = p.bytes[at++];

        if ((has & 0x80) && at < p.len)
            at += p.bytes[at] & 0x80 ? 2 : 1;
        at += (has & 0x40) != 0;
        at += (has & 0x30) != 0;
    }
    return at < p.len ? at : 0;
}

static inline bool vp8_starts(struct payload p)
{
    return (p.bytes[0] & 0x17) == 0x10; /* S, and partition 0 */
}

/* The scalability structure at `at`; behind it. */
static inline size_t vp9_structure(struct payload p, size_t at)
{
    uint8_t has = p.bytes[at++];

    if (has & 0x10)
        at += 4 * ((size_t)(has >> 5) + 1);
    if ((has & 0x08) && at < p.len) {
        unsigned pictures = p.bytes[at++];

        while (pictures-- > 0 && at < p.len)
            at += 1 + (size_t)(p.bytes[at] >> 2 & 3);
    }
    return at;
}

static inline size_t vp9_descriptor(struct payload p)
{
    size_t at = 1;

    if (p.len < 2)
        return 0;
    uint8_t has = p.bytes[0];

    if (has & 0x80)
        at += p.bytes[at] & 0x80 ? 2 : 1;
    if (has & 0x20)
        at += has & 0x10 ? 1 : 2;
    if ((has & 0x50) == 0x50) {
        for (unsigned i = 0; i < 3 && at < p.len; i++) {
            if (!(p.bytes[at++] & 1))
                break;
        }
    }
    if ((has & 0x02) && at < p.len)
        at = vp9_structure(p, at);
    return at < p.len ? at : 0;
}

/* VP9 bitstream section 6.2: marker, profile, show_existing_frame, frame_type. The descriptor's P bit
 * would tell it, too, but there are senders that leave it away. */
static inline bool vp9_is_key(uint8_t header)
{
    unsigned shift = (header & 0x30) == 0x30 ? 2 : 3; /* profile 3 has a reserved bit more */

    return (header >> shift & 1) == 0 && (header >> (shift - 1) & 1) == 0;
}

/* The first OBU of a packet that does not go on with one; 0: there is none. */
static inline size_t av1_first_obu(struct payload p)
{
    size_t at = 1;

    if (p.len < 2 || (p.bytes[0] & 0x80))
        return 0;
    if ((p.bytes[0] & 0x30) != 0x10) { /* a length goes before it, LEB128 */
        size_t len = 0;

        for (unsigned i = 0; i < 4; i++) {
            if (at >= p.len)
                return 0;
            len |= (size_t)(p.bytes[at] & 0x7f) << 7 * i;
            if (!(p.bytes[at++] & 0x80))
                break;
        }
        if (len == 0 || len > p.len - at)
            return 0;
    }
    return at < p.len ? at : 0;
}

static inline bool av1_is_sequence_header(uint8_t obu)
{
    return (obu >> 3 & 15) == 1;
}

#endif
