/* What stands behind core.h's opaque engine: one port, one table, one packet loop per worker. */
#ifndef RF_ENGINE_H
#define RF_ENGINE_H

#include <errno.h>
#include <pthread.h>

#include "core_senders.h"
#include "drops.h"
#include "port.h"
#include "worker.h"

struct rf_engine {
    uint32_t max_subscribers;
    uint8_t egress[16]; /* all zero: none */
    uint32_t requested_receive_buffer;
    uint32_t worker_count, sock_count;
    bool adopted; /* they outlive us */
    struct sock sock[RF_MAX_WORKERS];
    struct sock deaf; /* of the same port, see port_open; fd -1: none */
    uint32_t copying_dscp; /* sessions that do: then it is asked for what comes; under `control` */
    struct side_ports *side_ports; /* its writer's side under `control` */
    struct side_port *rtcp_port;   /* one of them; NULL: there is none */
    uint8_t *in_hand; /* an ingress for each of them, in memory that outlives us; NULL: none */
    uint32_t lane_count; /* 0: every worker sends by the socket it receives by */
    struct sock lane[EGRESS_LANES];
    struct worker *worker[RF_MAX_WORKERS];
    _Atomic bool running[RF_MAX_WORKERS];
    struct qsbr qsbr;
    int notice_fd[RF_QUEUES]; /* -1: not yet open */
    struct proofs proofs;
    _Atomic(struct local_set *) local; /* never NULL once there are workers */

    /* One change at a time of who may feed which session. It is held over a move's grace
     * period, so that what the move asked of the table stays true; `control` nests in it. */
    pthread_mutex_t sources;
    /* The writer mutex. It guards the session pool, the table's writer side, the publication of
     * subscriber lists, the retired list, the mailboxes' reading side and the counts below. It
     * is never held while a grace period is awaited. */
    pthread_mutex_t control;
    struct session_pool sessions;
    struct table table;
    uint32_t notices_from[RF_QUEUES]; /* the worker whose mailbox is emptied first, in turn */
    uint64_t control_sent, control_send_failures;
    struct rf_reception gone; /* the sums of sessions that were removed */
    uint64_t rtcp_sent, rtcp_send_failures; /* farewells */
    struct drops drops;
    bool leaves_drops; /* to the engine that reads the sockets next */
};

/* Takes the writer mutex. The session, or NULL. */
static inline struct session *control_find(struct rf_engine *e, uint64_t handle)
{
    pthread_mutex_lock(&e->control);
    return session_by_handle(&e->sessions, handle);
}

/* Gives it back. 0, or -ENOENT where there was no session. */
static inline int control_done(struct rf_engine *e, const struct session *s)
{
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

/* Bits of `gating` as in `on`, the others as they are. Under `control`. */
static inline void gate_by(struct session *s, unsigned bits, unsigned on)
{
    uint16_t was = load_rlx(&s->gating); /* its owner sets a bit, too */

    while (!compare_exchange_acq_rel(&s->gating, &was, (uint16_t)((was & ~bits) | on)))
        ;
}

/* Whom alone our RTCP may go to, and of whom RTCP is taken whatever its port. Under `control`. */
void engine_note_feeder(struct rf_engine *e, struct session *s, const struct rf_source *source);
/* Where RTCP is expected from: of a session's subscribers, instead of `old` those of `next`; NULL: nobody. */
void engine_count_reporters(struct rf_engine *e, const struct reporters *old,
                            const struct reporters *next);
/* RTCP is expected from nobody of the session any more, which is on its way out. Under `control`. */
void engine_forget_familiar(struct rf_engine *e, struct session *s);
/* To those who have RTCP, where they get copies: it ends. Nobody else has it any more. */
void engine_say_goodbye(struct rf_engine *e, struct session *s);

/* How its packets are read (rf_session_read). The table counts for whom a packet is looked up though
 * it looks like RTCP. Under `control`. */
void engine_set_reading(struct rf_engine *e, struct session *s, unsigned how);

/* Takes the sockets' 30 bits of it into `drops`; under `control`. Called at every tick, so no wrap
 * goes unseen. */
void engine_read_kernel_drops(struct rf_engine *e);
/* A session's figures stay in the sums; under `control`, when it is in use no more. */
void engine_keep_reception(struct rf_engine *e, const struct session *s);

#endif
