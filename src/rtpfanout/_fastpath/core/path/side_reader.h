/* How a worker reads the side ports that are its own: one epoll tells which of them have something.
 *
 * A worker that sleeps waits for it beside the main port; one that is at work asks it now and then,
 * without waiting, and at every turn as long as not all that was found is read. So ports where nothing comes cost
 * nothing, however many there are. */
#ifndef RF_SIDE_READER_H
#define RF_SIDE_READER_H

#include "ingress.h"

enum { SIDE_ASK_NS = 100000 }; /* between two questions */

struct side_reader {
    int epoll_fd;
    _Atomic uint32_t count; /* of the ports */
    /* The worker's own. */
    bool ready;         /* there may be something: ask at the next turn */
    uint64_t asked_ns;  /* CLOCK_MONOTONIC */
};

/* 0 or -errno. */
int side_reader_init(struct side_reader *r);
void side_reader_destroy(struct side_reader *r);

/* From any thread. A worker that sleeps is to be woken, for it doesn't wait where there is none. 0 or
 * -errno. */
int side_reader_add(struct side_reader *r, const struct side_port *port);
/* It is still read by a turn that is under way. */
void side_reader_remove(struct side_reader *r, const struct side_port *port);

/* To wait for: readable when something came; -1: there are no ports. */
static inline int side_reader_fd(struct side_reader *r)
{
    return load_rlx(&r->count) > 0 ? r->epoll_fd : -1;
}

static inline bool side_reader_is_due(struct side_reader *r, uint64_t now)
{
    return load_rlx(&r->count) > 0 && (r->ready || now - r->asked_ns >= SIDE_ASK_NS);
}

/* What is queued at the ports, each its share of the room, into the buffers from `used` to before `end`, without waiting: how many
 * are filled. `errors` counts failed system calls. */
unsigned side_reader_receive(struct side_reader *r, const struct side_ports *ports,
                             struct ingress *in, unsigned used, unsigned end, uint64_t now,
                             counter *errors);

#endif
