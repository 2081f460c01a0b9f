/* The facade of core.h: UDP ports beside the main one. */
#include <errno.h>
#include <stdlib.h>

#include "ports.h"

int rf_socket_open(const struct rf_addr *bind, uint32_t receive_queue_packets)
{
    struct sock s;
    int rc = receive_queue_packets == 0
                 ? -EINVAL
                 : sock_open(&s, bind, port_receive_buffer(receive_queue_packets), SEND_BUFFER);

    return rc ? rc : s.fd;
}

/* So that a session's two have one reader, and the next process's the same as this one's. */
static uint32_t reader_of(const struct rf_engine *e, uint16_t number)
{
    return number / 2u % e->sock_count;
}

/* Under `control`. */
static int open_port(struct rf_engine *e, int fd, enum port_kind kind, struct session *s,
                     struct side_port **out)
{
    struct side_port *port;
    int rc = side_ports_add(e->side_ports, fd, &e->sock[0], kind, s, &port);

    if (rc)
        return rc;
    sock_tell_tos(&port->sock, e->copying_dscp > 0);
    port->worker = reader_of(e, port->sock.bound.port);
    if (!port_is_rtcp(kind))
        ingress_use_gro(port->sock.fd);
    rc = side_reader_add(&e->worker[port->worker]->side, port);
    if (rc) { /* nobody has read from it */
        side_ports_remove(e->side_ports, port);
        side_port_free(port);
        return rc;
    }
    worker_wake(e->worker[port->worker]->wake_fd);
    *out = port;
    return 0;
}

static void close_port(struct rf_engine *e, struct side_port *port)
{
    side_reader_remove(&e->worker[port->worker]->side, port);
    side_ports_remove(e->side_ports, port);
}

int rf_rtcp_port(struct rf_engine *e, int fd)
{
    pthread_mutex_lock(&e->control);
    int rc = e->rtcp_port ? -EEXIST : open_port(e, fd, PORT_RTCP, NULL, &e->rtcp_port);

    pthread_mutex_unlock(&e->control);
    return rc;
}

struct session_ports ports_close(struct rf_engine *e, struct session *s)
{
    struct session_ports had = {load_rlx(&s->own_port), load_rlx(&s->own_rtcp_port)};

    store_rlx(&s->own_port, NULL);
    store_rlx(&s->own_rtcp_port, NULL);
    if (had.rtp)
        close_port(e, had.rtp);
    if (had.rtcp)
        close_port(e, had.rtcp);
    return had;
}

void ports_free(struct session_ports had)
{
    if (had.rtp)
        side_port_free(had.rtp);
    if (had.rtcp)
        side_port_free(had.rtcp);
}

static int open_both(struct rf_engine *e, struct session *s, int rtp, int rtcp)
{
    struct side_port *port;
    int rc = open_port(e, rtp, PORT_SESSION_RTP, s, &port);

    if (rc)
        return rc;
    store_rls(&s->own_port, port);
    rc = open_port(e, rtcp, PORT_SESSION_RTCP, s, &port);
    if (rc == 0)
        store_rls(&s->own_rtcp_port, port);
    return rc;
}

/* `control` is given back for a grace period. */
static void close_both(struct rf_engine *e, struct session *s)
{
    gate_by(s, GATING_UNHEARD, GATING_UNHEARD);
    struct session_ports had = ports_close(e, s);

    pthread_mutex_unlock(&e->control);
    qsbr_synchronize(&e->qsbr);
    ports_free(had);
    pthread_mutex_lock(&e->control);
    session_lose_owner(s);
    gate_by(s, GATING_UNHEARD, 0);
}

/* What it had is closed first: two workers would read for it, and it has one owner. `sources` keeps
 * the session from ending meanwhile. */
int rf_session_ports(struct rf_engine *e, uint64_t handle, int rtp, int rtcp)
{
    pthread_mutex_lock(&e->sources);
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);
    int rc = !s ? -ENOENT : !s->at_own_port ? -EINVAL : 0;

    if (rc == 0 && load_rlx(&s->own_port))
        close_both(e, s);
    if (rc == 0 && (rc = open_both(e, s, rtp, rtcp)))
        close_both(e, s);
    pthread_mutex_unlock(&e->control);
    pthread_mutex_unlock(&e->sources);
    return rc;
}

static void tell_tos(struct rf_engine *e, bool on)
{
    for (uint32_t i = 0; i < e->sock_count; i++)
        sock_tell_tos(&e->sock[i], on);
    for (uint32_t i = 0; i < e->side_ports->count; i++)
        sock_tell_tos(&e->side_ports->all[i]->sock, on);
}

void ports_mark(struct rf_engine *e, struct session *s, uint16_t mark)
{
    uint32_t before = e->copying_dscp;

    e->copying_dscp += mark == MARK_COPY ? 1 : 0;
    e->copying_dscp -= load_rlx(&s->mark) == MARK_COPY ? 1 : 0;
    store_rlx(&s->mark, mark);
    gate_by(s, GATING_MARKED, mark ? GATING_MARKED : 0);
    if ((before > 0) != (e->copying_dscp > 0))
        tell_tos(e, before == 0);
}

int rf_session_dscp(struct rf_engine *e, uint64_t handle, int dscp)
{
    if (dscp < RF_DSCP_NONE || dscp > RF_DSCP_COPY)
        return -EINVAL;
    struct session *s = control_find(e, handle);

    if (s)
        ports_mark(e, s, dscp == RF_DSCP_NONE   ? 0
                         : dscp == RF_DSCP_COPY ? MARK_COPY
                                                : (uint16_t)(MARKED | dscp << 2));
    return control_done(e, s);
}
