#include "fanout.h"

void fanout_start(struct fanout *f, struct session *s, struct packet *packets, socklen_t name_len)
{
    *f = (struct fanout){
        .session = s,
        /* Pairs with the release in engine.c that publishes a list. */
        .subscribers = load_acq(&s->subscribers),
        .packets = packets,
        .packet = s->run.first,
        .packets_left = s->run.count,
        .name_len = name_len,
    };
    if (f->subscribers->count == 0)
        f->packets_left = 0;
}

bool fanout_fill(struct fanout *f, struct batch *b)
{
    while (f->packets_left > 0) {
        struct packet *packet = &f->packets[f->packet];
        const uint32_t count = f->subscribers->count;

        for (; f->subscriber < count; f->subscriber++) {
            if (b->used == EGRESS_BATCH)
                return false;
            batch_add(b,
                      (struct copy){
                          .session = f->session,
                          .subscriber = f->subscribers->item[f->subscriber],
                          .packet = packet,
                          .last = f->subscriber == count - 1,
                      },
                      f->name_len);
        }
        f->subscriber = 0;
        f->packet = packet->next;
        f->packets_left--;
    }
    return true;
}

void fanout_account(struct batch *b, struct worker_counters *c, struct latency_histogram *h,
                    uint64_t realtime_now)
{
    uint64_t sent = 0, bytes = 0;

    for (unsigned i = 0; i < b->used; i++) {
        struct copy *copy = &b->copy[i];
        struct session_counters *session = &copy->session->counters;
        uint64_t received_ns = copy->packet->received_ns;

        counter_add(&session->copies_attempted, 1);
        if (copy->outcome == SENT) {
            sent++;
            bytes += copy->packet->bytes.iov_len;
            counter_add(&session->packets_sent, 1);
            counter_add(&session->bytes_sent, copy->packet->bytes.iov_len);
            counter_add(&copy->subscriber->packets_sent, 1);
        } else {
            counter_add(&session->send_failures, 1);
            counter_add(&copy->subscriber->send_failures, 1);
            stats_count_failure(c, copy->outcome);
        }
        /* A clock that was set back gives 0, not an age of centuries. */
        if (copy->last && received_ns != 0)
            latency_record(h, realtime_now > received_ns ? realtime_now - received_ns : 0);
    }
    counter_add(&c->copies_attempted, b->used);
    counter_add(&c->packets_sent, sent);
    counter_add(&c->bytes_sent, bytes);
    b->used = 0;
}
