#include "hash.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static inline uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate_left(v[1], 13) ^ v[0];
    v[3] = rotate_left(v[3], 16) ^ v[2];
    v[0] = rotate_left(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate_left(v[1], 17) ^ v[2];
    v[3] = rotate_left(v[3], 21) ^ v[0];
    v[2] = rotate_left(v[2], 32);
}

/* The last 0 to 7 bytes in little-endian order. */
static inline uint64_t tail_word(const uint8_t *p, size_t len)
{
    uint64_t word = 0;

    for (size_t i = 0; i < len; i++)
        word |= (uint64_t)p[i] << (8 * i);
    return word;
}

static void sip_init(uint64_t v[4], const struct hash_key *key)
{
    v[0] = key->k0 ^ 0x736f6d6570736575;
    v[1] = key->k1 ^ 0x646f72616e646f6d;
    v[2] = key->k0 ^ 0x6c7967656e657261;
    v[3] = key->k1 ^ 0x7465646279746573;
}

/* `rounds` is a constant wherever this is called. */
static inline void sip_word(uint64_t v[4], uint64_t word, unsigned rounds)
{
    v[3] ^= word;
    while (rounds-- > 0)
        sip_round(v);
    v[0] ^= word;
}

static inline void sip_bytes(uint64_t v[4], const uint8_t *p, size_t len, unsigned rounds)
{
    size_t left = len;
    uint64_t word;

    for (; left >= 8; left -= 8, p += 8) {
        memcpy(&word, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        word = __builtin_bswap64(word);
#endif
        sip_word(v, word, rounds);
    }
    sip_word(v, tail_word(p, left) | (uint64_t)len << 56, rounds);
}

static inline uint64_t sip_result(uint64_t v[4], unsigned rounds)
{
    while (rounds-- > 0)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t len)
{
    uint64_t v[4];

    sip_init(v, key);
    sip_bytes(v, data, len, 1);
    v[2] ^= 0xff;
    return sip_result(v, 3);
}

struct hash_tag hash_mac(const struct hash_key *key, const void *data, size_t len)
{
    struct hash_tag tag;
    uint64_t v[4];

    sip_init(v, key);
    v[1] ^= 0xee;
    sip_bytes(v, data, len, 2);
    v[2] ^= 0xee;
    tag.low = sip_result(v, 4);
    v[1] ^= 0xdd;
    tag.high = sip_result(v, 4);
    return tag;
}

int hash_key_init(struct hash_key *key)
{
    ssize_t n;

    do
        n = getrandom(key, sizeof *key, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return n == sizeof *key ? 0 : -EIO;
}
