/* One session's run of packets x its subscribers -> egress batches. No system calls. */
#ifndef RF_FANOUT_H
#define RF_FANOUT_H

#include "egress.h"
#include "reporter.h"

enum {
    /* Send entries of one share of a wide session: about 100 us with segmentation, 400 us
     * without. Less and waking a worker costs more than it brings. */
    SHARE_ENTRIES = 128,
    /* Shares that are prepared at a time; more make a second wave. */
    PLAN_SHARES = 1024,
};

/* Who gets a run: those from `begin` to `end` of a list, counted in serving order, which begins with
 * number `rotation` of it. */
struct audience {
    const struct subscriber_list *list;
    uint32_t rotation, begin, end;
    bool sparse; /* some may be withheld */
};

/* Part of the fan-out of one run: all its groups to some of the subscribers, so that order is
 * kept for each of them whoever serves the share. */
struct share {
    struct session *session;
    const struct subscriber_list *subscribers; /* the snapshot of this turn */
    uint32_t rotation;                         /* who comes first in serving order */
    uint32_t begin, end;                       /* in serving order */
    /* In serving order the first and the last who got something when the turn was planned: they
     * get it, and between them those who are not withheld by then. */
    uint32_t first, last;
    bool sparse; /* some between them may be withheld */
    struct group *group, *groups_end;          /* the group at hand */
    uint32_t served;                           /* next in serving order for that group */
    /* For a subscriber that takes the group's packets one by one: */
    struct packet *packet; /* the next */
    uint32_t singly;       /* how many are left */
    /* Of a sender report instead of a run: who may get it; NULL: it is of a run. `begin` and `end` count
     * them. Who has had its number gets none. */
    const struct reporters *reporters;
    uint64_t report_ns; /* when it was planned, CLOCK_MONOTONIC */

    /* Counted by whoever serves it, for the session's owner. The first of a run begins with what
     * those before `first` and behind `last` don't get. */
    struct tally tally;
};

/* Room for what one turn sends. It lives until the batches that name it are flushed. */
struct plan {
    uint32_t groups_used, iovs_used, shares_used;
    uint64_t entries; /* of all shares; of those withheld too */
    uint64_t due;     /* copies: packets times subscribers, withheld or not */
    uint32_t now_secs; /* CLOCK_MONOTONIC */
    struct group *groups;
    struct iovec *iovs;
    struct share *shares;
};

/* Room for `packets` in all, and for sender reports beside them. 0, or -ENOMEM: plan_destroy frees what there is. */
int plan_init(struct plan *p, uint32_t packets);
void plan_destroy(struct plan *p);
void plan_clear(struct plan *p);
/* Whether the shares of one more session are sure to find room. */
bool plan_has_room(const struct plan *p);

/* Cuts the audience into shares: one, or with `split` as many as SHARE_ENTRIES asks for. Each has all
 * groups of the run. */
void plan_run(struct plan *p, struct session *s, const struct run *run, struct audience who,
              bool split);
/* The session's run of this turn to the list that is published now. */
void plan_session(struct plan *p, struct session *s, bool split);

/* The session's sender report, to those of the list with RTCP who have not had it. */
void plan_report(struct plan *p, struct session *s, const struct subscriber_list *list, uint64_t now);

/* Adds copies until the batch is full or the share is through; true when it is through. */
bool share_fill(struct share *s, struct batch *b, uint32_t now_secs, socklen_t name_len);
/* Send entries, before any fallback. */
uint64_t share_entries(const struct share *s);

/* Tells the groups of a flushed batch when their first and last copy had left, and
 * empties it. `realtime_now` is the time of the flush's return. */
void batch_settle(struct batch *b, uint64_t realtime_now);

/* When all shares are through: sessions get their counts and latencies, and `first` and
 * `last` the latencies to the first and the last subscriber served. `counters` get the copies withheld, and
 * those of sender reports. */
void plan_account(struct plan *p, struct worker_counters *counters, struct latency_histogram *first,
                  struct latency_histogram *last);

#endif
