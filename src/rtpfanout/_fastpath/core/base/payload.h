/* What the first bytes of an RTP payload tell, by encoding. No state, nothing is kept.
 *
 * H264: RFC 6184. H265: RFC 7798. VP8: RFC 7741. VP9: RFC 9628. AV1: the RTP payload format of AOM,
 * version 1.0. JPEG: RFC 2435. OPUS: RFC 7587, its table of contents RFC 6716 section 3.1. MP2T:
 * RFC 2250. Static payload types: RFC 3551 section 6. */
#ifndef RF_PAYLOAD_H
#define RF_PAYLOAD_H

#include "media.h"
#include "rtp.h"

/* Of a packet that rtp_classify took for RTP, behind CSRCs and extension. */
struct payload payload_of(const uint8_t *packet, size_t len);

struct payload_facts {
    bool starts_frame; /* as far as the payload itself tells; of audio each does */
    bool keyframe;     /* of a frame that can be decoded without those before */
    bool parameter_sets;
};

/* All false where nothing is known of the encoding. Of H264 and H265 the sets of a sequence make a
 * keyframe as an IDR picture does: where GOPs are open they come with the picture to begin at. */
struct payload_facts payload_look(enum rf_encoding encoding, struct payload p);

/* Whether payload_look has nothing to say of a packet, by a look at two bytes of it: quick, and false
 * where that does not suffice. `begins`: it has another timestamp than the one before. */
static inline bool payload_is_dull(enum rf_encoding encoding, const uint8_t *packet, size_t len,
                                   bool begins)
{
    if (encoding != RF_ENCODING_H264 && encoding != RF_ENCODING_H265)
        return !begins || encoding == RF_ENCODING_UNKNOWN || encoding > RF_ENCODING_JPEG;
    if (packet[0] != RTP_VERSION << 6 || len < RTP_HEADER_LEN + 3)
        return false;
    const uint8_t *nal = packet + RTP_HEADER_LEN;

    if (encoding == RF_ENCODING_H264) /* a slice, or a fragment that goes on */
        return (nal[0] & 31) == 1 || ((nal[0] & 31) == 28 && nal[1] < 0x80);
    return nal[0] < 10 << 1 || ((nal[0] >> 1 & 63) == 49 && nal[2] < 0x80);
}

/* A parameter set that came whole, as a NAL unit. */
struct parameter_set {
    const uint8_t *bytes;
    size_t len;
    /* What it is of, so that a newer one takes the place of an older: its NAL unit type, and its
     * number where that is easily told. */
    uint8_t type, number;
};

/* The next one at or behind `*at`, which begins with 0; false when there is none. */
bool payload_next_set(enum rf_encoding encoding, struct payload p, size_t *at,
                      struct parameter_set *out);

/* How well a payload fits an encoding. */
enum payload_fit { PAYLOAD_REFUSED, PAYLOAD_FITS, PAYLOAD_IS_TYPICAL };

/* Of H264, H265, VP8, VP9, AV1 and MP2T; others are refused. `first`: it is the first packet of a
 * timestamp, and nothing is missing before it. */
enum payload_fit payload_fits(enum rf_encoding encoding, struct payload p, bool first);
/* Samples at 48 kHz of an Opus packet; 0: it is none. */
uint32_t payload_opus_samples(struct payload p);

/* By RFC 3551; RF_ENCODING_UNKNOWN and 0 where it assigns nothing that we know. */
enum rf_encoding payload_static_encoding(uint8_t payload_type);
uint32_t payload_static_clock(uint8_t payload_type);
/* 0: not always the same. */
uint32_t payload_clock(enum rf_encoding encoding);
/* Whether there are keyframes beside other frames. */
bool payload_has_keyframes(enum rf_encoding encoding);
bool payload_has_parameter_sets(enum rf_encoding encoding);
/* Whether a new timestamp is a new frame: of MP2T it is when the packet was sent. */
bool payload_has_frames(enum rf_encoding encoding);

#endif
