/* What others have to do with a reception: beginning, and reading. */
#include <arpa/inet.h>
#include <string.h>

#include "reception.h"

void reception_begin(struct reception *r)
{
    memset((void *)r, 0, sizeof *r);
    store_rlx(&r->asked, media_word(RF_ENCODING_UNKNOWN, RF_ANY_PAYLOAD_TYPE, 0, 0));
    store_rlx(&r->looked_at, RF_ANY_PAYLOAD_TYPE);
}

uint32_t reception_clock(uint64_t asked, enum rf_encoding encoding, uint8_t payload_type,
                         enum rf_origin *from)
{
    uint32_t told = (uint32_t)(asked >> 32), known = payload_clock(encoding);
    uint8_t flags = media_flags(asked);

    if (known == 0)
        known = payload_static_clock(payload_type);
    *from = RF_ORIGIN_GIVEN;
    if (told && !(flags & (MEDIA_CLOCK_ASSUMED | MEDIA_CLOCK_MEASURED)))
        return told;
    *from = known                           ? RF_ORIGIN_STATIC
            : told == 0                     ? RF_ORIGIN_NONE
            : flags & MEDIA_CLOCK_MEASURED ? RF_ORIGIN_MEASURED
                                            : RF_ORIGIN_ASSUMED;
    return known ? known : told;
}

void reception_ask(struct reception *r, uint64_t media)
{
    store_rls(&r->asked, media);
    store_rls(&r->news, 1); /* pairs with the load in reception_take */
}

static void copy(const struct reception *r, struct reception_view *out)
{
#define X(field) out->field = load_acq(&r->field);
    X(ssrc) X(highest) X(timestamp) X(window) X(packet_ns) X(frame_ns) X(jitter) X(frames)
    X(frame_interval_us) X(gap_us) X(looked_at) X(asked) X(before) X(base) X(lost)
    X(duplicates) X(reordered) X(late) X(outside) X(restarts) X(jumps) X(last_timestamp)
    X(gap_before_us) X(gap_before) X(keyframe_ns) X(keyframes) X(keyframe_interval_us) X(type_count)
#undef X
    out->timestamp = ntohl(out->timestamp);
    out->last_timestamp = ntohl(out->last_timestamp);
    out->ssrc = ntohl(out->ssrc);
    for (unsigned i = 0; i < RF_PAYLOAD_TYPES; i++)
        out->types[i] = load_acq(&r->types[i]);
    out->payload_type = (uint8_t)out->looked_at;
    out->encoding = (enum rf_encoding)load_acq(&r->encoding);
    if (out->looked_at & RECEPTION_GUESSES)
        out->encoding = RF_ENCODING_UNKNOWN;
    out->sureness = votes_sureness(&r->votes, out->encoding);
}

bool reception_read(const struct reception *r, struct reception_view *out)
{
    enum { TRIES = 1000 }; /* its owner may have lost its CPU in the middle */

    for (unsigned i = 0; i < TRIES; i++) {
        uint32_t version = load_acq(&r->version);

        copy(r, out);
        if (version % 2 == 0 && load_rlx(&r->version) == version)
            return true;
    }
    return false;
}
