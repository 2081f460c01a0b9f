/* One session's run of packets x its subscribers -> egress batches. No system calls. */
#ifndef RF_FANOUT_H
#define RF_FANOUT_H

#include "egress.h"

/* Where the fan-out of one run stands: packet by packet, each to all subscribers. Order is
 * kept for every subscriber. */
struct fanout {
    struct session *session;
    const struct subscriber_list *subscribers; /* the snapshot of this turn */
    struct packet *packets;                    /* of the whole turn; runs chain through it */
    uint32_t packet;                           /* the one at hand */
    uint32_t packets_left;
    uint32_t subscriber; /* the next to be served with it */
    socklen_t name_len;
};

/* Begins with the session's run and the list published now. */
void fanout_start(struct fanout *f, struct session *s, struct packet *packets, socklen_t name_len);

/* Adds copies until the batch is full or the run is through; true when it is through. */
bool fanout_fill(struct fanout *f, struct batch *b);

/* Counts what a flushed batch came to, by worker, session and subscriber, observes the
 * latency of packets whose last copy it held, and empties it. `realtime_now` is the time
 * of the flush's return. */
void fanout_account(struct batch *b, struct worker_counters *c, struct latency_histogram *h,
                    uint64_t realtime_now);

#endif
