/* rtcp.c: RTCP is read as RFC 3550, 4585 and 5104 lay it out; what is written is read the same; the rest is malformed. */
#include "rtcp.h"

#include "rtp.h"

#include <string.h>

#include "check.h"
#include "random.h"

enum { SOURCE = 0x11223344, VIEWER = 0x55667788, OTHER = 0x0a0b0c0d };

#define WORD(v) (v) >> 24 & 255, (v) >> 16 & 255, (v) >> 8 & 255, (v) & 255

static const uint8_t sender_report[] = {
    0x81, 200, 0, 12, WORD(SOURCE), WORD(0xdeadbeef), WORD(0x80000001), WORD(90000), WORD(7),
    WORD(8400), WORD(OTHER), WORD(0), WORD(0), WORD(0), WORD(0), WORD(0),
};
static const uint8_t source_cname[] = {
    0x81, 202, 0, 4, WORD(SOURCE), 1, 6, 'c', 'a', 'm', '@', 'r', '7', 0, 0, 0, 0,
};
static const uint8_t receiver_report[] = {
    0x82, 201, 0, 13, WORD(VIEWER),
    WORD(OTHER), WORD(0), WORD(0), WORD(0), WORD(0), WORD(0),
    WORD(SOURCE), 64, 0xff, 0xff, 0xfe, WORD(0x00030007), WORD(450), WORD(0xbeef8000), WORD(65536),
};
static const uint8_t nack[] = {0x81, 205, 0, 4, WORD(VIEWER), WORD(SOURCE), 0, 5, 0x80, 1, 0, 90, 0, 0};
static const uint8_t remb[] = {0x8f, 206, 0, 5, WORD(VIEWER), WORD(0), 'R', 'E', 'M', 'B', 1,
                               3 << 2 | 1, 0, 2, WORD(SOURCE)};
static const uint8_t bye[] = {0x81, 203, 0, 2, WORD(SOURCE), 3, 'e', 'n', 'd'};
static const uint8_t extended[] = {0x80, 207, 0, 4, WORD(VIEWER), 4, 0, 0, 2, WORD(1), WORD(2)};
static const uint8_t application[] = {0x85, 204, 0, 2, WORD(SOURCE), 'q', 'o', 's', '1'};

static uint8_t room[2048];
static size_t used;

static void put(const void *data, size_t len)
{
    memcpy(room + used, data, len);
    used += len;
}

#define PUT(what) put(what, sizeof what)

static void test_a_source(void)
{
    struct rtcp_sender_report sr;
    struct rtcp_packet cname;
    uint32_t media[RTCP_SSRCS];

    used = 0;
    PUT(sender_report), PUT(source_cname), PUT(application), PUT(bye);
    CHECK(rtcp_is_valid(room, used));
    CHECK_EQ(rtcp_sender(room, used), SOURCE);
    CHECK(rtcp_find_sender_report(room, used, SOURCE, &sr));
    CHECK(!rtcp_find_sender_report(room, used, OTHER, &sr));
    CHECK(sr.data == room);
    CHECK_EQ(sr.blocks, 1);
    CHECK_EQ(sr.ntp, 0xdeadbeef80000001);
    CHECK_EQ(sr.rtp_time, 90000);
    CHECK(rtcp_find_cname(room, used, SOURCE, &cname));
    CHECK(!rtcp_find_cname(room, used, OTHER, &cname));
    CHECK(rtcp_has_bye(room, used));
    CHECK(!rtcp_has_bye(room, sizeof sender_report + sizeof source_cname));
    CHECK_EQ(rtcp_media(room, used, media), 1);
    CHECK_EQ(media[0], OTHER);
}

static void test_a_subscriber(void)
{
    uint32_t media[RTCP_SSRCS];

    used = 0;
    PUT(receiver_report), PUT(nack), PUT(remb), PUT(extended);
    used = rtcp_write_pli(room, used, VIEWER, SOURCE);
    CHECK(rtcp_is_valid(room, used));
    CHECK_EQ(rtcp_sender(room, used), VIEWER);
    CHECK_EQ(rtcp_media(room, used, media), 2);
    CHECK_EQ(media[0], OTHER);
    CHECK_EQ(media[1], SOURCE);

    struct rtcp_about a = rtcp_read(room, used, SOURCE);

    CHECK(a.has_block && a.pli && !a.fir && a.has_bitrate);
    CHECK_EQ(a.block.fraction, 64);
    CHECK_EQ(a.block.lost, -2);
    CHECK_EQ(a.block.sequence, 0x00030007);
    CHECK_EQ(a.block.jitter, 450);
    CHECK_EQ(a.block.lsr, 0xbeef8000);
    CHECK_EQ(a.block.dlsr, 65536);
    CHECK_EQ(a.nacked, 4);
    CHECK_EQ(a.bitrate, 65538 << 3);
    a = rtcp_read(room, used, OTHER);
    CHECK(a.has_block && !a.pli && !a.has_bitrate);
    CHECK_EQ(a.nacked, 0);
}

/* Reduced size: it need not begin with a report. */
static void test_what_is_written(void)
{
    struct rtcp_block block = {SOURCE, 12, -70000, 0xfffffff0, 3, 4, 5};

    for (size_t text = 0; text < 40; text++) {
        char cname[64] = "";
        struct rtcp_packet p;

        memset(cname, 'x', text);
        used = rtcp_write_receiver_report(room, 0, VIEWER, &block);
        used = rtcp_write_cname(room, used, VIEWER, cname);
        CHECK(rtcp_find_cname(room, used, VIEWER, &p));
        CHECK_EQ(p.data[9], text);
        used = rtcp_write_fir(room, used, VIEWER, SOURCE, 9);
        used = rtcp_write_bye(room, used, VIEWER);
        CHECK(rtcp_is_valid(room, used));
        struct rtcp_about a = rtcp_read(room, used, SOURCE);

        CHECK(a.has_block && a.fir && !a.pli);
        CHECK_EQ(a.block.fraction, block.fraction);
        CHECK_EQ(a.block.lost, block.lost);
        CHECK_EQ(a.block.sequence, block.sequence);
        CHECK_EQ(a.block.jitter, block.jitter);
        CHECK_EQ(a.block.lsr, block.lsr);
        CHECK_EQ(a.block.dlsr, block.dlsr);
    }
    CHECK_EQ(rtcp_write_pli(room, 0, VIEWER, SOURCE), 12);
    CHECK(rtcp_is_valid(room, 12));
    CHECK(rtcp_read(room, 12, SOURCE).pli);
    CHECK_EQ(rtcp_write_receiver_report(room, 0, VIEWER, NULL), 8);
    CHECK(rtcp_is_valid(room, 8));
}

static bool valid(const void *data, size_t len)
{
    return rtcp_is_valid(data, len);
}

static void test_what_is_malformed(void)
{
    uint8_t p[64];

    CHECK(!valid(p, 0));
    for (size_t len = 1; len < sizeof sender_report; len++)
        CHECK(!valid(sender_report, len));
#define BAD(what, at, value)                            \
    do {                                                \
        memcpy(p, what, sizeof what);                   \
        CHECK(valid(p, sizeof what));                   \
        p[at] = value;                                  \
        CHECK(!valid(p, sizeof what));                  \
    } while (0)
    BAD(sender_report, 0, 0x41); /* version 1 */
    BAD(sender_report, 0, 0x82); /* two blocks, and room for one */
    BAD(sender_report, 1, 96);
    BAD(sender_report, 3, 13);
    BAD(sender_report, 3, 4);
    BAD(source_cname, 9, 200); /* the item is longer than the packet */
    BAD(source_cname, 0, 0x82);
    BAD(receiver_report, 0, 0x83);
    BAD(bye, 0, 0x83);
    BAD(nack, 3, 1);
    BAD(nack, 0, 0xa1); /* padding of 0 bytes */
    /* What follows a packet that is padded is not RTCP. */
    used = 0;
    PUT(nack), PUT(nack);
    CHECK(valid(room, used));
    room[0] |= 0x20;
    room[sizeof nack - 1] = 4;
    CHECK(valid(room, sizeof nack));
    CHECK(!valid(room, used));
    room[sizeof nack - 1] = 3; /* not whole words */
    CHECK(!valid(room, sizeof nack));
    room[sizeof nack - 1] = 20; /* more than there is */
    CHECK(!valid(room, sizeof nack));
}

/* A datagram of many sources names no more of them than there is room for. */
static void test_many_ssrcs(void)
{
    uint32_t media[RTCP_SSRCS];

    used = 0;
    for (uint32_t i = 0; i < 3 * RTCP_SSRCS; i++)
        used = rtcp_write_pli(room, used, VIEWER, 1 + i / 2);
    CHECK(rtcp_is_valid(room, used));
    CHECK_EQ(rtcp_media(room, used, media), RTCP_SSRCS);
    for (uint32_t i = 0; i < RTCP_SSRCS; i++)
        CHECK_EQ(media[i], 1 + i);
}

/* Whatever was changed in it is refused, or read without going beyond it. */
static void test_any_change(void)
{
    uint64_t random = 3;

    for (unsigned round = 0; round < 200000; round++) {
        used = 0;
        PUT(sender_report), PUT(source_cname), PUT(receiver_report), PUT(nack), PUT(remb), PUT(bye);
        size_t len = 1 + random_below(&random, (uint32_t)used);
        uint8_t *copy = malloc(len);

        memcpy(copy, room, len);
        for (unsigned i = random_below(&random, 4); i > 0; i--)
            copy[random_below(&random, (uint32_t)len)] = (uint8_t)random_below(&random, 256);
        if (rtcp_is_valid(copy, len)) {
            uint32_t media[RTCP_SSRCS];
            struct rtcp_sender_report sr;
            struct rtcp_packet cname;

            CHECK(rtcp_media(copy, len, media) <= RTCP_SSRCS);
            rtcp_read(copy, len, SOURCE);
            rtcp_find_sender_report(copy, len, SOURCE, &sr);
            rtcp_find_cname(copy, len, SOURCE, &cname);
        }
        free(copy);
    }
}

/* What is asked for is read as what it was. */
static void test_what_is_to_be_sent_again(void)
{
    uint16_t some[] = {65530, 65535, 10, 11, 26, 27, 28, 500};
    uint64_t rates[] = {0, 1, 0x3ffff, 0x40000, 2500000, UINT64_C(1) << 60, UINT64_MAX};

    for (unsigned n = 1; n <= COUNT(some); n++) {
        size_t len = rtcp_write_nack(room, 0, VIEWER, SOURCE, some, n);
        unsigned seen = 0;

        CHECK(rtcp_is_valid(room, len) && len <= 12 + 4 * n);
        CHECK_EQ(rtcp_read(room, len, SOURCE).nacked, n);
        for (size_t at = 12; at < len; at += 4) {
            uint16_t first = (uint16_t)rtp_read_u16(room + at), also = (uint16_t)rtp_read_u16(room + at + 2);

            CHECK_EQ(first, some[seen++]);
            for (unsigned bit = 0; bit < 16; bit++) {
                if (also >> bit & 1)
                    CHECK_EQ((uint16_t)(first + bit + 1), some[seen++]);
            }
        }
        CHECK_EQ(seen, n);
    }
    for (unsigned i = 0; i < COUNT(rates); i++) {
        size_t len = rtcp_write_bitrate(room, 0, VIEWER, SOURCE, rates[i]);
        struct rtcp_about a = rtcp_read(room, len, SOURCE);

        CHECK(rtcp_is_valid(room, len) && a.has_bitrate);
        CHECK(a.bitrate <= rates[i] && rates[i] - a.bitrate <= rates[i] >> 17);
    }
}

int main(void)
{
    RUN(test_a_source);
    RUN(test_a_subscriber);
    RUN(test_what_is_written);
    RUN(test_what_is_to_be_sent_again);
    RUN(test_what_is_malformed);
    RUN(test_many_ssrcs);
    RUN(test_any_change);
    return 0;
}
