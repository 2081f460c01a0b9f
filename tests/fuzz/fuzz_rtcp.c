/* rtcp.c, and feedback.c behind it; the input is the datagram, of a source and of a subscriber.
 *
 * Whether it is well-formed is found out a second time, as plainly as RFC 3550 reads. Of what is, nothing
 * but what stands there is read, and what is passed on is well-formed again. */
#include <stdlib.h>
#include <string.h>

#include "feedback.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool naive_sdes(const uint8_t *p, size_t len, unsigned chunks)
{
    for (size_t at = 4; chunks > 0; chunks--) {
        if (at + 8 > len)
            return false;
        at += 4;
        for (;;) {
            if (at >= len)
                return false;
            if (p[at] == 0)
                break;
            if (at + 1 >= len || at + 2 + p[at + 1] > len)
                return false;
            at += 2 + p[at + 1];
        }
        do
            at++;
        while (at % 4 != 0);
    }
    return true;
}

static bool naive_is_valid(const uint8_t *p, size_t left)
{
    if (left == 0)
        return false;
    while (left > 0) {
        if (left < 4 || p[0] / 64 != 2 || p[1] < 192 || p[1] > 223)
            return false;
        size_t size = 4 * (p[2] * 256u + p[3] + 1), len = size, count = p[0] % 32;

        if (size > left)
            return false;
        if (p[0] / 32 % 2) {
            size_t padding = p[size - 1];

            if (size < left || padding == 0 || padding % 4 != 0 || padding > size - 4)
                return false;
            len -= padding;
        }
        if ((p[1] == 200 && len < 28 + 24 * count) || (p[1] == 201 && len < 8 + 24 * count) ||
            (p[1] == 202 && !naive_sdes(p, len, (unsigned)count)) ||
            (p[1] == 203 && len < 4 + 4 * count) || (p[1] >= 204 && p[1] <= 206 && len < 12) ||
            ((p[1] < 200 || p[1] > 206) && len < 8))
            return false;
        p += size;
        left -= size;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct feedback f;
    static struct subscriber subscriber;
    static struct repair repair;
    struct reporter reporter = {.subscriber = &subscriber};
    static struct reporters *all;
    uint8_t message[FEEDBACK_MESSAGE];
    uint32_t media[RTCP_SSRCS];

    if (rtcp_is_valid(data, size) != naive_is_valid(data, size))
        abort();
    if (!rtcp_is_valid(data, size))
        return 0;
    memset(&f, 0, sizeof f);
    unsigned n = rtcp_media(data, size, media);
    struct media_clock m = {
        .ssrc = rtcp_sender(data, size),
        .at_ns = 1000,
        .rate = 90000,
        .timestamp = size >= 20 ? (uint32_t)data[16] << 24 | (uint32_t)data[17] << 16 : 0,
        .expected = 10,
    };

    m.several = size / 4 % 2;
    for (unsigned i = 0; i < 3; i++) { /* and of other SSRCs in between */
        feedback_take_source(&f, data, size, false, &m, 2000 + i);
        if (f.report_len > 0)
            f.report[7] ^= (uint8_t)(1 + i);
    }
    f.spoken_ns = 2000;
    if (f.report_len > 0 && !rtcp_is_valid(f.report, f.report_len))
        abort();
    for (unsigned i = 0; i < n; i++) {
        m.ssrc = media[i];
        feedback_take_reporter(&f, &reporter, data, size, &m, 3000 + i);
    }
    /* With all that we may have to say: bytes of the datagram as sequence numbers that came. */
    if (!all && !(all = calloc(1, sizeof *all + sizeof(struct reporter *))))
        abort();
    all->count = 1;
    all->item[0] = &reporter;
    memset(&repair, 0, sizeof repair);
    store_rlx(&f.repair, &repair);
    store_rlx(&f.repairs, true);
    store_rlx(&f.class, 1);
    store_rlx(&f.format, RF_KEYFRAME_PLI | RF_KEYFRAME_FIR);
    for (size_t i = 0; i < size; i++)
        feedback_note_packet(&f, m.ssrc, data[i], 1000 + i);
    size_t len = feedback_compose(&f, message, 7, all, &m, UINT64_C(1500000000));

    if (len > sizeof message || (len > 0 && !naive_is_valid(message, len)))
        abort();
    len = feedback_bye(&f, 9, message);
    if (len > sizeof message || !naive_is_valid(message, len))
        abort();
    return 0;
}
