#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

enum {
    HELD_WAIT_MS = 250, /* so often is looked at what is held */
    ERROR_PAUSE_NS = 1000000,
    DRAIN_NS = 200000000,
};

/* Asked to stop, and the time for what is queued is over. What is handed over is not dropped. */
bool worker_out_of_time(struct worker *w)
{
    if (!load_acq(&w->stopping) || load_acq(&w->leaves_queue))
        return false;
    uint64_t now = clock_ns(CLOCK_MONOTONIC);

    if (w->stop_by == 0)
        w->stop_by = now + DRAIN_NS;
    return now >= w->stop_by;
}

/* A sign of life; what began then and was work counts as busy. */
static void note_work(struct worker *w, uint64_t began)
{
    uint64_t now = clock_ns(CLOCK_MONOTONIC);

    store_rlx(&w->alive_ns, now);
    counter_add(&w->busy_ns, now - began);
}

static bool help_wanted(struct worker *w)
{
    for (unsigned i = 0; i < w->crew_size; i++) {
        if (job_offers(&w->crew[i]->job))
            return true;
    }
    return false;
}

static bool receives(const struct worker *w)
{
    return w->options.receives && load_rlx(&w->inbox->phase) == INBOX_OPEN;
}

/* Whether the turn still has packets of it; else all were sent, and it may have gone since. */
static bool has_run(const struct worker *w, const struct session *s)
{
    return w->session_count > 0 && w->sessions[0] == s;
}

/* Behind what the turn has: of the session's own port first, if it has one, then of the main one. */
static int receive_more(struct worker *w, const struct session *s)
{
    const struct side_port *own = load_acq(&s->own_port);
    int n = 0;

    if (own && own->worker == w->options.index)
        n = ingress_receive_by(w->ingress, w->filled, INGRESS_BATCH - w->filled, own->sock.fd,
                               own->sock.bound.port);
    return n != 0 ? n : ingress_receive_behind(w->ingress, w->filled);
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
        int n = receive_more(w, w->sessions[0]);

        if (n > 0) {
            w->filled += (unsigned)n;
            worker_admit_buffers(w);
        }
        if (n < 0)
            counter_add(&w->counters.receive_errors, 1);
        worker_admit_inbox(w);
        if (n < 0 || w->filled == INGRESS_BATCH || w->taken < w->filled || w->session_count != 1 ||
            !has_run(w, l.session) || w->gate.called || help_wanted(w))
            break;
        now = clock_ns(CLOCK_MONOTONIC);
    } while (linger_goes_on(&l, now) && !load_rlx(&w->stopping));
    if (has_run(w, l.session))
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
    worker_admit_buffers(w);
    worker_admit_inbox(w);
    if (may_receive && w->taken == w->filled)
        await_frame(w);
    worker_fan_out(w);
    worker_settle(w);
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

/* The side ports first, but never all the buffers while the main one has something. */
static int receive(struct worker *w)
{
    unsigned side = 0;
    int n;

    if (side_reader_is_due(&w->side, w->now))
        side = side_reader_receive(&w->side, w->side_ports, w->ingress, 0,
                                   w->main_buffers ? INGRESS_BATCH / 2 : INGRESS_BATCH - 1, w->now,
                                   &w->counters.receive_errors);
    n = w->main_is_empty ? 0 : ingress_receive_behind(w->ingress, side);
    w->main_is_empty = false;
    w->main_buffers = n > 0 ? (unsigned)n : 0;
    if (n < 0 && side > 0) {
        counter_add(&w->counters.receive_errors, 1);
        n = 0;
    }
    return n < 0 ? n : n + (int)side;
}

/* Receives when nothing is in hand. Returns how many buffers it took and packets of others, or
 * -errno. */
static int turn(struct worker *w)
{
    int n = 0;

    if (w->taken == w->filled) {
        n = receives(w) ? receive(w) : 0;
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
                         {.fd = w->wake_fd, .events = POLLIN},
                         {.fd = receives(w) ? side_reader_fd(&w->side) : -1, .events = POLLIN}};
    struct timespec pause = {.tv_nsec = ERROR_PAUSE_NS};
    uint64_t wakeups;

    store_seq(&w->idle, true);
    if (!help_wanted(w) && !inbox_waits(w->inbox)) {
        qsbr_offline(w->qsbr, w->options.index);
        if (poll(p, sizeof p / sizeof p[0], w->gate.holding.used ? HELD_WAIT_MS : IDLE_WAIT_MS) < 0)
            nanosleep(&pause, NULL);
        qsbr_online(w->qsbr, w->options.index);
    }
    /* Before it counts as awake, or its last sign of life would be older than its sleep. */
    store_rlx(&w->alive_ns, clock_ns(CLOCK_MONOTONIC));
    store_seq(&w->idle, false);
    if (p[1].revents)
        (void)!read(w->wake_fd, &wakeups, sizeof wakeups);
    w->side.ready |= p[2].revents != 0;
    w->main_is_empty = p[2].revents != 0 && p[0].revents == 0;
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
    do {
        qsbr_quiescent(w->qsbr, w->options.index);
        w->side.ready = true;
        w->main_is_empty = false;
    } while (!worker_out_of_time(w) && turn(w) > 0);
}

/* What was received before the stop is forwarded, or dropped when there is no more time. */
static void empty_hands(struct worker *w)
{
    while (w->taken < w->filled) {
        w->out_of_time = worker_out_of_time(w);
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
        w->out_of_time = worker_out_of_time(w);
        int n = turn(w);

        qsbr_quiescent(w->qsbr, w->options.index);
        if (n == 0 && !help(w))
            sleep_until_woken(w);
    }
}

/* Nothing to receive: help, look again for a while, or sleep. */
static void idle_turn(struct worker *w, uint64_t idle_since)
{
    if (help(w)) {
        w->side.ready = true; /* perhaps: it may be long since it slept */
        return;
    }
    if (w->options.busy_poll_ns > 0) {
        uint64_t now = clock_ns(CLOCK_MONOTONIC);

        store_rlx(&w->alive_ns, now);
        w->side.ready = true; /* nobody else asks */
        if (now - idle_since < w->options.busy_poll_ns)
            return;
    }
    sleep_until_woken(w);
}

/* Now and then, and before each sleep: what is held in vain is counted. */
static void sweep_held(struct worker *w, int received)
{
    struct holding *h = &w->gate.holding;

    if (h->used == 0)
        return;
    uint64_t now = received > 0 ? w->now : clock_ns(CLOCK_MONOTONIC);

    if (now < h->swept_ns + HELD_WAIT_MS * UINT64_C(1000000))
        return;
    h->swept_ns = now;
    gate_sweep(&w->gate, now, false);
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

        sweep_held(w, n);

        qsbr_quiescent(w->qsbr, w->options.index);
        if (n > 0)
            idle_since = w->now;
        else if (n == 0)
            idle_turn(w, idle_since);
        else
            bear_receive_error(w);
    }
    if (!load_acq(&w->leaves_queue))
        drain(w);
    empty_hands(w);
    settle_inbox(w);
    gate_sweep(&w->gate, 0, true);
    qsbr_offline(w->qsbr, w->options.index);
}

void worker_stop(struct worker *w)
{
    store_rls(&w->stopping, true);
    worker_wake(w->wake_fd);
}

void worker_leave(struct worker *w)
{
    store_rls(&w->leaves_queue, true);
    worker_stop(w);
}
