/* What a session's payloads are, and what the first bytes of one tell of its frame. */
#include <arpa/inet.h>

#include "reception.h"

enum {
    VOTES = 256, /* packets that all vote; then one in so many does: */
    SELDOM = 64,
};

static void use_clock(struct reception *r)
{
    enum rf_origin from;
    uint32_t rate = reception_clock(load_rlx(&r->asked), (enum rf_encoding)load_rlx(&r->encoding),
                                    reception_type(r), &from);

    store_rls(&r->scale, rate ? (uint32_t)((UINT64_C(1000000000) << SCALE_BITS) / rate) : 0);
}

void reception_use_media(struct reception *r)
{
    uint64_t asked = load_acq(&r->asked);
    enum rf_encoding given = media_encoding(asked);
    uint8_t type = media_payload_type(asked);
    bool sniffed = !reception_has(r, RECEPTION_SNIFFS), sniffs = false;

    if (type != RF_ANY_PAYLOAD_TYPE && type != reception_type(r))
        reception_set(r, RECEPTION_TYPE, RECEPTION_UNSEEN | type);
    if (media_flags(asked) & MEDIA_SEALED) {
        given = RF_ENCODING_UNKNOWN;
    } else if (given == RF_ENCODING_UNKNOWN) {
        given = payload_static_encoding(reception_type(r));
        if (given == RF_ENCODING_UNKNOWN && sniffed)
            given = (enum rf_encoding)load_rlx(&r->encoding);
        sniffs = given == RF_ENCODING_UNKNOWN;
    }
    store_rls(&r->encoding, (uint8_t)given);
    reception_set(r, RECEPTION_SNIFFS, sniffs ? RECEPTION_SNIFFS : 0);
    use_clock(r);
}

static void count_keyframe(struct reception *r, uint64_t now)
{
    uint64_t last = load_rlx(&r->keyframe_ns);

    store_rls(&r->key_frame, load_rlx(&r->frames));
    reception_add(&r->keyframes, 1);
    store_rls(&r->keyframe_ns, now);
    store_rls(&r->keyframe_interval_us, last ? reception_elapsed_us(last, now) : 0);
}

bool reception_take_type(struct reception *r, uint8_t type)
{
    uint8_t count = load_rlx(&r->type_count), wanted = reception_type(r);

    for (uint8_t i = 0; i < count; i++) {
        if (load_rlx(&r->types[i]) == type)
            count = RF_PAYLOAD_TYPES; /* it was seen */
    }
    if (count < RF_PAYLOAD_TYPES) {
        store_rls(&r->types[count], type);
        store_rls(&r->type_count, count + 1);
    }
    if (wanted != RF_ANY_PAYLOAD_TYPE && wanted != type)
        return false;
    reception_set(r, RECEPTION_TYPE | RECEPTION_UNSEEN, type);
    if (wanted == RF_ANY_PAYLOAD_TYPE)
        reception_use_media(r);
    return true;
}

/* The encoding that is believed. */
static enum rf_encoding sniff(struct reception *r, const struct ballot *b)
{
    uint64_t count = load_rlx(&r->highest) - load_rlx(&r->base);
    enum rf_encoding before = (enum rf_encoding)load_rlx(&r->encoding);
    bool known;

    if (count >= VOTES && count % SELDOM != 0)
        return before;
    enum rf_encoding best = votes_take(&r->votes, b, &known);

    if (best != before) {
        store_rls(&r->encoding, (uint8_t)best);
        store_rls(&r->key_frame, 0);
        store_rls(&r->keyframes, 0);
        store_rls(&r->keyframe_ns, 0);
        store_rls(&r->keyframe_interval_us, 0);
    }
    if (known) {
        reception_set(r, RECEPTION_SNIFFS, 0);
        use_clock(r);
    }
    return best;
}

bool reception_take_payload(struct reception *r, const struct reception_packet *p, bool in_order,
                            bool begins)
{
    enum rf_encoding encoding = (enum rf_encoding)load_rlx(&r->encoding);
    bool sniffs = reception_has(r, RECEPTION_SNIFFS);

    if (encoding == RF_ENCODING_UNKNOWN && !sniffs)
        return false;
    struct ballot b = {payload_of(p->data, p->len), ntohl(reception_timestamp(p)), in_order, begins};

    if (sniffs)
        encoding = sniff(r, &b);
    struct payload_facts facts = payload_look(encoding, b.payload);

    if (facts.keyframe && load_rlx(&r->key_frame) != load_rlx(&r->frames) &&
        reception_timestamp(p) == load_rlx(&r->timestamp))
        count_keyframe(r, p->now);
    return facts.parameter_sets;
}
