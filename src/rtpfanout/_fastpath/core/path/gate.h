/* Which packets get in: what each one is, which session it belongs to, and if to none, why. */
#ifndef RF_GATE_H
#define RF_GATE_H

#include "awaited.h"
#include "cookie.h"
#include "fair.h"
#include "follow.h"
#include "hold.h"
#include "inbox.h"
#include "knocks.h"
#include "known.h"
#include "local.h"
#include "notice.h"
#include "rtcp_gate.h"
#include "rtp.h"
#include "table.h"

/* Packets pass in blocks, so that their lookups overlap in the memory system. */
enum { GATE_BLOCK = 32 };

/* A packet at the gate. */
struct arrival {
    uint8_t *data;
    const struct datagram *datagram; /* that it came in */
    uint32_t len;
    enum rtp_kind kind;
    enum drop_reason reason; /* why it has no session */
    uint16_t owner;          /* its session's, by which it was handed over to us; 0: it was received */
    bool by_network;         /* its session admits a network, not just this source */
    bool handed_over;        /* to the worker of its session, so that it has none here */
    bool held;               /* it waits, so that it has none yet */
    bool alike;              /* it is of the same session as the one before it */
    bool passes;             /* it proves what was held of its SSRC, and goes with that */
    uint8_t first;           /* hold_number of what is held and goes first; 0: nothing */
    struct table_key key;    /* of RTP_PACKET, and of what may be one */
    struct session *session; /* that it is admitted to, or NULL */
    struct session *refuser; /* then what it came for, or NULL */
};
/* What is longer compilers clear by a slower instruction: 88 bytes cost 10 ns more a packet, of 40. */
_Static_assert(sizeof(struct arrival) <= 80, "a packet at the gate has grown");

/* What tells who is known, or at least expected, from a stranger. */
struct proofs {
    struct proof_key cookies, stamps;
    struct awaited awaited;
};

struct gate {
    const struct table *table;
    bool check_padding;
    unsigned worker; /* who asks */
    struct worker_counters *counters;
    const struct rf_addr *own; /* the port, and perhaps the one address, that we send from */
    const struct side_ports *side_ports; /* NULL: there is no other */
    _Atomic(struct local_set *) *local; /* else all of these are ours; NULL: no such set */
    struct mailbox *mailbox;
    struct proofs *proofs; /* NULL: nobody has proved anything */
    struct known known;
    struct holding holding;
    struct knocks *knocks;
    bool senders; /* whether some session takes any SSRC: of the block at hand */
    unsigned posted; /* bits of the queues that got something, since it was last asked */
    struct inbox *const *inboxes; /* of all workers */
    uint64_t called;              /* bits of those that something was handed over to */
    struct fair fair;
    struct rtcp_gate rtcp;

    uint64_t now; /* CLOCK_MONOTONIC */
    uint32_t count;
    struct arrival arrival[GATE_BLOCK];
};

/* One more for the block; true when that fills it. */
bool gate_add(struct gate *g, uint8_t *data, uint32_t len, const struct datagram *d);
/* The same for what was handed over to this worker. */
bool gate_add_parcel(struct gate *g, const struct parcel *p);

/* Finds every arrival's session and counts the drop of those that have none. A session has one
 * worker, since its run and its counters have one writer: who first receives a packet of it.
 * Steering by source address mostly keeps it so; what another worker receives is put into the
 * inbox of that one, which passes it through its own gate. */
void gate_pass(struct gate *g);
/* Whether the session that was found may have the packet; else the reason stands in it. */
bool gate_admits(struct gate *g, struct arrival *a);
/* `a->refuser` may latch on to its source: the control plane is told, and the packet held until it
 * has decided. False when there is no room. */
bool gate_await(struct gate *g, const struct arrival *a);
/* What was held so of its source goes before `a`, each judged as if it came now. */
void gate_recall(struct gate *g, struct arrival *a);
/* What is held of the SSRC that `s` might have followed is dropped. */
void gate_drop_held(struct gate *g, struct session *s);
void gate_count_drop(struct gate *g, const struct arrival *a);
/* What has been held for too long is dropped; `all`: whatever is held. Within a QSBR section. */
void gate_sweep(struct gate *g, uint64_t now, bool all);
/* A notice about the session, unless one of the kind waits; whether it was posted. */
bool gate_notify(struct gate *g, struct session *s, enum rf_notice_kind kind,
                 const struct rf_addr *source);

#endif
