#include "drops.h"

static const struct udp_errors UNKNOWN = {UINT64_MAX, UINT64_MAX};

/* Whether what came last might have found no room. */
static bool is_near_full(const struct sock_queue *q)
{
    return q->used > q->size - q->size / 8;
}

static struct udp_errors host_errors(const struct drops *d)
{
    struct udp_errors e;

    return snmp_read(&d->snmp, &e) == 0 ? e : UNKNOWN;
}

void drops_begin(struct drops *d, const struct sock *socks, uint32_t count, bool adopted)
{
    *d = (struct drops){0};
    snmp_open(&d->snmp);
    /* Of adopted ones it is not known since when they drop, but that nobody was reading. */
    d->near_full = adopted;
    if (!adopted)
        d->before = host_errors(d);
    for (uint32_t i = 0; i < count; i++) {
        struct sock_queue q = sock_queue(&socks[i]);

        d->near_full |= is_near_full(&q);
    }
}

void drops_end(struct drops *d)
{
    snmp_close(&d->snmp);
}

static uint32_t uncounted(const struct sock *s, uint32_t drops)
{
    return (drops - sock_note(s)) & SOCK_NOTE_MAX;
}

uint64_t drops_of_full_queue(uint64_t dropped, const struct udp_errors *host, bool near_full)
{
    uint64_t most = host->full < dropped ? host->full : dropped;
    uint64_t least = host->checksum < dropped ? dropped - host->checksum : 0;

    return near_full || least > most ? most : least;
}

/* `before` was read before the sockets were, and this is read after them: so nothing that a
 * socket has counted meanwhile is missing. */
static struct udp_errors since(const struct drops *d)
{
    struct udp_errors now = host_errors(d);

    if (now.full == UINT64_MAX || d->before.full == UINT64_MAX)
        return UNKNOWN;
    return (struct udp_errors){now.full - d->before.full, now.checksum - d->before.checksum};
}

static uint64_t take_others(const struct sock *const *others, uint32_t count, bool *near_full)
{
    uint64_t dropped = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct sock_queue q = sock_queue(others[i]);
        uint32_t more = uncounted(others[i], q.drops);

        *near_full |= is_near_full(&q);
        dropped += more;
        if (more > 0)
            sock_set_note(others[i], q.drops);
    }
    return dropped;
}

void drops_take(struct drops *d, const struct sock *socks, uint32_t count, const struct sock *deaf,
                const struct sock *const *others, uint32_t other_count)
{
    struct udp_errors before = host_errors(d), host = since(d);
    struct sock_queue queue[RF_MAX_WORKERS];
    uint64_t dropped = 0, refused = 0, of_others = 0;
    uint32_t heard = 0;
    bool near_full = false;

    for (uint32_t i = 0; i < count; i++) {
        queue[i] = sock_queue(&socks[i]);
        dropped += uncounted(&socks[i], queue[i].drops);
        near_full |= is_near_full(&queue[i]);
    }
    if (deaf) { /* after the others: so it may be ahead, and never behind */
        heard = sock_queue(deaf).drops;
        refused = (uint64_t)uncounted(deaf, heard) * (count - 1);
    }
    if (dropped < refused) /* one is on its way from socket to socket: next time */
        return;
    dropped -= refused;
    if (host.full > 0 || host.checksum > 0) /* or it is not known */
        of_others = take_others(others, other_count, &near_full);
    if (dropped + of_others > 0) {
        host = since(d);
        uint64_t full = drops_of_full_queue(dropped + of_others, &host,
                                            near_full || d->near_full);

        d->full += full;
        d->other += dropped + of_others - full;
    }
    if (dropped > 0 || refused > 0) {
        for (uint32_t i = 0; i < count; i++)
            sock_set_note(&socks[i], queue[i].drops);
        if (deaf)
            sock_set_note(deaf, heard);
    }
    d->before = before;
    d->near_full = near_full;
}
