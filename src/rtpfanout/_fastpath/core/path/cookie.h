/* What tells who is known from a stranger, at the cost of one short hash: a cookie, which is when it
 * was made and a MAC over that and the address it was sent to; and the stamp in the token id of a
 * join token, which only who may issue tokens can make.
 *
 * Both prove little by themselves, and so decide nothing but who is listened to first: a cookie that
 * its sender was once at its address, a stamp that its sender has seen a token. */
#ifndef RF_COOKIE_H
#define RF_COOKIE_H

#include "atomic.h"
#include "core.h"
#include "hash.h"
#include "rfo.h"

/* Written by the control plane while workers read: during a change they may know nobody. */
struct proof_key {
    _Atomic uint64_t k0, k1;
};

/* Random, so that until it is set nothing is proven. 0 or -errno. */
int proof_key_init(struct proof_key *key);
void proof_key_set(struct proof_key *key, const uint8_t bytes[RF_PROOF_KEY]);

/* Whether it was made with that key for that address, at any time: how old it may be for what it is
 * used for is the control plane's to say. */
bool cookie_is_ours(struct proof_key *key, const uint8_t cookie[RFO_COOKIE_LEN],
                    const struct rf_addr *from);
bool stamp_is_ours(struct proof_key *key, const uint8_t claims[RFO_CLAIMS_LEN]);

#endif
