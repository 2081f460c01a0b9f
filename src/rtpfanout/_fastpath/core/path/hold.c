#include "hold.h"

#include <errno.h>
#include <sys/mman.h>

enum { ALIGNMENT = 16 };

static const size_t memory_size = HOLD_BLOCKS * sizeof(struct hold_block);

/* Zeros that take no memory until they are written: a restart is rare, and need not be fast. */
int holding_init(struct holding *h)
{
    void *pages = mmap(NULL, memory_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    memset(h, 0, sizeof *h);
    if (pages == MAP_FAILED)
        return -ENOMEM;
    h->memory = pages;
    h->free_blocks = HOLD_BLOCKS;
    return 0;
}

void holding_destroy(struct holding *h)
{
    if (h->memory)
        munmap(h->memory, memory_size);
}

static struct hold *hold_of(struct holding *h, const struct session *s)
{
    unsigned at = s->ssrcs->hold;
    struct hold *hold = at > 0 && at <= HOLD_BLOCKS ? &h->hold[at - 1] : NULL;

    return hold && hold->handle == session_handle(s) ? hold : NULL;
}

static struct hold *hold_begin(struct holding *h, struct session *s, const struct datagram *d)
{
    for (unsigned i = 0; i < HOLD_BLOCKS; i++) {
        if (h->hold[i].handle != 0)
            continue;
        h->hold[i] = (struct hold){
            .session = s, .handle = session_handle(s), .source = d->source, .port = d->port};
        s->ssrcs->hold = (uint16_t)(i + 1);
        h->used++;
        return &h->hold[i];
    }
    return NULL;
}

static struct hold_block *block_new(struct holding *h)
{
    struct hold_block *b = h->free;

    if (b)
        h->free = b->next;
    else
        b = &h->memory[h->fresh++];
    h->free_blocks--;
    b->used = 0;
    return b;
}

/* One more block, as long as four times as many are free as it has: who comes later finds some, too. */
static bool extend(struct holding *h, struct hold *hold)
{
    if (hold->blocks == HOLD_BLOCKS_EACH || h->free_blocks == 0 ||
        (hold->blocks > 0 && 4 * hold->blocks >= h->free_blocks))
        return false;
    struct hold_block *b = block_new(h);

    b->next = hold->block;
    hold->block = b;
    hold->blocks++;
    return true;
}

static void append(struct hold *hold, const struct datagram *d, const uint8_t *data, uint32_t len)
{
    struct hold_block *b = hold->block;
    struct held *p = (struct held *)(b->bytes + b->used);

    memcpy(p->bytes, data, len);
    p->next = NULL;
    p->datagram = *d;
    p->datagram.data = p->bytes;
    p->datagram.len = p->datagram.segment = len;
    b->used += (uint32_t)(sizeof *p + len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (hold->last)
        hold->last->next = p;
    else
        hold->first = p;
    hold->last = p;
    hold->packets++;
}

bool hold_add(struct holding *h, struct session *s, const struct datagram *d, const uint8_t *data,
              uint32_t len, uint64_t now)
{
    size_t size = sizeof(struct held) + len;
    struct hold *hold = hold_of(h, s);

    if (size > HOLD_BLOCK || (!hold && (h->free_blocks == 0 || !(hold = hold_begin(h, s, d)))))
        return false;
    hold->last_ns = now; /* it goes with those before it, if it finds no room */
    if (hold->packets == HOLD_PACKETS_EACH)
        return false;
    if ((!hold->block || hold->block->used + size > HOLD_BLOCK) && !extend(h, hold))
        return false;
    append(hold, d, data, len);
    return true;
}

static void blocks_to(struct hold_block **list, struct hold *hold)
{
    while (hold->block) {
        struct hold_block *b = hold->block;

        hold->block = b->next;
        b->next = *list;
        *list = b;
    }
}

static void hold_end(struct holding *h, struct hold *hold)
{
    *hold = (struct hold){.handle = 0};
    h->used--;
}

struct held *hold_take(struct holding *h, struct session *s)
{
    struct hold *hold = hold_of(h, s);

    s->ssrcs->hold = 0;
    if (!hold)
        return NULL;
    struct held *first = hold->first;

    blocks_to(&h->leaving, hold);
    hold_end(h, hold);
    return first;
}

void hold_give_up(struct holding *h, struct hold *hold)
{
    h->free_blocks += hold->blocks;
    blocks_to(&h->free, hold);
    hold_end(h, hold);
}

uint32_t hold_drop(struct holding *h, struct session *s)
{
    struct hold *hold = hold_of(h, s);
    uint32_t packets = hold ? hold->packets : 0;

    s->ssrcs->hold = 0;
    if (hold)
        hold_give_up(h, hold);
    return packets;
}

struct hold *hold_overdue(struct holding *h, uint64_t now, bool all)
{
    for (unsigned i = 0; h->used > 0 && i < HOLD_BLOCKS; i++) {
        struct hold *hold = &h->hold[i];

        if (hold->handle != 0 && (all || (now > hold->last_ns && now - hold->last_ns >= HOLD_NS)))
            return hold;
    }
    return NULL;
}

void holding_left(struct holding *h)
{
    while (h->leaving) {
        struct hold_block *b = h->leaving;

        h->leaving = b->next;
        b->next = h->free;
        h->free = b;
        h->free_blocks++;
    }
}
