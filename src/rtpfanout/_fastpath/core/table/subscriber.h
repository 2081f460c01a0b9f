/* Subscriber records and the immutable lists of a session's subscribers. */
#ifndef RF_SUBSCRIBER_H
#define RF_SUBSCRIBER_H

#include "delivery.h"
#include "stats.h"

/* One destination, of 64 bytes. `name` is written before publication; what isn't said to be
 * somebody else's, by the worker that serves it. */
struct subscriber {
    union sockaddr_any name;
    uint32_t probe_at;      /* seconds of CLOCK_MONOTONIC: when to lift segment_limit */
    uint32_t lease_until;   /* the writer's: seconds of CLOCK_MONOTONIC, 0: no lease */
    uint16_t segment_limit; /* longer segments don't pass to it by UDP_SEGMENT */
    _Atomic uint8_t traits;   /* the writer's, workers read; see below */
    _Atomic uint8_t withheld; /* the writer's, workers read: with any bit it gets no copies */
    uint64_t since_ns;        /* when it was added; grows strictly along the list */
    counter packets_sent;
    counter send_failures;
};

/* Parts of `traits`: enum rf_class; whether it is not to be in the next list; the number of its
 * delivery in its list's table. */
enum { TRAIT_CLASS = 3, TRAIT_LEAVING = 4, TRAIT_DELIVERY = 3 };

static inline uint8_t subscriber_class(const struct subscriber *s)
{
    return load_rlx(&s->traits) & TRAIT_CLASS;
}

static inline unsigned subscriber_delivery(const struct subscriber *s)
{
    return load_rlx(&s->traits) >> TRAIT_DELIVERY;
}

/* The writer. A worker that has an older table than the number is of takes it for DELIVERY_USUAL for
 * the rest of its turn. */
static inline void subscriber_set_delivery(struct subscriber *s, unsigned number)
{
    uint8_t others = load_rlx(&s->traits) & (TRAIT_CLASS | TRAIT_LEAVING);

    store_rlx(&s->traits, (uint8_t)(number << TRAIT_DELIVERY | others));
}

/* Immutable once published, but for what is withheld; a change builds another and retires
 * this one. */
struct reporter;

/* Those of a list who have RTCP, sorted as in it. Immutable as a set; a change makes another. */
struct reporters {
    struct qsbr_retired retired;
    uint64_t number; /* no other set of the session has it */
    uint32_t count;
    /* By the address of the subscriber: 1 + the number of an item, 0: nobody. Open addressing in a power
     * of two of places, half of them free at least; in the same memory as the set. */
    uint32_t places, *place;
    struct reporter *item[];
};

struct subscriber_list {
    struct qsbr_retired retired;
    uint32_t count;
    _Atomic uint32_t withheld; /* how many of them get no copies; the writer's */
    struct delivery_table *deliveries; /* NULL: nobody has any but the usual one */
    struct reporters *reporters;       /* those who have RTCP; NULL: nobody */
    struct subscriber *item[];
};

struct subscriber_list *subscriber_list_new(uint32_t count);
/* The list, its subscribers, its deliveries and its reporters. */
void subscriber_list_free(struct subscriber_list *list);

/* Bits of the numbers that its subscribers have. */
uint32_t subscriber_list_deliveries(const struct subscriber_list *list);

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
    const struct rf_terms *terms;
    /* Their delivery in that table, which is to be the list's, also of those there already. With
     * DELIVERY_USUAL these keep theirs, and with NULL the list its table. */
    unsigned delivery;
    struct delivery_table *deliveries;
};

/* Build the list that follows `old`; nothing is published or retired here.
 * added[i] tells whether addrs[i] is new; after an error, nothing. Those that are there already
 * get lease and class of the terms. `*out` is `old` when none is new, and the table is the same.
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
/* Sets or clears the bits `reason` of these, in the list that is published now; `*changed` tells of
 * how many. 0 or -ENOMEM. */
int subscriber_list_withhold(struct subscriber_list *list, const struct rf_addr *addrs, size_t n,
                             int family, uint8_t reason, bool on, size_t *changed);
/* The same list with another table. -ENOMEM. */
int subscriber_list_copy(const struct subscriber_list *old, struct delivery_table *deliveries,
                         struct subscriber_list **out);

#endif
