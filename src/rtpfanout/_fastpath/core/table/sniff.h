/* Which encoding payloads are in, where nobody tells: found out by votes.
 *
 * Each packet is held against each encoding. The one that fits best is believed for the time being, and
 * known once enough packets of it came, almost none of which it refuses, and every other refuses
 * many. */
#ifndef RF_SNIFF_H
#define RF_SNIFF_H

#include "atomic.h"
#include "payload.h"

enum { SNIFF_ENCODINGS = 7 };

/* A part of a reception, which says who reads and writes it. */
struct votes {
    _Atomic uint32_t opus_next; /* timestamp of the next packet, if this is Opus; 0: not known */
    _Atomic uint8_t typical;    /* bits of the encodings that something typical came of */
    _Atomic uint8_t fits[SNIFF_ENCODINGS], refused[SNIFF_ENCODINGS];
};

struct ballot {
    struct payload payload;
    uint32_t timestamp;
    bool in_order; /* none before it is missing or came later */
    bool begins;   /* and it is the first of a timestamp */
};

void votes_begin(struct votes *v);
/* The encoding that is believed now, RF_ENCODING_UNKNOWN for none; `known`: it is more than that. */
enum rf_encoding votes_take(struct votes *v, const struct ballot *b, bool *known);
/* How many voted, as far as is remembered: at least half as many as the most that are. */
unsigned votes_count(const struct votes *v);
/* Of how many packets in a hundred that were looked at it can be; 0: it is not voted on. */
uint8_t votes_sureness(const struct votes *v, enum rf_encoding encoding);

#endif
