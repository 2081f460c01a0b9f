/* What of the datagrams that are no RTP the worker's mailbox must hold after an input: a second and
 * plainer account of which are well formed, what they prove, and how a room is shared. */
#ifndef FUZZ_CONTROLS_H
#define FUZZ_CONTROLS_H

#include "counts.h"
#include "check.h"
#include "gate.h"

enum { CONTROLS = ROOM_LARGEST, SENDERS = 2, MADE_US = 1 }; /* the senders are of one network */

static const uint8_t cookie_key[RF_PROOF_KEY] = "cookies", stamp_key[RF_PROOF_KEY] = "stamps";

static struct {
    struct proofs proofs; /* the consent of the second is awaited */
    uint8_t cookie[SENDERS][RF_COOKIE]; /* the only good ones there are */
    struct {
        unsigned count, of[SENDERS];
        const uint8_t *data[CONTROLS];
        size_t len[CONTROLS];
    } room[ROOMS];
} controls;

static inline void set_proofs(struct gate *g, const struct rf_addr senders[SENDERS])
{
    proof_key_set(&controls.proofs.cookies, cookie_key);
    proof_key_set(&controls.proofs.stamps, stamp_key);
    CHECK_EQ(awaited_init(&controls.proofs.awaited), 0);
    controls.proofs.awaited.key = (struct hash_key){3, 4};
    awaited_change(&controls.proofs.awaited, &senders[1], true);
    for (unsigned i = 0; i < SENDERS; i++)
        rf_cookie_make(cookie_key, &senders[i], MADE_US, controls.cookie[i]);
    g->proofs = &controls.proofs;
    g->mailbox->key = (struct hash_key){1, 2}; /* nobody shares a cell with another */
}

static inline bool zeros(const uint8_t *p, size_t from, size_t to)
{
    while (from < to && p[from] == 0)
        from++;
    return from >= to;
}

static inline bool naive_is_well_formed(const uint8_t *p, size_t len)
{
    static const size_t lengths[] = {0, 64, 40, 0, 64, 96, 96};

    if (len < 8 || p[4] > 6 || len != lengths[p[4]] || !zeros(p, 5, 8))
        return false;
    if (p[4] == 2)
        return zeros(p, 16, 40);
    if (p[4] == 4)
        return zeros(p, 40, 64);
    if (p[4] >= 5)
        return p[16] == 1 && p[17] <= 2 && zeros(p, 18, 20) && !zeros(p, 20, 24);
    return true;
}

static inline enum notice_room naive_room(unsigned sender, const uint8_t *p)
{
    const uint8_t *cookie = p[4] == 4 ? p + 16 : p[4] >= 5 ? p + 56 : NULL;
    uint8_t claims[RF_CLAIMS];

    if (p[4] == 1)
        return ROOM_MOVES;
    if (cookie && memcmp(cookie, controls.cookie[sender], RF_COOKIE) == 0)
        return ROOM_KNOWN;
    if (p[4] < 5)
        return sender == 1 ? ROOM_INVITED : ROOM_STRANGERS;
    memcpy(claims, p + 16, sizeof claims);
    rf_stamp_make(stamp_key, claims);
    return memcmp(claims, p + 16, sizeof claims) == 0 ? ROOM_INVITED : ROOM_STRANGERS;
}

static inline void expect_foreign(struct rf_stats *expected, unsigned sender, const uint8_t *p,
                                  size_t len)
{
    if (len < 4 || p[0] != 0x52 || p[1] != 0x46 || p[2] != 0x4f || p[3] != 1) {
        expected->dropped_not_rtp++;
        return;
    }
    if (!naive_is_well_formed(p, len)) {
        expected->dropped_control_malformed++;
        return;
    }
    enum notice_room room = naive_room(sender, p);
    unsigned count = controls.room[room].count, free = room_slots(room) - count;
    /* An address has a fifth, a network half; who proved his address is by himself. */
    unsigned both = room == ROOM_KNOWN ? controls.room[room].of[sender] : count;

    if (4 * controls.room[room].of[sender] >= free || both >= free) {
        *(room == ROOM_KNOWN ? &expected->dropped_control_known_full
                             : &expected->dropped_control_full) += 1;
        return;
    }
    controls.room[room].of[sender]++;
    controls.room[room].data[count] = p;
    controls.room[room].len[count] = len;
    controls.room[room].count++;
    expected->dropped_control++;
}

/* Those and no other, in order in each room. */
static inline void check_mailbox(struct mailbox *m, const struct rf_addr senders[SENDERS])
{
    unsigned seen[ROOMS] = {0};
    struct rf_notice n;

    for (unsigned queue = 0; queue < RF_QUEUES; queue++) {
        while (mailbox_take(m, queue, &n)) {
            enum notice_room room = naive_room(addr_equal(&n.source, &senders[1]), n.data);
            unsigned i = seen[room]++;

            CHECK_EQ(room_queue(room), queue);
            CHECK(i < controls.room[room].count);
            CHECK_EQ(n.kind, RF_NOTICE_DATAGRAM);
            CHECK_EQ(n.len, controls.room[room].len[i]);
            CHECK(memcmp(n.data, controls.room[room].data[i], n.len) == 0);
        }
    }
    for (unsigned room = 0; room < ROOMS; room++)
        CHECK_EQ(seen[room], controls.room[room].count);
    memset(controls.room, 0, sizeof controls.room);
}

#endif
