/* What a worker holds: got once, given back once. worker.c is what it does. */
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Everything a turn needs, allocated once. */
static int turn_room_new(struct worker *w)
{
    int rc = plan_init(&w->plan, TURN_PACKETS);

    if (rc)
        return rc;
    w->gate.mailbox = mailbox_new();
    if (!w->gate.mailbox)
        return -ENOMEM;
    w->inbox = inbox_new();
    w->gate.knocks = knocks_new();
    if (!w->inbox || !w->gate.knocks)
        return -ENOMEM;
    rc = known_init(&w->gate.known, w->options.max_sessions);
    if (rc || (rc = holding_init(&w->gate.holding)) || (rc = rtcp_gate_init(&w->gate.rtcp)))
        return rc;
    w->packets = malloc(TURN_PACKETS * sizeof *w->packets);
    w->sessions = malloc(TURN_PACKETS * sizeof *w->sessions);
    return w->packets && w->sessions ? ingress_new(w->sock->fd, w->options.in_hand, &w->ingress) : -ENOMEM;
}

static void turn_room_free(struct worker *w)
{
    ingress_free(w->ingress);
    plan_destroy(&w->plan);
    free(w->gate.mailbox);
    inbox_free(w->inbox);
    free(w->gate.knocks);
    known_destroy(&w->gate.known);
    holding_destroy(&w->gate.holding);
    rtcp_gate_destroy(&w->gate.rtcp);
    free(w->packets);
    free(w->sessions);
}

int worker_init(struct worker *w, const struct worker_options *options, const struct sock *sock,
                const struct table *table, struct qsbr *qsbr, struct worker **crew,
                unsigned crew_size)
{
    int rc;

    memset(w, 0, sizeof *w);
    w->options = *options;
    w->sock = sock;
    w->qsbr = qsbr;
    w->crew = crew;
    w->crew_size = crew_size;
    budget_init(&w->budget);
    w->gate = (struct gate){
        .table = table,
        .check_padding = options->check_padding,
        .worker = options->index,
        .counters = &w->counters,
        .own = &sock->bound,
        .inboxes = w->inboxes,
    };
    for (unsigned i = 0; i < RF_QUEUES; i++)
        w->notice_fd[i] = -1;
    fair_init(&w->gate.fair);
    w->gso = !options->no_segmentation && egress_has_gso(sock->fd);
    w->name_len = sock->family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    worker_use_lanes(w, sock, 1);
    w->side.epoll_fd = -1;
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (w->wake_fd < 0)
        return -errno;
    rc = side_reader_init(&w->side);
    if (rc == 0)
        rc = turn_room_new(w);
    if (rc)
        worker_destroy(w);
    return rc;
}

void worker_use_lanes(struct worker *w, const struct sock *lanes, unsigned count)
{
    w->egress.lanes = w->batch.lanes = count;
    for (unsigned i = 0; i < count; i++)
        w->egress.fd[i] = lanes[i].fd;
}

void worker_report(struct worker *w, _Atomic(struct local_set *) *local,
                   const int notice_fd[RF_QUEUES], struct proofs *proofs)
{
    w->gate.local = local;
    w->gate.proofs = proofs;
    memcpy(w->notice_fd, notice_fd, sizeof w->notice_fd);
}

void worker_use_side_ports(struct worker *w, const struct side_ports *ports)
{
    w->side_ports = w->gate.side_ports = ports;
}

void worker_destroy(struct worker *w)
{
    turn_room_free(w);
    side_reader_destroy(&w->side);
    close(w->wake_fd);
}
