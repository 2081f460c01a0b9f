/* What sessions carry and how it comes: encodings, reception, condition. Part of core.h, which has
 * the terms that hold here, too. */
#ifndef RF_MEDIA_H
#define RF_MEDIA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stats_fields.h"

struct rf_engine;

enum rf_encoding {
#define X(name, shown) RF_ENCODING_##name,
    RF_ENCODINGS(X)
#undef X
    RF_ENCODING_COUNT
};

enum rf_condition {
#define X(name, help) RF_CONDITION_##name,
    RF_CONDITIONS(X)
#undef X
    RF_CONDITION_COUNT
};

/* Where an encoding, or a clock rate, is known from: the better a source is, the later it stands. */
enum rf_origin {
    RF_ORIGIN_NONE,
    RF_ORIGIN_ASSUMED,   /* by the media type */
    RF_ORIGIN_MEASURED,  /* of a clock rate: beside our clock */
    RF_ORIGIN_SNIFFED,   /* by payloads */
    RF_ORIGIN_STATIC,    /* by the payload type, RFC 3551; of a clock rate also by the encoding */
    RF_ORIGIN_GIVEN,
};

/* What is told of a session's payloads; zero what is not. */
struct rf_media {
    enum rf_encoding encoding; /* UNKNOWN: to be found out */
    uint8_t payload_type;      /* of those packets, 0 to 127; RF_ANY_PAYLOAD_TYPE: of the first one */
    uint32_t clock_rate;       /* of RTP timestamps, Hz */
    uint32_t assumed_clock_rate; /* as long as there is nothing better */
    bool sealed;               /* encrypted (SRTP): payloads tell nothing */
    bool has_parameter_sets;   /* receivers have them from elsewhere */
};

enum { RF_ANY_PAYLOAD_TYPE = 255, RF_PAYLOAD_TYPES = 8, RF_PARAMETER_BYTES = 1024 };

#define RF_ABSENT INT64_MIN /* of a figure: there is none */

struct rf_reception {
    uint64_t handle;
#define X(name, help) int64_t name;
    RF_RECEPTION_FIELDS(X)
#undef X
    double bitrate_bps, frame_rate; /* of the last one to two ticks; below 0: not known */
    uint32_t ssrc;                  /* that it is of, once something was received */
    uint32_t clock_rate;            /* 0: not known */
    enum rf_origin encoding_from, clock_from;
    enum rf_encoding encoding;
    uint8_t encoding_sureness; /* percent */
    uint8_t payload_type;      /* RF_ANY_PAYLOAD_TYPE: nothing received yet */
    uint8_t payload_type_count, payload_types[RF_PAYLOAD_TYPES]; /* that were seen: the first ones */
    enum rf_condition condition;
};

/* -ENOENT, -EINVAL (encoding, payload type). */
int rf_session_media(struct rf_engine *e, uint64_t handle, const struct rf_media *media);
/* -ENOENT. */
int rf_session_reception(struct rf_engine *e, uint64_t handle, uint64_t now,
                         struct rf_reception *out);
/* All sessions in one pass: writes up to `capacity` and returns how many there are. */
size_t rf_sessions_reception(struct rf_engine *e, uint64_t now, struct rf_reception *out,
                             size_t capacity);

/* What a plot of receptions is made of; below 0 what is not known. */
struct rf_reception_figures {
    float bitrate_bps, frame_rate, jitter_secs;
    uint32_t expected, lost; /* the lower half */
};

/* The same of these alone, without the rest of it. */
size_t rf_sessions_figures(struct rf_engine *e, uint64_t now, uint64_t *handles,
                           struct rf_reception_figures *out, size_t capacity);
/* The sum of all sessions there are and were, of each figure that there is; only those that count are
 * of any use. */
void rf_receptions_sum(struct rf_engine *e, uint64_t now, struct rf_reception *out);
/* The parameter sets that came, as NAL units in the order in which a decoder wants them, each behind
 * its length (2 bytes, network order). `len` tells of how many bytes; 0: none came. -ENOENT. */
int rf_session_parameter_sets(struct rf_engine *e, uint64_t handle,
                              uint8_t out[RF_PARAMETER_BYTES], size_t *len);

struct rf_condition_change {
    uint64_t handle;
    enum rf_condition condition;
    bool active;       /* a packet of its source came lately */
    uint32_t restarts; /* of its source, since it was told before */
};

/* Housekeeping, behind rf_engine_tick: those whose condition, or whether they are active, is another
 * than the last time, or whose source has restarted since. `lately` is in ns. Returns how many were written, at most `capacity`; the rest
 * comes with the next call. */
size_t rf_conditions(struct rf_engine *e, uint64_t now, uint64_t lately,
                     struct rf_condition_change *out, size_t capacity);

/* Names, in order; NULL past the end. */
const char *rf_encoding_name(size_t i);
const char *rf_condition_name(size_t i);
const char *rf_condition_help(size_t i);
const char *rf_reception_field_name(size_t i);
const char *rf_reception_field_help(size_t i);

#endif
