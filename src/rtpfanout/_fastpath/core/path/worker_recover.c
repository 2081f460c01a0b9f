/* What a worker does first: the packets that a process had in hand when it died, slice by slice. */
#include "worker.h"

/* Counted, and nothing else: it may be what the processes that had it in hand died of. */
static void abandon(struct worker *w)
{
    for (; w->taken < w->filled; w->taken++) {
        struct datagram d;

        ingress_datagram(w->ingress, w->taken, &d);
        counter_add(&w->counters.bytes_received, d.len);
        counter_add(&w->counters.packets_received, datagram_packets(&d));
        counter_add(&w->counters.dropped_abandoned, datagram_packets(&d));
    }
    ingress_settle(w->ingress, w->settled, w->taken);
}

/* A slice is forwarded as in any turn, but nothing is received: what lies behind is still needed. */
void worker_recover(struct worker *w)
{
    struct slice s;

    while (ingress_recover(w->ingress, &s)) {
        uint64_t before = load_rlx(&w->counters.packets_received);

        w->taken = w->settled = s.begin;
        w->filled = s.end;
        if (!s.again)
            abandon(w);
        while (w->taken < w->filled)
            worker_forward(w, false);
        counter_add(&w->counters.packets_recovered,
                    load_rlx(&w->counters.packets_received) - before);
        qsbr_quiescent(w->qsbr, w->options.index);
    }
    w->filled = w->taken = w->settled = 0;
}
