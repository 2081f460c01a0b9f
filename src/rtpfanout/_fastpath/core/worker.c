#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
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
    TURN_PACKETS = INGRESS_BATCH * 64, /* 64 segments is what UDP_GRO puts together */
    TURN_SENDS = 4096,                 /* about 12 ms of plain sends */
};

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Everything a turn needs, allocated once. */
static int turn_room_new(struct worker *w)
{
    w->packets = malloc(TURN_PACKETS * sizeof *w->packets);
    w->sessions = malloc(TURN_PACKETS * sizeof *w->sessions);
    w->room.groups = malloc(TURN_PACKETS * sizeof *w->room.groups);
    w->room.iovs = malloc(TURN_PACKETS * sizeof *w->room.iovs);
    return w->packets && w->sessions && w->room.groups && w->room.iovs ? 0 : -ENOMEM;
}

static void turn_room_free(struct worker *w)
{
    free(w->packets);
    free(w->sessions);
    free(w->room.groups);
    free(w->room.iovs);
}

int worker_init(struct worker *w, const struct sock *sock, const struct table *table,
                struct qsbr *qsbr, unsigned reader, bool check_padding)
{
    int rc;

    memset(w, 0, sizeof *w);
    w->sock = sock;
    w->table = table;
    w->qsbr = qsbr;
    w->reader = reader;
    w->check_padding = check_padding;
    w->gso = egress_has_gso(sock->fd);
    w->name_len = sock->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    w->receive_limit = INGRESS_BATCH;
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->wake_fd < 0)
        return -errno;
    rc = turn_room_new(w);
    if (rc == 0)
        rc = ingress_new(sock->fd, &w->ingress);
    if (rc) {
        turn_room_free(w);
        close(w->wake_fd);
    }
    return rc;
}

void worker_destroy(struct worker *w)
{
    ingress_free(w->ingress);
    turn_room_free(w);
    close(w->wake_fd);
}

/* The session a packet belongs to; or NULL, and the drop is counted. */
static struct session *gate(struct worker *w, const uint8_t *data, size_t len,
                            const struct rf_addr *source)
{
    struct session *session;
    uint32_t ssrc = 0;
    bool ssrc_known = false;
    enum drop_reason reason;

    switch (rtp_classify(data, len, w->check_padding, &ssrc)) {
    case RTP_PACKET:
        session = table_find(w->table, ssrc, source, &ssrc_known);
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

static void append_to_run(struct worker *w, struct session *s, struct packet *p)
{
    if (s->run.first)
        s->run.last->next = p;
    else {
        s->run.first = p;
        w->sessions[w->session_count++] = s;
    }
    s->run.last = p;
}

static void accept_packet(struct worker *w, struct session *s, uint8_t *data, size_t len,
                          uint64_t received_ns)
{
    struct packet *p = &w->packets[w->packet_count++];

    *p = (struct packet){{data, len}, received_ns, NULL};
    append_to_run(w, s, p);
    counter_add(&s->counters.packets_received, 1);
    counter_add(&s->counters.bytes_received, len);
    store_rlx(&s->last_packet_ns, w->now);
    counter_add(&w->counters.packets_forwarded, 1);
    counter_add(&w->counters.bytes_forwarded, len);
}

static uint32_t now_secs(const struct worker *w)
{
    return (uint32_t)(w->now / 1000000000);
}

static void flush(struct worker *w)
{
    if (w->batch.used == 0)
        return;
    w->entries += w->batch.used;
    egress_flush(w->sock->fd, &w->batch, &w->counters, SEND_WAIT_MS, now_secs(w));
    fanout_observe(&w->batch, &w->latency, clock_ns(CLOCK_REALTIME));
}

/* Sends all that was accepted so far. */
static void fan_out(struct worker *w)
{
    for (uint32_t i = 0; i < w->session_count; i++) {
        struct fanout f;

        fanout_start(&f, w->sessions[i], w->gso, &w->room, now_secs(w), w->name_len);
        while (!fanout_fill(&f, &w->batch))
            flush(w);
        w->sessions[i]->run = (struct run){NULL, NULL};
    }
    flush(w);
    w->packet_count = w->session_count = 0;
    w->room.groups_used = w->room.iovs_used = 0;
}

/* Exactly one of forwarded and dropped_* for each packet of the buffer. */
static void take_datagram(struct worker *w, const struct datagram *d)
{
    uint32_t at = 0;

    counter_add(&w->counters.bytes_received, d->len);
    if (d->truncated) {
        counter_add(&w->counters.packets_received, 1);
        stats_count_drop(&w->counters, DROP_truncated);
        return;
    }
    do {
        uint32_t left = d->len - at, len = left < d->segment ? left : d->segment;
        struct session *s;

        if (w->packet_count == TURN_PACKETS)
            fan_out(w);
        counter_add(&w->counters.packets_received, 1);
        s = gate(w, d->data + at, len, &d->source);
        if (s)
            accept_packet(w, s, d->data + at, len, d->received_ns);
        at += len;
    } while (at < d->len);
}

/* A turn is to send about TURN_SENDS entries, so that neither other sessions nor a grace
 * period wait long for it: the next one receives by what this one came to. */
static void set_receive_limit(struct worker *w, unsigned received)
{
    uint64_t limit = w->entries > TURN_SENDS ? received * (uint64_t)TURN_SENDS / w->entries
                                             : (uint64_t)w->receive_limit * 2;

    w->receive_limit = limit < 1 ? 1 : limit > INGRESS_BATCH ? INGRESS_BATCH : (unsigned)limit;
}

/* Returns how many buffers it took, or -errno. */
static int turn(struct worker *w)
{
    int n = ingress_receive(w->ingress, w->receive_limit);

    if (n <= 0)
        return n;
    w->now = clock_ns(CLOCK_MONOTONIC);
    w->entries = 0;
    for (unsigned i = 0; i < (unsigned)n; i++) {
        struct datagram d;

        ingress_datagram(w->ingress, i, &d);
        take_datagram(w, &d);
    }
    fan_out(w);
    set_receive_limit(w, (unsigned)n);
    counter_add(&w->counters.receives, (uint64_t)n);
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
