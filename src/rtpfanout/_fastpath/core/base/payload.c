#include "payload.h"

#include "codec.h"

enum { UNITS_AT_MOST = 16 }; /* NAL units of one aggregation packet that are looked at */

struct payload payload_of(const uint8_t *packet, size_t len)
{
    size_t header = rtp_header_len(packet, len);

    if ((packet[0] & RTP_PADDING) && packet[len - 1] <= len - header)
        len -= packet[len - 1]; /* of SRTP it may be anything */
    return (struct payload){packet + header, len - header};
}

static struct payload_facts look_at_nals(enum rf_encoding encoding, struct payload p)
{
    size_t header = nal_header(encoding), at = header;
    struct payload_facts facts = {false, false, false};
    struct payload nal;

    if (p.len <= header)
        return facts;
    unsigned type = nal_type(encoding, p.bytes);

    facts.starts_frame = true;
    if (is_fragment(encoding, type)) {
        facts.starts_frame = p.bytes[header] & FU_START;
        type = p.bytes[header] & (encoding == RF_ENCODING_H265 ? 63 : 31);
        facts.keyframe = facts.starts_frame && is_key(encoding, type);
        return facts;
    }
    if (!is_aggregation(encoding, type)) {
        facts.keyframe = is_key(encoding, type);
        facts.parameter_sets = is_set(encoding, type);
        return facts;
    }
    for (unsigned i = 0; i < UNITS_AT_MOST && next_aggregated(p, &at, &nal); i++) {
        type = nal_type(encoding, nal.bytes);
        facts.keyframe |= is_key(encoding, type);
        facts.parameter_sets |= is_set(encoding, type);
    }
    return facts;
}

static struct payload_facts look_at_vp8(struct payload p)
{
    size_t at = vp8_descriptor(p);
    bool starts = at && vp8_starts(p);

    return (struct payload_facts){starts, starts && !(p.bytes[at] & 1), false};
}

static struct payload_facts look_at_vp9(struct payload p)
{
    size_t at = vp9_descriptor(p);
    bool starts = at && (p.bytes[0] & 0x08);

    return (struct payload_facts){starts, starts && vp9_is_key(p.bytes[at]), false};
}

static struct payload_facts look_at_av1(struct payload p)
{
    size_t at = av1_first_obu(p);
    bool key = at && ((p.bytes[0] & 0x08) || av1_is_sequence_header(p.bytes[at]));

    return (struct payload_facts){at != 0, key, false};
}

struct payload_facts payload_look(enum rf_encoding encoding, struct payload p)
{
    bool starts = p.len > 0;

    switch (encoding) {
    case RF_ENCODING_H264:
    case RF_ENCODING_H265:
        return look_at_nals(encoding, p);
    case RF_ENCODING_VP8:
        return look_at_vp8(p);
    case RF_ENCODING_VP9:
        return look_at_vp9(p);
    case RF_ENCODING_AV1:
        return look_at_av1(p);
    case RF_ENCODING_JPEG: /* a fragment offset of 0; each picture stands for itself */
        starts = p.len >= 8 && (p.bytes[1] | p.bytes[2] | p.bytes[3]) == 0;
        return (struct payload_facts){starts, starts, false};
    case RF_ENCODING_OPUS:
    case RF_ENCODING_PCMU:
    case RF_ENCODING_PCMA:
    case RF_ENCODING_L16:
        return (struct payload_facts){starts, false, false};
    default:
        return (struct payload_facts){false, false, false};
    }
}

/* An Exp-Golomb number at the beginning of `p` (H.264 section 9.1), up to 254; 255: greater, or cut.
 * Of `p` there is a byte at least. */
static uint8_t read_ue(struct payload p)
{
    unsigned zeros = 0, bits = (unsigned)p.bytes[0] << 8 | (p.len > 1 ? p.bytes[1] : 0);

    while (zeros < 8 && !(bits >> (15 - zeros) & 1))
        zeros++;
    return zeros < 8 && bits ? (uint8_t)((bits >> (15 - 2 * zeros)) - 1) : 255;
}

static uint8_t set_number(enum rf_encoding encoding, unsigned type, struct payload nal)
{
    size_t at = nal_header(encoding);

    if (encoding == RF_ENCODING_H264 && type == H264_SPS)
        at += 3; /* profile, constraints, level */
    else if (encoding == RF_ENCODING_H265 && type != H265_PPS)
        return 0;
    return nal.len > at ? read_ue((struct payload){nal.bytes + at, nal.len - at}) : 255;
}

bool payload_next_set(enum rf_encoding encoding, struct payload p, size_t *at,
                      struct parameter_set *out)
{
    size_t header = nal_header(encoding);
    struct payload nal = p;

    if (!payload_has_parameter_sets(encoding) || p.len <= header)
        return false;
    bool several = is_aggregation(encoding, nal_type(encoding, p.bytes));

    if (*at == 0)
        *at = several ? header : p.len;
    else if (!several)
        return false;
    while (!several || next_aggregated(p, at, &nal)) {
        unsigned type = nal_type(encoding, nal.bytes);

        if (is_set(encoding, type) && nal.len > header) {
            *out = (struct parameter_set){nal.bytes, nal.len, (uint8_t)type,
                                          set_number(encoding, type, nal)};
            return true;
        }
        if (!several)
            return false;
    }
    return false;
}

uint32_t payload_clock(enum rf_encoding encoding)
{
    switch (encoding) {
    case RF_ENCODING_OPUS: return 48000;
    case RF_ENCODING_PCMU:
    case RF_ENCODING_PCMA: return 8000;
    case RF_ENCODING_L16:
    case RF_ENCODING_UNKNOWN: return 0;
    default: return 90000;
    }
}

bool payload_has_keyframes(enum rf_encoding encoding)
{
    return encoding >= RF_ENCODING_H264 && encoding <= RF_ENCODING_JPEG;
}

bool payload_has_parameter_sets(enum rf_encoding encoding)
{
    return encoding == RF_ENCODING_H264 || encoding == RF_ENCODING_H265;
}

bool payload_has_frames(enum rf_encoding encoding)
{
    return encoding != RF_ENCODING_MP2T;
}

enum rf_encoding payload_static_encoding(uint8_t payload_type)
{
    switch (payload_type) {
    case 0: return RF_ENCODING_PCMU;
    case 8: return RF_ENCODING_PCMA;
    case 10:
    case 11: return RF_ENCODING_L16;
    case 26: return RF_ENCODING_JPEG;
    case 33: return RF_ENCODING_MP2T;
    default: return RF_ENCODING_UNKNOWN;
    }
}

uint32_t payload_static_clock(uint8_t payload_type)
{
    switch (payload_type) {
    case 6: return 16000;
    case 10:
    case 11: return 44100;
    case 16: return 11025;
    case 17: return 22050;
    case 0: case 3: case 4: case 5: case 7: case 8: case 9: case 12: case 13: case 15: case 18:
        return 8000;
    case 14: case 25: case 26: case 28: case 31: case 32: case 33: case 34: return 90000;
    default: return 0;
    }
}
