/* The RTP fixed header (RFC 3550 section 5.1) and what a datagram is at first sight.
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *   |V=2|P|X|  CC   |M|     PT      |       sequence number         |
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *   |                           timestamp                           |
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *   |           synchronization source (SSRC) identifier            |
 *   +=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+=+
 *   |            contributing source (CSRC) identifiers             |
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 */
#ifndef RF_RTP_H
#define RF_RTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RTP_HEADER_LEN = 12,
    RTP_VERSION = 2,
    RTP_PADDING = 0x20,
    RTP_EXTENSION = 0x10,
    RTP_MARKER = 0x80, /* of the second byte */
    RTP_CSRC_COUNT = 0x0f,
    RTP_PAYLOAD_TYPE = 0x7f, /* of the second byte */
    RTP_SEQUENCE_OFFSET = 2,
    RTP_SSRC_OFFSET = 8,
    RTCP_HEADER_LEN = 4,
    RTCP_TYPE_FIRST = 192, /* RFC 5761 section 4: the second byte tells RTCP from RTP */
    RTCP_TYPE_LAST = 223,
};

/* What lies behind the header of a packet. */
struct payload {
    const uint8_t *bytes;
    size_t len; /* without padding, where that is told */
};

enum rtp_kind { RTP_PACKET, RTP_CONTROL, RTP_MALFORMED, RTP_FOREIGN };

static inline uint32_t rtp_read_u16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t rtp_read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* How long the header is with CSRCs and extension; 0: longer than the packet. */
static inline size_t rtp_header_len(const uint8_t *p, size_t len)
{
    size_t header = RTP_HEADER_LEN;

    if (len < header)
        return 0;
    header += 4 * (size_t)(p[0] & RTP_CSRC_COUNT);
    if (p[0] & RTP_EXTENSION) {
        if (len < header + 4)
            return 0;
        header += 4 + 4 * (size_t)rtp_read_u16(p + header + 2);
    }
    return len < header ? 0 : header;
}

/* Whether the padding count, if there is one, fits the payload of an RTP_PACKET. Senders of SRTP
 * encrypt that count (RFC 3711 section 3.1), so it can't be asked of them. */
static inline bool rtp_padding_fits(const uint8_t *p, size_t len)
{
    if (!(p[0] & RTP_PADDING))
        return true;
    size_t padding = p[len - 1];

    return padding != 0 && padding <= len - rtp_header_len(p, len);
}

/* Validity by RFC 3550 appendix A.1 as far as the header of one packet alone can show it; `ssrc` is
 * written only for RTP_PACKET. */
static inline enum rtp_kind rtp_classify(const uint8_t *p, size_t len, uint32_t *ssrc)
{
    if (len == 0)
        return RTP_MALFORMED;
    if (p[0] >> 6 != RTP_VERSION)
        return RTP_FOREIGN;
    if (len >= RTCP_HEADER_LEN && p[1] >= RTCP_TYPE_FIRST && p[1] <= RTCP_TYPE_LAST)
        return RTP_CONTROL;
    if (rtp_header_len(p, len) == 0)
        return RTP_MALFORMED;
    *ssrc = rtp_read_u32(p + RTP_SSRC_OFFSET);
    return RTP_PACKET;
}

#endif
