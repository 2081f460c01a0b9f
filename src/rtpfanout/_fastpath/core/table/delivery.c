#include "delivery.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_like(const struct delivery *a, const struct delivery *b)
{
    return a->interface == b->interface && a->ipv4 == b->ipv4 &&
           memcmp(a->from, b->from, sizeof a->from) == 0;
}

static void set(struct delivery *to, const struct delivery *from)
{
    to->interface = from->interface;
    to->ipv4 = from->ipv4;
    memcpy(to->from, from->from, sizeof to->from);
}

/* A copy of `old` that has `number` at least. */
static struct delivery_table *copy_with(const struct delivery_table *old, unsigned number)
{
    uint32_t count = old && old->count > number ? old->count : number + 1;
    struct delivery_table *table = calloc(1, sizeof *table + count * sizeof table->item[0]);

    if (!table)
        return NULL;
    table->count = count;
    for (uint32_t i = 0; old && i < old->count; i++) {
        set(&table->item[i], &old->item[i]);
    }
    return table;
}

unsigned delivery_find(const struct delivery_table *table, const struct delivery *wanted)
{
    for (unsigned i = 1; table && i < table->count; i++) {
        if (is_like(&table->item[i], wanted))
            return i;
    }
    return DELIVERY_USUAL;
}

/* One that was never used, if there is one: then no worker with an older table takes it for what it
 * was. */
static unsigned free_number(const struct delivery_table *old, uint32_t used)
{
    unsigned number = old ? old->count : 1;

    if (number < DELIVERIES)
        return number;
    for (number = 1; number < DELIVERIES; number++) {
        if (!(used >> number & 1))
            return number;
    }
    return DELIVERY_USUAL;
}

int delivery_add(const struct delivery_table *old, uint32_t used, const struct delivery *wanted,
                 struct delivery_table **table)
{
    unsigned number = free_number(old, used);

    if (number == DELIVERY_USUAL)
        return DELIVERY_USUAL;
    struct delivery_table *next = copy_with(old, number);

    if (!next)
        return -ENOMEM;
    set(&next->item[number], wanted);
    *table = next;
    return (int)number;
}
