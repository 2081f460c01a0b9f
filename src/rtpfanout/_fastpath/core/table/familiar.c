#include "familiar.h"

#include <stdlib.h>

struct familiar *familiar_new(const struct hash_key *key)
{
    struct familiar *f = calloc(1, sizeof *f);

    if (f)
        f->key = *key;
    return f;
}

void familiar_free(struct familiar *f)
{
    free(f);
}

uint64_t familiar_host(const struct hash_key *key, const struct rf_addr *addr)
{
    uint8_t bytes[sizeof addr->ip + sizeof addr->scope];

    memcpy(bytes, addr->ip, sizeof addr->ip);
    memcpy(bytes + sizeof addr->ip, &addr->scope, sizeof addr->scope);
    return hash_bytes(key, bytes, sizeof bytes) | 1;
}

static uint64_t port_of(const struct familiar *f, const struct rf_addr *addr)
{
    uint8_t bytes[sizeof addr->ip + sizeof addr->scope + sizeof addr->port];

    memcpy(bytes, addr->ip, sizeof addr->ip);
    memcpy(bytes + sizeof addr->ip, &addr->scope, sizeof addr->scope);
    memcpy(bytes + sizeof addr->ip + sizeof addr->scope, &addr->port, sizeof addr->port);
    return hash_bytes(&f->key, bytes, sizeof bytes);
}

static _Atomic uint32_t *cell_of(struct familiar *f, uint64_t hash)
{
    return &f->cell[hash >> 40 & (FAMILIAR_CELLS - 1)];
}

static void count(struct familiar *f, uint64_t hash, int by)
{
    _Atomic uint32_t *cell = cell_of(f, hash);

    store_rlx(cell, load_rlx(cell) + (uint32_t)by);
}

void familiar_count_host(struct familiar *f, uint64_t host, int by)
{
    if (host != 0)
        count(f, host, by);
}

void familiar_count_pair(struct familiar *f, const struct rf_addr *addr, int by)
{
    struct rf_addr above = *addr;

    above.port++;
    count(f, port_of(f, addr), by);
    count(f, port_of(f, &above), by);
}

void familiar_note_fed(struct familiar *f, uint64_t host)
{
    _Atomic uint64_t *fed = &f->fed[host >> 40 & (FAMILIAR_FED - 1)];

    if (load_rlx(fed) != host)
        store_rlx(fed, host);
}

struct familiarity familiar_with(const struct familiar *f, const struct rf_addr *from)
{
    struct familiar *cells = (struct familiar *)f; /* only read */
    uint64_t port = port_of(f, from), host = familiar_host(&f->key, from);
    struct familiarity out = {load_rlx(cell_of(cells, port)), load_rlx(cell_of(cells, host)), port};

    if (out.sources == 0 && load_rlx(&f->fed[host >> 40 & (FAMILIAR_FED - 1)]) == host)
        out.sources = 1;
    if (out.reporters == 0)
        out.hash = host;
    return out;
}
