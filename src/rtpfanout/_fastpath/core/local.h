/* The addresses of this host's interfaces: a packet from one of them and our own port is our
 * own egress. */
#ifndef RF_LOCAL_H
#define RF_LOCAL_H

#include "addr.h"
#include "qsbr.h"

/* Immutable once published; a change makes another and retires this one. */
struct local_set {
    struct qsbr_retired retired;
    uint32_t count;
    uint8_t ip[][16]; /* sorted */
};

/* NULL when there is no memory. */
struct local_set *local_set_new(const struct rf_addr *addrs, uint32_t count);
bool local_set_has(const struct local_set *set, const uint8_t ip[16]);

#endif
