/* SipHash (Aumasson and Bernstein, 2012). SipHash-1-3 with a random key for tables: whoever chooses
 * SSRCs or addresses can't choose where they land. SipHash-2-4 as a MAC. */
#ifndef RF_HASH_H
#define RF_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash_key {
    uint64_t k0, k1;
};

/* From the kernel's random source. 0 or -errno. */
int hash_key_init(struct hash_key *key);
uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t len);

/* 128 bits; `low` is what the reference writes first, in little-endian order. */
struct hash_tag {
    uint64_t low, high;
};

struct hash_tag hash_mac(const struct hash_key *key, const void *data, size_t len);

#endif
