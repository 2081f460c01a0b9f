/* reporter.c: who of a list has RTCP, against a table that is as plain as can be. */
#include "reporter.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "random.h"

enum { MOST = 60 };

static struct subscriber subscribers[MOST];

static struct rf_addr addr_of(unsigned i, uint16_t more)
{
    struct rf_addr a = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = (uint8_t)i},
                        .port = (uint16_t)(5000 + 10 * i + more)};

    return a;
}

static void make_subscribers(int family)
{
    for (unsigned i = 0; i < MOST; i++) {
        struct rf_addr a = addr_of(i, 0);

        addr_to_sockaddr(&subscribers[i].name, &a, family);
        subscribers[i].since_ns = 1000 + 7 * i;
    }
}

static void check_set(const struct reporters *set, const enum rf_rtcp *has)
{
    uint32_t n = 0;

    for (unsigned i = 0; i < MOST; i++) {
        struct reporter *r = reporters_find(set, &subscribers[i]);
        struct rf_addr itself = addr_of(i, 0), next = addr_of(i, 1), far = addr_of(i, 2), to;

        CHECK_EQ(reporter_rtcp(r), has[i]);
        CHECK(reporters_match(set, &itself) == r);
        CHECK(reporters_match(set, &next) == r);
        CHECK(!reporters_match(set, &far));
        if (!r)
            continue;
        CHECK(r->subscriber == &subscribers[i]);
        addr_from_sockaddr(&to, &r->name);
        CHECK(addr_equal(&to, has[i] == RF_RTCP_NEXT_PORT ? &next : &itself));
        n++;
    }
    CHECK_EQ(set ? set->count : 0, n);
}

static void test_any_changes(int family)
{
    uint64_t random = 9;
    enum rf_rtcp has[MOST] = {0};
    struct reporters *set = NULL, *next;
    struct qsbr qsbr;

    qsbr_init(&qsbr);
    make_subscribers(family);
    for (unsigned round = 0; round < 3000; round++) {
        struct subscriber *who[MOST];
        unsigned n = random_below(&random, 8);
        enum rf_rtcp rtcp = random_below(&random, 3);
        bool changes = false, gives_up = random_below(&random, 4) == 0;

        for (unsigned k = 0; k < n; k++) {
            unsigned i = random_below(&random, MOST + 1);

            who[k] = i < MOST ? &subscribers[i] : NULL;
            changes |= i < MOST && has[i] != rtcp;
            if (i < MOST && !gives_up)
                has[i] = rtcp;
        }
        CHECK_EQ(reporters_change(set, who, n, rtcp, round + 1, &next), 0);
        CHECK(changes == (next != set));
        if (gives_up) {
            reporters_give_up(next, set);
        } else {
            if (next != set)
                CHECK_EQ(next->number, round + 1);
            reporters_retire(set, next, &qsbr);
            set = next;
        }
        if (round % 10 == 0)
            check_set(set, has);
    }
    qsbr_destroy(&qsbr);
    for (uint32_t i = 0; i < set->count; i++)
        free(set->item[i]);
    free(set);
}

static void test_ipv4(void)
{
    test_any_changes(AF_INET);
}

static void test_mapped(void)
{
    test_any_changes(AF_INET6);
}

/* Who keeps what it has keeps its record: with it what it reported. */
static void test_records_stay(void)
{
    struct subscriber *first = &subscribers[1], *both[] = {&subscribers[2], &subscribers[1]};
    struct reporters *one, *two;

    make_subscribers(AF_INET);
    CHECK_EQ(reporters_change(NULL, &first, 1, RF_RTCP_MUX, 1, &one), 0);
    CHECK_EQ(reporters_change(one, both, 2, RF_RTCP_MUX, 2, &two), 0);
    CHECK_EQ(two->count, 2);
    CHECK(two->item[0] == one->item[0]);
    CHECK_EQ(load_rlx(&two->item[0]->report.round_trip_us), UINT32_MAX);
    free(two->item[1]);
    free(two->item[0]);
    free(two);
    free(one);
}

int main(void)
{
    RUN(test_ipv4);
    RUN(test_mapped);
    RUN(test_records_stay);
    return 0;
}
