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

/* Of the SSRC that may come to be followed. Not what was held before a change of the session. */
static struct hold *hold_of(struct holding *h, struct session *s)
{
    unsigned at = s->ssrcs->hold;
    struct hold *hold = at > 0 && at <= HOLD_BLOCKS ? &h->hold[at - 1] : NULL;

    return hold && hold->handle == session_handle(s) && !hold->latches &&
                   session_waits(s, hold->since)
               ? hold
               : NULL;
}

static uint8_t *row_of(struct holding *h, const struct session *s)
{
    return &h->row[s->index % HOLD_ROWS];
}

/* The next one of the latch from `number` on, or NULL. */
static struct hold *of_latch(struct holding *h, uint8_t number, const struct session *s)
{
    uint64_t handle = session_handle(s);

    for (; number; number = h->hold[number - 1].row_next) {
        if (h->hold[number - 1].handle == handle)
            return &h->hold[number - 1];
    }
    return NULL;
}

struct hold *hold_of_latch(struct holding *h, const struct session *s, const struct rf_addr *source)
{
    struct hold *hold = of_latch(h, *row_of(h, s), s);

    while (hold && !addr_equal(&hold->source, source))
        hold = of_latch(h, hold->row_next, s);
    return hold;
}

struct hold *hold_oldest(struct holding *h, const struct session *s)
{
    struct hold *oldest = of_latch(h, *row_of(h, s), s), *hold = oldest;

    while (hold && (hold = of_latch(h, hold->row_next, s))) {
        if (hold->due_ns <= oldest->due_ns) /* the later in a row, the earlier it began */
            oldest = hold;
    }
    return oldest;
}

/* As long as four times as many blocks are free as it has, or as its latch has in all: who comes
 * later finds some, too. */
static bool has_room(struct holding *h, const struct session *s, const struct hold *hold,
                     bool latches)
{
    uint32_t spared = latches ? HOLD_BLOCKS_SPARED : 0, has = 0, sources = 0;
    const struct hold *other = latches ? of_latch(h, *row_of(h, s), s) : NULL;

    if (!latches && hold)
        has = hold->blocks;
    for (; other; other = of_latch(h, other->row_next, s)) {
        has += other->blocks;
        sources++;
    }
    if (!hold && sources == HOLD_SOURCES_EACH)
        return false;
    return h->free_blocks > spared && (has == 0 || 4 * has < h->free_blocks - spared);
}

static void extend(struct holding *h, struct hold *hold)
{
    struct hold_block *b = h->free;

    if (b)
        h->free = b->next;
    else
        b = &h->memory[h->fresh++];
    h->free_blocks--;
    b->used = 0;
    b->next = hold->block;
    if (!hold->block)
        hold->oldest = b;
    hold->block = b;
    hold->blocks++;
}

/* With a block; there is room for it. */
static struct hold *begin(struct holding *h, struct session *s, const struct rf_addr *source)
{
    struct hold *hold = h->hold;

    while (hold->handle != 0) /* there are as many as blocks */
        hold++;
    *hold = (struct hold){.session = s,
                          .handle = session_handle(s),
                          .source = *source,
                          .since = load_acq(&s->changes)};
    h->used++;
    extend(h, hold);
    return hold;
}

void hold_put_back(struct hold *hold, struct held *p)
{
    p->next = NULL;
    if (hold->last)
        hold->last->next = p;
    else
        hold->first = p;
    hold->last = p;
    hold->packets++;
}

bool hold_append(struct holding *h, struct hold *hold, const struct datagram *d, const uint8_t *data,
                 uint32_t len)
{
    size_t size = sizeof(struct held) + len;

    if (!hold_fits(len) || hold->packets == HOLD_PACKETS_EACH)
        return false;
    if (hold->block->used + size > HOLD_BLOCK) {
        if (hold->blocks == HOLD_BLOCKS_EACH || !has_room(h, hold->session, hold, hold->latches))
            return false;
        extend(h, hold);
    }
    struct hold_block *b = hold->block;
    struct held *p = (struct held *)(b->bytes + b->used);

    memcpy(p->bytes, data, len);
    p->datagram = *d;
    p->datagram.data = p->bytes;
    p->datagram.len = p->datagram.segment = len;
    b->used += (uint32_t)(size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    hold_put_back(hold, p);
    return true;
}

bool hold_add(struct holding *h, struct session *s, const struct datagram *d, const uint8_t *data,
              uint32_t len, uint64_t now)
{
    struct hold *hold = hold_of(h, s);

    if (!hold) {
        if (!hold_fits(len) || !has_room(h, s, NULL, false))
            return false;
        hold = begin(h, s, &d->source);
        s->ssrcs->hold = hold_number(h, hold);
    }
    hold->due_ns = now + HOLD_NS; /* it goes with those before it, if it finds no room */
    return hold_append(h, hold, d, data, len);
}

struct hold *hold_part(struct holding *h, struct session *s)
{
    struct hold *hold = s->ssrcs->hold ? hold_of(h, s) : NULL;

    s->ssrcs->hold = 0;
    return hold;
}

struct hold *hold_latch(struct holding *h, struct session *s, const struct rf_addr *source,
                        uint64_t now)
{
    if (!has_room(h, s, NULL, true))
        return NULL;
    struct hold *hold = begin(h, s, source);
    uint8_t *row = row_of(h, s);

    hold->latches = true;
    hold->due_ns = now + HOLD_NS;
    hold->row_next = *row;
    *row = hold_number(h, hold);
    h->latching++;
    return hold;
}

/* Out of its row. */
static void leave_latch(struct holding *h, struct hold *hold)
{
    uint8_t number = hold_number(h, hold), *at = &h->row[(uint32_t)hold->handle % HOLD_ROWS];

    while (*at != number)
        at = &h->hold[*at - 1].row_next;
    *at = hold->row_next;
    hold->latches = false;
    h->latching--;
}

struct held *hold_release(struct holding *h, struct hold *hold)
{
    struct held *first = hold->first;

    leave_latch(h, hold);
    hold->first = hold->last = NULL;
    hold->packets = 0;
    return first;
}

static void blocks_to(struct hold_block **list, struct hold *hold)
{
    if (!hold->block)
        return;
    hold->oldest->next = *list;
    *list = hold->block;
}

static void end(struct holding *h, struct hold *hold)
{
    *hold = (struct hold){.handle = 0};
    h->used--;
}

void hold_join(struct holding *h, struct hold *hold, struct hold *other)
{
    if (hold->last)
        hold->last->next = other->first;
    else
        hold->first = other->first;
    hold->last = other->last ? other->last : hold->last;
    hold->packets += other->packets;
    hold->blocks += other->blocks;
    blocks_to(&hold->block, other);
    end(h, other);
}

struct held *hold_take(struct holding *h, struct hold *hold)
{
    struct held *first = hold->first;

    blocks_to(&h->leaving, hold);
    end(h, hold);
    return first;
}

void hold_give_up(struct holding *h, struct hold *hold)
{
    if (hold->latches)
        leave_latch(h, hold);
    h->free_blocks += hold->blocks;
    blocks_to(&h->free, hold);
    end(h, hold);
}

struct hold *hold_overdue(struct holding *h, uint64_t now, bool all)
{
    for (unsigned i = 0; h->used > 0 && i < HOLD_BLOCKS; i++) {
        struct hold *hold = &h->hold[i];

        if (hold->handle != 0 && (all || now >= hold->due_ns))
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
