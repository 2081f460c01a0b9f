#include "inbox.h"

#include <sched.h>
#include <string.h>
#include <sys/mman.h>

struct inbox *inbox_new(void)
{
    void *p = mmap(NULL, sizeof(struct inbox), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p; /* all zero: every slot is free for the first lap */
}

void inbox_free(struct inbox *in)
{
    if (in)
        munmap(in, sizeof *in);
}

static uint64_t free_at(uint64_t position)
{
    return position / INBOX_SLOTS * 2;
}

/* The slot of a position that is nobody else's, or NULL when the owner has not yet given it
 * back. The acquire of its state pairs with the release in inbox_release. */
static struct inbox_slot *claim(struct inbox *in, uint64_t *position)
{
    uint64_t at = load_rlx(&in->posted);

    for (;;) {
        struct inbox_slot *slot = &in->slot[at % INBOX_SLOTS];
        uint64_t state = load_acq(&slot->state);

        if (state < free_at(at))
            return NULL;
        if (state > free_at(at)) { /* others were faster */
            at = load_rlx(&in->posted);
        } else if (compare_exchange_acq_rel(&in->posted, &at, at + 1)) {
            *position = at;
            return slot;
        }
    }
}

bool inbox_post(struct inbox *in, const struct parcel *p, counter *count)
{
    uint32_t len = p->datagram.len;
    uint64_t position;
    struct inbox_slot *slot = claim(in, &position);

    if (!slot)
        return false;
    slot->parcel = *p;
    slot->parcel.datagram.data = slot->bytes;
    memcpy(slot->bytes, p->datagram.data, len);
    counter_add(count, 1);
    /* Pairs with the load in inbox_take; inbox_waits says why it is seq_cst. */
    store_seq(&slot->state, free_at(position) + 1);
    return true;
}

bool inbox_waits(struct inbox *in)
{
    return load_seq(&in->slot[in->taken % INBOX_SLOTS].state) == free_at(in->taken) + 1;
}

struct parcel *inbox_take(struct inbox *in)
{
    struct inbox_slot *slot = &in->slot[in->taken % INBOX_SLOTS];

    if (load_acq(&slot->state) != free_at(in->taken) + 1)
        return NULL;
    in->taken++;
    return &slot->parcel;
}

void inbox_release(struct inbox *in)
{
    for (; in->released < in->taken; in->released++)
        store_rls(&in->slot[in->released % INBOX_SLOTS].state, free_at(in->released) + 2);
}

/* Between this and inbox_close of another: in the single order of the seq_cst operations
 * either our store comes before its look at us, and it stays open; or it is closing when we
 * look, and we wait until it has made up its mind: from then on it is seen to be closed. */
bool inbox_open(struct inbox *own, struct inbox *const *all, unsigned count)
{
    if (load_rlx(&own->phase) == INBOX_CLOSED)
        return false;
    store_seq(&own->phase, INBOX_OPEN);
    for (unsigned i = 0; i < count; i++) {
        while (all[i] != own && load_seq(&all[i]->phase) == INBOX_CLOSING)
            sched_yield();
    }
    return true;
}

/* Pairs with the load in inbox_close: what we posted is there. */
void inbox_settle(struct inbox *own)
{
    store_seq(&own->phase, INBOX_SETTLING);
}

bool inbox_close(struct inbox *own, struct inbox *const *all, unsigned count)
{
    bool posted_to = false;

    store_seq(&own->phase, INBOX_CLOSING);
    for (unsigned i = 0; i < count; i++)
        posted_to = posted_to || load_seq(&all[i]->phase) == INBOX_OPEN;
    if (posted_to || inbox_waits(own)) {
        store_seq(&own->phase, INBOX_SETTLING);
        return false;
    }
    store_rls(&own->phase, INBOX_CLOSED);
    return true;
}
