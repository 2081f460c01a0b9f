#include "parameters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rtp.h"

enum { ENTRY = 4 }; /* bytes before a NAL unit */

struct parameter_slab {
    struct parameter_slab *next;
    struct parameter_sets block[PARAMETER_SPARES];
};

void parameter_pool_destroy(struct parameter_pool *p)
{
    while (p->slabs) {
        struct parameter_slab *slab = p->slabs;

        p->slabs = slab->next;
        free(slab);
    }
}

void parameter_pool_put(struct parameter_pool *p, struct parameter_sets *s)
{
    if (!s)
        return;
    memset((void *)s, 0, sizeof *s);
    s->next_free = p->free;
    p->free = s;
}

/* Written to, so that no worker is the first to touch them. */
static int add_slab(struct parameter_pool *p)
{
    struct parameter_slab *slab = malloc(sizeof *slab);

    if (!slab)
        return -ENOMEM;
    slab->next = p->slabs;
    p->slabs = slab;
    for (unsigned i = 0; i < PARAMETER_SPARES; i++)
        parameter_pool_put(p, &slab->block[i]);
    return 0;
}

int parameter_spares_fill(struct parameter_spares *spares, struct parameter_pool *p)
{
    for (unsigned i = 0; i < PARAMETER_SPARES; i++) {
        if (load_acq(&spares->block[i]))
            continue;
        int rc = p->free ? 0 : add_slab(p);

        if (rc)
            return rc;
        struct parameter_sets *s = p->free;

        p->free = s->next_free;
        /* Pairs with the load in parameter_spares_take. */
        store_rls(&spares->block[i], s);
    }
    return 0;
}

struct parameter_sets *parameter_spares_take(struct parameter_spares *spares)
{
    _Atomic(struct parameter_sets *) *place = &spares->block[spares->next % PARAMETER_SPARES];
    struct parameter_sets *s = load_acq(place);

    if (!s)
        return NULL;
    spares->next++;
    store_rls(place, NULL);
    return s;
}

static uint32_t entry_len(const struct parameter_sets *s, uint32_t at)
{
    return ENTRY + (uint32_t)(load_acq(&s->bytes[at + 2]) << 8 | load_acq(&s->bytes[at + 3]));
}

/* Where the one is whose place it takes; `len` for none. */
static uint32_t find(const struct parameter_sets *s, const struct parameter_set *set, uint32_t len)
{
    uint32_t at = 0;

    while (at < len && (load_rlx(&s->bytes[at]) != set->type || load_rlx(&s->bytes[at + 1]) != set->number))
        at += entry_len(s, at);
    return at;
}

static bool is_same(const struct parameter_sets *s, uint32_t at, const struct parameter_set *set)
{
    if (entry_len(s, at) != ENTRY + set->len)
        return false;
    for (size_t i = 0; i < set->len; i++) {
        if (load_rlx(&s->bytes[at + ENTRY + i]) != set->bytes[i])
            return false;
    }
    return true;
}

static uint32_t cut_out(struct parameter_sets *s, uint32_t at, uint32_t len)
{
    uint32_t gap = entry_len(s, at);

    for (uint32_t i = at; i + gap < len; i++)
        store_rls(&s->bytes[i], load_rlx(&s->bytes[i + gap]));
    return len - gap;
}

static void keep(struct parameter_sets *s, const struct parameter_set *set)
{
    uint32_t len = load_rlx(&s->len), at = find(s, set, len);

    if (at < len && is_same(s, at, set))
        return;
    if (at < len)
        len = cut_out(s, at, len);
    if (len + ENTRY + set->len <= RF_PARAMETER_BYTES) {
        const uint8_t head[ENTRY] = {set->type, set->number, (uint8_t)(set->len >> 8),
                                     (uint8_t)set->len};

        for (unsigned i = 0; i < ENTRY; i++)
            store_rls(&s->bytes[len + i], head[i]);
        for (size_t i = 0; i < set->len; i++)
            store_rls(&s->bytes[len + ENTRY + i], set->bytes[i]);
        len += ENTRY + (uint32_t)set->len;
    }
    store_rls(&s->len, len);
}

void parameter_sets_keep(struct parameter_sets *s, enum rf_encoding encoding, struct payload payload,
                         uint64_t now)
{
    uint32_t version = load_rlx(&s->version);
    struct parameter_set set;
    size_t at = 0;

    store_rlx(&s->version, version + 1);
    if (load_rlx(&s->encoding) != encoding)
        store_rls(&s->len, 0);
    store_rls(&s->encoding, (uint8_t)encoding);
    while (payload_next_set(encoding, payload, &at, &set))
        keep(s, &set);
    store_rls(&s->seen_ns, now);
    store_rls(&s->version, version + 2);
}

/* By type, as decoders want them: VPS before SPS before PPS. */
static size_t put_in_order(const uint8_t *bytes, size_t len, uint8_t *out)
{
    size_t used = 0;

    for (unsigned type = 0; type < 64; type++) {
        for (size_t at = 0; at + ENTRY <= len; at += ENTRY + (size_t)rtp_read_u16(bytes + at + 2)) {
            size_t size = 2 + (size_t)rtp_read_u16(bytes + at + 2);

            if (bytes[at] == type && at + 2 + size <= len) {
                memcpy(out + used, bytes + at + 2, size);
                used += size;
            }
        }
    }
    return used;
}

uint64_t parameter_sets_seen(const struct parameter_sets *s, enum rf_encoding encoding)
{
    return s && load_acq(&s->encoding) == encoding ? load_acq(&s->seen_ns) : 0;
}

size_t parameter_sets_read(const struct parameter_sets *s, enum rf_encoding encoding,
                           uint8_t out[RF_PARAMETER_BYTES])
{
    enum { TRIES = 1000 };
    uint8_t bytes[RF_PARAMETER_BYTES];

    for (unsigned i = 0; s && i < TRIES; i++) {
        uint32_t version = load_acq(&s->version), len = load_acq(&s->len);
        bool fits = load_acq(&s->encoding) == encoding;

        for (uint32_t k = 0; k < len; k++)
            bytes[k] = load_acq(&s->bytes[k]);
        if (version % 2 != 0 || load_rlx(&s->version) != version)
            continue;
        return fits ? put_in_order(bytes, len, out) : 0;
    }
    return 0;
}
