#include "watch.h"

enum {
    RHYTHM = 5,        /* missed frames, or packets, that mean something */
    FRAMES_KNOWN = 5,  /* until so many, a source may as well have no use for timestamps */
    CLOCK_PERCENT = 2, /* that a measured clock may be off */
};

#define SECOND_NS UINT64_C(1000000000)
#define STILL_NS (SECOND_NS / 2)         /* at least, before a picture is frozen */
#define SILENT_NS SECOND_NS              /* at least, before a source is silent */
#define SILENT_MOST_NS (30 * SECOND_NS)  /* at most */
#define KEYFRAME_NS (20 * SECOND_NS)     /* at least, before keyframes are missed: the usual GOP takes 10 s */
#define SETS_NS (2 * SECOND_NS)          /* the same of parameter sets, where keyframes come */
#define CLOCK_NS (5 * SECOND_NS)         /* that a clock is measured for */
#define RATE_NS (SECOND_NS * 9 / 10)     /* at least, that a rate is of; a look may come early */
#define GAPS_NS (10 * SECOND_NS)

static uint64_t since(uint64_t then, uint64_t now)
{
    return now > then ? now - then : 0;
}

static uint64_t greater(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool is_silent(const struct reception_view *v, const struct watched *s, uint64_t now)
{
    uint64_t wait = greater(SILENT_NS, UINT64_C(1000) * RHYTHM * v->frame_interval_us);

    return since(s->last_packet_ns, now) >= (wait < SILENT_MOST_NS ? wait : SILENT_MOST_NS);
}

/* The packets that came last were still of that frame. */
static bool is_frozen(const struct reception_view *v)
{
    uint64_t still = greater(STILL_NS, UINT64_C(1000) * RHYTHM * v->frame_interval_us);

    return v->frames >= FRAMES_KNOWN && since(v->frame_ns, v->packet_ns) > still;
}

static bool misses_keyframes(const struct watch *w, const struct reception_view *v, uint64_t now)
{
    uint64_t wait = greater(KEYFRAME_NS, UINT64_C(3000) * v->keyframe_interval_us);

    return payload_has_keyframes(v->encoding) &&
           since(greater(w->began_ns, v->keyframe_ns), now) > wait;
}

static bool misses_parameter_sets(const struct watch *w, const struct reception_view *v,
                                  const struct watched *s, uint64_t now)
{
    return payload_has_parameter_sets(v->encoding) && !w->has_parameter_sets &&
           s->parameter_sets_ns == 0 && v->keyframes > 0 && since(w->began_ns, now) > SETS_NS;
}

static enum rf_condition condition_of(const struct watch *w, const struct reception_view *v,
                                      const struct watched *s, uint64_t now)
{
    if (v->packet_ns == 0)
        return RF_CONDITION_never_fed;
    if (s->paused) /* nobody looks at its packets */
        return w->condition;
    if (is_silent(v, s, now))
        return RF_CONDITION_silent;
    if (is_frozen(v))
        return RF_CONDITION_frozen;
    if (misses_keyframes(w, v, now))
        return RF_CONDITION_no_keyframes;
    if (misses_parameter_sets(w, v, s, now))
        return RF_CONDITION_no_parameter_sets;
    return RF_CONDITION_flowing;
}

static void put_gap(struct watch *w, uint32_t window, uint32_t us)
{
    uint32_t ahead = window - w->gap_window;

    if (ahead != 0 && ahead < UINT32_MAX / 2) {
        for (uint32_t i = 0; i < ahead && i < WATCH_GAPS; i++)
            w->gap_us[(window - i) % WATCH_GAPS] = 0;
        w->gap_window = window;
    }
    if (w->gap_window - window < WATCH_GAPS && us > w->gap_us[window % WATCH_GAPS])
        w->gap_us[window % WATCH_GAPS] = us;
}

static void put_gaps(struct watch *w, const struct reception_view *v)
{
    if (v->gap_before)
        put_gap(w, v->gap_before, v->gap_before_us);
    put_gap(w, (uint32_t)(v->frame_ns >> GAP_WINDOW_BITS), v->gap_us);
}

/* 0: none that anybody uses. */
static uint32_t usual_clock(uint64_t rate)
{
    static const uint32_t usual[] = {8000,  11025, 12000, 16000, 22050, 24000,
                                     32000, 44100, 48000, 90000, 96000};

    for (unsigned i = 0; i < sizeof usual / sizeof *usual; i++) {
        if (rate * 100 >= (uint64_t)usual[i] * (100 - CLOCK_PERCENT) &&
            rate * 100 <= (uint64_t)usual[i] * (100 + CLOCK_PERCENT))
            return usual[i];
    }
    return 0;
}

/* Where nothing but a guess is known of the clock. */
static void measure_clock(struct watch *w, struct reception *r, const struct reception_view *v)
{
    uint32_t breaks = v->restarts + v->jumps;
    enum rf_origin from;

    (void)reception_clock(v->asked, v->encoding, v->payload_type, &from);
    if (from > RF_ORIGIN_MEASURED || v->packet_ns == 0 || (v->looked_at & RECEPTION_STRAYED))
        return;
    uint64_t took = since(w->clock.ns, v->packet_ns);

    if (w->clock.ns != 0 && w->clock.breaks == breaks && took < CLOCK_NS)
        return;
    uint32_t rate = w->clock.ns && w->clock.breaks == breaks && took < 4 * CLOCK_NS
                        ? usual_clock((v->timestamp - w->clock.timestamp) * SECOND_NS / took)
                        : 0;

    w->clock.ns = v->packet_ns;
    w->clock.timestamp = v->timestamp;
    w->clock.breaks = breaks;
    if (rate == 0 || (from == RF_ORIGIN_MEASURED && rate == (uint32_t)(v->asked >> 32)))
        return;
    uint8_t flags = media_flags(v->asked) & (uint8_t)~MEDIA_CLOCK_ASSUMED;

    reception_ask(r, media_word(media_encoding(v->asked), media_payload_type(v->asked),
                                flags | MEDIA_CLOCK_MEASURED, rate));
}

void watch_roll(struct watch *w, struct reception *r, const struct watched *s, uint64_t now)
{
    struct reception_view v;

    (void)reception_read(r, &v);
    if (since(w->newer.at, now) >= RATE_NS) {
        w->older = w->newer;
        w->newer = (struct watch_point){now, s->bytes, v.frames};
    }
    put_gaps(w, &v);
    if (v.packet_ns != 0 && (w->condition == RF_CONDITION_never_fed || w->ssrc != v.ssrc))
        w->began_ns = now;
    w->ssrc = v.ssrc;
    w->restarts = v.restarts;
    measure_clock(w, r, &v);

    enum rf_condition condition = condition_of(w, &v, s, now);

    if (w->condition == RF_CONDITION_silent && condition != RF_CONDITION_silent) {
        w->began_ns = now;
        condition = condition_of(w, &v, s, now);
    }
    w->condition = (uint8_t)condition;
}

static int64_t age_or_absent(uint64_t then, uint64_t now)
{
    return then ? (int64_t)since(then, now) : RF_ABSENT;
}

static unsigned missing_of(const struct reception_view *v)
{
    uint64_t span = (uint64_t)(uint32_t)(v->highest - v->base) + 1;
    uint64_t asked = span < RECEPTION_WINDOW ? (UINT64_C(1) << span) - 1 : UINT64_MAX;

    return (unsigned)__builtin_popcountll(~v->window & asked);
}

static void tell_sequence(const struct reception_view *v, struct rf_reception *out)
{
    int64_t expected = v->packet_ns ? (int64_t)v->before + v->highest - v->base + 1 : 0;

    out->expected = expected;
    out->lost = v->lost;
    out->cumulative_lost = (int64_t)v->lost - v->duplicates;
    out->received = expected - out->cumulative_lost;
    out->missing_now = v->packet_ns ? missing_of(v) : 0;
    out->duplicates = v->duplicates;
    out->reordered = v->reordered;
    out->late = v->late;
    out->restarts = v->restarts;
    out->timestamp_jumps = v->jumps;
    out->out_of_sequence = v->outside;
    /* The record counts one cycle more, so that a base below the first number is no negative one. */
    out->highest_sequence = v->packet_ns ? v->highest - 65536 : RF_ABSENT;
}

static void tell_media(const struct reception_view *v, struct rf_reception *out)
{
    bool is_static = v->encoding != RF_ENCODING_UNKNOWN &&
                     payload_static_encoding(v->payload_type) == v->encoding;
    bool is_given = v->encoding != RF_ENCODING_UNKNOWN && media_encoding(v->asked) == v->encoding;

    out->ssrc = v->ssrc;
    out->payload_type = v->payload_type;
    out->payload_type_count = v->type_count < RF_PAYLOAD_TYPES ? v->type_count : RF_PAYLOAD_TYPES;
    for (unsigned i = 0; i < RF_PAYLOAD_TYPES; i++)
        out->payload_types[i] = v->types[i];
    out->encoding = v->encoding;
    out->encoding_from = is_given                                ? RF_ORIGIN_GIVEN
                         : is_static                             ? RF_ORIGIN_STATIC
                         : v->encoding != RF_ENCODING_UNKNOWN ? RF_ORIGIN_SNIFFED
                                                                 : RF_ORIGIN_NONE;
    out->encoding_sureness = is_given ? 100 : is_static ? 95 : v->sureness;
    out->clock_rate = reception_clock(v->asked, v->encoding, v->payload_type, &out->clock_from);
}

static void tell_time(const struct reception_view *v, uint64_t now, struct rf_reception *out)
{
    bool is_timed = out->clock_rate != 0 && v->packet_ns != 0;
    uint64_t jitter_ns = ((uint64_t)v->jitter << JITTER_BITS) / 16;
    bool has_frames = payload_has_frames(v->encoding);
    bool has_keyframes = payload_has_keyframes(v->encoding);

    out->jitter_ns = is_timed ? (int64_t)jitter_ns : RF_ABSENT;
    out->jitter_units =
        is_timed ? (int64_t)(jitter_ns * out->clock_rate / SECOND_NS) : RF_ABSENT;
    out->frames = has_frames ? v->frames : RF_ABSENT;
    out->frame_age_ns = has_frames ? age_or_absent(v->frame_ns, now) : RF_ABSENT;
    out->keyframes = has_keyframes ? v->keyframes : RF_ABSENT;
    out->keyframe_age_ns = has_keyframes ? age_or_absent(v->keyframe_ns, now) : RF_ABSENT;
    out->keyframe_interval_ns = has_keyframes && v->keyframe_interval_us
                                    ? (int64_t)v->keyframe_interval_us * 1000
                                    : RF_ABSENT;
}

/* What is going on counts, too. */
static int64_t longest_gap(const struct watch *w, const struct reception_view *v, uint64_t now)
{
    struct watch all = *w;
    uint64_t longest = since(v->frame_ns, now);
    uint32_t first = (uint32_t)((now - (now < GAPS_NS ? now : GAPS_NS)) >> GAP_WINDOW_BITS);

    put_gaps(&all, v);
    for (uint32_t i = 0; i < WATCH_GAPS; i++) {
        uint32_t window = all.gap_window - i;

        if ((int32_t)(window - first) >= 0)
            longest = greater(longest, UINT64_C(1000) * all.gap_us[window % WATCH_GAPS]);
    }
    return (int64_t)longest;
}

void watch_figures(const struct watch *w, const struct reception *r, const struct watched *s,
                   uint64_t now, struct rf_reception *out)
{
    struct reception_view v;
    double seconds = (double)since(w->older.at, now) / (double)SECOND_NS;

    (void)reception_read(r, &v);
    tell_sequence(&v, out);
    tell_media(&v, out);
    tell_time(&v, now, out);
    out->longest_frame_gap_ns =
        out->frames > 0 ? longest_gap(w, &v, now) : RF_ABSENT;
    out->parameter_sets_age_ns = age_or_absent(s->parameter_sets_ns, now);
    out->bitrate_bps = seconds > 0 ? 8.0 * (double)(s->bytes - w->older.bytes) / seconds : 0;
    out->frame_rate = out->frames == RF_ABSENT ? -1
                      : seconds > 0            ? (v.frames - w->older.frames) / seconds
                                               : 0;
    out->condition = (enum rf_condition)w->condition;
}
