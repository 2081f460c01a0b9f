/* delivery.c: the numbers of a table, and what is told with a copy. */
#include "fanout.h"

#include <stdlib.h>

#include "endpoints.h"

static struct delivery from(unsigned n)
{
    struct rf_addr a = address("10.0.0.0", 0);
    struct delivery d = {.ipv4 = true};

    memcpy(d.from, a.ip, sizeof d.from);
    d.from[15] = (uint8_t)n;
    return d;
}

static void test_numbers_stay_and_are_given_away_last(void)
{
    struct delivery_table *table = NULL, *next;

    for (unsigned n = 1; n < DELIVERIES; n++) {
        struct delivery wanted = from(n);

        CHECK_EQ(delivery_find(table, &wanted), DELIVERY_USUAL);
        CHECK_EQ(delivery_add(table, 0, &wanted, &next), (int)n); /* though no number is in use */
        free(table);
        table = next;
        for (unsigned k = 1; k <= n; k++) {
            wanted = from(k);
            CHECK_EQ(delivery_find(table, &wanted), k);
        }
    }
    struct delivery one_more = from(99);

    CHECK_EQ(delivery_add(table, UINT32_MAX, &one_more, &next), DELIVERY_USUAL);
    CHECK_EQ(delivery_add(table, ~(UINT32_C(1) << 17), &one_more, &next), 17);
    CHECK_EQ(delivery_find(next, &one_more), 17);
    CHECK(delivery_at(next, DELIVERY_USUAL) == NULL);
    CHECK(delivery_at(next, 17) == &next->item[17]);
    CHECK(delivery_at(NULL, 17) == NULL);
    free(next);
    free(table);
}

static void test_a_later_number_is_the_usual_one_to_an_older_table(void)
{
    struct delivery_table *table;
    struct delivery one = from(1);

    CHECK_EQ(delivery_add(NULL, 0, &one, &table), 1);
    CHECK(delivery_at(table, 1) != NULL);
    CHECK(delivery_at(table, 2) == NULL);
    free(table);
}

static void test_what_differs_is_another(void)
{
    struct delivery_table *table;
    struct delivery one = from(1), other = one;

    CHECK_EQ(delivery_add(NULL, 0, &one, &table), 1);
    other.interface = 3;
    CHECK_EQ(delivery_find(table, &other), DELIVERY_USUAL);
    other = one;
    other.ipv4 = false;
    CHECK_EQ(delivery_find(table, &other), DELIVERY_USUAL);
    free(table);
}

static struct batch batch;
static struct packet packets[2];
static struct iovec iov;

static struct copy copy_for(struct subscriber *s, struct group *g, struct delivery *d,
                            struct packet *p)
{
    return (struct copy){.subscriber = s,
                         .name = &s->name,
                         .group = g,
                         .packet = p,
                         .delivery = d,
                         .from = d ? d->from : NULL};
}

/* The control message of the n-th entry: neighbours alike share one. */
static const struct msghdr *entry(unsigned n)
{
    return &batch.header[n].msg_hdr;
}

static bool tells(const struct msghdr *msg, int level, int type)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR((struct msghdr *)msg, c)) {
        if (c->cmsg_level == level && c->cmsg_type == type)
            return true;
    }
    return false;
}

static void test_what_is_told_with_a_copy(void)
{
    struct rf_addr to = address("127.0.0.1", 9);
    struct subscriber s = {0};
    struct delivery one = from(1), other = from(2);
    struct group g = {.packets = 2, .segment = 100, .iov = &iov, .iov_count = 1};

    CHECK(addr_to_sockaddr(&s.name, &to, AF_INET) != 0);
    group_tell(&g, 0);
    struct copy copies[] = {
        copy_for(&s, &g, &one, NULL),   copy_for(&s, &g, &one, NULL),
        copy_for(&s, &g, NULL, NULL),   copy_for(&s, &g, &one, NULL),
        copy_for(&s, &g, &other, NULL), copy_for(&s, &g, &other, &packets[0]),
    };

    for (unsigned round = 0; round < 3; round++) {
        batch.used = 0;
        for (unsigned i = 0; i < COUNT(copies); i++)
            batch_add(&batch, &copies[i], sizeof(struct sockaddr_in));
        for (unsigned i = 0; i < COUNT(copies); i++) {
            CHECK_EQ(tells(entry(i), IPPROTO_UDP, 103), i < 5);
            CHECK_EQ(tells(entry(i), IPPROTO_IP, IP_PKTINFO), i != 2);
        }
        CHECK(entry(0)->msg_control == entry(1)->msg_control);
        CHECK(entry(0)->msg_control != entry(3)->msg_control);
        CHECK(entry(2)->msg_control == &g.control);
        CHECK_EQ(batch.told_used, 3);
    }
}

/* Who is not told may stand first in each batch. */
static void test_each_batch_has_all_its_control_messages(void)
{
    struct rf_addr to = address("127.0.0.1", 9);
    struct subscriber s = {0};
    struct delivery two[] = {from(1), from(2)};
    struct group g = {.packets = 1, .segment = 100, .iov = &iov, .iov_count = 1};

    group_tell(&g, 0);
    CHECK(addr_to_sockaddr(&s.name, &to, AF_INET) != 0);
    for (unsigned round = 0; round < 3; round++) {
        batch.used = 0;
        for (unsigned i = 0; i < EGRESS_BATCH; i++) {
            struct copy copy = copy_for(&s, &g, i == 0 ? NULL : &two[i % 2], NULL);

            batch_add(&batch, &copy, sizeof(struct sockaddr_in));
            CHECK_EQ(batch.told_used, i);
        }
    }
}

static void test_control_messages_both_ways(void)
{
    static const char *const ips[] = {"10.1.2.3", "2001:db8::5"};
    union {
        struct cmsghdr align;
        char bytes[LOCAL_CONTROL];
    } control;

    for (unsigned i = 0; i < 2; i++) {
        struct rf_addr a = address(ips[i], 0);

        for (int v6 = (int)i; v6 < 2; v6++) { /* IPv4 by a socket of either family */
            uint8_t ip[16] = {0};

            CHECK(addr_to_control(&control.align, a.ip, v6 ? AF_INET6 : AF_INET) <= LOCAL_CONTROL);
            addr_from_control(ip, &control.align);
            CHECK(memcmp(ip, a.ip, 16) == 0);
        }
    }
    struct rf_addr groups[] = {address("239.0.0.1", 0), address("ff02::1", 0)};

    for (unsigned i = 0; i < 2; i++) {
        uint8_t ip[16] = {0};

        addr_to_control(&control.align, groups[i].ip, AF_INET6);
        addr_from_control(ip, &control.align);
        CHECK(!ip_is_known(ip));
    }
}

int main(void)
{
    RUN(test_numbers_stay_and_are_given_away_last);
    RUN(test_a_later_number_is_the_usual_one_to_an_older_table);
    RUN(test_what_differs_is_another);
    RUN(test_what_is_told_with_a_copy);
    RUN(test_each_batch_has_all_its_control_messages);
    RUN(test_control_messages_both_ways);
    return 0;
}
