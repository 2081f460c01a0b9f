/* The ports beside the main one, in the turn fuzzer: the RTCP port of all, and a session's own with its RTCP
 * port. The kernel's part is replaced: what comes next in the input is what wakes the worker. */
#ifndef FUZZ_SIDE_H
#define FUZZ_SIDE_H

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "endpoints.h"
#include "input.h"
#include "naive.h"
#include "worker.h"

static struct {
    struct side_port *port[PORTS_IN_ALL]; /* NULL: the main one */
    bool counted;      /* the turn at hand has got something, and is counted */
    bool main_skipped; /* the turn at hand does not look at the main one */
    bool woken;        /* and has looked at none yet */
} side;

int __wrap_epoll_wait(int fd, struct epoll_event *event, int most, int timeout);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);

static inline void open_side_ports(struct worker *w, const struct sock *main_sock, struct session *own)
{
    static const enum port_kind kinds[] = {PORT_RTP, PORT_RTCP, PORT_SESSION_RTP, PORT_SESSION_RTCP};
    struct side_ports *ports = side_ports_new(main_sock->bound.port);

    CHECK(ports != NULL);
    for (unsigned i = 1; i < PORTS_IN_ALL; i++) {
        struct rf_addr bound;
        int fd = endpoint("127.0.0.1", &bound);

        CHECK_EQ(side_ports_add(ports, fd, main_sock, kinds[i], i == RTCP_PORT ? NULL : own, &side.port[i]),
                 0);
        CHECK_EQ(side_reader_add(&w->side, side.port[i]), 0);
    }
    store_rls(&own->own_port, side.port[OWN_PORT]);
    store_rls(&own->own_rtcp_port, side.port[OWN_RTCP_PORT]);
    worker_use_side_ports(w, ports);
}

/* A session that takes whatever its source sends to its port; it is in no table. */
static inline void put_at_own_port(struct session *s, const struct rf_addr *source)
{
    struct rf_source exact = {.policy = RF_EXACT, .exact = *source, .own_port = true};
    struct source_rule *rule;

    CHECK_EQ(rule_new_whole(&exact, 0, &rule), 0);
    store_rls(&s->rule, rule);
    s->at_own_port = s->any_ssrc = true;
    s->ssrcs = calloc(1, sizeof *s->ssrcs);
    CHECK(s->ssrcs != NULL);
    store_rlx(&s->gating, GATING_ANY);
    store_rlx(&s->noticed, 1u << RF_NOTICE_SSRC); /* it waits for ever: the mailbox has none of it */
}

static inline unsigned port_of_socket(int fd)
{
    for (unsigned i = 1; i < PORTS_IN_ALL; i++) {
        if (side.port[i]->sock.fd == fd)
            return i;
    }
    return MAIN_PORT;
}

/* What a datagram that came to such a port is there: no control datagram, and no RTP at a port for RTCP. */
static inline enum rtp_kind kind_at(unsigned port, enum rtp_kind kind)
{
    return kind == RTP_PACKET && port != MAIN_PORT && port != OWN_PORT ? RTP_MALFORMED : kind;
}

/* Whether what a socket gave opens a turn. A turn looks at the side ports first, and then, mostly, at the main
 * one. */
static inline bool opens_turn(unsigned port, unsigned got)
{
    if (port == MAIN_PORT && side.main_skipped)
        side.main_skipped = side.counted = false;
    bool opens = got > 0 && !side.counted;

    side.counted = port != MAIN_PORT && (side.counted || got > 0);
    return opens;
}

/* All of them are named, as more may follow in the input. */
int __wrap_epoll_wait(int fd, struct epoll_event *event, int most, int timeout)
{
    unsigned next = next_port();

    (void)fd;
    CHECK_EQ(timeout, 0);
    CHECK(most >= PORTS_IN_ALL - 1);
    side.counted = false;
    side.main_skipped = side.main_skipped && side.woken;
    side.woken = false;
    if (next == MAIN_PORT)
        return 0;
    for (unsigned i = 0; i < PORTS_IN_ALL - 1; i++) {
        unsigned which = 1 + (next - 1 + i) % (PORTS_IN_ALL - 1);

        event[i] = (struct epoll_event){.events = EPOLLIN,
                                        .data.u32 = side.port[which]->sock.bound.port};
    }
    return PORTS_IN_ALL - 1;
}

/* For room to send there always is; else it is the worker, that sleeps. */
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout)
{
    (void)timeout;
    for (nfds_t i = 0; i < n; i++)
        p[i].revents = 0;
    if (n == 1) {
        p[0].revents = p[0].events;
        return 1;
    }
    CHECK_EQ(n, 3);
    bool is_side = next_port() != MAIN_PORT;

    p[2].revents = is_side ? POLLIN : 0;
    p[0].revents = is_side && !(port_byte() & WITH_MAIN) ? 0 : POLLIN;
    side.main_skipped = p[0].revents == 0;
    side.woken = true;
    side.counted = false;
    return 1;
}

#endif
