/* Whether a turn waits a little for the rest of a frame before it sends.
 *
 * The first packet of a video frame wakes the worker, and the others are on their way. Sent alone it
 * takes one entry for each subscriber, while the rest of the frame queues; sent with the rest it
 * takes none of its own (UDP_SEGMENT). So waiting is worth a part of what sending it alone
 * costs, and no more: who waits that long in vain has lost little (ski rental). A session
 * whose frames do not come that way, audio above all, is soon asked more and more seldom. */
#ifndef RF_LINGER_H
#define RF_LINGER_H

#include "session.h"

enum {
    LINGER_SUBSCRIBERS = 16, /* for fewer there is nothing to save */
    LINGER_BUFFERS = 16,     /* a turn that received more has enough to do */
    LINGER_COPY_NS = 400,    /* of waiting for each copy that may be saved; one takes 1 to 3 us */
    LINGER_MOST_NS = 50000,  /* for the next packet */
    LINGER_PACKETS = 4,      /* so many such waits for the rest of the frame in all */
};

/* One wait. */
struct frame_wait {
    struct session *session;
    const struct packet *last; /* of its run so far */
    bool gained;               /* something came */
    uint64_t wait_ns;          /* for the next packet */
    uint64_t until, end;       /* for that and in all; CLOCK_MONOTONIC */
};

/* After a turn has received `buffers`, all for this session. False: send what there is. */
bool linger_begin(struct frame_wait *l, struct session *s, unsigned buffers, uint64_t now);
/* Whether to look again. */
bool linger_goes_on(struct frame_wait *l, uint64_t now);
void linger_end(struct frame_wait *l);

#endif
