/* What the packet path has to tell the control plane: a bounded mailbox of each worker.
 *
 * The worker is the only one to post, the control plane (under the writer mutex) the only one to
 * take. Slots are allocated once; what finds no room is not posted, and the poster says so.
 *
 * Who has proved something has a room of its own, so that no flood of those who have not can fill
 * it. Within a room nobody takes more places than a share of what is free, by address and by
 * network: one who floods holds a fifth of it at the most, his network half, and whoever has nothing
 * there finds a place as long as there is one (dynamic thresholds: Choudhury and Hahne, 1998). */
#ifndef RF_NOTICE_H
#define RF_NOTICE_H

#include <stdalign.h>

#include "addr.h"
#include "atomic.h"
#include "hash.h"

/* By what is known of who sends. */
enum notice_room {
    ROOM_SESSIONS,  /* nobody sends these: notices about sessions */
    ROOM_KNOWN,     /* an address that returned a cookie of ours */
    ROOM_INVITED,   /* who has, or has seen, a token of ours, or whose consent is awaited */
    ROOM_MOVES,     /* signed moves: their key is the control plane's to check */
    ROOM_STRANGERS, /* all others */
    ROOMS,
};

enum {
    ROOM_LEVELS = 2,     /* who sends: by address, by network */
    ROOM_ROWS = 2,       /* of a count-min sketch of who holds how many places: by chance somebody */
    ROOM_CELLS = 2048,   /* shares a cell with one who floods, but hardly in both rows */
    ROOM_LEAST_PART = 4, /* of what is free, for one address */
    ROOM_LARGEST = 1024,
    ROOM_SLOTS = 64 + ROOM_LARGEST + 256 + 128 + 256, /* of all, see room_slots */
};

/* Where in the sketches it is counted what somebody holds. */
struct room_holder {
    uint16_t cell[ROOM_LEVELS][ROOM_ROWS];
};

struct room {
    alignas(CACHE_LINE) _Atomic uint32_t posted; /* the worker's; both count for ever, modulo 2^32 */
    alignas(CACHE_LINE) _Atomic uint32_t taken;  /* the control plane's */
    /* The worker's alone. */
    alignas(CACHE_LINE) uint32_t slots; /* a power of two */
    uint32_t given_back;                /* up to where places are no longer held; never past `taken` */
    uint16_t held[ROOM_LEVELS][ROOM_ROWS][ROOM_CELLS];
    struct room_holder holder[ROOM_LARGEST]; /* of each slot */
    struct rf_notice *slot; /* of the mailbox's */
};

struct mailbox {
    struct hash_key key; /* of the sketches */
    uint32_t next[RF_QUEUES]; /* the control plane's: the room of each that is looked into first */
    struct room room[ROOMS];
    struct rf_notice slot[ROOM_SLOTS];
};

/* The slots of a room. */
uint32_t room_slots(enum notice_room room);

/* NULL when there is no memory, or no random key. By free(). */
struct mailbox *mailbox_new(void);

/* Which of the two queues of core.h a room is read by. */
static inline enum rf_queue room_queue(enum notice_room room)
{
    return room <= ROOM_KNOWN ? RF_QUEUE_KNOWN : RF_QUEUE_STRANGERS;
}

/* The worker. False when there is no room; a datagram also when it is too long. */
bool mailbox_post_datagram(struct mailbox *m, enum notice_room room, const struct rf_addr *source,
                           const uint8_t local[16], const uint8_t *data, size_t len);
bool mailbox_post_session(struct mailbox *m, enum rf_notice_kind kind, uint64_t handle,
                          const struct rf_addr *source);

/* The control plane; false when there is none. */
bool mailbox_take(struct mailbox *m, enum rf_queue queue, struct rf_notice *out);

#endif
