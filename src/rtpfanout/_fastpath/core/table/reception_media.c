/* What a session's payloads are, and what the first bytes of one tell of its frame. */
#include <arpa/inet.h>

#include "reception.h"

enum { VOTES = 120 }; /* packets that all vote */

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
    bool sniffed = !reception_has(r, RECEPTION_GUESSES), sniffs = false;

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
    reception_set(r, RECEPTION_GUESSES, sniffs ? RECEPTION_SNIFFS : 0);
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

static void note_type(struct reception *r, uint8_t type)
{
    uint8_t count = load_rlx(&r->type_count);

    for (uint8_t i = 0; i < count; i++) {
        if (load_rlx(&r->types[i]) == type)
            return;
    }
    if (count < RF_PAYLOAD_TYPES) {
        store_rls(&r->types[count], type);
        store_rls(&r->type_count, count + 1);
    }
}

/* Whether the source sends nothing but this type any more; an eighth may be lost. */
static bool is_retyped(struct reception *r, uint8_t type)
{
    uint32_t highest = load_rlx(&r->highest), since = load_rlx(&r->other_since);
    uint16_t count = load_rlx(&r->other_count);
    bool goes_on = count > 0 && load_rlx(&r->other_type) == type &&
                   highest - since <= count + count / 8u + 1;

    if (!goes_on) {
        count = 0;
        store_rls(&r->other_type, type);
        store_rls(&r->other_since, highest);
    }
    store_rls(&r->other_count, count + 1);
    return count + 1 >= RECEPTION_RETYPED &&
           media_payload_type(load_rlx(&r->asked)) == RF_ANY_PAYLOAD_TYPE;
}

void reception_forget_media(struct reception *r)
{
    store_rls(&r->looked_at, RF_ANY_PAYLOAD_TYPE);
    store_rls(&r->encoding, RF_ENCODING_UNKNOWN);
    store_rls(&r->other_count, 0);
    votes_begin(&r->votes);
}

bool reception_take_type(struct reception *r, uint8_t type)
{
    uint8_t wanted = reception_type(r);

    note_type(r, type);
    if (wanted != RF_ANY_PAYLOAD_TYPE && wanted != type) {
        if (!is_retyped(r, type))
            return false;
        reception_forget_media(r);
        wanted = RF_ANY_PAYLOAD_TYPE;
    }
    reception_set(r, RECEPTION_TYPE | RECEPTION_UNSEEN, type);
    if (wanted == RF_ANY_PAYLOAD_TYPE)
        reception_use_media(r);
    return true;
}

/* The encoding that is believed. */
static enum rf_encoding sniff(struct reception *r, const struct ballot *b)
{
    enum rf_encoding before = (enum rf_encoding)load_rlx(&r->encoding);
    bool known;

    if (reception_has(r, RECEPTION_SAMPLES) && load_rlx(&r->highest) % RECEPTION_SELDOM != 0)
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
        reception_set(r, RECEPTION_GUESSES, 0);
        use_clock(r);
    } else if (votes_count(&r->votes) >= VOTES) {
        reception_set(r, RECEPTION_GUESSES, RECEPTION_SAMPLES);
    }
    return best;
}

bool reception_take_payload(struct reception *r, const struct reception_packet *p, bool in_order,
                            bool begins)
{
    enum rf_encoding encoding = (enum rf_encoding)load_rlx(&r->encoding);
    bool sniffs = reception_has(r, RECEPTION_GUESSES);

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
