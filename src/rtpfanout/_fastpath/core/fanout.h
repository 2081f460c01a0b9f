/* One session's run of packets x its subscribers -> egress batches. No system calls. */
#ifndef RF_FANOUT_H
#define RF_FANOUT_H

#include "egress.h"

/* Room for what one turn sends; groups and iovecs live until the batch that names them is
 * flushed. A turn has no more groups and iovecs than packets. */
struct fanout_room {
    uint32_t groups_used, iovs_used;
    struct group *groups;
    struct iovec *iovs;
};

/* Where the fan-out of one run stands: group by group, each to all subscribers, so that
 * order is kept for every subscriber. */
struct fanout {
    struct session *session;
    const struct subscriber_list *subscribers; /* the snapshot of this turn */
    struct group *group, *groups_end;
    uint32_t served;       /* subscribers that have the group at hand */
    uint32_t rotation;     /* the first served */
    /* For a subscriber that takes the group's packets one by one: */
    struct packet *packet; /* the next */
    uint32_t singly;       /* how many are left */
    uint32_t now_secs;     /* CLOCK_MONOTONIC */
    socklen_t name_len;
};

/* Cuts a run into groups of neighbours; with `gso` off every packet is a group of its own.
 * Returns how many there are, beginning at `room->groups + room->groups_used` before. */
uint32_t fanout_cut(const struct run *run, bool gso, struct fanout_room *room);

/* Begins with the session's run and the list published now. */
void fanout_start(struct fanout *f, struct session *s, bool gso, struct fanout_room *room,
                  uint32_t now_secs, socklen_t name_len);

/* Adds copies until the batch is full or the run is through; true when it is through. */
bool fanout_fill(struct fanout *f, struct batch *b);

/* Observes the latency of each packet whose last copy was in a flushed batch, and empties
 * it. `realtime_now` is the time of the flush's return. */
void fanout_observe(struct batch *b, struct latency_histogram *h, uint64_t realtime_now);

#endif
