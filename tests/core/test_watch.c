/* watch.c: rates, gaps, a measured clock, and each condition: when it begins, when not, when it ends. */
#include "packets.h"

static struct reception r;
static struct watch w;
static struct watched s;
static uint64_t at;       /* CLOCK_MONOTONIC */
static uint32_t seq, timestamp;

static void begin(void)
{
    reception_begin(&r);
    memset(&w, 0, sizeof w);
    memset(&s, 0, sizeof s);
    at = 1000 * SECOND;
    seq = timestamp = 0;
    w.older.at = w.newer.at = at;
    w.condition = RF_CONDITION_never_fed;
}

static void media(enum rf_encoding encoding, uint8_t flags, uint32_t clock)
{
    reception_ask(&r, media_word(encoding, RF_ANY_PAYLOAD_TYPE, flags, clock));
}

/* Of which only the timestamps are looked at. */
static void begin_sealed(void)
{
    begin();
    media(RF_ENCODING_UNKNOWN, MEDIA_SEALED, 90000);
}

static enum rf_condition roll(void)
{
    watch_roll(&w, &r, &s, at);
    return (enum rf_condition)w.condition;
}

static const uint8_t idr[] = {0x65, 0x88}, slice[] = {0x41, 0x9a};

/* A packet of `step` units and so many milliseconds later; then perhaps a second is over. */
static void packet(const uint8_t *payload, uint32_t step, unsigned ms)
{
    at += ms * MS;
    timestamp += step;
    struct made m = {(uint16_t)seq++, timestamp, SOURCE, PT_VIDEO, payload, 2};

    take_made(&r, &m, at, false);
    s.last_packet_ns = at;
    s.bytes += 1000;
}

/* Frames of 40 ms, a keyframe every `gop` (0: never); rolled each second. */
static enum rf_condition seconds_of_video(unsigned seconds, unsigned gop)
{
    enum rf_condition condition = roll();

    for (unsigned i = 0; i < seconds * 25; i++) {
        packet(gop && i % gop == 0 ? idr : slice, 3600, 40);
        if (i % 25 == 24)
            condition = roll();
    }
    return condition;
}

static void flows(void)
{
    begin();
    media(RF_ENCODING_VP8, 0, 0);
    CHECK_EQ(roll(), RF_CONDITION_never_fed);
    at += 100 * SECOND;
    CHECK_EQ(roll(), RF_CONDITION_never_fed);
    CHECK_EQ(seconds_of_video(3, 25), RF_CONDITION_flowing);
    struct rf_reception f;

    watch_figures(&w, &r, &s, at, &f);
    CHECK(f.bitrate_bps > 199999 && f.bitrate_bps < 200001);
    CHECK(f.frame_rate > 24.99 && f.frame_rate < 25.01);
    CHECK_EQ(f.condition, RF_CONDITION_flowing);
    at += 200 * MS; /* who looks more often gets the same rates */
    CHECK_EQ(roll(), RF_CONDITION_flowing);
    watch_figures(&w, &r, &s, at, &f);
    CHECK(f.frame_rate > 20 && f.frame_rate < 25);
}

static void falls_silent(void)
{
    begin_sealed();
    seconds_of_video(3, 25);
    at += 900 * MS;
    CHECK_EQ(roll(), RF_CONDITION_flowing);
    at += 100 * MS;
    CHECK_EQ(roll(), RF_CONDITION_silent);
    packet(slice, 90000, 10);
    CHECK_EQ(roll(), RF_CONDITION_flowing);
    /* Who sends a frame in 2 s is waited for longer, but not for ever. */
    begin_sealed();
    for (unsigned i = 0; i < 20; i++) {
        packet(slice, 180000, 2000);
        CHECK_EQ(roll(), RF_CONDITION_flowing);
    }
    at += 9 * SECOND;
    CHECK_EQ(roll(), RF_CONDITION_flowing);
    at += SECOND;
    CHECK_EQ(roll(), RF_CONDITION_silent);
}

static void freezes(void)
{
    begin_sealed();
    seconds_of_video(3, 25);
    for (unsigned i = 0; i < 12; i++)
        packet(slice, 0, 40);
    CHECK_EQ(roll(), RF_CONDITION_flowing); /* 480 ms */
    packet(slice, 0, 40);
    CHECK_EQ(roll(), RF_CONDITION_frozen);
    packet(slice, 3600, 40);
    CHECK_EQ(roll(), RF_CONDITION_flowing);
    begin_sealed();
    for (unsigned i = 0; i < 100; i++) { /* a sender that has no timestamps */
        packet(slice, 0, 40);
        CHECK_EQ(roll(), RF_CONDITION_flowing);
    }
}

static void lacks_keyframes(void)
{
    begin();
    media(RF_ENCODING_H264, 0, 0);
    w.has_parameter_sets = true;
    CHECK_EQ(seconds_of_video(20, 0), RF_CONDITION_flowing);
    CHECK_EQ(seconds_of_video(2, 0), RF_CONDITION_no_keyframes);
    packet(idr, 3600, 40);
    CHECK_EQ(roll(), RF_CONDITION_flowing);
    /* One in 10 s is the usual; what comes regularly is waited for. */
    begin();
    media(RF_ENCODING_H264, 0, 0);
    w.has_parameter_sets = true;
    CHECK_EQ(seconds_of_video(40, 250), RF_CONDITION_flowing);
    begin();
    media(RF_ENCODING_OPUS, 0, 0);
    CHECK_EQ(seconds_of_video(40, 0), RF_CONDITION_flowing);
    /* Who was away for an hour is not blamed for it. */
    begin();
    media(RF_ENCODING_VP8, 0, 0);
    seconds_of_video(3, 25);
    at += 3600 * SECOND;
    CHECK_EQ(roll(), RF_CONDITION_silent);
    packet(slice, 3600, 40);
    CHECK_EQ(roll(), RF_CONDITION_flowing);
}

static void lacks_parameter_sets(void)
{
    begin();
    media(RF_ENCODING_H264, 0, 0);
    CHECK_EQ(seconds_of_video(2, 25), RF_CONDITION_flowing);
    CHECK_EQ(seconds_of_video(2, 25), RF_CONDITION_no_parameter_sets);
    s.parameter_sets_ns = at;
    CHECK_EQ(seconds_of_video(1, 25), RF_CONDITION_flowing);
    s.parameter_sets_ns = 0;
    w.has_parameter_sets = true;
    CHECK_EQ(seconds_of_video(1, 25), RF_CONDITION_flowing);
}

static void a_pause_changes_nothing(void)
{
    begin_sealed();
    seconds_of_video(3, 25);
    s.paused = true;
    at += 60 * SECOND;
    CHECK_EQ(roll(), RF_CONDITION_flowing);
    s.paused = false;
    s.last_packet_ns = at; /* the gate has seen it all the time */
    CHECK_EQ(roll(), RF_CONDITION_flowing);
}

static int64_t gap(void)
{
    struct rf_reception f;

    watch_figures(&w, &r, &s, at, &f);
    return f.longest_frame_gap_ns;
}

static void the_longest_gap_of_ten_seconds(void)
{
    begin_sealed();
    seconds_of_video(3, 25);
    CHECK_EQ(gap(), 40 * MS);
    packet(slice, 3600, 700);
    CHECK_EQ(gap(), 700 * MS);
    seconds_of_video(9, 25);
    CHECK_EQ(gap(), 700 * MS);
    seconds_of_video(2, 25);
    CHECK_EQ(gap(), 40 * MS);
    at += 300 * MS;
    CHECK_EQ(gap(), 300 * MS); /* that goes on */
    at += 60 * SECOND;
    roll();
    packet(slice, 3600, 40);
    CHECK_EQ(gap(), 60340 * MS);
    seconds_of_video(12, 25);
    CHECK_EQ(gap(), 40 * MS);
}

static uint32_t clock_after(unsigned seconds, uint32_t step, unsigned ms, enum rf_origin *from)
{
    struct rf_reception f;

    for (unsigned spent = 0, second = 0; spent < seconds * 1000; spent += ms) {
        packet(slice, step, ms);
        if (spent / 1000 != second) {
            second = spent / 1000;
            roll();
        }
    }
    watch_figures(&w, &r, &s, at, &f);
    *from = f.clock_from;
    return f.clock_rate;
}

/* Of an encoding that nobody knows. */
static void measures_the_clock(void)
{
    static const uint32_t rates[] = {8000, 11025, 16000, 44100, 48000, 90000};
    enum rf_origin from;

    for (unsigned i = 0; i < COUNT(rates); i++) {
        begin();
        media(RF_ENCODING_UNKNOWN, MEDIA_SEALED, 0);
        roll();
        CHECK_EQ(clock_after(12, rates[i] / 50, 20, &from), rates[i]);
        CHECK_EQ(from, RF_ORIGIN_MEASURED);
    }
    begin();
    media(RF_ENCODING_UNKNOWN, MEDIA_SEALED | MEDIA_CLOCK_ASSUMED, 90000);
    CHECK_EQ(clock_after(2, 160, 20, &from), 90000);
    CHECK_EQ(from, RF_ORIGIN_ASSUMED);
    CHECK_EQ(clock_after(12, 160, 20, &from), 8000); /* it was assumed wrongly */
    begin();
    media(RF_ENCODING_UNKNOWN, MEDIA_SEALED, 0);
    CHECK_EQ(clock_after(12, 1234, 20, &from), 0); /* nobody has such a clock */
    CHECK_EQ(from, RF_ORIGIN_NONE);
    media(RF_ENCODING_UNKNOWN, MEDIA_SEALED, 61700);
    CHECK_EQ(clock_after(2, 1234, 20, &from), 61700); /* but who says so */
    CHECK_EQ(from, RF_ORIGIN_GIVEN);
}

int main(void)
{
    RUN(flows);
    RUN(falls_silent);
    RUN(freezes);
    RUN(lacks_keyframes);
    RUN(lacks_parameter_sets);
    RUN(a_pause_changes_nothing);
    RUN(the_longest_gap_of_ten_seconds);
    RUN(measures_the_clock);
    return 0;
}
