/* Which packets get in: what each one is, which session it belongs to, and if to none, why. */
#ifndef RF_GATE_H
#define RF_GATE_H

#include "ingress.h"
#include "rtp.h"
#include "table.h"

/* Packets pass in blocks, so that their lookups overlap in the memory system. */
enum { GATE_BLOCK = 32 };

/* A packet at the gate. */
struct arrival {
    uint8_t *data;
    uint32_t len;
    const struct datagram *datagram; /* that it came in */

    enum rtp_kind kind;
    struct table_key key;    /* of RTP_PACKET */
    struct session *session; /* that it is admitted to, or NULL */
    bool ssrc_known;
};

struct gate {
    const struct table *table;
    bool check_padding;
    unsigned worker; /* who asks */
    struct worker_counters *counters;

    uint32_t count;
    struct arrival arrival[GATE_BLOCK];
};

/* One more for the block; true when that fills it. */
bool gate_add(struct gate *g, uint8_t *data, uint32_t len, const struct datagram *d);

/* Finds every arrival's session and counts the drop of those that have none. One worker
 * receives a session's packets, since its run and its counters have one writer: whoever comes
 * first. Steering by source address keeps it so; what another worker receives is dropped. */
void gate_pass(struct gate *g);

#endif
