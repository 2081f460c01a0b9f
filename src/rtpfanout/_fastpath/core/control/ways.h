/* How a session's subscribers get their deliveries: told, by configuration, or by the interface that
 * they are reached by. All of it under the writer mutex. */
#ifndef RF_WAYS_H
#define RF_WAYS_H

#include "engine.h"

/* `list` in the place of `old`, which it is when nothing changed. */
void subscribers_publish(struct rf_engine *e, struct session *s, struct subscriber_list *old,
                         struct subscriber_list *list);

struct delivery delivery_from(const uint8_t from[16]);
/* The number of `wanted` among the list's deliveries, or in `*table`, which is then another.
 * DELIVERY_USUAL when all numbers are in use. -ENOMEM. */
int delivery_place(const struct subscriber_list *list, const struct delivery *wanted,
                   struct delivery_table **table);

/* What is asked to find by which interface a subscriber is reached. */
struct ways {
    const struct local_set *local;
    const uint8_t *egress; /* or this, whatever the interface */
    int probe;             /* -1: there is nothing to choose */
};

struct ways ways_open(struct rf_engine *e);
void ways_close(struct ways *w);
/* Deliveries for the list's subscribers from `begin` on who have none, or have one by interface. The
 * list is not published; its table may be `shared` with one that is. Without memory they
 * have the usual. */
void ways_find(const struct ways *w, struct subscriber_list *list, uint32_t begin,
               const struct delivery_table *shared);

#endif
