/* Subscriber records and the immutable lists of a session's subscribers. */
#ifndef RF_SUBSCRIBER_H
#define RF_SUBSCRIBER_H

#include "addr.h"
#include "qsbr.h"
#include "stats.h"

/* One destination, of 64 bytes. `name` is written before publication; what isn't said to be
 * somebody else's, by the worker that serves it. */
struct subscriber {
    union sockaddr_any name;
    uint32_t probe_at;      /* seconds of CLOCK_MONOTONIC: when to lift segment_limit */
    uint32_t lease_until;   /* the writer's: seconds of CLOCK_MONOTONIC, 0: no lease */
    uint16_t segment_limit; /* longer segments don't pass to it by UDP_SEGMENT */
    uint8_t class : 2;      /* the writer's: enum rf_class */
    bool leaving : 1;       /* the writer's: not in the next list */
    _Atomic uint8_t withheld; /* the writer's, workers read: with any bit it gets no copies */
    uint64_t since_ns;        /* when it was added; grows strictly along the list */
    counter packets_sent;
    counter send_failures;
};

/* Immutable once published, but for what is withheld; a change builds another and retires
 * this one. */
struct subscriber_list {
    struct qsbr_retired retired;
    uint32_t count;
    _Atomic uint32_t withheld; /* how many of them get no copies; the writer's */
    struct subscriber *item[];
};

struct subscriber_list *subscriber_list_new(uint32_t count);
/* The list and its subscribers. */
void subscriber_list_free(struct subscriber_list *list);

/* How many get copies. */
static inline uint32_t subscribers_served(const struct subscriber_list *list)
{
    return list->count - load_rlx(&list->withheld);
}

/* What those to be added have in common. */
struct joining {
    int family; /* of the socket that sends to them */
    uint32_t max; /* of the list */
    uint64_t now;
    /* NULL: a monitor without a lease; those there already are left as they are. */
    const struct rf_terms *terms;
};

/* Build the list that follows `old`; nothing is published or retired here.
 * added[i] tells whether addrs[i] is new; after an error, nothing. Those that are there already
 * get lease and class of the terms. `*out` is `old` when none is new.
 * -EAGAIN (more than max), -EAFNOSUPPORT, -ENOMEM. */
int subscriber_list_add(struct subscriber_list *old, const struct rf_addr *addrs, size_t n,
                        const struct joining *joining, bool *added, struct subscriber_list **out);
/* found[i] tells whether addrs[i] was there; `*out` is `old` when none was. `*removed` holds those
 * left out, for subscriber_list_free after the grace period. -ENOMEM. */
int subscriber_list_remove(struct subscriber_list *old, const struct rf_addr *addrs, size_t n,
                           int family, bool *found, struct subscriber_list **out,
                           struct subscriber_list **removed);
/* found[i] is the subscriber of addrs[i], or NULL. 0 or -ENOMEM. */
int subscriber_list_find(struct subscriber_list *list, const struct rf_addr *addrs, size_t n,
                         int family, struct subscriber **found);
/* Sets or clears the bits `reason` of these, in the list that is published now, and of
 * all that are of a class; `*changed` tells of how many. 0 or -ENOMEM. */
int subscriber_list_withhold(struct subscriber_list *list, const struct rf_addr *addrs, size_t n,
                             int family, uint8_t reason, bool on, size_t *changed);
size_t subscriber_list_shed(struct subscriber_list *list, uint8_t class, bool on);

#endif
