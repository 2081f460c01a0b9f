#include "repair.h"

#include <string.h>

static void begin(struct repair *r, uint32_t ssrc, uint16_t sequence)
{
    r->begun = true;
    r->ssrc = ssrc;
    r->highest = sequence;
    r->holes = 0;
}

static void forget(struct repair *r, unsigned i)
{
    memmove(&r->hole[i], &r->hole[i + 1], (--r->holes - i) * sizeof r->hole[0]);
}

static void add(struct repair *r, uint16_t sequence, uint64_t now)
{
    if (r->holes == REPAIR_HOLES)
        forget(r, 0);
    r->hole[r->holes++] = (struct hole){.since_ns = now, .sequence = sequence};
}

/* Of who was asked for once alone it is known which request that answers (Karn). */
static void learn(struct repair *r, const struct hole *h, uint64_t now)
{
    uint64_t took = now - h->asked_ns;

    if (h->tries == 1)
        r->round_trip_ns = r->round_trip_ns ? r->round_trip_ns - r->round_trip_ns / 8 + took / 8 : took;
}

static bool fill(struct repair *r, uint16_t sequence, uint64_t now)
{
    for (unsigned i = 0; i < r->holes; i++) {
        struct hole h = r->hole[i];

        if (h.sequence != sequence)
            continue;
        learn(r, &h, now);
        forget(r, i);
        return h.tries > 0;
    }
    return false;
}

bool repair_take(struct repair *r, uint32_t ssrc, uint16_t sequence, uint64_t now)
{
    unsigned ahead = (uint16_t)(sequence - r->highest);

    if (r->begun && (ssrc ^ r->ssrc) == 1)
        return fill(r, sequence, now);
    if (!r->begun || ssrc != r->ssrc || (ahead > REPAIR_HOLES && ahead < 0x8000)) {
        begin(r, ssrc, sequence);
        return false;
    }
    if (ahead == 0 || ahead >= 0x8000)
        return ahead > 0 && fill(r, sequence, now);
    for (unsigned i = 1; i < ahead; i++)
        add(r, (uint16_t)(r->highest + i), now);
    r->highest = sequence;
    return false;
}

static bool is_due(const struct repair *r, const struct hole *h, uint64_t now)
{
    uint64_t wait = r->round_trip_ns ? r->round_trip_ns : REPAIR_GUESS_NS;

    if (h->tries == 0)
        return (uint16_t)(r->highest - h->sequence) >= REPAIR_BEHIND ||
               now - h->since_ns >= REPAIR_AFTER_NS;
    return now - h->asked_ns >= (wait > REPAIR_LEAST_NS ? wait : REPAIR_LEAST_NS);
}

unsigned repair_ask(struct repair *r, uint16_t sequence[REPAIR_AT_ONCE], uint64_t now)
{
    unsigned n = 0;

    for (unsigned i = 0; i < r->holes && n < REPAIR_AT_ONCE;) {
        struct hole *h = &r->hole[i];
        bool due = is_due(r, h, now);

        if (now - h->since_ns >= REPAIR_LONG_NS || (due && h->tries == REPAIR_TRIES)) {
            forget(r, i);
            continue;
        }
        if (due) {
            h->tries++;
            h->asked_ns = now;
            sequence[n++] = h->sequence;
        }
        i++;
    }
    return n;
}
