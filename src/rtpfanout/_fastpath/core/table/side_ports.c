#include "side_ports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void set_ours(struct side_ports *p, uint16_t port, bool ours)
{
    uint64_t bit = UINT64_C(1) << port % 64, bits = load_rlx(&p->ours[port / 64]);

    store_rlx(&p->ours[port / 64], ours ? bits | bit : bits & ~bit);
}

struct side_ports *side_ports_new(uint16_t main_port)
{
    struct side_ports *p = calloc(1, sizeof *p); /* what no port is in holds no memory */

    if (p)
        set_ours(p, main_port, true);
    return p;
}

void side_port_free(struct side_port *port)
{
    sock_close(&port->sock);
    free(port);
}

void side_ports_free(struct side_ports *p)
{
    if (!p)
        return;
    while (p->count > 0)
        side_port_free(p->all[--p->count]);
    free(p->all);
    free(p->socks);
    free(p);
}

static int make_room(struct side_ports *p)
{
    uint32_t room = p->room ? 2 * p->room : 16;

    if (p->count < p->room)
        return 0;
    struct side_port **all = realloc(p->all, room * sizeof(*all));

    if (!all)
        return -ENOMEM;
    p->all = all;
    const struct sock **socks = realloc(p->socks, room * sizeof(*socks));

    if (!socks)
        return -ENOMEM;
    p->socks = socks;
    p->room = room;
    return 0;
}

/* Its address, and what the main port's receive by. */
static int fit(struct sock *s, const struct sock *like)
{
    if (s->family != like->family || memcmp(s->bound.ip, like->bound.ip, sizeof s->bound.ip) != 0)
        return -EINVAL;
    return sock_is_wildcard(s) ? sock_tell_local(s) : 0;
}

int side_ports_add(struct side_ports *p, int fd, const struct sock *like, enum port_kind kind,
                   struct session *session, struct side_port **out)
{
    struct side_port *port = calloc(1, sizeof *port);
    int rc = port ? make_room(p) : -ENOMEM;

    if (rc == 0)
        rc = sock_adopt(&port->sock, fd);
    if (rc) {
        free(port);
        return rc;
    }
    rc = side_ports_are_ours(p, port->sock.bound.port) ? -EEXIST : fit(&port->sock, like);
    if (rc) {
        side_port_free(port);
        return rc;
    }
    port->kind = kind;
    port->session = session;
    port->place = p->count;
    p->all[p->count] = port;
    p->socks[p->count++] = &port->sock;
    set_ours(p, port->sock.bound.port, true);
    store_rls(&p->at[port->sock.bound.port], port);
    *out = port;
    return 0;
}

void side_ports_remove(struct side_ports *p, struct side_port *port)
{
    uint32_t last = --p->count;

    p->all[last]->place = port->place;
    p->all[port->place] = p->all[last];
    p->socks[port->place] = p->socks[last];
    set_ours(p, port->sock.bound.port, false);
    store_rls(&p->at[port->sock.bound.port], NULL);
}

/* The acquire pairs with the release of the control call that gives it another rule. */
bool session_admits(struct session *s, const struct rf_addr *source, uint64_t now, bool *by_network,
                    struct session **latching)
{
    const struct source_rule *rule = load_acq(&s->rule);

    *by_network = false;
    *latching = NULL;
    if (rule->has_exact && addr_equal(&rule->exact, source))
        return true;
    *by_network = true;
    if (rule->has_exact && rule->exact.port == 0 && rule->exact.scope == source->scope &&
        memcmp(rule->exact.ip, source->ip, sizeof source->ip) == 0)
        return true;
    *by_network = false;
    if (rule->kind == RULE_EXACT || !rule_covers(rule, source))
        return false;
    *by_network = rule->kind == RULE_ADMIT;
    if (rule->kind == RULE_LATCH || (rule->kind == RULE_RELATCH && session_may_relatch(s, rule, now)))
        *latching = s;
    return *by_network;
}
