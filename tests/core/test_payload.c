/* payload.c, payload_fit.c, codec.h, media.h: what first bytes tell, by encoding. */
#include <string.h>

#include "check.h"
#include "payload.h"

#define P(...)                                                                 \
    ((struct payload){(const uint8_t[]){__VA_ARGS__}, sizeof(uint8_t[]){__VA_ARGS__}})

static void facts(enum rf_encoding e, struct payload p, bool starts, bool key, bool sets)
{
    struct payload_facts f = payload_look(e, p);

    CHECK_EQ(f.starts_frame, starts);
    CHECK_EQ(f.keyframe, key);
    CHECK_EQ(f.parameter_sets, sets);
}

static void behind_the_header(void)
{
    static const uint8_t plain[] = {0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0x65, 1};
    static const uint8_t all[] = {0xb1, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, /* CSRC */ 9, 9, 9, 9,
                                  0xbe, 0xde, 0, 1, 5, 5, 5, 5, /* payload */ 0x41, 7, /* padding */ 0, 2};
    static const uint8_t sealed[] = {0xa0, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0x65, 200};
    struct payload p = payload_of(plain, sizeof plain);

    CHECK(p.bytes == plain + 12);
    CHECK_EQ(p.len, 2);
    p = payload_of(all, sizeof all);
    CHECK(p.bytes == all + 24);
    CHECK_EQ(p.len, 2);
    p = payload_of(sealed, sizeof sealed); /* its padding count is encrypted */
    CHECK_EQ(p.len, 2);
    p = payload_of(plain, 12);
    CHECK_EQ(p.len, 0);
}

static void h264(void)
{
    enum rf_encoding e = RF_ENCODING_H264;

    facts(e, P(0x41, 0x9a), true, false, false);
    facts(e, P(0x65, 0x88), true, true, false);
    facts(e, P(0x67, 0x42, 0xc0, 0x1f, 0x8c), true, true, true);
    facts(e, P(0x68, 0xce, 0x3c, 0x80), true, false, true);
    facts(e, P(0x06, 0x05), true, false, false);
    facts(e, P(0x7c, 0x85, 1), true, true, false); /* FU-A of an IDR picture: start, middle, end */
    facts(e, P(0x7c, 0x05, 1), false, false, false);
    facts(e, P(0x7c, 0x45, 1), false, false, false);
    facts(e, P(0x5c, 0x81, 1), true, false, false);
    facts(e, P(0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce), true, true, true); /* STAP-A */
    facts(e, P(0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x41, 0x9a), true, false, false);
    facts(e, P(0x78, 0, 2, 0x09, 0xf0, 0, 9, 0x65), true, false, false); /* cut short */
    facts(e, P(0x78, 0, 0, 0x65), true, false, false);
    facts(e, P(0x78), false, false, false);
    facts(e, P(0x7c), false, false, false);
    facts(e, (struct payload){NULL, 0}, false, false, false);
}

static void h265(void)
{
    enum rf_encoding e = RF_ENCODING_H265;

    facts(e, P(0x02, 0x01, 0xd0), true, false, false); /* TRAIL_R */
    facts(e, P(0x26, 0x01, 0xaf), true, true, false);  /* IDR_W_RADL */
    facts(e, P(0x2a, 0x01, 0xaf), true, true, false);  /* CRA_NUT */
    facts(e, P(0x40, 0x01, 0x0c), true, false, true);
    facts(e, P(0x42, 0x01, 0x01), true, true, true);
    facts(e, P(0x44, 0x01, 0xc1), true, false, true);
    facts(e, P(0x62, 0x01, 0x93), true, true, false); /* FU of IDR_W_RADL */
    facts(e, P(0x62, 0x01, 0x13), false, false, false);
    facts(e, P(0x62, 0x01, 0x81), true, false, false);
    facts(e, P(0x60, 0x01, 0, 3, 0x40, 1, 0xc, 0, 3, 0x42, 1, 1), true, true, true); /* AP */
    facts(e, P(0x62, 0x01), false, false, false);
    facts(e, P(0x26), false, false, false);
}

static void vp8(void)
{
    enum rf_encoding e = RF_ENCODING_VP8;

    facts(e, P(0x10, 0x50, 0x23, 0, 0x9d, 0x01, 0x2a), true, true, false);
    facts(e, P(0x10, 0x51, 0x23, 0), true, false, false);
    facts(e, P(0x00, 0x50, 0x23, 0), false, false, false); /* the frame goes on */
    facts(e, P(0x11, 0x50, 0x23, 0), false, false, false); /* another partition */
    facts(e, P(0x90, 0x80, 0x2a, 0x50), true, true, false); /* picture id: 7 bits, then 15 */
    facts(e, P(0x90, 0x80, 0x81, 0x2a, 0x51), true, false, false);
    facts(e, P(0x90, 0xe0, 0x81, 0x2a, 7, 0x20, 0x50), true, true, false); /* TL0PICIDX, TID */
    facts(e, P(0x90, 0x80, 0x81, 0x2a), false, false, false); /* cut short */
    facts(e, P(0x90, 0x80), false, false, false);
    facts(e, P(0x10), false, false, false);
}

static void vp9(void)
{
    enum rf_encoding e = RF_ENCODING_VP9;

    facts(e, P(0x08, 0x82, 0x49, 0x83, 0x42), true, true, false);
    facts(e, P(0x0c, 0x86), true, false, false);
    facts(e, P(0x0c, 0x8a), true, false, false); /* an existing frame is shown */
    facts(e, P(0x04, 0x82), false, false, false);
    facts(e, P(0x88, 0x05, 0x82), true, true, false); /* picture ids */
    facts(e, P(0x88, 0x85, 0x01, 0x82), true, true, false);
    facts(e, P(0xa8, 0x05, 0x00, 0x07, 0x82), true, true, false); /* layers, TL0PICIDX */
    facts(e, P(0xd8, 0x05, 0x03, 0x02, 0x86), true, false, false); /* two reference indices */
    facts(e, P(0x0a, 0x18, 1, 2, 3, 4, 1, 0x04, 9, 0x82), true, true, false); /* a structure */
    facts(e, P(0x0a, 0xf8, 1, 2), false, false, false);
    facts(e, P(0x08, 0xb0), true, true, false); /* profile 3 */
    facts(e, P(0x08, 0xb2), true, false, false);
    facts(e, P(0x08), false, false, false);
}

static void av1(void)
{
    enum rf_encoding e = RF_ENCODING_AV1;

    facts(e, P(0x18, 0x0a, 0x0b, 0), true, true, false); /* W=1, N: a sequence header */
    facts(e, P(0x28, 0x02, 0x08, 0x00, 0x30, 0x10), true, true, false); /* W=2: a length first */
    facts(e, P(0x10, 0x30, 0x10), true, false, false); /* OBU_FRAME */
    facts(e, P(0x90, 0x30, 0x10), false, false, false); /* Z: it goes on */
    facts(e, P(0x20, 0x09, 0x08), false, false, false); /* cut short */
    facts(e, P(0x20, 0xff, 0xff, 0xff, 0xff, 0x08), false, false, false);
    facts(e, P(0x20, 0x80), false, false, false);
    facts(e, P(0x18), false, false, false);
}

static void others(void)
{
    facts(RF_ENCODING_JPEG, P(0, 0, 0, 0, 1, 60, 80, 60, 1), true, true, false);
    facts(RF_ENCODING_JPEG, P(0, 0, 5, 0, 1, 60, 80, 60, 1), false, false, false);
    facts(RF_ENCODING_JPEG, P(0, 0, 0, 0), false, false, false);
    facts(RF_ENCODING_OPUS, P(0xfc, 0xff), true, false, false);
    facts(RF_ENCODING_MP2T, P(0x47), false, false, false);
    facts(RF_ENCODING_UNKNOWN, P(0x65), false, false, false);
}

static void sets_one_by_one(void)
{
    struct payload stap = P(0x78, 0, 5, 0x67, 0x42, 0xc0, 0x1f, 0x8c, 0, 2, 0x09, 0xf0, 0, 3, 0x68, 0x5e,
                            0x3c);
    struct payload pps = P(0x44, 0x01, 0xc1, 0x72), slice = P(0x41, 1, 2);
    struct parameter_set set;
    size_t at = 0;

    CHECK(payload_next_set(RF_ENCODING_H264, stap, &at, &set));
    CHECK_EQ(set.type, 7);
    CHECK_EQ(set.number, 0); /* 1000 1100: the first bit */
    CHECK_EQ(set.len, 5);
    CHECK(payload_next_set(RF_ENCODING_H264, stap, &at, &set));
    CHECK_EQ(set.type, 8);
    CHECK_EQ(set.number, 1); /* 010 */
    CHECK_EQ(set.len, 3);
    CHECK(!payload_next_set(RF_ENCODING_H264, stap, &at, &set));
    at = 0;
    CHECK(payload_next_set(RF_ENCODING_H265, pps, &at, &set));
    CHECK(set.bytes == pps.bytes);
    CHECK_EQ(set.type, 34);
    CHECK_EQ(set.len, 4);
    CHECK(!payload_next_set(RF_ENCODING_H265, pps, &at, &set));
    at = 0;
    CHECK(!payload_next_set(RF_ENCODING_H264, slice, &at, &set));
    CHECK(!payload_next_set(RF_ENCODING_VP8, slice, &at, &set));
}

static void what_each_refuses(void)
{
    static const uint8_t cell[188] = {0x47};
    static uint8_t cells[7 * 188];

    for (unsigned i = 0; i < 7; i++)
        memcpy(cells + i * 188, cell, 188);
    CHECK_EQ(payload_fits(RF_ENCODING_H264, P(0x67, 0x42), false), PAYLOAD_IS_TYPICAL);
    CHECK_EQ(payload_fits(RF_ENCODING_H264, P(0x67, 0x43), false), PAYLOAD_REFUSED); /* no profile */
    CHECK_EQ(payload_fits(RF_ENCODING_H264, P(0x05, 0x43), false), PAYLOAD_REFUSED); /* IDR, not referred to */
    CHECK_EQ(payload_fits(RF_ENCODING_H264, P(0x7c, 0x85), false), PAYLOAD_FITS);
    CHECK_EQ(payload_fits(RF_ENCODING_H264, P(0x7c, 0xc5), false), PAYLOAD_REFUSED); /* start and end */
    CHECK_EQ(payload_fits(RF_ENCODING_H264, P(0x78, 0, 1, 0x67), false), PAYLOAD_IS_TYPICAL);
    CHECK_EQ(payload_fits(RF_ENCODING_H264, P(0x78, 0, 2, 0x67), false), PAYLOAD_REFUSED);
    CHECK_EQ(payload_fits(RF_ENCODING_H265, P(0x40, 1, 1), false), PAYLOAD_IS_TYPICAL);
    CHECK_EQ(payload_fits(RF_ENCODING_H265, P(0x40, 0, 1), false), PAYLOAD_REFUSED);
    CHECK_EQ(payload_fits(RF_ENCODING_H265, P(0x62, 1, 0x93), false), PAYLOAD_FITS);
    CHECK_EQ(payload_fits(RF_ENCODING_VP8, P(0x10, 0, 0, 0, 0x9d, 1, 0x2a), true), PAYLOAD_IS_TYPICAL);
    CHECK_EQ(payload_fits(RF_ENCODING_VP8, P(0x10, 0, 0, 0, 0x9d, 1, 0x2b), true), PAYLOAD_REFUSED);
    CHECK_EQ(payload_fits(RF_ENCODING_VP8, P(0x00, 9), false), PAYLOAD_FITS);
    CHECK_EQ(payload_fits(RF_ENCODING_VP8, P(0x00, 9), true), PAYLOAD_REFUSED); /* a frame begins */
    CHECK_EQ(payload_fits(RF_ENCODING_VP9, P(0x08, 0x82, 0x49, 0x83, 0x42), true), PAYLOAD_IS_TYPICAL);
    CHECK_EQ(payload_fits(RF_ENCODING_VP9, P(0x08, 0x82, 0x49), true), PAYLOAD_REFUSED);
    CHECK_EQ(payload_fits(RF_ENCODING_VP9, P(0x08, 0x42), true), PAYLOAD_REFUSED); /* frame_marker */
    CHECK_EQ(payload_fits(RF_ENCODING_AV1, P(0x18, 0x0a, 1), true), PAYLOAD_IS_TYPICAL);
    CHECK_EQ(payload_fits(RF_ENCODING_AV1, P(0x10, 0x30), true), PAYLOAD_FITS);
    CHECK_EQ(payload_fits(RF_ENCODING_AV1, P(0x11, 0x30), true), PAYLOAD_REFUSED);
    CHECK_EQ(payload_fits(RF_ENCODING_MP2T, (struct payload){cells, sizeof cells}, true),
             PAYLOAD_IS_TYPICAL);
    CHECK_EQ(payload_fits(RF_ENCODING_MP2T, (struct payload){cells, 187}, true), PAYLOAD_REFUSED);
    CHECK_EQ(payload_fits(RF_ENCODING_PCMU, P(1), true), PAYLOAD_REFUSED);
}

static void opus_lasts(void)
{
    CHECK_EQ(payload_opus_samples(P(0xfc, 1)), 960);       /* CELT, 20 ms */
    CHECK_EQ(payload_opus_samples(P(0xe0, 1)), 120);       /* CELT, 2.5 ms */
    CHECK_EQ(payload_opus_samples(P(0x08, 1)), 960);       /* SILK, 20 ms */
    CHECK_EQ(payload_opus_samples(P(0x60, 1)), 480);       /* hybrid, 10 ms */
    CHECK_EQ(payload_opus_samples(P(0xfd, 1, 2)), 1920);   /* two frames alike */
    CHECK_EQ(payload_opus_samples(P(0xfd, 1)), 0);
    CHECK_EQ(payload_opus_samples(P(0xff, 3, 2)), 2880);   /* three */
    CHECK_EQ(payload_opus_samples(P(0xff, 7, 2)), 0);      /* more than 120 ms */
    CHECK_EQ(payload_opus_samples((struct payload){NULL, 0}), 0);
}

static void types_and_clocks(void)
{
    CHECK_EQ(payload_static_encoding(0), RF_ENCODING_PCMU);
    CHECK_EQ(payload_static_encoding(26), RF_ENCODING_JPEG);
    CHECK_EQ(payload_static_encoding(33), RF_ENCODING_MP2T);
    CHECK_EQ(payload_static_encoding(96), RF_ENCODING_UNKNOWN);
    CHECK_EQ(payload_static_clock(9), 8000); /* G722, by mistake and for ever */
    CHECK_EQ(payload_static_clock(11), 44100);
    CHECK_EQ(payload_static_clock(96), 0);
    CHECK_EQ(payload_clock(RF_ENCODING_OPUS), 48000);
    CHECK_EQ(payload_clock(RF_ENCODING_L16), 0);
    CHECK(payload_has_keyframes(RF_ENCODING_VP8) && !payload_has_keyframes(RF_ENCODING_OPUS));
}

int main(void)
{
    RUN(behind_the_header);
    RUN(h264);
    RUN(h265);
    RUN(vp8);
    RUN(vp9);
    RUN(av1);
    RUN(others);
    RUN(sets_one_by_one);
    RUN(what_each_refuses);
    RUN(opus_lasts);
    RUN(types_and_clocks);
    return 0;
}
