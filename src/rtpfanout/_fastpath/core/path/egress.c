#include "egress.h"

#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>

enum { INTERRUPTS_BORNE = 64, PROBE_AFTER_SECS = 60, IMPATIENT_SECS = 1, LAME_SECS = 1 };

void group_tell(struct group *g, uint16_t mark)
{
    g->control.align = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof g->segment),
                                        .cmsg_level = IPPROTO_UDP,
                                        .cmsg_type = UDP_SEGMENT};
    memcpy(CMSG_DATA(&g->control.align), &g->segment, sizeof g->segment);
    g->control_len = SEGMENT_CONTROL;
    if (mark) {
        tos_to_control(g->control.bytes + SEGMENT_CONTROL, (uint8_t)mark);
        g->control_len += TOS_CONTROL;
    }
}

/* Of a group that begins at `control`, what goes with several of its packets, or with one. */
static void tell(struct msghdr *msg, void *control, size_t len, bool segmented)
{
    size_t begin = segmented ? 0 : SEGMENT_CONTROL;

    msg->msg_controllen = len > begin ? len - begin : 0;
    msg->msg_control = len > begin ? (char *)control + begin : NULL;
}

/* The entry before may have the same. */
static union told *told_of(struct batch *b, const struct copy *copy)
{
    const struct copy *before = b->used > 0 ? &b->copy[b->used - 1] : NULL;

    if (before && before->from == copy->from && before->group == copy->group)
        return &b->told[b->told_used - 1];
    union told *told = &b->told[b->told_used++];

    memcpy(told->bytes, &copy->group->control, copy->group->control_len);
    addr_to_control((struct cmsghdr *)(told->bytes + copy->group->control_len), copy->from,
                    copy->subscriber->name.any.sa_family);
    return told;
}

static void add_control(struct batch *b, struct msghdr *msg, const struct copy *copy)
{
    bool segmented = !copy->packet && copy->group->packets > 1;
    size_t len = copy->group->control_len;

    if (!copy->from && len == SEGMENT_CONTROL) { /* of most, by the shortest way */
        msg->msg_control = segmented ? &copy->group->control : NULL;
        msg->msg_controllen = segmented ? SEGMENT_CONTROL : 0;
        return;
    }
    if (!copy->from) {
        tell(msg, &copy->group->control, len, segmented);
        return;
    }
    len += copy->subscriber->name.any.sa_family == AF_INET ? CMSG_SPACE(sizeof(struct in_pktinfo))
                                                           : CMSG_SPACE(sizeof(struct in6_pktinfo));
    tell(msg, told_of(b, copy), len, segmented);
}

void batch_add(struct batch *b, const struct copy *copy, socklen_t name_len)
{
    struct msghdr *msg = &b->header[b->used].msg_hdr;
    struct group *g = copy->group;

    if (b->used == 0)
        b->told_used = 0;
    msg->msg_name = (void *)copy->name;
    msg->msg_namelen = name_len;
    msg->msg_iov = copy->packet ? &copy->packet->bytes : g->iov;
    msg->msg_iovlen = copy->packet ? 1 : g->iov_count;
    add_control(b, msg, copy);
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
    struct egress *egress;
    unsigned lane; /* of the entry at hand */
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

static bool worth_waiting(struct flush *f)
{
    uint32_t *until = &f->egress->impatient_until[f->lane];

    if ((int32_t)(f->now_secs - *until) < 0)
        return false;
    if (f->wait_ms-- > 0)
        return true;
    *until = f->now_secs + IMPATIENT_SECS;
    return false;
}

static bool try_again(struct flush *f, int error)
{
    if (error == EINTR)
        return f->interrupts-- > 0;
    return error == EAGAIN && worth_waiting(f) && wait_for_room(f->egress->fd[f->lane]);
}

/* What has left: of one copy, or of several. */
struct sent {
    uint64_t sends, packets, bytes, without_address;
};

static void add_sent(struct sent *all, const struct copy *c, uint32_t packets, uint64_t bytes)
{
    c->tally->packets_sent += packets;
    c->tally->bytes_sent += bytes;
    counter_add(&c->subscriber->packets_sent, packets);
    all->sends++;
    all->packets += packets;
    all->bytes += bytes;
    if (c->delivery && !c->from)
        all->without_address += packets;
}

static void count_sent(struct flush *f, const struct sent *all)
{
    counter_add(&f->counters->copies_attempted, all->packets);
    counter_add(&f->counters->packets_sent, all->packets);
    counter_add(&f->counters->bytes_sent, all->bytes);
    counter_add(&f->counters->sends, all->sends);
    counter_add(&f->counters->egress_address_missing, all->without_address);
}

static void count_one(struct flush *f, const struct copy *c, uint32_t packets, uint64_t bytes)
{
    struct sent one = {0};

    add_sent(&one, c, packets, bytes);
    count_sent(f, &one);
}

/* The kernel says EINVAL of a blackhole route: it is not the destination that is wrong. */
static enum send_failure failure_of(const struct copy *c, int error)
{
    return error == EINVAL && sockaddr_is_definite(&c->subscriber->name) ? FAILED_unreachable
                                                                         : egress_failure(error);
}

static void count_failed(struct flush *f, const struct copy *c, uint32_t packets, int error)
{
    c->tally->packets_failed += packets;
    counter_add(&c->subscriber->send_failures, packets);
    counter_add(&f->counters->copies_attempted, packets);
    stats_count_failures(f->counters, failure_of(c, error), packets);
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

static bool may_be_of_segmentation(const struct copy *c, int error)
{
    return copy_packets(c) > 1 && (error == EINVAL || error == EMSGSIZE || error == EIO);
}

static void note_fallback(struct flush *f, const struct copy *c, int error)
{
    counter_add(error == EINVAL     ? &f->counters->gso_fallback_invalid
                : error == EMSGSIZE ? &f->counters->gso_fallback_too_big
                                    : &f->counters->gso_fallback_io,
                1);
    limit_segments(c->subscriber, error == EIO ? 0 : (uint16_t)(c->group->segment - 1),
                   f->now_secs);
}

/* 0 or an errno. */
static int send_one(struct flush *f, const struct msghdr *msg)
{
    int error;

    do
        error = sendmsg(f->egress->fd[f->lane], msg, MSG_DONTWAIT) < 0 ? errno : 0;
    while (error && try_again(f, error));
    return error;
}

/* The message of `packets` again, and the kernel chooses the address. 0 or an errno. */
static int send_from_any(struct flush *f, struct copy *c, struct msghdr msg, uint32_t packets,
                         int error)
{
    if (!c->from || !addr_may_be_gone(error))
        return error;
    tell(&msg, &c->group->control, c->group->control_len, packets > 1);
    error = send_one(f, &msg);
    if (error == 0) {
        c->from = NULL;
        store_rlx(&c->delivery->lame_until, f->now_secs + LAME_SECS);
    }
    return error;
}

/* `why` the whole group was refused. */
static void send_singly(struct flush *f, struct copy *c, const struct msghdr *segmented, int why)
{
    struct packet *p = c->group->first;

    for (uint32_t i = 0; i < c->group->packets; i++, p = p->next) {
        struct msghdr msg = {
            .msg_name = segmented->msg_name,
            .msg_namelen = segmented->msg_namelen,
            .msg_iov = &p->bytes,
            .msg_iovlen = 1,
        };

        tell(&msg, segmented->msg_control, segmented->msg_controllen, false);
        int error = send_from_any(f, c, msg, 1, send_one(f, &msg));

        if (i == 0 && why == EINVAL && error == EINVAL) {
            count_failed(f, c, c->group->packets, error);
            return;
        }
        if (i == 0)
            note_fallback(f, c, why);
        if (error)
            count_failed(f, c, 1, error);
        else
            count_one(f, c, 1, p->bytes.iov_len);
    }
}

/* The entry at fault. */
static void settle_failed(struct flush *f, struct copy *c, const struct msghdr *msg, int error)
{
    uint32_t packets = copy_packets(c);

    error = send_from_any(f, c, *msg, packets, error);
    if (error == 0)
        count_one(f, c, packets, copy_bytes(c));
    else if (may_be_of_segmentation(c, error))
        send_singly(f, c, msg, error);
    else
        count_failed(f, c, packets, error);
}

/* The entries from `begin` on of a delivery whose address is not there are not told of it either. */
static void untell(struct batch *b, unsigned begin, const struct delivery *lame)
{
    for (unsigned i = begin; i < b->used; i++) {
        if (b->copy[i].delivery != lame)
            continue;
        b->copy[i].from = NULL;
        add_control(b, &b->header[i].msg_hdr, &b->copy[i]);
    }
}

/* The entries from `begin` to before `end`. */
static void settle_sent(struct flush *f, const struct batch *b, unsigned begin, unsigned end)
{
    struct sent all = {0};

    for (unsigned i = begin; i < end; i++)
        add_sent(&all, &b->copy[i], copy_packets(&b->copy[i]), copy_bytes(&b->copy[i]));
    count_sent(f, &all);
}

/* Behind the last of the entries from `begin` that leave by the same lane. */
static unsigned same_lane(const struct batch *b, unsigned begin)
{
    unsigned end = begin + 1;

    while (end < b->used && b->copy[end].lane == b->copy[begin].lane)
        end++;
    return end;
}

void egress_flush(struct egress *e, struct batch *b, struct worker_counters *counters, int wait_ms,
                  uint32_t now_secs)
{
    struct flush f = {e, 0, wait_ms, INTERRUPTS_BORNE, now_secs, counters};
    unsigned done = 0;

    while (done < b->used) {
        f.lane = b->copy[done].lane;
        int n = sendmmsg(e->fd[f.lane], b->header + done, same_lane(b, done) - done, MSG_DONTWAIT);
        int error = n < 0 ? errno : EIO;

        if (n > 0) {
            settle_sent(&f, b, done, done + (unsigned)n);
            done += (unsigned)n;
            continue;
        }
        if (try_again(&f, error))
            continue;
        settle_failed(&f, &b->copy[done], &b->header[done].msg_hdr, error);
        if (b->copy[done].delivery && !b->copy[done].from)
            untell(b, done + 1, b->copy[done].delivery);
        done++;
    }
}
