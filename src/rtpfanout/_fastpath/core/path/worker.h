/* The packet loop. One turn = receive, classify and gate, fan out, flush, quiesce. */
#ifndef RF_WORKER_H
#define RF_WORKER_H

#include <time.h>

#include "budget.h"
#include "crew.h"
#include "fanout.h"
#include "gate.h"
#include "linger.h"
#include "side_reader.h"
#include "sock.h"

enum {
    TURN_PACKETS = INGRESS_BATCH * 64, /* 64 segments is what UDP_GRO puts together */
    INBOX_TURN = INBOX_SLOTS / 4, /* packets that a turn takes of what others have handed over */
    IDLE_WAIT_MS = 1000, /* only a bound: packets, work to share and worker_stop end the wait */
    /* A turn that lasts longer ends with the buffer at hand and what that comes to; the others stay
     * in hand for the next. */
    TURN_NS = 50000000,
};

struct worker_options {
    unsigned index; /* in the crew, and as a QSBR reader */
    bool receives;  /* else it only helps */
    bool check_padding;
    bool no_segmentation;
    void *in_hand; /* memory to receive into, see ingress_new */
    uint32_t split_threshold; /* send entries of a turn from which idle workers take part */
    uint64_t busy_poll_ns;    /* look for packets that long before sleeping */
    uint32_t max_sessions;    /* so many sources have room in what it knows, see known.h */
};

struct worker {
    struct worker_options options;
    const struct sock *sock; /* to receive by */
    struct egress egress;    /* to send by */
    struct qsbr *qsbr;
    struct worker **crew; /* all workers, this one included */
    unsigned crew_size;
    bool gso;
    socklen_t name_len;
    int wake_fd; /* eventfd: ends a wait */
    int notice_fd[RF_QUEUES]; /* eventfds: tell the control plane of notices; -1: nobody asks */

    struct ingress *ingress;
    const struct side_ports *side_ports; /* NULL: there can be none */
    struct side_reader side;
    bool main_is_empty;    /* as it was when the side ports woke it: not worth a look */
    unsigned main_buffers; /* that the main port has filled at the last receive */
    struct inbox *inbox;                   /* for what others receive of its sessions */
    struct inbox *inboxes[RF_MAX_WORKERS]; /* of the crew */
    struct batch batch;

    /* Buffers of the last receive, see ingress.h: all; those that were taken to the gate; and those
     * of which everything has left. */
    unsigned filled, taken, settled;

    /* Of the turn at hand. */
    struct datagram datagrams[INGRESS_BATCH];
    struct gate gate;
    uint64_t now;           /* CLOCK_MONOTONIC at its beginning */
    uint64_t clocks_ahead;  /* by how much CLOCK_REALTIME is before that */
    uint64_t stop_by;       /* the same clock, 0: not asked to stop */
    bool out_of_time;       /* past it: what is left of the turn is dropped */
    struct budget budget;
    uint32_t packet_count, session_count;
    struct packet *packets;
    struct session **sessions; /* those with a run, in order of arrival */
    struct plan plan;
    struct job job;
    struct parameter_spares spares; /* for sessions whose first parameter sets come */

    alignas(CACHE_LINE) _Atomic bool stopping;
    _Atomic bool leaves_queue; /* and what is queued is not to be read */
    _Atomic bool idle; /* asleep, or about to be: wake it when there is work to share */
    _Atomic bool awaits;    /* those who have tasks of its job */
    _Atomic uint32_t helps; /* 1 + the index of whose task it has; 0: its own work */
    _Atomic int32_t cpu_clock; /* of its thread; 0: it never ran */

    alignas(CACHE_LINE) struct worker_counters counters;
    _Atomic uint64_t alive_ns; /* CLOCK_MONOTONIC of its last sign of life, see worker_health.c */
    counter busy_ns;           /* in turns, and in shares of others' */
    struct latency_histogram latency_first, latency_last;
};

/* Sends by `sock` unless worker_use_lanes says otherwise. `crew` is filled in by the time
 * worker_run begins. 0 or -errno. */
int worker_init(struct worker *w, const struct worker_options *options, const struct sock *sock,
                const struct table *table, struct qsbr *qsbr, struct worker **crew,
                unsigned crew_size);
void worker_destroy(struct worker *w);
/* Before worker_run: send by these sockets of the same port, 1 to EGRESS_LANES. */
void worker_use_lanes(struct worker *w, const struct sock *lanes, unsigned count);

/* Before worker_run: which addresses are ours, the eventfds to tell of notices by, and what proves
 * that somebody is known (gate.h). */
void worker_report(struct worker *w, _Atomic(struct local_set *) *local,
                   const int notice_fd[RF_QUEUES], struct proofs *proofs);

/* Before worker_run: the ports beside that of its socket; all of them, to know one when it sees it. */
void worker_use_side_ports(struct worker *w, const struct side_ports *ports);

/* First what a process that died had in hand; then what comes, until worker_stop; then what is
 * queued, for 200 ms at the most and what is under way then: GATE_BLOCK packets. It ends when no other
 * that runs receives any more, so that nobody hands over anything to it; what was handed over later
 * than that is dropped. Once only: called again, it returns. */
void worker_run(struct worker *w);
/* From any thread. */
void worker_stop(struct worker *w);
/* The same, but what is queued stays in the socket, and all that is handed over is forwarded. */
void worker_leave(struct worker *w);

/* Of the thread that calls: it is the worker's from now on. */
void worker_note_thread(struct worker *w);
/* From any thread. */
void worker_health(struct worker *w, uint64_t now, struct rf_health *out);

/* Before the first turn: what a process that died had in hand goes first. Of what it was sending
 * then, those it had sent it to already get it once more. */
void worker_recover(struct worker *w);
/* A turn with what is in hand, and with what others have handed over; `may_receive`: what
 * comes meanwhile may join it. Returns how many buffers and packets it had. */
unsigned worker_forward(struct worker *w, bool may_receive);
/* Within a turn: buffers to the gate until it has lasted long enough; then what others have handed
 * over. What is admitted is sent before it becomes too much for a time. */
void worker_admit_buffers(struct worker *w);
void worker_admit_inbox(struct worker *w);
/* Of the buffers that were taken to the gate nothing is needed any more, see ingress.h. */
void worker_settle(struct worker *w);
/* Asked to stop, and the time for what is queued is over: what comes yet is dropped. */
bool worker_out_of_time(struct worker *w);
/* Within a turn. Sends all that was accepted so far. */
void worker_fan_out(struct worker *w);
/* Within that, of a session that has a run or is due: its RTCP, planned or said to its source. */
void worker_feedback(struct worker *w, struct session *s);
/* One task of `owner`'s job; false when there is none. */
bool worker_take_part(struct worker *w, struct worker *owner);
void worker_wake(int fd);

static inline uint64_t clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

#endif
