/* reception.c, reception_media.c, reception_view.c, sniff.c: RFC 3550 A.1, A.3 and A.8, frames, keyframes,
 * and what the payloads are, packet by packet. */
#include <pthread.h>
#include <sched.h>

#include "packets.h"
#include "random.h"

static struct reception r;
static struct watch w;

static void begin(void)
{
    reception_begin(&r);
    memset(&w, 0, sizeof w);
}

static void tell(enum rf_encoding encoding, uint32_t clock_rate)
{
    reception_ask(&r, media_word(encoding, RF_ANY_PAYLOAD_TYPE, 0, clock_rate));
}

static void row(uint32_t first, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        take_at(&r, first + i, (first + i) * 3000, SECOND + (first + i) * 33 * MS);
}

static struct rf_reception now(void)
{
    return figures(&w, &r, load_rlx(&r.packet_ns));
}

static void nothing_yet(void)
{
    begin();
    struct rf_reception f = figures(&w, &r, SECOND);

    CHECK_EQ(f.received + f.expected + f.lost + f.cumulative_lost + f.frames + f.missing_now, 0);
    CHECK_EQ(f.highest_sequence, RF_ABSENT);
    CHECK_EQ(f.jitter_ns, RF_ABSENT);
    CHECK_EQ(f.keyframes, RF_ABSENT);
    CHECK_EQ(f.longest_frame_gap_ns, RF_ABSENT);
    CHECK_EQ(f.payload_type, RF_ANY_PAYLOAD_TYPE);
}

static void loss_and_its_repair(void)
{
    begin();
    row(10, 5);
    row(18, 2); /* 15, 16, 17 are missing */
    struct rf_reception f = now();

    CHECK_EQ(f.expected, 10);
    CHECK_EQ(f.received, 7);
    CHECK_EQ(f.lost, 3);
    CHECK_EQ(f.missing_now, 3);
    take_at(&r, 16, 16 * 3000, 20 * 33 * MS); /* late, but it counts */
    take_at(&r, 16, 16 * 3000, 20 * 33 * MS); /* its duplicate not */
    f = now();
    CHECK_EQ(f.lost, 2);
    CHECK_EQ(f.cumulative_lost, 1); /* RFC 3550: duplicates count as received */
    CHECK_EQ(f.missing_now, 2);
    CHECK_EQ(f.reordered, 1);
    CHECK_EQ(f.duplicates, 1);
    CHECK_EQ(f.highest_sequence, 19);
    row(20, 100);
    f = now();
    CHECK_EQ(f.lost, 2);
    CHECK_EQ(f.missing_now, 0); /* too long ago to come yet */
    take_at(&r, 15, 15 * 3000, 4 * SECOND);
    f = now();
    CHECK_EQ(f.late, 1);
    CHECK_EQ(f.lost, 1);
    CHECK_EQ(f.restarts, 0);
}

static void wraps(void)
{
    begin();
    row(65530, 12);
    take_at(&r, 65533, 0, SECOND); /* a duplicate of before the wrap */
    struct rf_reception f = now();

    CHECK_EQ(f.expected, 12);
    CHECK_EQ(f.lost, 0);
    CHECK_EQ(f.duplicates, 1);
    CHECK_EQ(f.highest_sequence, 65536 + 5);
}

/* What came first was not the first: RFC 3550 alone would expect one less than came. */
static void begins_out_of_order(void)
{
    begin();
    take_at(&r, 0, 0, SECOND);
    take_at(&r, 65535, 0, SECOND);
    row(1, 3);
    struct rf_reception f = now();

    CHECK_EQ(f.expected, 5);
    CHECK_EQ(f.lost, 0);
    CHECK_EQ(f.cumulative_lost, 0);
    CHECK_EQ(f.highest_sequence, 3);
}

static void another_numbering(void)
{
    begin();
    row(100, 10);
    take_at(&r, 40000, 0, SECOND); /* far off: of another numbering if it goes on */
    CHECK_EQ(now().out_of_sequence, 1);
    CHECK_EQ(now().restarts, 0);
    take_at(&r, 110, 110 * 3000, SECOND); /* it does not */
    take_at(&r, 40001, 0, SECOND);
    CHECK_EQ(now().restarts, 0);
    take_at(&r, 40002, 0, SECOND);
    struct rf_reception f = now();

    CHECK_EQ(f.restarts, 1);
    CHECK_EQ(f.out_of_sequence, 1);
    CHECK_EQ(f.received, 13);
    CHECK_EQ(f.expected, 13);
    CHECK_EQ(f.highest_sequence, 40002);
    row(40005, 2);
    CHECK_EQ(now().lost, 2);
}

/* A source that counts anew a little below is not waited for until it is back up. */
static void a_little_below(void)
{
    begin();
    row(1000, 100);
    row(500, 4);
    CHECK_EQ(now().restarts, 0);
    CHECK_EQ(now().late, 4);
    row(504, 6);
    struct rf_reception f = now();

    CHECK_EQ(f.restarts, 1);
    CHECK_EQ(f.highest_sequence, 509);
    CHECK_EQ(f.lost, 0);
    /* The slower of two modems is no such source: the other's packets come between. */
    begin();
    for (unsigned i = 0; i < 200; i++) {
        take_at(&r, 1000 + 2 * i, 0, SECOND + i * MS);
        if (i >= 100)
            take_at(&r, 1001 + 2 * (i - 100), 0, SECOND + i * MS);
    }
    f = now();
    CHECK_EQ(f.restarts, 0);
    CHECK_EQ(f.late, 100);
    CHECK_EQ(f.lost, 399 - 300);
}

static void another_ssrc(void)
{
    struct made m = {7000, 5, SOURCE + 1, 97, NULL, 0};

    begin();
    row(10, 5);
    take_at(&r, 16, 16 * 3000, 16 * 33 * MS);
    take_made(&r, &m, 600 * MS, true); /* one of several: counted, no more */
    struct rf_reception f = now();

    CHECK_EQ(f.out_of_sequence, 1);
    CHECK_EQ(f.ssrc, SOURCE);
    CHECK_EQ(f.payload_type_count, 1);
    take_made(&r, &m, 600 * MS + 2 * SECOND, true); /* the one that is followed is silent */
    f = now();
    CHECK_EQ(f.ssrc, SOURCE + 1);
    CHECK_EQ(f.restarts, 1);
    CHECK_EQ(f.expected, 8); /* 7 of before, 1 now */
    CHECK_EQ(f.lost, 1);
    CHECK_EQ(f.payload_type, 97);
    m = (struct made){1, 5, SOURCE + 2, 97, NULL, 0};
    take_made(&r, &m, 3 * SECOND, false); /* of a session with one at a time: at once */
    CHECK_EQ(now().ssrc, SOURCE + 2);
    CHECK_EQ(now().restarts, 2);
    CHECK_EQ(now().payload_type_count, 2);
}

/* The example of tshark's manual page would do as well: 20 ms frames, one of them 16 ms late. */
static void jitter(void)
{
    begin();
    tell(RF_ENCODING_PCMU, 0);
    for (unsigned i = 0; i < 3; i++)
        take_at(&r, i, i * 160, SECOND + i * 20 * MS);
    CHECK_EQ(now().jitter_ns, 0);
    take_at(&r, 3, 3 * 160, SECOND + 76 * MS);
    CHECK_EQ(now().jitter_ns, MS); /* 16 ms / 16 */
    CHECK_EQ(now().jitter_units, 8);
    take_at(&r, 4, 4 * 160, SECOND + 80 * MS);
    CHECK_EQ(now().jitter_ns, MS + (16 * MS - MS) / 16);
    CHECK_EQ(now().timestamp_jumps, 0);
    take_at(&r, 5, 5 * 160 + 8000 * 6, SECOND + 100 * MS); /* 6 s ahead of the clock */
    CHECK_EQ(now().timestamp_jumps, 1);
    CHECK_EQ(now().jitter_ns, MS + (16 * MS - MS) / 16);
    CHECK_EQ(now().clock_from, RF_ORIGIN_STATIC);
}

static void no_clock_no_jitter(void)
{
    begin();
    row(0, 100);
    CHECK_EQ(now().jitter_ns, RF_ABSENT);
    CHECK_EQ(now().clock_rate, 0);
    tell(RF_ENCODING_UNKNOWN, 90000);
    row(100, 10);
    CHECK(now().jitter_ns >= 0);
    CHECK_EQ(now().clock_from, RF_ORIGIN_GIVEN);
}

/* With B-frames timestamps go to and fro. */
static void frames_by_timestamp(void)
{
    static const uint32_t order[] = {0, 3, 1, 2, 6, 4, 5};
    uint32_t seq = 0;

    begin();
    for (unsigned i = 0; i < COUNT(order); i++) {
        for (unsigned k = 0; k < 3; k++)
            take_at(&r, seq++, order[i] * 3000, (i + 1) * 33 * MS);
    }
    CHECK_EQ(now().frames, 7);
    take_at(&r, seq + 1, 7 * 3000, 8 * 33 * MS);
    take_at(&r, seq, 7 * 3000, 8 * 33 * MS); /* the frame's first packet, overtaken */
    CHECK_EQ(now().frames, 8);
    CHECK_EQ(figures(&w, &r, 8 * 33 * MS + SECOND).longest_frame_gap_ns, SECOND); /* it goes on */
}

static const uint8_t idr[] = {0x65, 0x88}, slice[] = {0x41, 0x9a};

/* `per` packets a frame, every `gop`th a keyframe of as many slices. */
static void video(unsigned first, unsigned frames, unsigned gop, unsigned per)
{
    for (unsigned i = first; i < first + frames; i++) {
        for (unsigned k = 0; k < per; k++) {
            struct made m = {(uint16_t)(i * per + k), i * 3000, SOURCE, PT_VIDEO,
                             i % gop == 0 ? idr : slice, 2};

            take_made(&r, &m, SECOND + i * 33 * MS, false);
        }
    }
}

static void keyframes(void)
{
    begin();
    tell(RF_ENCODING_H264, 0);
    video(0, 100, 30, 3);
    struct rf_reception f = now();

    CHECK_EQ(f.frames, 100);
    CHECK_EQ(f.keyframes, 4); /* 0, 30, 60, 90 */
    CHECK_EQ(f.keyframe_interval_ns, 30 * 33 * MS);
    CHECK_EQ(f.keyframe_age_ns, 9 * 33 * MS);
    CHECK_EQ(f.encoding_from, RF_ORIGIN_GIVEN);
    begin();
    tell(RF_ENCODING_H264, 0);
    video(1, 29, 30, 3);
    CHECK_EQ(now().keyframes, 0);
    CHECK_EQ(now().keyframe_age_ns, RF_ABSENT);
    CHECK_EQ(now().keyframe_interval_ns, RF_ABSENT);
}

/* The packets of another payload type are not looked into. */
static void only_its_payload_type(void)
{
    struct made dtmf = {100, 1, SOURCE, 101, idr, 2};

    begin();
    reception_ask(&r, media_word(RF_ENCODING_H264, PT_VIDEO, 0, 0));
    take_made(&r, &dtmf, SECOND, false);
    CHECK_EQ(now().keyframes, 0);
    struct made m = {101, 2, SOURCE, PT_VIDEO, idr, 2};

    take_made(&r, &m, SECOND, false);
    struct rf_reception f = now();

    CHECK_EQ(f.keyframes, 1);
    CHECK_EQ(f.payload_type, PT_VIDEO);
    CHECK_EQ(f.payload_type_count, 2);
    CHECK_EQ(f.payload_types[0], 101);
}

/* A camera that is set up otherwise goes on with the numbers of before. */
static void another_type_for_good(void)
{
    static const uint8_t vp8[] = {0x10, 0x50, 0x23, 0, 0x9d, 0x01, 0x2a};
    uint16_t seq = 0;

    begin();
    video(0, 100, 30, 1);
    CHECK_EQ(now().encoding, RF_ENCODING_H264);
    for (seq = 100; seq < 300; seq++) {
        bool other = seq % 20 == 0; /* now and then: it does not count */
        struct made m = {seq, seq * 3000u, SOURCE, other ? 101 : PT_VIDEO, slice, 2};

        take_made(&r, &m, SECOND + seq * 33 * MS, false);
    }
    CHECK_EQ(now().payload_type, PT_VIDEO);
    for (; seq < 440; seq++) {
        struct made m = {seq, seq * 3000u, SOURCE, 98, vp8, sizeof vp8};

        take_made(&r, &m, SECOND + seq * 33 * MS, false);
    }
    struct rf_reception f = now();

    CHECK_EQ(f.payload_type, 98);
    CHECK_EQ(f.encoding, RF_ENCODING_VP8);
    CHECK_EQ(f.payload_type_count, 3);
    CHECK_EQ(f.restarts, 0);
    /* Who was told the type keeps to it. */
    begin();
    reception_ask(&r, media_word(RF_ENCODING_H264, PT_VIDEO, 0, 0));
    for (seq = 0; seq < 200; seq++) {
        struct made m = {seq, seq * 3000u, SOURCE, 98, vp8, sizeof vp8};

        take_made(&r, &m, SECOND + seq * 33 * MS, false);
    }
    CHECK_EQ(now().payload_type, PT_VIDEO);
}

static void sealed_payloads_tell_nothing(void)
{
    begin();
    reception_ask(&r, media_word(RF_ENCODING_H264, RF_ANY_PAYLOAD_TYPE, MEDIA_SEALED, 90000));
    video(0, 300, 30, 1);
    CHECK_EQ(now().encoding, RF_ENCODING_UNKNOWN);
    CHECK_EQ(now().keyframes, RF_ABSENT);
    CHECK_EQ(now().frames, 300);
    CHECK(now().jitter_ns >= 0);
}

/* An encoding is believed late and only on evidence; what came before it was known counts. */
static void sniffs_h264(void)
{
    static const uint8_t sps[] = {0x67, 0x42, 0xc0, 0x1f};
    struct made first = {0xffff, 0, SOURCE, PT_VIDEO, sps, sizeof sps};

    begin();
    CHECK(take_made(&r, &first, SECOND, false)); /* its sets are to be kept */
    video(0, 20, 30, 1);
    CHECK_EQ(now().encoding, RF_ENCODING_UNKNOWN);
    video(20, 20, 30, 1);
    struct rf_reception f = now();

    CHECK_EQ(f.encoding, RF_ENCODING_H264);
    CHECK_EQ(f.encoding_from, RF_ORIGIN_SNIFFED);
    CHECK_EQ(f.encoding_sureness, 99);
    CHECK_EQ(f.clock_rate, 90000);
    CHECK_EQ(f.keyframes, 2);
    begin();
    video(0, 100, 1000, 1); /* never a parameter set: it takes more, and is less sure */
    CHECK_EQ(now().encoding, RF_ENCODING_H264);
    CHECK_EQ(now().encoding_sureness, 80);
    tell(RF_ENCODING_VP8, 0);
    video(100, 1, 1000, 1);
    CHECK_EQ(now().encoding, RF_ENCODING_VP8); /* who is told need not guess */
    tell(RF_ENCODING_UNKNOWN, 0);
    video(101, 1, 1000, 1);
    CHECK_EQ(now().encoding_from, RF_ORIGIN_SNIFFED);
}

static void sniffs_opus(void)
{
    uint64_t state = 5;
    uint8_t toc[40] = {0xfc};

    begin();
    for (unsigned i = 0; i < 100; i++) {
        struct made m = {(uint16_t)i, i * 960, SOURCE, 97, toc, sizeof toc};

        for (unsigned k = 1; k < sizeof toc; k++)
            toc[k] = (uint8_t)(next_random(&state) >> 20);
        take_made(&r, &m, SECOND + i * 20 * MS, false);
    }
    CHECK_EQ(now().encoding, RF_ENCODING_OPUS);
    CHECK_EQ(now().clock_rate, 48000);
    CHECK_EQ(now().clock_from, RF_ORIGIN_STATIC);
}

/* Encrypted, or nothing that we know. */
static void noise_is_nothing(void)
{
    uint64_t state = 1;
    uint8_t payload[200];

    for (unsigned n = 0; n < 50; n++) {
        begin();
        for (unsigned i = 0; i < 5000; i++) {
            struct made m = {(uint16_t)i, i / 5 * 3000, SOURCE, PT_VIDEO, payload, 1 + i % 200};

            for (unsigned k = 0; k < sizeof payload; k++)
                payload[k] = (uint8_t)(next_random(&state) >> 20);
            take_made(&r, &m, SECOND + i * 6 * MS, false);
            CHECK_EQ(now().encoding, RF_ENCODING_UNKNOWN);
        }
    }
}

static void static_types(void)
{
    struct made m = {1, 1, SOURCE, 26, (const uint8_t[]){0, 0, 0, 0, 1, 60, 80, 60}, 8};

    begin();
    take_made(&r, &m, SECOND, false);
    CHECK_EQ(now().encoding, RF_ENCODING_JPEG);
    CHECK_EQ(now().encoding_from, RF_ORIGIN_STATIC);
    CHECK_EQ(now().keyframes, 1);
    CHECK_EQ(now().clock_rate, 90000);
    m.type = 33;
    m.ssrc++;
    take_made(&r, &m, SECOND, false);
    CHECK_EQ(now().encoding, RF_ENCODING_MP2T);
    CHECK_EQ(now().frames, RF_ABSENT); /* its timestamps are of packets */
}

enum { BURST = 14 };

/* A frame of up to BURST packets, some of which are lost, doubled, of another type or a keyframe's. */
static unsigned make_burst(uint64_t *state, uint32_t *seq, uint32_t timestamp,
                           uint8_t bytes[BURST][16], struct packet packets[BURST])
{
    unsigned n = 1 + random_below(state, BURST), trouble = random_below(state, 4);

    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = bytes[i];

        *seq += trouble == 1 && random_below(state, 8) == 0 ? 2 : 1;
        *seq -= trouble == 2 && random_below(state, 8) == 0 ? 1 : 0;
        memset(p, 0, 16);
        p[0] = 0x80;
        p[1] = trouble == 3 && random_below(state, 8) == 0 ? 97 : PT_VIDEO;
        p[2] = (uint8_t)(*seq >> 8);
        p[3] = (uint8_t)*seq;
        for (unsigned k = 0; k < 4; k++)
            p[4 + k] = (uint8_t)(timestamp >> (24 - 8 * k));
        p[12] = random_below(state, 16) == 0 ? 0x65 : 0x41; /* of H264: IDR, or another slice */
        packets[i] = (struct packet){.bytes = {p, 16}};
    }
    return n;
}

static void takes(struct reception *to, const struct packet *packet, uint64_t at)
{
    struct reception_packet p = {packet->bytes.iov_base, packet->bytes.iov_len, at, false};

    reception_take(to, &p);
}

/* Packets that came at once are noted as if they were taken one by one, where they are told and where
 * they are guessed. */
static void together_as_singly(void)
{
    static struct reception again;
    uint8_t bytes[BURST][16];
    struct packet packets[BURST];
    uint64_t state = 1;

    for (unsigned round = 0; round < 4; round++) {
        uint32_t seq = 65000, alike = 0, all = 0;

        begin();
        if (round % 2)
            tell(RF_ENCODING_H264, 90000);
        memcpy((void *)&again, (const void *)&r, sizeof r);
        for (unsigned frame = 0; frame < 2000; frame++) {
            uint64_t at = SECOND + frame * 33 * MS;
            unsigned n = make_burst(&state, &seq, frame * 3000, bytes, packets);

            for (unsigned i = 0; i < n; i++)
                takes(&r, &packets[i], at);
            for (unsigned i = 0; i < n;) {
                takes(&again, &packets[i++], at);
                unsigned took = reception_take_alike(&again, &packets[i], n - i, at);

                i += took;
                alike += took;
            }
            all += n;
            store_rlx(&again.version, load_rlx(&r.version));
            CHECK(memcmp((const void *)&again, (const void *)&r, sizeof r) == 0);
        }
        CHECK(alike > all / 2);
    }
}

static _Atomic bool done;

/* With a pause now and then, as traffic has them: who writes all the time is never read whole. */
static void *writes(void *unused)
{
    for (uint32_t seq = 0; !load_rlx(&done); seq++) {
        take_at(&r, seq, seq * 3000, SECOND + seq * MS);
        if (seq % 64 == 0)
            sched_yield();
    }
    return unused;
}

/* Whoever reads meanwhile finds figures that belong together. */
static void read_meanwhile(void)
{
    pthread_t thread;
    struct reception_view v;
    unsigned whole = 0;

    begin();
    store_rlx(&done, false);
    CHECK(pthread_create(&thread, NULL, writes, NULL) == 0);
    while (whole < 2000) {
        if (!reception_read(&r, &v) || v.frames == 0)
            continue;
        CHECK_EQ(v.highest - v.base + 1, v.frames);
        CHECK_EQ(v.timestamp, (v.highest - v.base) * 3000);
        whole++;
    }
    store_rlx(&done, true);
    pthread_join(thread, NULL);
}

int main(void)
{
    RUN(nothing_yet);
    RUN(loss_and_its_repair);
    RUN(wraps);
    RUN(begins_out_of_order);
    RUN(another_numbering);
    RUN(a_little_below);
    RUN(another_ssrc);
    RUN(jitter);
    RUN(no_clock_no_jitter);
    RUN(frames_by_timestamp);
    RUN(keyframes);
    RUN(only_its_payload_type);
    RUN(another_type_for_good);
    RUN(sealed_payloads_tell_nothing);
    RUN(sniffs_h264);
    RUN(sniffs_opus);
    RUN(noise_is_nothing);
    RUN(static_types);
    RUN(together_as_singly);
    RUN(read_meanwhile);
    return 0;
}
