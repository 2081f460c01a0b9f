/* Well-formed control datagrams for test programs. */
#ifndef TEST_LETTERS_H
#define TEST_LETTERS_H

#include <string.h>

#include "check.h"
#include "rfo.h"

static const uint8_t letter_kinds[] = {RFO_MOVE, RFO_HELLO, RFO_ECHO, RFO_JOIN, RFO_LEAVE};

/* Without a cookie; `number` is in it. Returns its length, at most RFO_LONGEST. */
static inline size_t letter_make(uint8_t *p, uint8_t kind, uint32_t number)
{
    size_t len = rfo_length(kind);

    CHECK(len > 0 && len <= RFO_LONGEST);
    memset(p, 0, len);
    memcpy(p, "RFO\x01", 4);
    p[RFO_KIND_OFFSET] = kind;
    memcpy(p + 8, &number, sizeof number);
    if (rfo_claims(p)) {
        p[RFO_CLAIMS] = 1;
        p[RFO_CLAIMS + 7] = 1; /* a lease of 1 ms */
    }
    return len;
}

#endif
