#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

enum {
    ERROR_PAUSE_NS = 1000000,
    DRAIN_NS = 200000000,
};

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

/* Will the packet open a send entry of its own for every subscriber? Roughly: fanout.c decides. */
static bool opens_group(const struct worker *w, const struct session *s, uint32_t len)
{
    return !w->gso || !s->run.first || s->run.last->bytes.iov_len != len;
}

static void accept_packet(struct worker *w, const struct arrival *a)
{
    struct packet *p = &w->packets[w->packet_count++];
    struct session *s = a->session;
    uint32_t subscribers = subscribers_served(load_acq(&s->subscribers));

    budget_charge(&w->budget, subscribers, opens_group(w, s, a->len));
    *p = (struct packet){{a->data, a->len}, a->datagram->received_ns, NULL};
    append_to_run(w, s, p);
    counter_add(&s->counters.packets_received, 1);
    counter_add(&s->counters.bytes_received, a->len);
    store_rlx(&s->last_packet_ns, w->now);
    counter_add(&w->counters.packets_forwarded, 1);
}

/* How long it has waited since the kernel received it. */
static uint64_t age_of(const struct datagram *d)
{
    uint64_t now = clock_ns(CLOCK_REALTIME);

    return d->received_ns != 0 && now > d->received_ns ? now - d->received_ns : 0;
}

/* Asked to stop, and the time for what is queued is over. What is handed over is not dropped. */
static bool out_of_time(struct worker *w)
{
    if (!load_acq(&w->stopping) || load_acq(&w->handing_over))
        return false;
    uint64_t now = clock_ns(CLOCK_MONOTONIC);

    if (w->stop_by == 0)
        w->stop_by = now + DRAIN_NS;
    return now >= w->stop_by;
}

/* Of the buffers that were taken to the gate nothing is needed any more, see ingress.h. */
static void settle_buffers(struct worker *w)
{
    ingress_settle(w->ingress, w->settled, w->taken);
    w->settled = w->taken;
}

/* What was admitted is sent before it becomes too much for a time, see budget.h. */
static void pass_gate(struct worker *w)
{
    if (w->gate.count == 0)
        return;
    uint64_t now = clock_ns(CLOCK_MONOTONIC);

    store_rlx(&w->alive_ns, now);
    budget_learn(&w->budget, now - w->gate.now);
    w->gate.now = now;
    fair_block(&w->gate.fair, w->gate.now, age_of(w->gate.arrival[w->gate.count - 1].datagram));
    gate_pass(&w->gate);
    for (uint32_t i = 0; i < w->gate.count; i++) {
        if (w->gate.arrival[i].session)
            accept_packet(w, &w->gate.arrival[i]);
    }
    w->gate.count = 0;
    if (budget_is_spent(&w->budget) || w->packet_count + GATE_BLOCK > TURN_PACKETS) {
        worker_fan_out(w);
        settle_buffers(w); /* but for the one at hand */
        budget_renew(&w->budget, true);
        qsbr_quiescent(w->qsbr, w->options.index);
        w->out_of_time = out_of_time(w);
    }
}

/* Every packet of the buffer: to the gate, or dropped. */
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

        counter_add(&w->counters.packets_received, 1);
        if (w->out_of_time)
            stats_count_drop(&w->counters, DROP_overload);
        else if (gate_add(&w->gate, d->data + at, len, d))
            pass_gate(w);
        at += len;
    } while (at < d->len);
}

/* A sign of life; what began then and was work counts as busy. */
static void note_work(struct worker *w, uint64_t began)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC);

    store_rlx(&w->alive_ns, now);
    counter_add(&w->busy_ns, now - began);
}

/* From inboxes come packets that another worker has counted as received. */
static void take_inbox(struct worker *w)
{
    struct parcel *p;

    while (inbox_held(w->inbox) < INBOX_TURN && (p = inbox_take(w->inbox))) {
        if (w->out_of_time)
            stats_count_drop(&w->counters, DROP_overload);
        else if (gate_add_parcel(&w->gate, p))
            pass_gate(w);
    }
    pass_gate(w);
}

static bool help_wanted(struct worker *w)
{
    for (unsigned i = 0; i < w->crew_size; i++) {
        if (job_offers(&w->crew[i]->job))
            return true;
    }
    return false;
}

/* Until the turn has lasted long enough; the others are for the next one. */
static void take_buffers(struct worker *w)
{
    while (w->taken < w->filled && w->gate.now < w->now + TURN_NS) {
        struct datagram *d = &w->datagrams[w->taken];

        ingress_datagram(w->ingress, w->taken, d);
        take_datagram(w, d);
        w->taken++;
        if (w->gate.count == 0 && w->packet_count == 0) /* all that came so far has left */
            settle_buffers(w);
    }
    pass_gate(w);
}

static bool receives(const struct worker *w)
{
    return w->options.receives && load_rlx(&w->inbox->phase) == INBOX_OPEN;
}

/* Waits for the rest of a frame where that is worth it: while nobody else's packets are here, nobody
 * asks for help and nobody wants to stop. */
static void await_frame(struct worker *w)
{
    uint64_t now = w->now;
    struct frame_wait l;

    if (!w->gso || !receives(w) || w->session_count != 1 || w->gate.called ||
        !linger_begin(&l, w->sessions[0], w->filled + inbox_held(w->inbox), now))
        return;
    do {
        int n = ingress_receive_behind(w->ingress, w->filled);

        if (n > 0) {
            w->filled += (unsigned)n;
            take_buffers(w);
        }
        if (n < 0)
            counter_add(&w->counters.receive_errors, 1);
        take_inbox(w);
        if (n < 0 || w->filled == INGRESS_BATCH || w->taken < w->filled || w->session_count != 1 ||
            w->gate.called || help_wanted(w))
            break;
        now = clock_ns(CLOCK_MONOTONIC);
    } while (linger_goes_on(&l, now) && !load_rlx(&w->stopping));
    linger_end(&l);
    counter_add(&w->counters.lingers, 1);
}

static void tell_control_plane(struct worker *w)
{
    for (unsigned queue = 0; w->gate.posted >> queue; queue++) {
        if (w->gate.posted >> queue & 1 && w->notice_fd[queue] >= 0)
            worker_wake(w->notice_fd[queue]);
    }
    w->gate.posted = 0;
}

unsigned worker_forward(struct worker *w, bool may_receive)
{
    unsigned first = w->taken, n;

    w->now = clock_ns(CLOCK_MONOTONIC);
    store_rlx(&w->alive_ns, w->now);
    take_buffers(w);
    take_inbox(w);
    if (may_receive && w->taken == w->filled)
        await_frame(w);
    worker_fan_out(w);
    settle_buffers(w);
    budget_renew(&w->budget, false);
    tell_control_plane(w);
    n = w->taken - first;
    counter_add(&w->counters.receives, n);
    counter_add(&w->counters.turns, 1);
    note_work(w, w->now);
    n += inbox_held(w->inbox);
    inbox_release(w->inbox);
    return n;
}

/* Receives when nothing is in hand. Returns how many buffers it took and packets of others, or
 * -errno. */
static int turn(struct worker *w)
{
    int n = 0;

    if (w->taken == w->filled) {
        n = receives(w) ? ingress_receive(w->ingress) : 0;
        w->filled = n > 0 ? (unsigned)n : 0;
        w->taken = w->settled = 0;
        if (n <= 0 && !inbox_waits(w->inbox))
            return n;
    }
    unsigned had = worker_forward(w, receives(w));

    return n < 0 ? n : (int)had;
}

/* One task of any other worker; false when nobody has one. */
static bool help(struct worker *w)
{
    for (unsigned i = 1; i < w->crew_size; i++) {
        struct worker *other = w->crew[(w->options.index + i) % w->crew_size];

        if (!job_offers(&other->job))
            continue;
        uint64_t began = clock_ns(CLOCK_MONOTONIC);

        if (worker_take_part(w, other)) {
            counter_add(&w->counters.tasks_shared, 1);
            note_work(w, began);
            return true;
        }
    }
    return false;
}

/* Until packets, received or handed over, work to share or worker_stop. Offline meanwhile, so that
 * no grace period waits for an idle worker. `idle` is seq_cst: see job_publish, inbox_waits. */
static void sleep_until_woken(struct worker *w)
{
    struct pollfd p[] = {{.fd = receives(w) ? w->sock->fd : -1, .events = POLLIN},
                         {.fd = w->wake_fd, .events = POLLIN}};
    struct timespec pause = {.tv_nsec = ERROR_PAUSE_NS};
    uint64_t wakeups;

    store_seq(&w->idle, true);
    if (!help_wanted(w) && !inbox_waits(w->inbox)) {
        qsbr_offline(w->qsbr, w->options.index);
        if (poll(p, 2, IDLE_WAIT_MS) < 0)
            nanosleep(&pause, NULL);
        qsbr_online(w->qsbr, w->options.index);
    }
    /* Before it counts as awake, or its last sign of life would be older than its sleep. */
    store_rlx(&w->alive_ns, clock_ns(CLOCK_MONOTONIC));
    store_seq(&w->idle, false);
    if (p[1].revents)
        (void)!read(w->wake_fd, &wakeups, sizeof wakeups);
}

/* An error of recvmmsg is counted and borne: the loop ends on the stop flag alone. The
 * pause keeps an error that does not go away from taking the whole core. */
static void bear_receive_error(struct worker *w)
{
    struct timespec pause = {.tv_nsec = ERROR_PAUSE_NS};

    counter_add(&w->counters.receive_errors, 1);
    qsbr_offline(w->qsbr, w->options.index);
    nanosleep(&pause, NULL);
    qsbr_online(w->qsbr, w->options.index);
    store_rlx(&w->alive_ns, clock_ns(CLOCK_MONOTONIC));
}

static void drain(struct worker *w)
{
    while (!out_of_time(w) && turn(w) > 0)
        qsbr_quiescent(w->qsbr, w->options.index);
}

/* What was received before the stop is forwarded, or dropped when there is no more time. */
static void empty_hands(struct worker *w)
{
    while (w->taken < w->filled) {
        w->out_of_time = out_of_time(w);
        turn(w);
        qsbr_quiescent(w->qsbr, w->options.index);
    }
}

/* Receives no more, and takes what others have handed over until they receive no more either. */
static void settle_inbox(struct worker *w)
{
    inbox_settle(w->inbox);
    for (unsigned i = 0; i < w->crew_size; i++) /* this may be what they wait for */
        worker_wake(w->crew[i]->wake_fd);
    while (!inbox_close(w->inbox, w->inboxes, w->crew_size)) {
        w->out_of_time = out_of_time(w);
        int n = turn(w);

        qsbr_quiescent(w->qsbr, w->options.index);
        if (n == 0 && !help(w))
            sleep_until_woken(w);
    }
}

/* Nothing to receive: help, look again for a while, or sleep. */
static void idle_turn(struct worker *w, uint64_t idle_since)
{
    if (help(w))
        return;
    if (w->options.busy_poll_ns > 0) {
        uint64_t now = clock_ns(CLOCK_MONOTONIC);

        store_rlx(&w->alive_ns, now);
        if (now - idle_since < w->options.busy_poll_ns)
            return;
    }
    sleep_until_woken(w);
}

void worker_run(struct worker *w)
{
    uint64_t idle_since = 0;

    for (unsigned i = 0; i < w->crew_size; i++)
        w->inboxes[i] = w->crew[i]->inbox;
    if (!inbox_open(w->inbox, w->inboxes, w->crew_size))
        return;
    qsbr_online(w->qsbr, w->options.index);
    worker_note_thread(w);
    worker_recover(w);
    while (!load_acq(&w->stopping)) {
        int n = turn(w);

        qsbr_quiescent(w->qsbr, w->options.index);
        if (n > 0)
            idle_since = w->now;
        else if (n == 0)
            idle_turn(w, idle_since);
        else
            bear_receive_error(w);
    }
    if (!load_acq(&w->handing_over))
        drain(w);
    empty_hands(w);
    settle_inbox(w);
    qsbr_offline(w->qsbr, w->options.index);
}

void worker_stop(struct worker *w)
{
    store_rls(&w->stopping, true);
    worker_wake(w->wake_fd);
}

void worker_hand_over(struct worker *w)
{
    store_rls(&w->handing_over, true);
    worker_stop(w);
}
