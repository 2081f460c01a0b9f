/* cookie.c: what proves that somebody is known, and that nothing that differs in a bit does. */
#include "cookie.h"

#include "endpoints.h"
#include "letters.h"

static const uint8_t key[RF_PROOF_KEY] = "a key of 16 byte";

static void flip(uint8_t *p, unsigned bit)
{
    p[bit / 8] ^= (uint8_t)(1 << bit % 8);
}

static void test_a_cookie_is_of_its_key_time_and_address(void)
{
    struct rf_addr here = address("192.0.2.1", 4000), other;
    uint8_t cookie[RF_COOKIE], changed_key[RF_PROOF_KEY];
    struct proof_key k;

    proof_key_set(&k, key);
    rf_cookie_make(key, &here, UINT64_C(0x0102030405060708), cookie);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(cookie[i], i + 1);
    CHECK(cookie_is_ours(&k, cookie, &here));
    for (unsigned bit = 0; bit < 8 * RF_COOKIE; bit++) {
        flip(cookie, bit);
        CHECK(!cookie_is_ours(&k, cookie, &here));
        flip(cookie, bit);
    }
    for (unsigned bit = 0; bit < 128; bit++) {
        other = here;
        flip(other.ip, bit);
        CHECK(!cookie_is_ours(&k, cookie, &other));
        memcpy(changed_key, key, sizeof key);
        flip(changed_key, bit);
        proof_key_set(&k, changed_key);
        CHECK(!cookie_is_ours(&k, cookie, &here));
        proof_key_set(&k, key);
    }
    for (unsigned bit = 0; bit < 16; bit++) {
        other = here;
        other.port ^= (uint16_t)(1 << bit);
        CHECK(!cookie_is_ours(&k, cookie, &other));
    }
    other = here;
    other.scope = 1;
    CHECK(!cookie_is_ours(&k, cookie, &other));
    CHECK(cookie_is_ours(&k, cookie, &here));
}

static void test_before_a_key_is_set_nobody_is_known(void)
{
    struct rf_addr here = address("192.0.2.1", 4000);
    uint8_t cookie[RF_COOKIE], zero[RF_PROOF_KEY] = {0};
    struct proof_key one, two;

    CHECK_EQ(proof_key_init(&one), 0);
    CHECK_EQ(proof_key_init(&two), 0);
    CHECK(load_rlx(&one.k0) != load_rlx(&two.k0) && load_rlx(&one.k1) != load_rlx(&two.k1));
    rf_cookie_make(zero, &here, 1, cookie);
    CHECK(!cookie_is_ours(&one, cookie, &here));
}

static void test_a_stamp_is_of_its_claims(void)
{
    uint8_t letter[RFO_LONGEST], *claims = letter + RFO_CLAIMS, before[RFO_CLAIMS_LEN];
    struct proof_key k;

    letter_make(letter, RFO_JOIN, 7);
    proof_key_set(&k, key);
    memset(claims + 16, 0x5a, 8); /* the token id */
    memcpy(before, claims, sizeof before);
    rf_stamp_make(key, claims);
    CHECK(memcmp(before, claims, 20) == 0 && memcmp(before + 24, claims + 24, 16) == 0);
    CHECK(stamp_is_ours(&k, claims));
    for (unsigned bit = 0; bit < 8 * RFO_CLAIMS_LEN; bit++) {
        flip(claims, bit);
        CHECK(!stamp_is_ours(&k, claims));
        flip(claims, bit);
    }
    memcpy(before, claims, sizeof before);
    rf_stamp_make(key, claims);
    CHECK(memcmp(before, claims, sizeof before) == 0); /* whatever was in its place */
}

int main(void)
{
    RUN(test_a_cookie_is_of_its_key_time_and_address);
    RUN(test_before_a_key_is_set_nobody_is_known);
    RUN(test_a_stamp_is_of_its_claims);
    return 0;
}
