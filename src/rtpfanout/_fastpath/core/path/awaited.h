/* The addresses whose consent is awaited, as a counting sketch of fixed size: whoever says HELLO from
 * one of them is expected. It may take others for them (where n are awaited, (n / 65,536)^2 of all
 * others), which only gives those a place among the invited. */
#ifndef RF_AWAITED_H
#define RF_AWAITED_H

#include "addr.h"
#include "atomic.h"
#include "hash.h"

enum { AWAITED_ROWS = 2, AWAITED_CELLS = 1 << 16, AWAITED_FULL = UINT8_MAX };

struct awaited {
    struct hash_key key;
    /* A cell that is full stays so. Written by who holds the writer mutex, read relaxed. */
    _Atomic uint8_t count[AWAITED_ROWS][AWAITED_CELLS];
};

/* 0 or -errno. */
int awaited_init(struct awaited *a);
/* An address may be awaited for several reasons: each that begins is to end once. */
void awaited_change(struct awaited *a, const struct rf_addr *addr, bool on);
bool awaited_has(struct awaited *a, const struct rf_addr *addr);

#endif
