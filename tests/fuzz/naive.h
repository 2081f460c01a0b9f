/* What a datagram is, written a second time and as plainly as RFC 3550 reads: a field after
 * the other, as long as there is something left. */
#ifndef FUZZ_NAIVE_H
#define FUZZ_NAIVE_H

#include "rtp.h"

static inline enum rtp_kind naive_kind(const uint8_t *p, size_t len, bool check_padding,
                                       uint32_t *ssrc)
{
    size_t at = 0, left = len;

    if (len == 0)
        return RTP_MALFORMED;
    unsigned version = p[0] / 64, padding = p[0] / 32 % 2, extension = p[0] / 16 % 2;
    unsigned csrcs = p[0] % 16;

    if (version != 2)
        return RTP_FOREIGN;
    if (len > 3 && p[1] > 191 && p[1] < 224)
        return RTP_CONTROL;
    if (left < 12)
        return RTP_MALFORMED;
    uint32_t id = p[8];

    for (int i = 9; i < 12; i++)
        id = id * 256 + p[i];
    at += 12, left -= 12;
    for (; csrcs > 0; csrcs--, at += 4, left -= 4)
        if (left < 4)
            return RTP_MALFORMED;
    if (extension) {
        if (left < 4)
            return RTP_MALFORMED;
        unsigned words = p[at + 2] * 256u + p[at + 3];

        for (at += 4, left -= 4; words > 0; words--, at += 4, left -= 4)
            if (left < 4)
                return RTP_MALFORMED;
    }
    if (padding && check_padding) {
        if (left == 0 || p[len - 1] == 0 || p[len - 1] > left)
            return RTP_MALFORMED;
    }
    *ssrc = id;
    return RTP_PACKET;
}

#endif
