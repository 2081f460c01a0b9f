/* rfo.h: which control datagrams are well formed. They sit at the very end of their memory, so that
 * AddressSanitizer sees a read past them. */
#include "rfo.h"

#include "letters.h"

static bool accepted(const uint8_t *bytes, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);
    bool ok;

    memcpy(exact, bytes, len);
    ok = rfo_begins(exact + (len ? 0 : 1), len) && rfo_is_well_formed(exact, len);
    free(exact);
    return ok;
}

static void test_how_they_begin(void)
{
    static const struct {
        const char *bytes;
        size_t len;
        bool control;
    } cases[] = {
        {"RFO\x01", 4, true},   {"RFO\x01 and more", 13, true}, {"RFO\x01", 3, false},
        {"RFO\x02", 4, false},  {"RFO", 3, false},              {"", 0, false},
        {"rFO\x01", 4, false},  {"RFP\x01", 4, false},          {"\x80" "FO\x01", 4, false},
        {"RFO\x00\x01", 5, false}, {"RTP\x01", 4, false},
    };

    for (unsigned i = 0; i < COUNT(cases); i++)
        CHECK_EQ(rfo_begins((const uint8_t *)cases[i].bytes, cases[i].len), cases[i].control);
    /* Of all four-byte beginnings that differ in one bit, none. */
    for (unsigned bit = 0; bit < 32; bit++) {
        uint8_t p[4] = {'R', 'F', 'O', 1};

        p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(!rfo_begins(p, 4));
    }
}

static void test_lengths_are_exact(void)
{
    uint8_t p[2 * RFO_LONGEST] = {0};

    for (unsigned i = 0; i < COUNT(letter_kinds); i++) {
        memset(p, 0, sizeof p);
        size_t len = letter_make(p, letter_kinds[i], 7);

        for (size_t n = 0; n <= sizeof p; n++)
            CHECK_EQ(accepted(p, n), n == len);
    }
}

/* What only servers send, and all there is not, at any length. */
static void test_other_kinds_are_malformed(void)
{
    uint8_t p[RFO_LONGEST] = {'R', 'F', 'O', 1};

    for (unsigned kind = 0; kind < 256; kind++) {
        bool known = memchr(letter_kinds, (int)kind, sizeof letter_kinds) != NULL;

        p[RFO_KIND_OFFSET] = (uint8_t)kind;
        CHECK_EQ(rfo_length((uint8_t)kind) > 0, known);
        for (size_t n = 0; n <= sizeof p && !known; n++)
            CHECK(!accepted(p, n));
    }
}

/* Which bits must be zero, or else what they are; all others are free. */
static bool bit_is_fixed(uint8_t kind, unsigned bit)
{
    unsigned at = bit / 8;

    if (at < 8)
        return true;
    switch (kind) {
    case RFO_HELLO: return at >= 16;
    case RFO_ECHO: return at >= 40;
    case RFO_JOIN:
    case RFO_LEAVE: /* version, class (0 becomes 1 or 2 by one bit), reserved, a lease that ends up 0 */
        return at == 16 || (at == 17 && bit % 8 > 1) || at == 18 || at == 19 ||
               (at == 23 && bit % 8 == 0);
    default: return false;
    }
}

static void test_reserved_bits(void)
{
    uint8_t p[RFO_LONGEST];

    for (unsigned i = 0; i < COUNT(letter_kinds); i++) {
        size_t len = letter_make(p, letter_kinds[i], 7);

        for (unsigned bit = 8 * (RFO_KIND_OFFSET + 1); bit < 8 * len; bit++) {
            p[bit / 8] ^= (uint8_t)(1 << bit % 8);
            CHECK_EQ(accepted(p, len), !bit_is_fixed(letter_kinds[i], bit));
            p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
    letter_make(p, RFO_JOIN, 7);
    p[RFO_CLAIMS + 1] = 3; /* a class there is not */
    CHECK(!accepted(p, RFO_LONGEST));
}

static void test_where_cookie_and_claims_are(void)
{
    uint8_t p[RFO_LONGEST];

    for (unsigned i = 0; i < COUNT(letter_kinds); i++) {
        letter_make(p, letter_kinds[i], 7);
        bool joins = letter_kinds[i] == RFO_JOIN || letter_kinds[i] == RFO_LEAVE;

        CHECK(rfo_claims(p) == (joins ? p + 16 : NULL));
        CHECK(rfo_cookie(p) == (joins ? p + 56 : letter_kinds[i] == RFO_ECHO ? p + 16 : NULL));
    }
}

int main(void)
{
    RUN(test_how_they_begin);
    RUN(test_lengths_are_exact);
    RUN(test_other_kinds_are_malformed);
    RUN(test_reserved_bits);
    RUN(test_where_cookie_and_claims_are);
    return 0;
}
