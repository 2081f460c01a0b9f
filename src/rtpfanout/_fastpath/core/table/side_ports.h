/* Our UDP ports beside the main one: the RTCP port, and those that are a session's own.
 *
 * Each has one socket and one worker that reads it. What is read is looked up by the number of the
 * port, as that is all that outlives a process (ingress.h). One writer, under the engine's mutex;
 * readers are inside a QSBR section. */
#ifndef RF_SIDE_PORTS_H
#define RF_SIDE_PORTS_H

#include "session.h"
#include "sock.h"

enum port_kind {
    PORT_RTP,          /* the main one */
    PORT_RTCP,         /* the main one + 1 */
    PORT_SESSION_RTP,  /* a session's own */
    PORT_SESSION_RTCP, /* that + 1 */
    PORT_CLOSED,       /* it was one when the datagram came */
};

static inline bool port_is_rtcp(enum port_kind kind)
{
    return kind == PORT_RTCP || kind == PORT_SESSION_RTCP;
}

struct side_port {
    struct sock sock;
    enum port_kind kind;
    uint32_t worker;         /* who reads it */
    struct session *session; /* whose it is; NULL: the RTCP port of all */
    uint32_t place;          /* in side_ports.all */
};

enum { PORTS = 65536 };

struct side_ports {
    /* Of all our ports, the main one included: what comes from one of them may be our own. */
    _Atomic uint64_t ours[PORTS / 64];
    _Atomic(struct side_port *) at[PORTS];
    /* The writer's. */
    uint32_t count, room;
    struct side_port **all;
    const struct sock **socks; /* theirs */
};

static inline bool side_ports_are_ours(const struct side_ports *p, uint16_t port)
{
    return load_rlx(&p->ours[port / 64]) >> port % 64 & 1;
}

/* NULL: it is not there any more. Pairs with the release of side_ports_add. */
static inline struct side_port *side_port_at(const struct side_ports *p, uint16_t port)
{
    return load_acq(&p->at[port]);
}

/* NULL: -ENOMEM. */
struct side_ports *side_ports_new(uint16_t main_port);
/* Closes all. */
void side_ports_free(struct side_ports *p);
/* A duplicate of the UDP socket `fd`, that receives as the main one `like` does. -EEXIST (that port is
 * there), -EINVAL (it is no UDP socket of the same address), -ENOMEM, or -errno. */
int side_ports_add(struct side_ports *p, int fd, const struct sock *like, enum port_kind kind,
                   struct session *session, struct side_port **out);
/* Nothing is found by its number from here on; side_port_free after a grace period. */
void side_ports_remove(struct side_ports *p, struct side_port *port);
void side_port_free(struct side_port *port);

/* Of a session at its own port: whether it admits the source; `*by_network`: that is of a network.
 * `*latching` is it where it may latch on to the source, or NULL. */
bool session_admits(struct session *s, const struct rf_addr *source, uint64_t now, bool *by_network,
                    struct session **latching);

#endif
