#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "rtp.h"

enum {
    SEND_WAIT_MS = 2,      /* for room in the send buffer, per batch */
    IDLE_WAIT_MS = 1000,   /* only a bound: packets and worker_stop end the wait */
    ERROR_PAUSE_NS = 1000000,
    DRAIN_NS = 200000000,
};

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int worker_init(struct worker *w, const struct sock *sock, const struct table *table,
                struct qsbr *qsbr, unsigned reader, bool check_padding)
{
    memset(w, 0, sizeof *w);
    w->sock = sock;
    w->table = table;
    w->qsbr = qsbr;
    w->reader = reader;
    w->check_padding = check_padding;
    w->name_len = sock->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->wake_fd < 0)
        return -errno;
    int rc = ingress_new(sock->fd, &w->ingress);

    if (rc)
        close(w->wake_fd);
    return rc;
}

void worker_destroy(struct worker *w)
{
    ingress_free(w->ingress);
    close(w->wake_fd);
}

/* Exactly one of forwarded and dropped_* for each datagram received. */
static struct session *gate(struct worker *w, const struct datagram *d)
{
    struct session *session;
    uint32_t ssrc = 0;
    bool ssrc_known = false;
    enum drop_reason reason;

    if (d->truncated) {
        stats_count_drop(&w->counters, DROP_truncated);
        return NULL;
    }
    switch (rtp_classify(d->data, d->len, w->check_padding, &ssrc)) {
    case RTP_PACKET:
        session = table_find(w->table, ssrc, &d->source, &ssrc_known);
        if (session)
            return session;
        reason = ssrc_known ? DROP_wrong_source : DROP_unknown_ssrc;
        break;
    case RTP_CONTROL:
        reason = DROP_rtcp;
        break;
    case RTP_FOREIGN:
        reason = DROP_not_rtp;
        break;
    default:
        reason = DROP_malformed;
        break;
    }
    stats_count_drop(&w->counters, reason);
    return NULL;
}

/* Packet `i` of the turn joins its session's run. */
static void append_to_run(struct worker *w, struct session *s, uint32_t i)
{
    if (s->run.count == 0) {
        s->run.first = i;
        w->sessions[w->session_count++] = s;
    } else {
        w->packets[s->run.last].next = i;
    }
    s->run.last = i;
    s->run.count++;
}

static void accept_packet(struct worker *w, struct session *s, const struct datagram *d, uint32_t i,
                          uint64_t now)
{
    w->packets[i] = (struct packet){{d->data, d->len}, d->received_ns, 0};
    append_to_run(w, s, i);
    counter_add(&s->counters.packets_received, 1);
    counter_add(&s->counters.bytes_received, d->len);
    store_rlx(&s->last_packet_ns, now);
    counter_add(&w->counters.packets_forwarded, 1);
    counter_add(&w->counters.bytes_forwarded, d->len);
}

static void flush(struct worker *w)
{
    if (w->batch.used == 0)
        return;
    egress_flush(w->sock->fd, &w->batch, SEND_WAIT_MS);
    fanout_account(&w->batch, &w->counters, &w->latency, clock_ns(CLOCK_REALTIME));
}

static void fan_out(struct worker *w)
{
    for (unsigned i = 0; i < w->session_count; i++) {
        struct fanout f;

        fanout_start(&f, w->sessions[i], w->packets, w->name_len);
        while (!fanout_fill(&f, &w->batch))
            flush(w);
        w->sessions[i]->run.count = 0;
    }
    flush(w);
    w->session_count = 0;
}

/* Returns how many datagrams it took, or -errno. */
static int turn(struct worker *w)
{
    int n = ingress_receive(w->ingress);

    if (n <= 0)
        return n;
    uint64_t now = clock_ns(CLOCK_MONOTONIC);

    for (unsigned i = 0; i < (unsigned)n; i++) {
        struct datagram d;
        struct session *s;

        ingress_datagram(w->ingress, i, &d);
        counter_add(&w->counters.packets_received, 1);
        counter_add(&w->counters.bytes_received, d.len);
        s = gate(w, &d);
        if (s)
            accept_packet(w, s, &d, i, now);
    }
    fan_out(w);
    counter_add(&w->counters.turns, 1);
    return n;
}

/* Offline, so that no grace period waits for an idle worker. */
static void wait_for_packets(struct worker *w)
{
    struct pollfd p[] = {{.fd = w->sock->fd, .events = POLLIN},
                         {.fd = w->wake_fd, .events = POLLIN}};
    struct timespec pause = {.tv_nsec = ERROR_PAUSE_NS};

    qsbr_offline(w->qsbr, w->reader);
    if (poll(p, 2, IDLE_WAIT_MS) < 0)
        nanosleep(&pause, NULL);
    qsbr_online(w->qsbr, w->reader);
}

/* An error of recvmmsg is counted and borne: the loop ends on the stop flag alone. The
 * pause keeps an error that does not go away from taking the whole core. */
static void bear_receive_error(struct worker *w)
{
    struct timespec pause = {.tv_nsec = ERROR_PAUSE_NS};

    counter_add(&w->counters.receive_errors, 1);
    qsbr_offline(w->qsbr, w->reader);
    nanosleep(&pause, NULL);
    qsbr_online(w->qsbr, w->reader);
}

static void drain(struct worker *w)
{
    uint64_t end = clock_ns(CLOCK_MONOTONIC) + DRAIN_NS;

    while (turn(w) > 0 && clock_ns(CLOCK_MONOTONIC) < end)
        qsbr_quiescent(w->qsbr, w->reader);
}

void worker_run(struct worker *w)
{
    qsbr_online(w->qsbr, w->reader);
    while (!load_acq(&w->stopping)) {
        int n = turn(w);

        qsbr_quiescent(w->qsbr, w->reader);
        if (n < 0)
            bear_receive_error(w);
        else if (n == 0)
            wait_for_packets(w);
    }
    drain(w);
    qsbr_offline(w->qsbr, w->reader);
}

void worker_stop(struct worker *w)
{
    uint64_t one = 1;

    store_rls(&w->stopping, true);
    /* EAGAIN means that the counter is full of earlier wake-ups: it wakes all the same. */
    (void)!write(w->wake_fd, &one, sizeof one);
}
