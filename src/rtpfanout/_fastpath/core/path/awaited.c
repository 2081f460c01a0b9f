#include "awaited.h"

#include <string.h>

/* The hash of both rows; member by member, since padding is not part of an address. */
static uint64_t hash_of(const struct awaited *a, const struct rf_addr *addr)
{
    uint8_t bytes[16 + 4 + 2];

    memcpy(bytes, addr->ip, 16);
    memcpy(bytes + 16, &addr->scope, 4);
    memcpy(bytes + 20, &addr->port, 2);
    return hash_bytes(&a->key, bytes, sizeof bytes);
}

static _Atomic uint8_t *cell_of(struct awaited *a, uint64_t hash, unsigned row)
{
    return &a->count[row][(hash >> 32 * row) % AWAITED_CELLS];
}

int awaited_init(struct awaited *a)
{
    memset(a, 0, sizeof *a);
    return hash_key_init(&a->key);
}

void awaited_change(struct awaited *a, const struct rf_addr *addr, bool on)
{
    uint64_t hash = hash_of(a, addr);

    for (unsigned row = 0; row < AWAITED_ROWS; row++) {
        _Atomic uint8_t *cell = cell_of(a, hash, row);
        uint8_t count = load_rlx(cell);

        if (count < AWAITED_FULL && (on || count > 0))
            store_rlx(cell, (uint8_t)(on ? count + 1 : count - 1));
    }
}

bool awaited_has(struct awaited *a, const struct rf_addr *addr)
{
    uint64_t hash = hash_of(a, addr);

    for (unsigned row = 0; row < AWAITED_ROWS; row++) {
        if (load_rlx(cell_of(a, hash, row)) == 0)
            return false;
    }
    return true;
}
