/* RTCP: one datagram read and written (RFC 3550 section 6; feedback: RFC 4585, FIR: RFC 5104,
 * reduced size: RFC 5506, extended reports: RFC 3611, which are passed over). No state, nothing kept.
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *   |V=2|P| RC, FMT |      PT       |   length in words, minus one  |
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *   |                         SSRC of sender                        |
 *   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 */
#ifndef RF_RTCP_H
#define RF_RTCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rtcp_type {
    RTCP_SR = 200,
    RTCP_RR = 201,
    RTCP_SDES = 202,
    RTCP_BYE = 203,
    RTCP_APP = 204,
    RTCP_RTPFB = 205,
    RTCP_PSFB = 206,
    RTCP_XR = 207,
};

enum {
    RTCP_BLOCK_LEN = 24,
    RTCP_SR_LEN = 28, /* without report blocks */
    RTCP_SSRCS = 8,   /* that a datagram is asked what it is about */
    RTCP_CNAME_LEN = 255,
};

/* One packet of a datagram. */
struct rtcp_packet {
    const uint8_t *data;
    uint32_t len;  /* with header, without padding */
    uint8_t type;
    uint8_t count; /* RC, SC, FMT or subtype */
    bool padded;
};

/* Whether the datagram is well-formed: packets of version 2 whose lengths add up (RFC 3550 appendix
 * A.2), padding behind the last alone, and each long enough for what it is said to hold. The first may be of any
 * type: reduced size. */
bool rtcp_is_valid(const uint8_t *data, size_t len);
/* Of a datagram that is valid: the packet at `*at`, which begins with 0; false at its end. */
bool rtcp_next(const uint8_t *data, size_t len, size_t *at, struct rtcp_packet *out);

/* Of the first packet: who sent it. 0 where that doesn't say (SDES and BYE of nobody). */
uint32_t rtcp_sender(const uint8_t *data, size_t len);
/* The SSRCs of others that it reports on or asks something of, each once; how many, at most
 * RTCP_SSRCS. */
unsigned rtcp_media(const uint8_t *data, size_t len, uint32_t ssrc[RTCP_SSRCS]);

struct rtcp_sender_report {
    const uint8_t *data; /* RTCP_SR_LEN bytes: without its blocks */
    uint8_t blocks;
    uint64_t ntp;
    uint32_t rtp_time;
};

/* The last sender report of that SSRC; false when there is none. */
bool rtcp_find_sender_report(const uint8_t *data, size_t len, uint32_t ssrc,
                             struct rtcp_sender_report *out);
/* The packet that has its CNAME, in the first chunk. */
bool rtcp_find_cname(const uint8_t *data, size_t len, uint32_t ssrc, struct rtcp_packet *out);
bool rtcp_has_bye(const uint8_t *data, size_t len);

/* A report block. */
struct rtcp_block {
    uint32_t ssrc;
    uint8_t fraction;  /* lost since the last report, of 256 */
    int32_t lost;      /* in all; 24 bits, less than 0 with duplicates */
    uint32_t sequence; /* the highest, extended by how often it began anew */
    uint32_t jitter;   /* of the RTP clock */
    uint32_t lsr, dlsr;
};

/* What the datagram says about the SSRC `ssrc`. */
struct rtcp_about {
    bool has_block, pli, fir;
    struct rtcp_block block;
    uint32_t nacked; /* packets that were asked for (RFC 4585 section 6.2.1) */
    bool has_bitrate;
    uint64_t bitrate; /* bits a second, by draft-alvestrand-rmcat-remb-03 */
};

struct rtcp_about rtcp_read(const uint8_t *data, size_t len, uint32_t ssrc);

/* Each writes one packet behind the `at` bytes that are there, and returns how many are then. There
 * is room for it. */
size_t rtcp_write_receiver_report(uint8_t *out, size_t at, uint32_t sender,
                                  const struct rtcp_block *block);
/* `cname` of up to RTCP_CNAME_LEN bytes. */
size_t rtcp_write_cname(uint8_t *out, size_t at, uint32_t sender, const char *cname);
size_t rtcp_write_bye(uint8_t *out, size_t at, uint32_t sender);
size_t rtcp_write_pli(uint8_t *out, size_t at, uint32_t sender, uint32_t media);
/* RFC 4585 section 6.2.1: `n` sequence numbers, 1 or more and in order, that are to be sent again.
 * At most 12 + 4 n bytes. */
size_t rtcp_write_nack(uint8_t *out, size_t at, uint32_t sender, uint32_t media, const uint16_t *sequence,
                       unsigned n);
/* draft-alvestrand-rmcat-remb-03: bits a second that `media` is not to exceed, rounded down. */
size_t rtcp_write_bitrate(uint8_t *out, size_t at, uint32_t sender, uint32_t media, uint64_t bitrate);
size_t rtcp_write_fir(uint8_t *out, size_t at, uint32_t sender, uint32_t media, uint8_t number);

#endif
