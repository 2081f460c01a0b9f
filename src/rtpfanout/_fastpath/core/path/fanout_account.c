/* When all of a plan has left: sessions get their counts and latencies. */
#include "fanout.h"

enum { GROUPS_AHEAD = 8 }; /* whose memory is asked for */

/* A clock that was set back gives 0, not an age of centuries. */
static uint64_t age(uint64_t then, uint64_t now)
{
    return now > then ? now - then : 0;
}

/* `n` packets had it after `ns`. */
static void record(struct latency_histogram *all, struct latency_histogram *of_session, uint64_t ns,
                   uint64_t n)
{
    size_t bucket = latency_bucket(ns);

    latency_record_in(all, bucket, ns, n);
    latency_record_in(of_session, bucket, ns, n);
}

static void observe(const struct group *g, struct latency_histogram *first,
                    struct latency_histogram *last)
{
    const struct packet *p = g->first;

    /* Packets of one receive buffer have one time stamp. */
    for (uint32_t left = g->packets, same; left > 0; left -= same) {
        uint64_t received_ns = p->received_ns;

        for (same = 0; same < left && p->received_ns == received_ns; same++)
            p = p->next;
        if (received_ns == 0)
            continue;
        record(first, &g->session->latency->first, age(received_ns, g->first_ns), same);
        record(last, &g->session->latency->last, age(received_ns, g->last_ns), same);
    }
}

static void count_reports(const struct share *s, struct worker_counters *counters)
{
    uint64_t attempted = s->tally.packets_sent + s->tally.packets_failed;

    counter_add(&counters->copies_rtcp, attempted);
    counter_add(&s->session->feedback->counters.copies_rtcp, attempted);
}

/* Where that will be counted begins to be loaded: each session has lines of its own. */
static void prefetch(const struct group *g)
{
    struct session_latency *l = g->session->latency;
    uint64_t received_ns = g->first->received_ns;

    __builtin_prefetch(&l->first.count[latency_bucket(age(received_ns, g->first_ns))], 1);
    __builtin_prefetch(&l->last.count[latency_bucket(age(received_ns, g->last_ns))], 1);
    __builtin_prefetch(&l->first.sum_ns, 1);
    __builtin_prefetch(&l->last.sum_ns, 1);
}

void plan_account(struct plan *p, struct worker_counters *counters, struct latency_histogram *first,
                  struct latency_histogram *last)
{
    counter_add(&counters->copies_due, p->due);
    for (uint32_t i = 0; i < p->shares_used; i++) {
        const struct tally *t = &p->shares[i].tally;
        struct session_counters *c = &p->shares[i].session->counters;

        counter_add(&c->copies_attempted, t->packets_sent + t->packets_failed);
        counter_add(&c->packets_sent, t->packets_sent);
        counter_add(&c->bytes_sent, t->bytes_sent);
        counter_add(&c->send_failures, t->packets_failed);
        if (t->packets_withheld > 0)
            counter_add(&c->copies_withheld, t->packets_withheld);
        counter_add(&counters->copies_withheld, t->packets_withheld);
        if (p->shares[i].reporters)
            count_reports(&p->shares[i], counters);
    }
    for (uint32_t i = 0; i < p->groups_used; i++) {
        if (i + GROUPS_AHEAD < p->groups_used)
            prefetch(&p->groups[i + GROUPS_AHEAD]);
        observe(&p->groups[i], first, last);
    }
}
