/* What came to the ingress sockets and not into their queues: counted once, by whichever process
 * reads them, and told apart by reason.
 *
 * A socket has one count for all reasons. How much of it has been counted is noted at the socket
 * itself, so that it outlives the process as the socket does. Of what all sockets of the port get
 * and one of them takes (steer.h), a deaf one counts how much the others refused. Between a full
 * queue and a wrong checksum the host's counters tell, which are of all sockets of its namespace: that
 * is exact unless others overflow, or get wrong checksums, at the very time that ours have both. */
#ifndef RF_DROPS_H
#define RF_DROPS_H

#include <stdbool.h>

#include "snmp.h"
#include "sock.h"

struct drops {
    uint64_t full;  /* of a full queue */
    uint64_t other; /* of other reasons: nearly always a wrong checksum */
    struct snmp snmp;
    struct udp_errors before; /* as the host counted them at the last look; all UINT64_MAX: unknown */
    bool near_full;           /* then */
};

/* Sockets that were adopted may have drops that nobody has counted; others begin with none. */
void drops_begin(struct drops *d, const struct sock *socks, uint32_t count, bool adopted);
void drops_end(struct drops *d);
/* Counts what is new. `deaf`: one more socket of the port that takes nothing, NULL: there is none.
 * `others` are of other ports, each the only one of it; they are asked when the host has counted
 * something. */
void drops_take(struct drops *d, const struct sock *socks, uint32_t count, const struct sock *deaf,
                const struct sock *const *others, uint32_t other_count);

/* How many of `dropped` had a full queue, when the whole host had so many errors meanwhile. Where
 * they leave it open, `near_full` decides. */
uint64_t drops_of_full_queue(uint64_t dropped, const struct udp_errors *host, bool near_full);

#endif
