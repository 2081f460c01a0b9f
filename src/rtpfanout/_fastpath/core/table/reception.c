#include "reception.h"

#include <arpa/inet.h>

enum { SECOND_US = 1000000 };

/* Seldom called: kept out of what is called for each packet, which then saves no registers. */
#define APART __attribute__((noinline))

/* Another numbering, of which `came` packets in sequence are here; the last is `seq`. */
static void begin_numbering(struct reception *r, uint32_t seq, unsigned came)
{
    if (load_rlx(&r->packet_ns) != 0) {
        store_rls(&r->before,
                  load_rlx(&r->before) + load_rlx(&r->highest) - load_rlx(&r->base) + 1);
        reception_add(&r->restarts, 1);
    }
    store_rls(&r->highest, 65536 + seq);
    store_rls(&r->base, 65536 + seq - (came - 1));
    store_rls(&r->window, (UINT64_C(1) << came) - 1);
    reception_set(r, RECEPTION_SUSPECTS, 0);
}

/* The first packet, or the first of another SSRC: of its payloads nothing is known. */
static void begin_source(struct reception *r, uint32_t ssrc, uint32_t seq)
{
    begin_numbering(r, seq, 1);
    store_rls(&r->ssrc, ssrc);
    store_rls(&r->jitter, 0);
    store_rls(&r->frame_interval_us, 0);
    reception_forget_media(r);
    reception_use_media(r);
}

enum order { NEW, AHEAD, BEHIND, DUPLICATE, OUTSIDE };

static enum order take_duplicate(struct reception *r)
{
    reception_add(&r->duplicates, 1);
    return DUPLICATE;
}

/* One that was missed; if none was, it came a second time. */
static enum order take_missed(struct reception *r)
{
    uint32_t lost = load_rlx(&r->lost);

    if (lost == 0)
        return take_duplicate(r);
    store_rls(&r->lost, lost - 1);
    return BEHIND;
}

/* Far off, or so late that nobody knows whether it is new: perhaps the source counts anew. */
static enum order suspect(struct reception *r, uint32_t seq, bool late)
{
    unsigned had = (load_rlx(&r->looked_at) & RECEPTION_SUSPECTS) / RECEPTION_SUSPECT;
    unsigned run = had && load_rlx(&r->suspect) == seq ? had + 1 : 1;

    if (run >= (late ? RECEPTION_RESTART : 2)) {
        begin_numbering(r, seq, late ? 1 : run);
        if (!late)
            reception_add(&r->outside, 0u - (run - 1));
        return NEW;
    }
    store_rls(&r->suspect, (uint16_t)(seq + 1));
    reception_set(r, RECEPTION_SUSPECTS, run * RECEPTION_SUSPECT);
    if (late) {
        reception_add(&r->late, 1);
        return take_missed(r);
    }
    reception_add(&r->outside, 1);
    return OUTSIDE;
}

static enum order take_behind(struct reception *r, uint32_t seq, uint32_t highest, unsigned behind)
{
    uint64_t window = load_rlx(&r->window), bit;
    uint32_t base = load_rlx(&r->base), before_base = base - (highest - behind);

    if (behind >= RECEPTION_WINDOW)
        return suspect(r, seq, behind < RECEPTION_MISORDER);
    bit = UINT64_C(1) << behind;
    if (window & bit)
        return take_duplicate(r);
    store_rls(&r->window, window | bit);
    reception_add(&r->reordered, 1);
    if (before_base == 0 || before_base >= RECEPTION_WINDOW)
        return take_missed(r);
    store_rls(&r->base, base - before_base); /* what came first was not the first */
    reception_add(&r->lost, before_base - 1);
    return BEHIND;
}

/* RFC 3550 A.1, without the probation: the gate has admitted it. */
static enum order take_sequence(struct reception *r, uint32_t seq)
{
    uint32_t highest = load_rlx(&r->highest);
    unsigned ahead = (uint16_t)(seq - highest);

    if (ahead == 0 || ahead >= RECEPTION_DROPOUT)
        return take_behind(r, seq, highest, (uint16_t)(highest - seq));
    uint64_t window = ahead < RECEPTION_WINDOW ? load_rlx(&r->window) << ahead : 0;

    store_rls(&r->window, window | 1);
    store_rls(&r->highest, highest + ahead);
    if (highest + ahead < highest) /* a lap */
        store_rls(&r->before, load_rlx(&r->before) + (UINT64_C(1) << 32));
    if (ahead > 1)
        reception_add(&r->lost, ahead - 1);
    reception_set(r, RECEPTION_SUSPECTS, 0);
    return AHEAD;
}

static inline void smooth(struct reception *r, int64_t off)
{
    uint32_t jitter = load_rlx(&r->jitter);
    uint64_t d = (uint64_t)(off < 0 ? -off : off);

    if (d <= RECEPTION_JUMP_NS)
        store_rls(&r->jitter, jitter + (uint32_t)(d >> JITTER_BITS) - ((jitter + 8) >> 4));
    else
        reception_add(&r->jumps, 1);
}

/* RFC 3550 A.8, in units of 8 ns. `last` is a timestamp that came at packet_ns. Packets that the kernel
 * put together share a time: among them nothing is known of jitter, and it counts as none. */
static inline void take_time(struct reception *r, uint32_t timestamp, uint32_t last, uint64_t now)
{
    int64_t scale = load_rlx(&r->scale), step = (int32_t)(timestamp - last);
    int64_t off = (int64_t)(now - load_rlx(&r->packet_ns)) - (step * scale >> SCALE_BITS);

    if (scale != 0)
        smooth(r, off);
}

/* Another window: the longest gap of the one before is put aside. */
APART static void turn_window(struct reception *r, uint64_t last, uint32_t gap)
{
    store_rls(&r->gap_before_us, load_rlx(&r->gap_us));
    store_rls(&r->gap_before, (uint32_t)(last >> GAP_WINDOW_BITS));
    store_rls(&r->gap_us, gap);
}

/* `timestamp` as it came. */
static void begin_frame(struct reception *r, uint32_t timestamp, uint64_t now)
{
    uint64_t last = load_rlx(&r->frame_ns);
    uint32_t interval = load_rlx(&r->frame_interval_us);

    store_rls(&r->timestamp, timestamp);
    store_rls(&r->frames, load_rlx(&r->frames) + 1);
    store_rls(&r->frame_ns, now);
    if (last == 0)
        return;
    uint32_t gap = reception_elapsed_us(last, now), most = 10 * SECOND_US;

    if (last >> GAP_WINDOW_BITS != now >> GAP_WINDOW_BITS)
        turn_window(r, last, gap);
    else if (gap > load_rlx(&r->gap_us))
        store_rls(&r->gap_us, gap);
    if (gap > most) /* one silence is no rhythm */
        gap = most;
    store_rls(&r->frame_interval_us, interval ? interval - interval / 8 + gap / 8 : gap);
}

/* Whether it is of the SSRC that is followed; else it is one of several, or the source has another
 * now. */
static bool follow(struct reception *r, const struct reception_packet *p, bool *begun)
{
    uint64_t last = load_rlx(&r->packet_ns);

    *begun = last == 0 || reception_ssrc(p) != load_rlx(&r->ssrc);
    if (!*begun)
        return true;
    if (last != 0 && p->several && p->now < last + RECEPTION_SILENT_NS) {
        reception_add(&r->outside, 1);
        return false;
    }
    begin_source(r, reception_ssrc(p), rtp_read_u16(p->data + 2));
    return true;
}

/* When it came. Of a new numbering the time has nothing to do with what was before. */
static void take_any_time(struct reception *r, uint32_t timestamp, enum order order, uint64_t now)
{
    uint32_t last =
        reception_has(r, RECEPTION_STRAYED) ? load_rlx(&r->last_timestamp) : load_rlx(&r->timestamp);

    if (order != NEW)
        take_time(r, ntohl(timestamp), ntohl(last), now);
    store_rls(&r->packet_ns, now);
    store_rls(&r->last_timestamp, timestamp);
    reception_set(r, RECEPTION_STRAYED, order <= AHEAD ? 0 : RECEPTION_STRAYED);
}

static void take_news(struct reception *r)
{
    store_rls(&r->news, 0); /* first: what is told from here on is news again */
    reception_use_media(r);
}

/* Any packet. */
static bool take(struct reception *r, const struct reception_packet *p)
{
    uint32_t timestamp = reception_timestamp(p);
    uint8_t type = p->data[1] & 0x7f;
    bool begun;

    if (!follow(r, p, &begun))
        return false;
    if (load_acq(&r->news))
        take_news(r);
    uint32_t before = load_rlx(&r->highest);
    enum order order = begun ? NEW : take_sequence(r, rtp_read_u16(p->data + 2));

    if (order == OUTSIDE)
        return false;
    bool is_first = order == AHEAD && timestamp != load_rlx(&r->timestamp);

    take_any_time(r, timestamp, order, p->now);
    if (order == NEW || is_first)
        begin_frame(r, timestamp, p->now);
    bool known = type == reception_type(r) && !reception_has(r, RECEPTION_UNSEEN);

    if (order == DUPLICATE || (!known && !reception_take_type(r, type)))
        return false;
    return reception_take_payload(r, p, order <= AHEAD, is_first && load_rlx(&r->highest) == before + 1);
}

/* Whether the packet of that number is more than a simple case by its number alone: it votes, or it begins
 * a lap. */
static inline bool is_special(uint32_t number, unsigned looked_at)
{
    return number % RECEPTION_SELDOM == 0 && (looked_at & RECEPTION_SAMPLES || number == 0);
}

static inline bool is_next(const struct reception *r, const struct reception_packet *p)
{
    uint32_t next = load_rlx(&r->highest) + 1;
    unsigned looked_at = load_rlx(&r->looked_at);

    return rtp_read_u16(p->data + 2) == (uint16_t)next && reception_ssrc(p) == load_rlx(&r->ssrc) &&
           (p->data[1] & 0x7fu) == (looked_at & ~(unsigned)RECEPTION_SAMPLES) && !is_special(next, looked_at);
}

/* Others may look on: `version` is odd meanwhile. */
static inline void open_record(struct reception *r)
{
    store_rlx(&r->version, load_rlx(&r->version) + 1); /* before what is stored with release behind it */
}

static inline void close_record(struct reception *r)
{
    store_rls(&r->version, load_rlx(&r->version) + 1);
}

APART static bool take_any(struct reception *r, const struct reception_packet *p)
{
    open_record(r);
    bool has_sets = take(r, p);

    close_record(r);
    return has_sets;
}

APART static bool take_payload(struct reception *r, const struct reception_packet *p, bool begins)
{
    open_record(r);
    bool has_sets = reception_take_payload(r, p, true, begins);

    close_record(r);
    return has_sets;
}

/* As begin_frame() in the middle of a window, whose length bounds the gap. */
static inline void begin_next_frame(struct reception *r, uint32_t timestamp, uint64_t last, uint64_t now)
{
    uint32_t gap = now > last ? (uint32_t)(now - last) / 1000 : 0, longest = load_rlx(&r->gap_us);
    uint32_t interval = load_rlx(&r->frame_interval_us);

    store_rls(&r->timestamp, timestamp);
    store_rls(&r->frames, load_rlx(&r->frames) + 1);
    store_rls(&r->frame_ns, now);
    store_rls(&r->gap_us, gap > longest ? gap : longest); /* no branch: which one, nobody can guess */
    store_rls(&r->frame_interval_us, interval ? interval - interval / 8 + gap / 8 : gap);
}

/* The next packet of a source that is known, nearly all of them, goes the short way: as take(), without what
 * can't be. It calls nothing but at its end, and so saves no registers. */
bool reception_take(struct reception *r, const struct reception_packet *p)
{
    uint32_t timestamp = reception_timestamp(p), last = load_rlx(&r->timestamp);
    uint64_t now = p->now, frame_ns = load_rlx(&r->frame_ns);
    bool begins = timestamp != last;

    if (!is_next(r, p) ||
        (begins && (load_acq(&r->news) || (now ^ frame_ns) >> GAP_WINDOW_BITS != 0)))
        return take_any(r, p);
    open_record(r);

    store_rls(&r->highest, load_rlx(&r->highest) + 1);
    store_rls(&r->window, load_rlx(&r->window) << 1 | 1);
    if (begins) {
        take_time(r, ntohl(timestamp), ntohl(last), now);
        begin_next_frame(r, timestamp, frame_ns, now);
    } else {
        smooth(r, (int64_t)(now - load_rlx(&r->packet_ns)));
    }
    store_rls(&r->packet_ns, now);
    close_record(r);
    if (payload_is_dull((enum rf_encoding)load_rlx(&r->encoding), p->data, p->len, begins))
        return false;
    return take_payload(r, p, begins);
}

unsigned reception_take_alike(struct reception *r, const struct packet *first, unsigned n, uint64_t now)
{
    enum rf_encoding encoding = (enum rf_encoding)load_rlx(&r->encoding);
    uint32_t ssrc = load_rlx(&r->ssrc), timestamp = load_rlx(&r->timestamp);
    uint32_t highest = load_rlx(&r->highest), jitter = load_rlx(&r->jitter);
    unsigned looked_at = load_rlx(&r->looked_at), type = looked_at & ~(unsigned)RECEPTION_SAMPLES;
    unsigned i = 0;

    if (load_rlx(&r->packet_ns) != now)
        return 0;
    for (; i < n && i < RECEPTION_WINDOW - 1; i++) {
        struct reception_packet p = {first[i].bytes.iov_base, first[i].bytes.iov_len, now, false};

        if (rtp_read_u16(p.data + 2) != (uint16_t)(highest + 1) || is_special(highest + 1, looked_at) ||
            reception_timestamp(&p) != timestamp || reception_ssrc(&p) != ssrc ||
            (p.data[1] & 0x7fu) != type || !payload_is_dull(encoding, p.data, p.len, false))
            break;
        highest++;
        jitter -= (jitter + 8) >> 4; /* as by smooth(), of 0 */
    }
    if (i == 0)
        return 0;
    open_record(r);

    store_rls(&r->highest, highest);
    store_rls(&r->window, load_rlx(&r->window) << i | ((UINT64_C(1) << i) - 1));
    store_rls(&r->jitter, jitter);
    close_record(r);
    return i;
}
