/* RTP packets for a reception, in virtual time. */
#ifndef TEST_PACKETS_H
#define TEST_PACKETS_H

#include <string.h>

#include "check.h"
#include "watch.h"

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)

enum { PT_VIDEO = 96, SOURCE = 0x1234, PACKET_LEN = 64 };

struct made {
    uint16_t seq;
    uint32_t timestamp, ssrc;
    uint8_t type;
    const uint8_t *payload;
    size_t len;
};

static inline bool take_made(struct reception *r, const struct made *m, uint64_t at, bool several)
{
    uint8_t p[12 + 256] = {0x80, m->type, (uint8_t)(m->seq >> 8), (uint8_t)m->seq};

    for (unsigned i = 0; i < 4; i++) {
        p[4 + i] = (uint8_t)(m->timestamp >> (24 - 8 * i));
        p[8 + i] = (uint8_t)(m->ssrc >> (24 - 8 * i));
    }
    if (m->len)
        memcpy(p + 12, m->payload, m->len);
    struct reception_packet packet = {p, 12 + m->len, at, several};

    return reception_take(r, &packet);
}

/* Of the one source, without payload. */
static inline void take_at(struct reception *r, uint32_t seq, uint32_t timestamp, uint64_t at)
{
    struct made m = {(uint16_t)seq, timestamp, SOURCE, PT_VIDEO, NULL, 0};

    take_made(r, &m, at, false);
}

static inline struct rf_reception figures(const struct watch *w, const struct reception *r, uint64_t now)
{
    struct watched s = {.last_packet_ns = load_rlx(&r->packet_ns)};
    struct rf_reception out;

    memset(&out, 0, sizeof out);
    watch_figures(w, r, &s, now, &out);
    return out;
}

#endif
