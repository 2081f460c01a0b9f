/* Whether payloads look like those of an encoding: what it is guessed by. */
#include "codec.h"
#include "payload.h"

/* Whether its NAL units come out even. */
static bool aggregation_is_whole(struct payload p, size_t header)
{
    size_t at = header;
    struct payload nal;

    while (next_aggregated(p, &at, &nal))
        ;
    return at == p.len && at > header;
}

static bool is_h264_profile(uint8_t profile)
{
    switch (profile) {
    case 66: case 77: case 88: case 100: case 110: case 122: case 244: case 44: return true;
    default: return false;
    }
}

/* Table 7-1 of H.264: what nal_ref_idc may be beside a type. */
static bool h264_unit_fits(uint8_t header, unsigned type)
{
    unsigned reference = header >> 5 & 3;

    if (type == H264_IDR || type == H264_SPS || type == H264_PPS)
        return reference != 0;
    return type == 1 || (reference == 0 && (type == 6 || (type >= 9 && type <= 12)));
}

static enum payload_fit h264_fits(struct payload p)
{
    if (p.len < 2 || (p.bytes[0] & 0x80))
        return PAYLOAD_REFUSED;
    unsigned type = p.bytes[0] & 31;

    if (type == H264_STAP_A)
        return aggregation_is_whole(p, 1) ? PAYLOAD_IS_TYPICAL : PAYLOAD_REFUSED;
    if (type == H264_FU_A) {
        uint8_t fu = p.bytes[1];
        bool fits = (fu & 0x20) == 0 && (fu & (FU_START | FU_END)) != (FU_START | FU_END) &&
                    h264_unit_fits(p.bytes[0], fu & 31);

        return fits ? PAYLOAD_FITS : PAYLOAD_REFUSED;
    }
    if (!h264_unit_fits(p.bytes[0], type))
        return PAYLOAD_REFUSED;
    if (type == H264_SPS)
        return is_h264_profile(p.bytes[1]) ? PAYLOAD_IS_TYPICAL : PAYLOAD_REFUSED;
    return PAYLOAD_FITS;
}

static bool h265_unit_fits(unsigned type)
{
    return type <= 9 || (type >= H265_IRAP_FIRST && type <= H265_IRAP_LAST) ||
           (type >= H265_VPS && type <= 40);
}

static enum payload_fit h265_fits(struct payload p)
{
    /* Layer 0, as all that is seen in the wild; a temporal id of at least 1. */
    if (p.len < 3 || (p.bytes[0] & 0x81) || (p.bytes[1] & 0xf8) || !(p.bytes[1] & 7))
        return PAYLOAD_REFUSED;
    unsigned type = p.bytes[0] >> 1;
    uint8_t fu = p.bytes[2];

    if (type == H265_AP)
        return aggregation_is_whole(p, 2) ? PAYLOAD_IS_TYPICAL : PAYLOAD_REFUSED;
    if (type == H265_FU)
        return (fu & (FU_START | FU_END)) != (FU_START | FU_END) && h265_unit_fits(fu & 63)
                   ? PAYLOAD_FITS
                   : PAYLOAD_REFUSED;
    if (!h265_unit_fits(type))
        return PAYLOAD_REFUSED;
    return type >= H265_VPS && type <= H265_PPS ? PAYLOAD_IS_TYPICAL : PAYLOAD_FITS;
}

static enum payload_fit vp8_fits(struct payload p, bool first)
{
    size_t at = vp8_descriptor(p);

    if (at == 0 || (p.bytes[0] & 0x48) || ((p.bytes[0] & 0x80) && (p.bytes[1] & 0x0f)))
        return PAYLOAD_REFUSED;
    if (!vp8_starts(p))
        return first ? PAYLOAD_REFUSED : PAYLOAD_FITS;
    if ((p.bytes[at] >> 1 & 7) > 3) /* version */
        return PAYLOAD_REFUSED;
    if (p.bytes[at] & 1)
        return PAYLOAD_FITS;
    bool has_start_code = p.len >= at + 6 && p.bytes[at + 3] == 0x9d && p.bytes[at + 4] == 0x01 &&
                          p.bytes[at + 5] == 0x2a;

    return has_start_code ? PAYLOAD_IS_TYPICAL : PAYLOAD_REFUSED;
}

static enum payload_fit vp9_fits(struct payload p, bool first)
{
    size_t at = vp9_descriptor(p);

    if (at == 0)
        return PAYLOAD_REFUSED;
    if (!(p.bytes[0] & 0x08))
        return first ? PAYLOAD_REFUSED : PAYLOAD_FITS;
    if (p.bytes[at] >> 6 != 2) /* frame_marker */
        return PAYLOAD_REFUSED;
    if (!vp9_is_key(p.bytes[at]) || (p.bytes[at] & 0x30) == 0x30)
        return PAYLOAD_FITS;
    bool has_sync_code = p.len >= at + 4 && p.bytes[at + 1] == 0x49 && p.bytes[at + 2] == 0x83 &&
                         p.bytes[at + 3] == 0x42;

    return has_sync_code ? PAYLOAD_IS_TYPICAL : PAYLOAD_REFUSED;
}

static enum payload_fit av1_fits(struct payload p, bool first)
{
    size_t at = av1_first_obu(p);

    if (p.len < 2 || (p.bytes[0] & 7) || (p.bytes[0] & 0x88) == 0x88)
        return PAYLOAD_REFUSED;
    if (p.bytes[0] & 0x80)
        return first ? PAYLOAD_REFUSED : PAYLOAD_FITS;
    if (at == 0 || (p.bytes[at] & 0x81)) /* forbidden and reserved bits */
        return PAYLOAD_REFUSED;
    unsigned type = p.bytes[at] >> 3 & 15;

    if (p.bytes[0] & 0x08)
        return av1_is_sequence_header(p.bytes[at]) ? PAYLOAD_IS_TYPICAL : PAYLOAD_REFUSED;
    return type >= 1 && type <= 8 && type != 2 ? PAYLOAD_FITS : PAYLOAD_REFUSED;
}

static enum payload_fit mp2t_fits(struct payload p)
{
    enum { CELL = 188, SYNC = 0x47 };

    if (p.len == 0 || p.len % CELL != 0)
        return PAYLOAD_REFUSED;
    for (size_t at = 0; at < p.len; at += CELL) {
        if (p.bytes[at] != SYNC)
            return PAYLOAD_REFUSED;
    }
    return PAYLOAD_IS_TYPICAL;
}

enum payload_fit payload_fits(enum rf_encoding encoding, struct payload p, bool first)
{
    switch (encoding) {
    case RF_ENCODING_H264: return h264_fits(p);
    case RF_ENCODING_H265: return h265_fits(p);
    case RF_ENCODING_VP8: return vp8_fits(p, first);
    case RF_ENCODING_VP9: return vp9_fits(p, first);
    case RF_ENCODING_AV1: return av1_fits(p, first);
    case RF_ENCODING_MP2T: return mp2t_fits(p);
    default: return PAYLOAD_REFUSED;
    }
}

/* RFC 6716 table 2: of a frame, by the configuration number. */
static uint32_t opus_frame_samples(unsigned config)
{
    static const uint16_t silk[] = {480, 960, 1920, 2880}, hybrid[] = {480, 960},
                          celt[] = {120, 240, 480, 960};

    return config < 12   ? silk[config & 3]
           : config < 16 ? hybrid[config & 1]
                         : celt[config & 3];
}

uint32_t payload_opus_samples(struct payload p)
{
    uint32_t frames, most = 5760; /* 120 ms */

    if (p.len == 0)
        return 0;
    switch (p.bytes[0] & 3) {
    case 0: frames = 1; break;
    case 1: frames = (p.len - 1) % 2 == 0 ? 2 : 0; break;
    case 2: frames = 2; break;
    default: frames = p.len > 1 ? p.bytes[1] & 63 : 0; break;
    }
    uint32_t samples = frames * opus_frame_samples(p.bytes[0] >> 3);

    return samples <= most ? samples : 0;
}
