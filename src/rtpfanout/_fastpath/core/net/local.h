/* The addresses of this host's interfaces: a packet from one of them and our own port is our
 * own egress. */
#ifndef RF_LOCAL_H
#define RF_LOCAL_H

#include "addr.h"
#include "qsbr.h"

/* Immutable once published; a change makes another and retires this one. */
struct local_set {
    struct qsbr_retired retired;
    uint64_t number; /* no other set of the engine has it */
    uint32_t count;
    bool several; /* some interface has more than one to choose from */
    /* Of IPv6 and of IPv4 the only one that others know: it is what the kernel chooses, and need not
     * be told. All zero when there is none, or another. */
    uint8_t only[2][16];
    struct local_address {
        uint8_t ip[16];
        uint32_t interface;
    } item[]; /* sorted */
};

/* The scope of each is its interface's index. NULL when there is no memory. */
struct local_set *local_set_new(const struct rf_addr *addrs, uint32_t count);
bool local_set_has(const struct local_set *set, const uint8_t ip[16]);
/* 0 for an address that is not there, and for those of which there is one on each host, or on each
 * link. */
uint32_t local_set_interface(const struct local_set *set, const uint8_t ip[16]);

#endif
