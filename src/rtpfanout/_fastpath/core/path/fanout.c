#include "fanout.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#include "local.h"

enum { SPLIT_MAX = 64 }; /* shares of one session */

int plan_init(struct plan *p, uint32_t packets)
{
    memset(p, 0, sizeof *p);
    packets += PLAN_SHARES; /* a report has a share of its own */
    p->groups = malloc(packets * sizeof *p->groups);
    p->iovs = malloc(packets * sizeof *p->iovs);
    p->shares = malloc(PLAN_SHARES * sizeof *p->shares);
    return p->groups && p->iovs && p->shares ? 0 : -ENOMEM;
}

void plan_destroy(struct plan *p)
{
    free(p->groups);
    free(p->iovs);
    free(p->shares);
}

void plan_clear(struct plan *p)
{
    p->groups_used = p->iovs_used = p->shares_used = 0;
    p->entries = p->due = 0;
}

bool plan_has_room(const struct plan *p)
{
    return p->shares_used + SPLIT_MAX <= PLAN_SHARES;
}

/* Packets of one GRO buffer lie side by side: they extend the iovec. */
static void group_append(struct plan *plan, struct group *g, const struct packet *p)
{
    struct iovec *tail = g->iov_count ? &g->iov[g->iov_count - 1] : NULL;

    if (tail && (uint8_t *)tail->iov_base + tail->iov_len == (uint8_t *)p->bytes.iov_base) {
        tail->iov_len += p->bytes.iov_len;
    } else {
        g->iov[g->iov_count++] = p->bytes;
        plan->iovs_used++;
    }
    g->packets++;
    g->bytes += (uint32_t)p->bytes.iov_len;
}

static struct group *group_new(struct plan *plan, struct session *s, struct packet *first)
{
    struct group *g = &plan->groups[plan->groups_used++];

    *g = (struct group){
        .session = s,
        .first = first,
        .segment = (uint16_t)first->bytes.iov_len,
        .iov = &plan->iovs[plan->iovs_used],
    };
    group_tell(g, first->mark);
    group_append(plan, g, first);
    return g;
}

struct cut {
    struct group *first, *end;
};

static struct cut cut_run(struct plan *plan, struct session *s, const struct run *run)
{
    struct cut cut = {.first = &plan->groups[plan->groups_used]};
    struct group *g = NULL;

    for (struct packet *p = run->first; p; p = p->next) {
        if (g && p->group_packets > 1)
            group_append(plan, g, p);
        else
            g = group_new(plan, s, p);
    }
    cut.end = &plan->groups[plan->groups_used];
    return cut;
}

/* Number i in serving order. */
static struct subscriber *in_order(const struct subscriber_list *list, uint32_t rotation,
                                   uint32_t i)
{
    i += rotation;
    return list->item[i < list->count ? i : i - list->count];
}

static bool is_withheld(const struct subscriber_list *list, uint32_t rotation, uint32_t i)
{
    return load_rlx(&in_order(list, rotation, i)->withheld) != 0;
}

/* Leaves those between the first and the last that get something. */
static void trim(struct audience *a)
{
    if (subscribers_served(a->list) == 0)
        a->begin = a->end;
    while (a->begin < a->end && is_withheld(a->list, a->rotation, a->begin))
        a->begin++;
    while (a->end > a->begin && is_withheld(a->list, a->rotation, a->end - 1))
        a->end--;
}

static uint32_t run_packets(const struct run *run)
{
    uint32_t n = 0;

    for (const struct packet *p = run->first; p; p = p->next)
        n++;
    return n;
}

/* How many subscribers a share of `groups` groups is to have. */
static uint32_t share_width(uint32_t groups, uint32_t count, bool split)
{
    uint32_t by_entries = (SHARE_ENTRIES + groups - 1) / groups;
    uint32_t by_number = (count + SPLIT_MAX - 1) / SPLIT_MAX;

    if (!split)
        return count;
    return by_entries > by_number ? by_entries : by_number;
}

/* What goes out to whom, in shares; the first has what those that were trimmed don't get. */
static void share_out(struct plan *p, struct session *s, struct cut what, const struct audience *who,
                      bool split)
{
    uint32_t groups = (uint32_t)(what.end - what.first);
    uint32_t width = share_width(groups, who->end - who->begin, split);

    for (uint32_t begin = who->begin; begin < who->end; begin += width) {
        p->shares[p->shares_used++] = (struct share){
            .session = s,
            .subscribers = who->list,
            .rotation = who->rotation,
            .begin = begin,
            .end = begin + width < who->end ? begin + width : who->end,
            .first = who->begin,
            .last = who->end - 1,
            .sparse = who->sparse,
            .served = begin,
            .group = what.first,
            .groups_end = what.end,
        };
    }
    p->entries += (uint64_t)groups * (who->end - who->begin);
}

void plan_run(struct plan *p, struct session *s, const struct run *run, struct audience who,
              bool split)
{
    uint32_t asked = who.end - who.begin;
    struct share *first = &p->shares[p->shares_used];

    if (who.sparse)
        trim(&who);
    if (who.begin < who.end)
        share_out(p, s, cut_run(p, s, run), &who, split);
    else /* it serves nobody, and says so */
        p->shares[p->shares_used++] = (struct share){.session = s};
    if (who.sparse)
        first->tally.packets_withheld =
            (uint64_t)run_packets(run) * (asked - (who.end - who.begin));
}

void plan_session(struct plan *p, struct session *s, bool split)
{
    /* Pairs with the release in subscription.c that publishes a list. */
    const struct subscriber_list *list = load_acq(&s->subscribers);

    if (list->count == 0)
        return;
    /* Whoever is withheld while this turn goes on may still get its packets: that call waits
     * for the grace period. */
    struct audience all = {
        .list = list,
        .rotation = s->rotation++ % list->count,
        .end = list->count,
        .sparse = load_rlx(&list->withheld) > 0,
    };

    p->due += (uint64_t)run_packets(&s->run) * list->count;
    plan_run(p, s, &s->run, all, split);
}

void plan_report(struct plan *p, struct session *s, const struct subscriber_list *list, uint64_t now)
{
    feedback_pass(s->feedback, list->reporters, now);
    struct group *g = group_new(p, s, &s->feedback->packet);

    p->shares[p->shares_used++] = (struct share){
        .session = s,
        .subscribers = list,
        .end = list->reporters->count,
        .group = g,
        .groups_end = g + 1,
        .reporters = list->reporters,
        .report_ns = now,
    };
    p->entries += list->reporters->count;
}

/* Neighbours in the list share a lane, so that one sendmmsg takes many. */
static uint8_t lane_of(const struct share *s, uint32_t i, uint32_t count, unsigned lanes)
{
    if (lanes < 2)
        return 0;
    return (uint8_t)(((uint64_t)i * lanes / count + s->session->index) % lanes);
}

/* The address that the session's source speaks to, for those it can be for. */
static const uint8_t *heard_for(const struct session *s, const struct delivery *d)
{
    bool is_there = s->heard_interface != 0 && (s->heard_interface == d->interface ||
                                                s->heard_interface == LOOPBACK_INDEX);

    return is_there && ip_is_ipv4(s->heard) == d->ipv4 ? s->heard : NULL;
}

/* From which of our addresses the copy is to leave, if that is not left to the kernel. */
static void choose_address(const struct share *s, const struct batch *b, struct copy *c,
                           uint32_t now_secs)
{
    struct delivery *d =
        delivery_at(s->subscribers->deliveries, subscriber_delivery(c->subscriber));
    const uint8_t *from = !d ? NULL : d->interface ? heard_for(s->session, d) : d->from;

    if (!from || (b->local && memcmp(from, b->local->only[d->ipv4], 16) == 0))
        return;
    c->delivery = d;
    if ((int32_t)(now_secs - load_rlx(&d->lame_until)) >= 0)
        c->from = from;
}

/* One entry for the subscriber at hand; true when it then has all of the group. */
static bool add_copy(struct share *s, struct batch *b, uint32_t now_secs, socklen_t name_len)
{
    uint32_t count = s->subscribers->count, i = s->rotation + s->served;

    if (i >= count)
        i -= count;
    struct subscriber *to = s->subscribers->item[i];
    struct copy c = {
        .tally = &s->tally,
        .subscriber = to,
        .name = &to->name,
        .lane = lane_of(s, i, count, b->lanes),
        .group = s->group,
        .first = s->served == s->first,
        .last = s->served == s->last,
    };

    if (s->subscribers->deliveries)
        choose_address(s, b, &c, now_secs);
    if (s->singly == 0 && s->group->packets > 1 &&
        !egress_may_segment(c.subscriber, s->group, now_secs)) {
        s->packet = s->group->first;
        s->singly = s->group->packets;
    }
    if (s->singly > 0) {
        c.packet = s->packet;
        s->packet = s->packet->next;
        s->singly--;
    }
    batch_add(b, &c, name_len);
    return s->singly == 0;
}

uint64_t share_entries(const struct share *s)
{
    return (uint64_t)(s->groups_end - s->group) * (s->end - s->begin);
}

/* Not in the middle of a group that goes packet by packet. */
static bool passes_over(const struct share *s)
{
    return s->sparse && s->singly == 0 && s->served != s->first && s->served != s->last &&
           is_withheld(s->subscribers, s->rotation, s->served);
}

static bool fill_reports(struct share *s, struct batch *b, uint32_t now_secs, socklen_t name_len)
{
    uint32_t number = s->session->feedback->report_number;

    for (; s->served < s->end; s->served++) {
        struct reporter *r = s->reporters->item[s->served];

        if (r->passed == number || load_rlx(&r->subscriber->withheld))
            continue;
        if (b->used == EGRESS_BATCH)
            return false;
        struct copy c = {
            .tally = &s->tally,
            .subscriber = r->subscriber,
            .name = &r->name,
            .lane = lane_of(s, s->served, s->end, b->lanes),
            .group = s->group,
        };

        if (s->subscribers->deliveries)
            choose_address(s, b, &c, now_secs);
        batch_add(b, &c, name_len);
        r->passed = number;
        r->passed_ns = s->report_ns;
    }
    s->group = s->groups_end;
    return true;
}

bool share_fill(struct share *s, struct batch *b, uint32_t now_secs, socklen_t name_len)
{
    if (s->reporters)
        return fill_reports(s, b, now_secs, name_len);
    for (; s->group < s->groups_end; s->group++, s->served = s->begin) {
        while (s->served < s->end) {
            if (passes_over(s)) {
                s->tally.packets_withheld += s->group->packets;
                s->served++;
                continue;
            }
            if (b->used == EGRESS_BATCH)
                return false;
            if (add_copy(s, b, now_secs, name_len))
                s->served++;
        }
    }
    return true;
}

/* A subscriber that takes packets one by one marks each; the last mark stands. */
void batch_settle(struct batch *b, uint64_t realtime_now)
{
    for (unsigned i = 0; i < b->used; i++) {
        if (b->copy[i].first)
            b->copy[i].group->first_ns = realtime_now;
        if (b->copy[i].last)
            b->copy[i].group->last_ns = realtime_now;
    }
    b->used = 0;
}
