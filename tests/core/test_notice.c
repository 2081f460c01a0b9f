/* notice.c and local.c: mailboxes, the datagrams that go there, and whose addresses are ours. */
#include "notice.h"

#include <pthread.h>

#include "endpoints.h"
#include "local.h"
#include "random.h"

static const uint8_t nowhere[16];

static void test_which_datagrams(void)
{
    static const struct {
        const char *bytes;
        size_t len;
        bool control;
    } cases[] = {
        {"RFO\x01", 4, true},   {"RFO\x01 and more", 13, true}, {"RFO\x01", 3, false},
        {"RFO\x02", 4, false},  {"RFO", 3, false},              {"", 0, false},
        {"rFO\x01", 4, false},  {"RFP\x01", 4, false},          {"\x80" "FO\x01", 4, false},
        {"RFO\x00\x01", 5, false}, {"RTP\x01", 4, false},
    };

    for (unsigned i = 0; i < COUNT(cases); i++)
        CHECK_EQ(notice_is_control((const uint8_t *)cases[i].bytes, cases[i].len), cases[i].control);
    /* Of all four-byte beginnings that differ in one bit, none. */
    for (unsigned bit = 0; bit < 32; bit++) {
        uint8_t p[4] = {'R', 'F', 'O', 1};

        p[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(!notice_is_control(p, 4));
    }
}

static void test_order_and_room(void)
{
    struct mailbox *m = mailbox_new();
    struct rf_addr source = address("127.0.0.1", 9);
    static uint8_t data[RF_CONTROL_MAX + 1];
    struct rf_notice n;

    CHECK(m != NULL);
    CHECK(!mailbox_take(m, &n));
    for (unsigned round = 0; round < 5; round++) { /* through the end of the ring */
        unsigned posted = 0;

        while (data[0] = (uint8_t)posted, mailbox_post_datagram(m, &source, nowhere, data, 1 + posted))
            posted++;
        CHECK_EQ(posted, NOTICE_SLOTS - NOTICE_RESERVE);
        while (mailbox_post_session(m, RF_NOTICE_SOURCE, 1000 + posted, &source))
            posted++;
        CHECK_EQ(posted, NOTICE_SLOTS);
        for (unsigned i = 0; i < posted; i++) {
            CHECK(mailbox_take(m, &n));
            CHECK(addr_equal(&n.source, &source));
            if (i < NOTICE_SLOTS - NOTICE_RESERVE)
                CHECK(n.kind == RF_NOTICE_DATAGRAM && n.len == i + 1 && n.data[0] == (uint8_t)i);
            else
                CHECK(n.kind == RF_NOTICE_SOURCE && n.handle == 1000 + i && n.len == 0);
        }
        CHECK(!mailbox_take(m, &n));
    }
    CHECK(mailbox_post_datagram(m, &source, nowhere, data, RF_CONTROL_MAX));
    CHECK(!mailbox_post_datagram(m, &source, nowhere, data, RF_CONTROL_MAX + 1));
    CHECK(mailbox_take(m, &n) && n.len == RF_CONTROL_MAX);
    free(m);
}

enum { POSTS = 200000 };

static void *post_all(void *argument)
{
    struct rf_addr source = address("127.0.0.1", 9);
    uint64_t random = 5;

    for (uint64_t i = 1; i <= POSTS;) {
        uint8_t data[64];
        size_t len = 8 + random_below(&random, 50);

        memset(data, (int)i, sizeof data);
        memcpy(data, &i, sizeof i);
        i += i % 3 ? mailbox_post_datagram(argument, &source, nowhere, data, len)
                   : mailbox_post_session(argument, RF_NOTICE_SOURCE, i, &source);
        if (random_below(&random, 200) == 0)
            sched_yield();
    }
    return NULL;
}

static void test_a_worker_and_the_control_plane(void)
{
    struct mailbox *m = mailbox_new();
    struct rf_notice n;
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, post_all, m) == 0);
    for (uint64_t i = 1, got; i <= POSTS; i++) {
        while (!mailbox_take(m, &n))
            sched_yield();
        if (i % 3 == 0) {
            CHECK(n.kind == RF_NOTICE_SOURCE && n.handle == i);
            continue;
        }
        memcpy(&got, n.data, sizeof got);
        CHECK(n.kind == RF_NOTICE_DATAGRAM && got == i);
        for (unsigned k = sizeof got; k < n.len; k++)
            CHECK_EQ(n.data[k], (uint8_t)i);
    }
    pthread_join(thread, NULL);
    CHECK(!mailbox_take(m, &n));
    free(m);
}

static void test_local_addresses(void)
{
    struct rf_addr addrs[300], other;

    for (unsigned i = 0; i < 300; i++) {
        addrs[i] = address(i % 2 ? "10.0.0.0" : "2001:db8::", (uint16_t)i);
        addrs[i].ip[14] = (uint8_t)(i * 37 >> 8);
        addrs[i].ip[15] = (uint8_t)(i * 37);
    }
    for (unsigned n = 0; n <= 300; n += 1 + n / 3) {
        struct local_set *set = local_set_new(addrs, n);

        CHECK(set != NULL);
        for (unsigned i = 0; i < 300; i++)
            CHECK_EQ(local_set_has(set, addrs[i].ip), i < n);
        other = address("10.0.255.255", 1);
        CHECK(!local_set_has(set, other.ip));
        free(set);
    }
}

static struct local_set *set_of(const char *const *ips, const uint32_t *interfaces, uint32_t n)
{
    struct rf_addr addrs[8];

    for (uint32_t i = 0; i < n; i++) {
        addrs[i] = address(ips[i], 0);
        addrs[i].scope = interfaces[i];
    }
    return local_set_new(addrs, n);
}

/* Whether there is something to choose: on an interface, and on the host. */
static void test_a_choice_of_addresses(void)
{
    static const struct {
        const char *ips[4];
        uint32_t interfaces[4], count;
        bool several, only_v4, only_v6;
    } cases[] = {
        {{"127.0.0.1", "10.0.0.1", "::1", "fe80::1"}, {1, 2, 1, 2}, 4, false, true, false},
        {{"10.0.0.1", "10.1.0.1", "fd00::1"}, {2, 3, 3}, 3, false, false, true},
        {{"10.0.0.1", "fd00::1", "169.254.0.1", "fe80::1"}, {2, 2, 2, 2}, 4, false, true, true},
        {{"10.0.0.1", "10.0.0.2"}, {2, 2}, 2, true, false, false},
        {{"fd00::1", "fd00::2", "10.0.0.1"}, {2, 2, 3}, 3, true, true, false},
        {{"10.0.0.1", "10.9.9.9"}, {2, LOOPBACK_INDEX}, 2, true, false, false},
        {{"127.0.0.1", "127.0.0.2"}, {1, 1}, 2, false, false, false},
    };

    for (unsigned i = 0; i < COUNT(cases); i++) {
        struct local_set *set = set_of(cases[i].ips, cases[i].interfaces, cases[i].count);

        CHECK(set != NULL);
        CHECK_EQ(set->several, cases[i].several);
        CHECK_EQ(ip_is_known(set->only[true]), cases[i].only_v4);
        CHECK_EQ(ip_is_known(set->only[false]), cases[i].only_v6);
        for (uint32_t k = 0; k < cases[i].count; k++) {
            struct rf_addr a = address(cases[i].ips[k], 0);

            CHECK_EQ(local_set_interface(set, a.ip),
                     ip_is_of_here(a.ip) ? 0 : cases[i].interfaces[k]);
        }
        free(set);
    }
}

int main(void)
{
    RUN(test_which_datagrams);
    RUN(test_order_and_room);
    RUN(test_a_worker_and_the_control_plane);
    RUN(test_local_addresses);
    RUN(test_a_choice_of_addresses);
    return 0;
}
