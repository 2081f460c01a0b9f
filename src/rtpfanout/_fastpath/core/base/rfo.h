/* Control datagrams (docs/api.md) as far as the packet path looks into them: their shape, and where
 * the cookie and the claims are. What they say is for the control plane.
 *
 * Their first byte, 0x52, is in none of the ranges of RFC 7983, and as a version of RTP it is 1. */
#ifndef RF_RFO_H
#define RF_RFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum rfo_kind {
    RFO_MOVE = 1,
    RFO_HELLO = 2,
    RFO_ECHO = 4,
    RFO_JOIN = 5,
    RFO_LEAVE = 6, /* the others are for servers to send */
};

enum {
    RFO_LONGEST = 96,
    RFO_KIND_OFFSET = 4,
    RFO_COOKIE_LEN = 24,
    RFO_NONCE_END = 16,
    RFO_ECHO_COOKIE = RFO_NONCE_END,
    RFO_ECHO_END = RFO_ECHO_COOKIE + RFO_COOKIE_LEN,
    RFO_CLAIMS = RFO_NONCE_END,
    RFO_CLAIMS_LEN = 40,
    RFO_CLASSES = 3,
    RFO_JOIN_COOKIE = RFO_CLAIMS + RFO_CLAIMS_LEN,
};

/* Of any kind of version 1: "RFO", 1. */
static inline bool rfo_begins(const uint8_t *p, size_t len)
{
    return len >= 4 && memcmp(p, "RFO\x01", 4) == 0;
}

/* The length of what a server takes; 0 of all else. */
static inline size_t rfo_length(uint8_t kind)
{
    switch (kind) {
    case RFO_MOVE: return 64;
    case RFO_HELLO: return 40;
    case RFO_ECHO: return 64;
    case RFO_JOIN:
    case RFO_LEAVE: return RFO_LONGEST;
    default: return 0;
    }
}

static inline bool rfo_is_zero(const uint8_t *p, const uint8_t *end)
{
    static const uint8_t zero[RFO_COOKIE_LEN];

    return memcmp(p, zero, (size_t)(end - p)) == 0; /* never more than those */
}

/* Version, class, reserved bytes, a lease. */
static inline bool rfo_claims_are_well_formed(const uint8_t *claims)
{
    return claims[0] == 1 && claims[1] < RFO_CLASSES && claims[2] == 0 && claims[3] == 0 &&
           !rfo_is_zero(claims + 4, claims + 8);
}

/* What rfo_begins says yes to: whether the control plane would look at it at all. */
static inline bool rfo_is_well_formed(const uint8_t *p, size_t len)
{
    if (len <= RFO_KIND_OFFSET || len != rfo_length(p[RFO_KIND_OFFSET]) ||
        !rfo_is_zero(p + RFO_KIND_OFFSET + 1, p + RFO_KIND_OFFSET + 4))
        return false;
    switch (p[RFO_KIND_OFFSET]) {
    case RFO_HELLO: return rfo_is_zero(p + RFO_NONCE_END, p + len);
    case RFO_ECHO: return rfo_is_zero(p + RFO_ECHO_END, p + len);
    case RFO_JOIN:
    case RFO_LEAVE: return rfo_claims_are_well_formed(p + RFO_CLAIMS);
    default: return true;
    }
}

/* Of a well-formed one: its cookie, NULL where its kind has none. */
static inline const uint8_t *rfo_cookie(const uint8_t *p)
{
    switch (p[RFO_KIND_OFFSET]) {
    case RFO_ECHO: return p + RFO_ECHO_COOKIE;
    case RFO_JOIN:
    case RFO_LEAVE: return p + RFO_JOIN_COOKIE;
    default: return NULL;
    }
}

/* The claims of a JOIN or LEAVE, else NULL. */
static inline const uint8_t *rfo_claims(const uint8_t *p)
{
    uint8_t kind = p[RFO_KIND_OFFSET];

    return kind == RFO_JOIN || kind == RFO_LEAVE ? p + RFO_CLAIMS : NULL;
}

#endif
