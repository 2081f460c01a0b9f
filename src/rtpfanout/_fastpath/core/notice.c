#include "notice.h"

#include <stdlib.h>

struct mailbox *mailbox_new(void)
{
    struct mailbox *m = aligned_alloc(alignof(struct mailbox), sizeof *m);

    if (m)
        memset(m, 0, sizeof *m); /* touched now, so that no packet waits for a page */
    return m;
}

/* The acquire pairs with the release in mailbox_take: what was there has been read. */
static struct rf_notice *free_slot(struct mailbox *m, uint32_t reserve)
{
    uint32_t posted = load_rlx(&m->posted);

    if (posted - load_acq(&m->taken) >= NOTICE_SLOTS - reserve)
        return NULL;
    return &m->slot[posted % NOTICE_SLOTS];
}

/* The release pairs with the acquire in mailbox_take: the slot is filled. */
static void publish(struct mailbox *m)
{
    store_rls(&m->posted, load_rlx(&m->posted) + 1);
}

bool mailbox_post_datagram(struct mailbox *m, const struct rf_addr *source,
                           const uint8_t local[16], const uint8_t *data, size_t len)
{
    struct rf_notice *slot = len <= sizeof slot->data ? free_slot(m, NOTICE_RESERVE) : NULL;

    if (!slot)
        return false;
    slot->kind = RF_NOTICE_DATAGRAM;
    slot->handle = 0;
    slot->source = *source;
    memcpy(slot->local, local, sizeof slot->local);
    slot->len = (uint16_t)len;
    memcpy(slot->data, data, len);
    publish(m);
    return true;
}

bool mailbox_post_session(struct mailbox *m, enum rf_notice_kind kind, uint64_t handle,
                          const struct rf_addr *source)
{
    struct rf_notice *slot = free_slot(m, 0);

    if (!slot)
        return false;
    slot->kind = kind;
    slot->handle = handle;
    slot->source = *source;
    slot->len = 0;
    publish(m);
    return true;
}

bool mailbox_take(struct mailbox *m, struct rf_notice *out)
{
    uint32_t taken = load_rlx(&m->taken);

    if (taken == load_acq(&m->posted))
        return false;
    const struct rf_notice *slot = &m->slot[taken % NOTICE_SLOTS];

    *out = *slot;
    store_rls(&m->taken, taken + 1);
    return true;
}
