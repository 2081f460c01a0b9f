/* What the control plane makes of a session's reception: rates, the longest gap, its condition. */
#ifndef RF_WATCH_H
#define RF_WATCH_H

#include "parameters.h"
#include "reception.h"

enum { WATCH_GAPS = 11 }; /* windows of 2^30 ns in the last 10 s */

/* Beside each session; the writer's. */
struct watch {
    struct watch_point {
        uint64_t at, bytes;
        uint32_t frames;
    } older, newer;
    uint64_t began_ns; /* the source, or its coming back */
    /* The longest gap before a frame, by window number modulo WATCH_GAPS; the last that is known. */
    uint32_t gap_us[WATCH_GAPS], gap_window;
    uint32_t ssrc;
    /* Beside which the RTP clock is measured. */
    struct {
        uint64_t ns;
        uint32_t timestamp, breaks;
    } clock;
    uint32_t restarts, told_restarts;
    uint8_t condition, told; /* and what rf_conditions has told of it */
    bool told_active;
    bool has_parameter_sets; /* its receivers, from elsewhere */
};

/* Of a session, beside its reception. */
struct watched {
    uint64_t bytes, last_packet_ns, parameter_sets_ns;
    bool paused;
};

/* About once a second, or more often: rates are of a second at least. Its condition stands in `condition`
 * then, and a clock rate that was found out in `r`. */
void watch_roll(struct watch *w, struct reception *r, const struct watched *s, uint64_t now);
/* At any time, all but `handle`. */
void watch_figures(const struct watch *w, const struct reception *r, const struct watched *s,
                   uint64_t now, struct rf_reception *out);

#endif
