/* What came of a session: loss, order, jitter, frames and keyframes, by RFC 3550 (A.1, A.3, A.8, 6.4.1)
 * and by what payload.h reads.
 *
 * One record beside each session, written by its owner alone, for every packet it admits; read by
 * anybody. It follows one SSRC. Where a session takes several at once that is the first, and
 * another once that has been silent for 2 s; packets of the others are counted, and no more. */
#ifndef RF_RECEPTION_H
#define RF_RECEPTION_H

#include <stdalign.h>

#include <string.h>

#include "atomic.h"
#include "payload.h"
#include "run.h"
#include "sniff.h"

enum {
    RECEPTION_WINDOW = 64,      /* sequence numbers of which each one that came is known */
    RECEPTION_DROPOUT = 3000,   /* RFC 3550 A.1: a greater step ahead may be another numbering */
    RECEPTION_MISORDER = 1500,  /* so may one further back. A.1 has 100; two modems differ by more */
    RECEPTION_RESTART = 5,      /* late packets in sequence that begin another numbering */
    RECEPTION_SELDOM = 64,      /* where an encoding is not found out soon, one packet of so many votes */
    RECEPTION_RETYPED = 64,     /* packets of another type, and no others, that are looked into then */
    JITTER_BITS = 3,            /* of ns that its unit leaves away */
    GAP_WINDOW_BITS = 30,       /* of ns, about a second */
    SCALE_BITS = 8,             /* of a unit of the timestamp, below ns */
};

#define RECEPTION_JUMP_NS UINT64_C(5000000000)   /* of a timestamp */
#define RECEPTION_SILENT_NS UINT64_C(2000000000) /* then another SSRC is followed, of several */

/* The whole is a version lock: `version` is odd while its owner writes. Each field is stored with
 * release and read with acquire, so that a reader who finds the same even version before and behind has
 * what belongs together, and the sanitizers know it.
 *
 * A packet that is the next one touches the first cache line alone: among 10,000 sessions that is most of
 * what a packet costs here. */
struct reception {
    alignas(CACHE_LINE) _Atomic uint32_t version;
    _Atomic uint32_t ssrc, timestamp; /* of the packet with the highest number; as they came */
    _Atomic uint32_t highest;   /* sequence number with its cycles, and one more; it wraps */
    _Atomic uint64_t window;    /* bit i: highest - i came */
    _Atomic uint64_t packet_ns; /* CLOCK_MONOTONIC of the last one, by the kernel; 0: there was none */
    _Atomic uint64_t frame_ns;  /* of the first one with that timestamp */
    _Atomic uint32_t jitter;    /* 8 ns * 16 */
    _Atomic uint32_t scale;     /* ns of a unit of the timestamp, * 256; 0: not known */
    _Atomic uint32_t frames;
    _Atomic uint32_t frame_interval_us; /* smoothed; 0: not known */
    _Atomic uint32_t gap_us; /* the longest before a frame, in the window of 2^30 ns that frame_ns is in */
    _Atomic uint16_t looked_at; /* payload type of those that are looked into, and RECEPTION_ flags */
    _Atomic uint8_t encoding;
    _Atomic uint8_t news; /* of `asked`: the control plane's, until the owner has seen it */

    _Atomic uint64_t asked;  /* media_word: the control plane's */
    _Atomic uint64_t before; /* packets expected in earlier numberings, and laps of `highest` */
    _Atomic uint32_t base;   /* the lowest sequence number, counted as `highest` */
    _Atomic uint32_t lost, duplicates, reordered, late, outside, restarts, jumps;
    _Atomic uint32_t last_timestamp; /* of the last packet, with RECEPTION_STRAYED; as it came */
    _Atomic uint32_t gap_before_us, gap_before; /* as gap_us; which window: the one before with a frame */

    _Atomic uint64_t keyframe_ns;
    _Atomic uint32_t keyframes, keyframe_interval_us;
    _Atomic uint32_t key_frame; /* the last one: `frames` then */
    _Atomic uint16_t suspect; /* the number that would go on with what may be another numbering */
    _Atomic uint8_t type_count, types[RF_PAYLOAD_TYPES];
    /* Of another type than the one that is looked into: how many came of it and nothing else, since when. */
    _Atomic uint8_t other_type;
    _Atomic uint16_t other_count;
    _Atomic uint32_t other_since; /* `highest` then */
    struct votes votes; /* while RECEPTION_GUESSES */
};

_Static_assert(sizeof(struct reception) == 3 * CACHE_LINE, "a reception has three cache lines");

/* Of `looked_at`: with any of them but RECEPTION_SAMPLES a packet is no simple case. */
enum {
    RECEPTION_TYPE = 0xff,      /* no flag: the payload type, or RF_ANY_PAYLOAD_TYPE */
    RECEPTION_SUSPECTS = 0x700, /* how many in sequence go on with what may be another numbering */
    RECEPTION_SUSPECT = 0x100,  /* one of them */
    RECEPTION_SNIFFS = 0x800,   /* `encoding` is a guess as yet: each packet votes, */
    RECEPTION_SAMPLES = 0x4000, /* or it has been for long: RECEPTION_SELDOM does */
    RECEPTION_GUESSES = RECEPTION_SNIFFS | RECEPTION_SAMPLES,
    RECEPTION_STRAYED = 0x1000, /* the last packet was not the one with the highest number */
    RECEPTION_UNSEEN = 0x2000,  /* no packet of the type came yet */
};

struct reception_packet {
    const uint8_t *data; /* what rtp_classify took for RTP */
    size_t len;
    uint64_t now; /* when the kernel received it, by CLOCK_MONOTONIC */
    bool several; /* the session takes several SSRCs at once */
};

/* The owner. True: it has parameter sets of `encoding`. */
bool reception_take(struct reception *r, const struct reception_packet *p);

/* Behind the one that was taken last: how many of `n` packets, which came at the same time and lie one behind
 * the other, go on with its frame and have nothing else to tell. They are taken. */
unsigned reception_take_alike(struct reception *r, const struct packet *first, unsigned n, uint64_t now);

static inline void reception_prefetch(const struct reception *r)
{
    __builtin_prefetch(r, 1);
}

/* What the control plane tells of the payloads, in one word, so that it is read at once. */
enum { MEDIA_SEALED = 1, MEDIA_CLOCK_ASSUMED = 2, MEDIA_CLOCK_MEASURED = 4 };

static inline uint64_t media_word(enum rf_encoding encoding, uint8_t payload_type, uint8_t flags,
                                  uint32_t clock_rate)
{
    return (uint64_t)clock_rate << 32 | (uint64_t)flags << 16 | (uint64_t)payload_type << 8 |
           (uint64_t)encoding;
}

static inline enum rf_encoding media_encoding(uint64_t asked)
{
    return (enum rf_encoding)(asked & 255);
}

static inline uint8_t media_payload_type(uint64_t asked)
{
    return (uint8_t)(asked >> 8);
}

static inline uint8_t media_flags(uint64_t asked)
{
    return (uint8_t)(asked >> 16);
}

/* The control plane. */
void reception_ask(struct reception *r, uint64_t media);

/* Of RTP timestamps; 0: not known. */
uint32_t reception_clock(uint64_t asked, enum rf_encoding encoding, uint8_t payload_type,
                         enum rf_origin *from);

/* A copy. */
struct reception_view {
    uint64_t window, packet_ns, frame_ns, asked, before, keyframe_ns;
    uint32_t ssrc, highest, base, timestamp, last_timestamp, jitter, frames, frame_interval_us, gap_us,
        gap_before_us, gap_before, lost, duplicates, reordered, late, outside, restarts, jumps,
        keyframes, keyframe_interval_us;
    uint16_t looked_at;
    uint8_t payload_type, type_count, types[RF_PAYLOAD_TYPES];
    enum rf_encoding encoding; /* UNKNOWN as long as it is a guess */
    uint8_t sureness;          /* percent */
};

/* Whether its fields belong together: not where its owner writes all the time, or stands still. Each is
 * right by itself. */
bool reception_read(const struct reception *r, struct reception_view *out);

/* Before it is published: all of it anew. */
void reception_begin(struct reception *r);

/* What follows is for its parts: reception.c takes packets, reception_media.c looks into them. */

static inline uint8_t reception_type(const struct reception *r)
{
    return (uint8_t)load_rlx(&r->looked_at);
}

static inline bool reception_has(const struct reception *r, unsigned flags)
{
    return load_rlx(&r->looked_at) & flags;
}

static inline void reception_set(struct reception *r, unsigned flags, unsigned value)
{
    store_rls(&r->looked_at, (uint16_t)((load_rlx(&r->looked_at) & ~flags) | value));
}

static inline void reception_add(_Atomic uint32_t *field, uint32_t n)
{
    store_rls(field, load_rlx(field) + n);
}

static inline uint32_t reception_timestamp(const struct reception_packet *p)
{
    uint32_t raw;

    memcpy(&raw, p->data + 4, sizeof raw);
    return raw;
}

static inline uint32_t reception_ssrc(const struct reception_packet *p)
{
    uint32_t raw;

    memcpy(&raw, p->data + RTP_SSRC_OFFSET, sizeof raw);
    return raw;
}

static inline uint32_t reception_elapsed_us(uint64_t then, uint64_t now)
{
    uint64_t us = now > then ? (now - then) / 1000 : 0;

    return us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

/* What was told of the payloads, or that nothing was: then the payload type may say it. */
void reception_use_media(struct reception *r);
/* Of the payloads nothing is known any more. */
void reception_forget_media(struct reception *r);
/* A payload type that may be new. Whether it is that of the packets that are looked into. */
bool reception_take_type(struct reception *r, uint8_t type);
/* `begins`: the first of a timestamp, and nothing is missing before it. True: it has parameter sets. */
bool reception_take_payload(struct reception *r, const struct reception_packet *p, bool in_order,
                            bool begins);

#endif
