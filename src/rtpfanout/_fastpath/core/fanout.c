#include "fanout.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <string.h>

/* Would `p` be right behind the group's packets: in length, number and bytes? */
static bool group_takes(const struct group *g, const struct packet *last, const struct packet *p)
{
    return last->bytes.iov_len == g->segment && p->bytes.iov_len <= g->segment &&
           p->bytes.iov_len > 0 && g->packets < GROUP_PACKETS &&
           g->bytes + p->bytes.iov_len <= GROUP_BYTES;
}

/* Packets of one GRO buffer lie side by side: they extend the iovec. */
static void group_append(struct group *g, struct fanout_room *room, const struct packet *p)
{
    struct iovec *tail = g->iov_count ? &g->iov[g->iov_count - 1] : NULL;

    if (tail && (uint8_t *)tail->iov_base + tail->iov_len == (uint8_t *)p->bytes.iov_base) {
        tail->iov_len += p->bytes.iov_len;
    } else {
        g->iov[g->iov_count++] = p->bytes;
        room->iovs_used++;
    }
    g->packets++;
    g->bytes += (uint32_t)p->bytes.iov_len;
}

static void group_start(struct group *g, struct fanout_room *room, struct packet *first)
{
    g->first = first;
    g->packets = g->bytes = g->iov_count = 0;
    g->segment = (uint16_t)first->bytes.iov_len;
    g->iov = &room->iovs[room->iovs_used];
    g->control.align = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof g->segment),
        .cmsg_level = IPPROTO_UDP,
        .cmsg_type = UDP_SEGMENT,
    };
    memcpy(CMSG_DATA(&g->control.align), &g->segment, sizeof g->segment);
    group_append(g, room, first);
}

uint32_t fanout_cut(const struct run *run, bool gso, struct fanout_room *room)
{
    uint32_t first = room->groups_used;
    struct group *g = NULL;
    struct packet *last = NULL;

    for (struct packet *p = run->first; p; last = p, p = p->next) {
        if (gso && g && group_takes(g, last, p)) {
            group_append(g, room, p);
        } else {
            g = &room->groups[room->groups_used++];
            group_start(g, room, p);
        }
    }
    return room->groups_used - first;
}

void fanout_start(struct fanout *f, struct session *s, bool gso, struct fanout_room *room,
                  uint32_t now_secs, socklen_t name_len)
{
    struct group *groups = &room->groups[room->groups_used];

    *f = (struct fanout){
        .session = s,
        /* Pairs with the release in engine.c that publishes a list. */
        .subscribers = load_acq(&s->subscribers),
        .group = groups,
        .groups_end = groups,
        .now_secs = now_secs,
        .name_len = name_len,
    };
    if (f->subscribers->count == 0)
        return;
    f->rotation = s->rotation++ % f->subscribers->count;
    f->groups_end += fanout_cut(&s->run, gso, room);
}

static struct subscriber *next_subscriber(const struct fanout *f)
{
    uint32_t i = f->rotation + f->served, count = f->subscribers->count;

    return f->subscribers->item[i < count ? i : i - count];
}

/* One entry for the subscriber at hand; true when it then has all of the group. */
static bool add_copy(struct fanout *f, struct batch *b)
{
    struct copy c = {
        .session = f->session,
        .subscriber = next_subscriber(f),
        .group = f->group,
        .last = f->served == f->subscribers->count - 1,
    };

    if (f->singly == 0 && f->group->packets > 1 &&
        !egress_may_segment(c.subscriber, f->group, f->now_secs)) {
        f->packet = f->group->first;
        f->singly = f->group->packets;
    }
    if (f->singly > 0) {
        c.packet = f->packet;
        f->packet = f->packet->next;
        f->singly--;
        c.last = c.last && f->singly == 0;
    }
    batch_add(b, &c, f->name_len);
    return f->singly == 0;
}

bool fanout_fill(struct fanout *f, struct batch *b)
{
    for (; f->group < f->groups_end; f->group++, f->served = 0) {
        while (f->served < f->subscribers->count) {
            if (b->used == EGRESS_BATCH)
                return false;
            if (add_copy(f, b))
                f->served++;
        }
    }
    return true;
}

void fanout_observe(struct batch *b, struct latency_histogram *h, uint64_t realtime_now)
{
    for (unsigned i = 0; i < b->used; i++) {
        const struct group *g = b->copy[i].group;
        const struct packet *p = g->first;

        if (!b->copy[i].last)
            continue;
        for (uint32_t n = 0; n < g->packets; n++, p = p->next) {
            /* A clock that was set back gives 0, not an age of centuries. */
            if (p->received_ns != 0)
                latency_record(h, realtime_now > p->received_ns ? realtime_now - p->received_ns : 0);
        }
    }
    b->used = 0;
}
