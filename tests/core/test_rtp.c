/* rtp.h: every branch of the classification at its edge. Packets sit at the very end of
 * their memory, so that AddressSanitizer sees a read past them. */
#include "rtp.h"

#include <string.h>

#include "check.h"

static enum rtp_kind classify(const uint8_t *bytes, size_t len, bool check_padding, uint32_t *ssrc)
{
    uint8_t *exact = malloc(len ? len : 1);
    enum rtp_kind kind;

    memcpy(exact, bytes, len);
    kind = rtp_classify(exact + (len ? 0 : 1), len, ssrc);
    if (kind == RTP_PACKET && check_padding && !rtp_padding_fits(exact, len))
        kind = RTP_MALFORMED;
    free(exact);
    return kind;
}

static enum rtp_kind kind_of(const uint8_t *bytes, size_t len)
{
    uint32_t ssrc;

    return classify(bytes, len, true, &ssrc);
}

static void test_reads_are_big_endian(void)
{
    const uint8_t bytes[] = {0x81, 0x02, 0xfe, 0x04};

    CHECK_EQ(rtp_read_u16(bytes), 0x8102);
    CHECK_EQ(rtp_read_u32(bytes), 0x8102fe04);
}

static void test_shortest_packet_and_ssrc(void)
{
    uint8_t p[12] = {0x80, 96, 0, 1, 0, 0, 0, 2, 0xff, 0xee, 0xdd, 0xcc};
    uint32_t ssrc = 7;

    CHECK_EQ(classify(p, 12, true, &ssrc), RTP_PACKET);
    CHECK_EQ(ssrc, 0xffeeddcc);
    ssrc = 7;
    for (size_t len = 0; len < 12; len++)
        CHECK_EQ(classify(p, len, true, &ssrc), RTP_MALFORMED);
    CHECK_EQ(ssrc, 7); /* written for RTP_PACKET only */
    memset(p + 8, 0, 4);
    CHECK_EQ(classify(p, 12, true, &ssrc), RTP_PACKET);
    CHECK_EQ(ssrc, 0);
}

static void test_versions(void)
{
    uint8_t p[12] = {0};

    for (unsigned first = 0; first < 256; first++) {
        p[0] = (uint8_t)first;
        CHECK_EQ(kind_of(p, 1) == RTP_FOREIGN, first >> 6 != 2);
        CHECK_EQ(kind_of(p, 12) == RTP_FOREIGN, first >> 6 != 2);
    }
}

/* RFC 5761 section 4: 192 to 223; marker and payload type never look like it. */
static void test_rtcp_types(void)
{
    uint8_t p[12] = {0x80};

    for (unsigned type = 0; type < 256; type++) {
        enum rtp_kind expected = type >= 192 && type <= 223 ? RTP_CONTROL : RTP_PACKET;

        p[1] = (uint8_t)type;
        CHECK_EQ(kind_of(p, 12), expected);
        CHECK_EQ(kind_of(p, 4), expected == RTP_CONTROL ? RTP_CONTROL : RTP_MALFORMED);
        CHECK_EQ(kind_of(p, 3), RTP_MALFORMED);
    }
}

static void test_csrc_count(void)
{
    uint8_t p[12 + 60] = {0};

    for (unsigned count = 0; count < 16; count++) {
        p[0] = (uint8_t)(0x80 | count);
        CHECK_EQ(kind_of(p, 12 + 4 * count), RTP_PACKET);
        CHECK_EQ(kind_of(p, 12 + 4 * count - 1), RTP_MALFORMED);
    }
}

static void test_extension(void)
{
    static uint8_t p[12 + 4 + 4 * 65535];

    p[0] = 0x90;
    for (unsigned words = 0; words < 65536; words += words < 8 ? 1 : 65535 - 8) {
        size_t len = 12 + 4 + 4 * (size_t)words;

        p[14] = (uint8_t)(words >> 8);
        p[15] = (uint8_t)words;
        CHECK_EQ(kind_of(p, len), RTP_PACKET);
        CHECK_EQ(kind_of(p, len - 1), RTP_MALFORMED);
        CHECK_EQ(kind_of(p, 15), RTP_MALFORMED); /* the length itself is cut off */
        CHECK_EQ(kind_of(p, 12), RTP_MALFORMED);
    }
    p[0] = 0x92; /* two CSRCs stand before the extension */
    p[12 + 8 + 2] = 0;
    p[12 + 8 + 3] = 1;
    CHECK_EQ(kind_of(p, 12 + 8 + 4 + 4), RTP_PACKET);
    CHECK_EQ(kind_of(p, 12 + 8 + 4 + 3), RTP_MALFORMED);
}

static void test_padding(void)
{
    uint8_t p[12 + 16] = {0xa0};
    uint32_t ssrc;

    for (unsigned count = 0; count < 256; count++) {
        p[27] = (uint8_t)count;
        CHECK_EQ(kind_of(p, 28), count >= 1 && count <= 16 ? RTP_PACKET : RTP_MALFORMED);
        CHECK_EQ(classify(p, 28, false, &ssrc), RTP_PACKET); /* SRTP encrypts the count */
    }
    CHECK_EQ(kind_of(p, 12), RTP_MALFORMED); /* no room for the count: p[11] is the SSRC's */
    p[11] = 1;
    CHECK_EQ(kind_of(p, 12), RTP_MALFORMED);
    p[0] = 0x80;
    p[27] = 0;
    CHECK_EQ(kind_of(p, 28), RTP_PACKET);
}

int main(void)
{
    RUN(test_reads_are_big_endian);
    RUN(test_shortest_packet_and_ssrc);
    RUN(test_versions);
    RUN(test_rtcp_types);
    RUN(test_csrc_count);
    RUN(test_extension);
    RUN(test_padding);
    return 0;
}
