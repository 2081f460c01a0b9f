#include "egress.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>

enum { INTERRUPTS_BORNE = 64, PROBE_AFTER_SECS = 60 };

void batch_add(struct batch *b, const struct copy *copy, socklen_t name_len)
{
    struct msghdr *msg = &b->header[b->used].msg_hdr;
    struct group *g = copy->group;

    msg->msg_name = &copy->subscriber->name;
    msg->msg_namelen = name_len;
    msg->msg_iov = copy->packet ? &copy->packet->bytes : g->iov;
    msg->msg_iovlen = copy->packet ? 1 : g->iov_count;
    msg->msg_control = copy->packet || g->packets == 1 ? NULL : &g->control;
    msg->msg_controllen = msg->msg_control ? sizeof g->control : 0;
    b->copy[b->used++] = *copy;
}

bool egress_may_segment(struct subscriber *s, const struct group *g, uint32_t now_secs)
{
    if (g->segment <= s->segment_limit)
        return true;
    if ((int32_t)(now_secs - s->probe_at) < 0)
        return false;
    s->segment_limit = UINT16_MAX;
    return true;
}

enum send_failure egress_failure(int error)
{
    switch (error) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return FAILED_would_block;
    case ENOBUFS:
    case ENOMEM:
        return FAILED_no_buffer;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case ENODEV:
    case ENXIO:
    case EADDRNOTAVAIL:
    case ECONNREFUSED:
        return FAILED_unreachable;
    case EPERM:
    case EACCES:
        return FAILED_denied;
    case EMSGSIZE:
        return FAILED_too_big;
    case EINVAL:
    case EAFNOSUPPORT:
    case EDESTADDRREQ:
        return FAILED_invalid;
    default:
        return FAILED_other;
    }
}

bool egress_has_gso(int fd)
{
    int segment;
    socklen_t len = sizeof segment;

    return getsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, &len) == 0;
}

/* One flush: what may still be spent on errors that pass. */
struct flush {
    int fd;
    int wait_ms;
    int interrupts;
    uint32_t now_secs;
    struct worker_counters *counters;
};

/* Up to a millisecond; false when it can't be waited for. */
static bool wait_for_room(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 1) >= 0 || errno == EINTR;
}

static bool try_again(struct flush *f, int error)
{
    if (error == EINTR)
        return f->interrupts-- > 0;
    return error == EAGAIN && f->wait_ms-- > 0 && wait_for_room(f->fd);
}

static void count_sent(struct flush *f, const struct copy *c, uint32_t packets, uint64_t bytes)
{
    c->tally->packets_sent += packets;
    c->tally->bytes_sent += bytes;
    counter_add(&c->subscriber->packets_sent, packets);
    counter_add(&f->counters->copies_attempted, packets);
    counter_add(&f->counters->packets_sent, packets);
    counter_add(&f->counters->bytes_sent, bytes);
    counter_add(&f->counters->sends, 1);
}

static void count_failed(struct flush *f, const struct copy *c, uint32_t packets, int error)
{
    c->tally->packets_failed += packets;
    counter_add(&c->subscriber->send_failures, packets);
    counter_add(&f->counters->copies_attempted, packets);
    stats_count_failures(f->counters, egress_failure(error), packets);
}

static uint32_t copy_packets(const struct copy *c)
{
    return c->packet ? 1 : c->group->packets;
}

static uint64_t copy_bytes(const struct copy *c)
{
    return c->packet ? c->packet->bytes.iov_len : c->group->bytes;
}

/* Until the probe a limit only falls: other groups for the subscriber may be in this batch. */
static void limit_segments(struct subscriber *s, uint16_t limit, uint32_t now_secs)
{
    if (limit < s->segment_limit)
        s->segment_limit = limit;
    s->probe_at = now_secs + PROBE_AFTER_SECS;
}

/* Counts the fallback and limits the subscriber; false when segmentation isn't at fault. */
static bool falls_back(struct flush *f, const struct copy *c, int error)
{
    if (copy_packets(c) == 1)
        return false;
    switch (error) {
    case EINVAL:
        counter_add(&f->counters->gso_fallback_invalid, 1);
        break;
    case EMSGSIZE:
        counter_add(&f->counters->gso_fallback_too_big, 1);
        break;
    case EIO:
        counter_add(&f->counters->gso_fallback_io, 1);
        break;
    default:
        return false;
    }
    limit_segments(c->subscriber, error == EIO ? 0 : (uint16_t)(c->group->segment - 1),
                   f->now_secs);
    return true;
}

static void send_singly(struct flush *f, const struct copy *c, const struct msghdr *segmented)
{
    struct packet *p = c->group->first;

    for (uint32_t i = 0; i < c->group->packets; i++, p = p->next) {
        struct msghdr msg = {
            .msg_name = segmented->msg_name,
            .msg_namelen = segmented->msg_namelen,
            .msg_iov = &p->bytes,
            .msg_iovlen = 1,
        };
        int error;

        do
            error = sendmsg(f->fd, &msg, MSG_DONTWAIT) < 0 ? errno : 0;
        while (error && try_again(f, error));
        if (error)
            count_failed(f, c, 1, error);
        else
            count_sent(f, c, 1, p->bytes.iov_len);
    }
}

void egress_flush(int fd, struct batch *b, struct worker_counters *counters, int wait_ms,
                  uint32_t now_secs)
{
    struct flush f = {fd, wait_ms, INTERRUPTS_BORNE, now_secs, counters};
    unsigned done = 0;

    while (done < b->used) {
        int n = sendmmsg(fd, b->header + done, b->used - done, MSG_DONTWAIT);
        int error = n < 0 ? errno : EIO;

        if (n > 0) {
            for (unsigned end = done + (unsigned)n; done < end; done++)
                count_sent(&f, &b->copy[done], copy_packets(&b->copy[done]),
                           copy_bytes(&b->copy[done]));
            continue;
        }
        if (try_again(&f, error))
            continue;
        if (falls_back(&f, &b->copy[done], error))
            send_singly(&f, &b->copy[done], &b->header[done].msg_hdr);
        else
            count_failed(&f, &b->copy[done], copy_packets(&b->copy[done]), error);
        done++;
    }
}
