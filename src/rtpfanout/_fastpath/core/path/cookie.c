#include "cookie.h"

#include <string.h>

enum {
    TIME_LEN = 8,
    STAMP_LEN = 4,
    STAMP_OFFSET = 20, /* the second half of the token id */
};

static struct hash_key key_of(const uint8_t bytes[RF_PROOF_KEY])
{
    struct hash_key key = {0, 0};

    for (unsigned i = 0; i < 8; i++) {
        key.k0 |= (uint64_t)bytes[i] << 8 * i;
        key.k1 |= (uint64_t)bytes[8 + i] << 8 * i;
    }
    return key;
}

static struct hash_key key_read(struct proof_key *key)
{
    return (struct hash_key){load_rlx(&key->k0), load_rlx(&key->k1)};
}

int proof_key_init(struct proof_key *key)
{
    struct hash_key random;
    int rc = hash_key_init(&random);

    store_rlx(&key->k0, random.k0);
    store_rlx(&key->k1, random.k1);
    return rc;
}

void proof_key_set(struct proof_key *key, const uint8_t bytes[RF_PROOF_KEY])
{
    struct hash_key k = key_of(bytes);

    store_rlx(&key->k0, k.k0);
    store_rlx(&key->k1, k.k1);
}

static void write_number(uint8_t *p, uint64_t number, unsigned bytes)
{
    while (bytes > 0) {
        p[--bytes] = (uint8_t)number;
        number >>= 8;
    }
}

/* Over the time, the address, the scope and the port, in network order and with no gap. */
static struct hash_tag cookie_tag(const struct hash_key *key, const uint8_t time[TIME_LEN],
                                  const struct rf_addr *to)
{
    uint8_t bytes[TIME_LEN + 16 + 4 + 2];

    memcpy(bytes, time, TIME_LEN);
    memcpy(bytes + TIME_LEN, to->ip, 16);
    write_number(bytes + TIME_LEN + 16, to->scope, 4);
    write_number(bytes + TIME_LEN + 20, to->port, 2);
    return hash_mac(key, bytes, sizeof bytes);
}

void rf_cookie_make(const uint8_t key[RF_PROOF_KEY], const struct rf_addr *to, uint64_t made_us,
                    uint8_t cookie[RF_COOKIE])
{
    struct hash_key k = key_of(key);

    write_number(cookie, made_us, TIME_LEN);
    struct hash_tag tag = cookie_tag(&k, cookie, to);

    write_number(cookie + TIME_LEN, tag.low, 8);
    write_number(cookie + TIME_LEN + 8, tag.high, 8);
}

bool cookie_is_ours(struct proof_key *key, const uint8_t cookie[RFO_COOKIE_LEN],
                    const struct rf_addr *from)
{
    struct hash_key k = key_read(key);
    struct hash_tag tag = cookie_tag(&k, cookie, from);
    uint8_t expected[16];

    write_number(expected, tag.low, 8);
    write_number(expected + 8, tag.high, 8);
    uint64_t a[2], b[2];

    memcpy(a, expected, 16);
    memcpy(b, cookie + TIME_LEN, 16);
    return ((a[0] ^ b[0]) | (a[1] ^ b[1])) == 0; /* in constant time */
}

/* Over all claims but the stamp's own place, which counts as zeros. */
static uint32_t stamp_of(const struct hash_key *key, const uint8_t claims[RFO_CLAIMS_LEN])
{
    uint8_t bytes[RFO_CLAIMS_LEN];

    memcpy(bytes, claims, sizeof bytes);
    memset(bytes + STAMP_OFFSET, 0, STAMP_LEN);
    return (uint32_t)hash_mac(key, bytes, sizeof bytes).low;
}

void rf_stamp_make(const uint8_t key[RF_PROOF_KEY], uint8_t claims[RF_CLAIMS])
{
    struct hash_key k = key_of(key);

    write_number(claims + STAMP_OFFSET, stamp_of(&k, claims), STAMP_LEN);
}

bool stamp_is_ours(struct proof_key *key, const uint8_t claims[RFO_CLAIMS_LEN])
{
    struct hash_key k = key_read(key);
    uint8_t expected[STAMP_LEN];

    write_number(expected, stamp_of(&k, claims), STAMP_LEN);
    return memcmp(expected, claims + STAMP_OFFSET, STAMP_LEN) == 0;
}
