#include "notice.h"

#include <stdlib.h>
#include <string.h>

uint32_t room_slots(enum notice_room room)
{
    static const uint32_t slots[ROOMS] = {
        [ROOM_SESSIONS] = 64,
        [ROOM_KNOWN] = ROOM_LARGEST,
        [ROOM_INVITED] = 256,
        [ROOM_MOVES] = 128,
        [ROOM_STRANGERS] = 256,
    };

    return slots[room];
}

struct mailbox *mailbox_new(void)
{
    struct mailbox *m = aligned_alloc(alignof(struct mailbox), sizeof *m);
    uint32_t at = 0;

    if (!m)
        return NULL;
    memset(m, 0, sizeof *m); /* touched now, so that no packet waits for a page */
    for (unsigned i = 0; i < ROOMS; i++) {
        m->room[i].slots = room_slots(i);
        m->room[i].slot = &m->slot[at];
        at += m->room[i].slots;
    }
    if (hash_key_init(&m->key) == 0)
        return m;
    free(m);
    return NULL;
}

static void hold(struct room *r, const struct room_holder *h, uint16_t places)
{
    for (unsigned level = 0; level < ROOM_LEVELS; level++) {
        for (unsigned row = 0; row < ROOM_ROWS; row++)
            r->held[level][row][h->cell[level][row]] += places; /* modulo 2^16: -1 too */
    }
}

/* The acquire pairs with the release in room_take: what was there has been read. Places that were
 * given back since are held no longer. */
static uint32_t free_slots(struct room *r)
{
    uint32_t taken = load_acq(&r->taken);

    for (; r->given_back != taken; r->given_back++)
        hold(r, &r->holder[r->given_back % r->slots], UINT16_MAX);
    return r->slots - (load_rlx(&r->posted) - taken);
}

/* Among those who have proved where they are by address and port, and by address; among others by
 * address and by network. Of IPv6 a host has a /64, and its network a /48. */
static struct room_holder holder_of(const struct mailbox *m, enum notice_room room,
                                    const struct rf_addr *source)
{
    bool known = room == ROOM_KNOWN, ipv4 = addr_is_ipv4(source);
    size_t host = ipv4 ? 16 : 8, network = ipv4 ? 15 : 6;
    struct room_holder h;
    uint8_t bytes[16 + 4 + 2];
    size_t len[ROOM_LEVELS] = {known ? sizeof bytes : host, known ? host : network};

    memcpy(bytes, source->ip, 16);
    memcpy(bytes + 16, &source->scope, 4);
    memcpy(bytes + 20, &source->port, 2);
    for (unsigned level = 0; level < ROOM_LEVELS; level++) {
        uint64_t hash = hash_bytes(&m->key, bytes, len[level]);

        for (unsigned row = 0; row < ROOM_ROWS; row++, hash >>= 32)
            h.cell[level][row] = (uint16_t)(hash % ROOM_CELLS);
    }
    return h;
}

static uint32_t held_at(const struct room *r, const struct room_holder *h, unsigned level)
{
    uint16_t least = UINT16_MAX;

    for (unsigned row = 0; row < ROOM_ROWS; row++) {
        uint16_t held = r->held[level][row][h->cell[level][row]];

        least = held < least ? held : least;
    }
    return least;
}

static bool may_have_another(const struct room *r, const struct room_holder *h, uint32_t free)
{
    return ROOM_LEAST_PART * held_at(r, h, 0) < free && held_at(r, h, 1) < free;
}

static struct rf_notice *hold_slot(struct room *r, const struct room_holder *h)
{
    uint32_t at = load_rlx(&r->posted) % r->slots;

    r->holder[at] = *h;
    hold(r, h, 1);
    return &r->slot[at];
}

/* The release pairs with the acquire in room_take: the slot is filled. */
static void publish(struct room *r)
{
    store_rls(&r->posted, load_rlx(&r->posted) + 1);
}

bool mailbox_post_datagram(struct mailbox *m, enum notice_room room, const struct rf_addr *source,
                           const uint8_t local[16], const uint8_t *data, size_t len)
{
    struct room *r = &m->room[room];
    uint32_t free = free_slots(r);

    if (free == 0 || len > sizeof r->slot->data) /* a flood ends here */
        return false;
    struct room_holder h = holder_of(m, room, source);

    if (!may_have_another(r, &h, free))
        return false;
    struct rf_notice *slot = hold_slot(r, &h);

    slot->kind = RF_NOTICE_DATAGRAM;
    slot->handle = 0;
    slot->source = *source;
    memcpy(slot->local, local, sizeof slot->local);
    slot->len = (uint16_t)len;
    memcpy(slot->data, data, len);
    publish(r);
    return true;
}

bool mailbox_post_session(struct mailbox *m, enum rf_notice_kind kind, uint64_t handle,
                          const struct rf_addr *source)
{
    static const struct room_holder nobody;
    struct room *r = &m->room[ROOM_SESSIONS];

    if (free_slots(r) == 0)
        return false;
    struct rf_notice *slot = hold_slot(r, &nobody);

    slot->kind = kind;
    slot->handle = handle;
    slot->source = *source;
    slot->len = 0;
    publish(r);
    return true;
}

static bool room_take(struct room *r, struct rf_notice *out)
{
    uint32_t taken = load_rlx(&r->taken);

    if (taken == load_acq(&r->posted))
        return false;
    *out = r->slot[taken % r->slots];
    store_rls(&r->taken, taken + 1);
    return true;
}

/* One of each room in turn, so that none has to be empty before another is read. */
bool mailbox_take(struct mailbox *m, enum rf_queue queue, struct rf_notice *out)
{
    for (unsigned i = 0; i < ROOMS; i++) {
        unsigned room = (m->next[queue] + i) % ROOMS;

        if (room_queue(room) != queue || !room_take(&m->room[room], out))
            continue;
        m->next[queue] = room + 1;
        return true;
    }
    return false;
}
