/* notice.c and local.c: mailboxes, how their rooms are shared, and whose addresses are ours. */
#include "notice.h"

#include <pthread.h>
#include <string.h>

#include "endpoints.h"
#include "local.h"
#include "random.h"

static const uint8_t nowhere[16];
static const enum notice_room shared_rooms[] = {ROOM_KNOWN, ROOM_INVITED, ROOM_MOVES, ROOM_STRANGERS};

/* With a key of which it is known that nobody here shares cells with another. */
static struct mailbox *new_mailbox(void)
{
    struct mailbox *m = mailbox_new();

    CHECK(m != NULL);
    m->key = (struct hash_key){1, 2};
    return m;
}

static bool post(struct mailbox *m, enum notice_room room, struct rf_addr source, uint32_t number)
{
    return mailbox_post_datagram(m, room, &source, nowhere, (uint8_t *)&number, sizeof number);
}

static uint32_t number_of(const struct rf_notice *n)
{
    uint32_t number;

    memcpy(&number, n->data, sizeof number);
    return number;
}

/* Somebody else each time, in another network. */
static struct rf_addr stranger(uint32_t number)
{
    struct rf_addr a = address("10.0.0.1", 5000);

    a.ip[13] = (uint8_t)(number >> 8);
    a.ip[14] = (uint8_t)number;
    return a;
}

static void test_the_rooms_are_all_there_is(void)
{
    struct mailbox *m = new_mailbox();
    uint32_t slots = 0;

    for (unsigned i = 0; i < ROOMS; i++) {
        CHECK(m->room[i].slot == m->slot + slots);
        slots += room_slots(i);
        CHECK(room_slots(i) <= ROOM_LARGEST && (room_slots(i) & (room_slots(i) - 1)) == 0);
    }
    CHECK_EQ(slots, ROOM_SLOTS);
    free(m);
}

static void test_order_and_room(void)
{
    struct mailbox *m = new_mailbox();
    struct rf_notice n;

    for (unsigned i = 0; i < COUNT(shared_rooms); i++) {
        enum notice_room room = shared_rooms[i];
        enum rf_queue queue = room_queue(room);
        uint32_t slots = room_slots(room);

        CHECK_EQ(queue, room == ROOM_KNOWN ? RF_QUEUE_KNOWN : RF_QUEUE_STRANGERS);
        for (uint32_t round = 0; round < 5; round++) { /* through the end of the ring */
            uint32_t posted = 0;

            while (posted < slots && post(m, room, stranger(posted), posted))
                posted++;
            CHECK(posted > slots - slots / 16); /* so many may share some cells */
            CHECK(!mailbox_take(m, !queue, &n));
            for (uint32_t k = 0; k < posted; k++) {
                CHECK(mailbox_take(m, queue, &n));
                struct rf_addr source = stranger(k);

                CHECK(addr_equal(&n.source, &source));
                CHECK(n.kind == RF_NOTICE_DATAGRAM && n.len == 4 && number_of(&n) == k);
            }
            CHECK(!mailbox_take(m, queue, &n));
        }
    }
    free(m);
}

static void test_the_longest(void)
{
    struct mailbox *m = new_mailbox();
    struct rf_addr source = stranger(1);
    static uint8_t data[RF_CONTROL_MAX + 1];
    struct rf_notice n;

    CHECK(mailbox_post_datagram(m, ROOM_KNOWN, &source, nowhere, data, RF_CONTROL_MAX));
    CHECK(!mailbox_post_datagram(m, ROOM_KNOWN, &source, nowhere, data, RF_CONTROL_MAX + 1));
    CHECK(mailbox_take(m, RF_QUEUE_KNOWN, &n) && n.len == RF_CONTROL_MAX);
    free(m);
}

static uint32_t fill(struct mailbox *m, enum notice_room room, struct rf_addr source)
{
    uint32_t posted = 0;

    while (post(m, room, source, posted))
        posted++;
    return posted;
}

/* A room that is full keeps nobody out of another, and notices about sessions are never kept out. */
static void test_rooms_are_apart(void)
{
    struct mailbox *m = new_mailbox();
    struct rf_addr source = stranger(0);
    struct rf_notice n;
    uint32_t waiting[RF_QUEUES] = {0}, sessions = 0;

    for (unsigned i = COUNT(shared_rooms); i-- > 0;) {
        for (uint32_t k = 0; k < 10 * room_slots(shared_rooms[i]); k++)
            waiting[room_queue(shared_rooms[i])] += post(m, shared_rooms[i], stranger(k), k);
        for (unsigned j = 0; j < i; j++) { /* the others are as they were */
            CHECK(post(m, shared_rooms[j], source, 0));
            waiting[room_queue(shared_rooms[j])]++;
        }
    }
    while (mailbox_post_session(m, RF_NOTICE_SOURCE, sessions, &source))
        sessions++;
    CHECK_EQ(sessions, room_slots(ROOM_SESSIONS));
    waiting[RF_QUEUE_KNOWN] += sessions;
    for (unsigned queue = 0; queue < RF_QUEUES; queue++) {
        bool first_of[ROOMS] = {false};

        for (uint32_t k = 0; k < waiting[queue]; k++) {
            CHECK(mailbox_take(m, queue, &n));
            if (n.kind == RF_NOTICE_SOURCE && !first_of[ROOM_SESSIONS]) {
                first_of[ROOM_SESSIONS] = true;
                CHECK(k < ROOMS); /* one of each room in turn */
                CHECK_EQ(n.len, 0);
            }
        }
        CHECK(!mailbox_take(m, queue, &n));
    }
    free(m);
}

/* Who floods has a fifth, his network half; whoever has nothing there finds a place. */
static void test_one_who_floods_leaves_room(void)
{
    for (unsigned i = 1; i < COUNT(shared_rooms); i++) {
        enum notice_room room = shared_rooms[i];
        struct mailbox *m = new_mailbox();
        struct rf_addr flooder = address("198.51.100.7", 1), neighbour = flooder, v6;
        uint32_t slots = room_slots(room), got = 0;

        for (uint32_t k = 0; k < 100 * slots; k++) {
            flooder.port = (uint16_t)k; /* ports make him no other */
            got += post(m, room, flooder, k);
        }
        CHECK(got >= slots / 5 && got <= slots / 5 + 1);
        for (uint32_t k = 0; k < 100 * slots; k++) {
            neighbour.ip[15] = (uint8_t)k;
            got += post(m, room, neighbour, k);
        }
        CHECK(got >= slots / 2 - 1 && got <= slots / 2 + 1);
        CHECK(post(m, room, address("203.0.113.9", 9), 0));
        v6 = address("2001:db8::1", 1);
        CHECK(fill(m, room, v6) <= slots / 8);
        v6.ip[15]++; /* the same host's /64 */
        CHECK(!post(m, room, v6, 0));
        CHECK(post(m, room, address("192.0.2.1", 9), 0));
        free(m);
    }
}

/* Among those who proved their address, port and all, it is that which has a fifth, and the host half. */
static void test_the_known_share_by_address_and_port(void)
{
    struct mailbox *m = new_mailbox();
    struct rf_addr one = address("198.51.100.7", 1), neighbour = address("198.51.100.8", 1);
    uint32_t slots = room_slots(ROOM_KNOWN), got = fill(m, ROOM_KNOWN, one);

    CHECK(got >= slots / 5 && got <= slots / 5 + 1);
    one.port++;
    CHECK(post(m, ROOM_KNOWN, one, 0));
    for (uint32_t k = 0; k < 10 * slots; k++) {
        one.port = (uint16_t)k;
        got += post(m, ROOM_KNOWN, one, k);
    }
    CHECK(got <= slots / 2 + 1);
    CHECK(post(m, ROOM_KNOWN, neighbour, 0));
    free(m);
}

/* However many flood, who comes now and then gets in as soon as something is read, and what was read
 * counts against nobody. */
static void test_places_are_given_back(void)
{
    struct mailbox *m = new_mailbox();
    struct rf_addr flooders[16], newcomer = address("203.0.113.9", 9);
    struct rf_notice n;
    uint64_t random = 3;
    unsigned of_newcomer = 0;

    for (unsigned i = 0; i < COUNT(flooders); i++)
        flooders[i] = stranger(i);
    for (unsigned round = 0; round < 20000; round++) {
        for (unsigned k = 0; k < 100; k++)
            post(m, ROOM_STRANGERS, flooders[random_below(&random, COUNT(flooders))], 1);
        if (round % 10 == 0)
            CHECK(post(m, ROOM_STRANGERS, newcomer, 2));
        for (unsigned k = 0; k < 30; k++) {
            CHECK(mailbox_take(m, RF_QUEUE_STRANGERS, &n));
            of_newcomer += number_of(&n) == 2;
        }
    }
    while (mailbox_take(m, RF_QUEUE_STRANGERS, &n))
        of_newcomer += number_of(&n) == 2;
    CHECK_EQ(of_newcomer, 2000);
    uint32_t got = fill(m, ROOM_STRANGERS, flooders[0]), slots = room_slots(ROOM_STRANGERS);

    CHECK(got >= slots / 5 && got <= slots / 5 + 1);
    free(m);
}

enum { POSTS = 200000 };

static bool post_one(struct mailbox *m, uint32_t i, uint64_t *random)
{
    struct rf_addr source = stranger(i);
    uint8_t data[RF_CONTROL_MAX];
    size_t len = 8 + random_below(random, 50);

    memset(data, (int)i, sizeof data);
    memcpy(data, &i, sizeof i);
    return i % 3 ? mailbox_post_datagram(m, ROOM_KNOWN, &source, nowhere, data, len)
                 : mailbox_post_session(m, RF_NOTICE_SOURCE, i, &source);
}

static void *post_all(void *argument)
{
    uint64_t random = 5;

    for (uint32_t i = 1; i <= POSTS;) {
        i += post_one(argument, i, &random);
        if (random_below(&random, 200) == 0)
            sched_yield();
    }
    return NULL;
}

/* In order within each room. */
static void test_a_worker_and_the_control_plane(void)
{
    struct mailbox *m = new_mailbox();
    struct rf_notice n;
    pthread_t thread;
    uint32_t datagram = 1, session = 3;

    CHECK(pthread_create(&thread, NULL, post_all, m) == 0);
    for (uint32_t i = 0; i < POSTS; i++) {
        while (!mailbox_take(m, RF_QUEUE_KNOWN, &n))
            sched_yield();
        if (n.kind == RF_NOTICE_SOURCE) {
            CHECK_EQ(n.handle, session);
            session += 3;
            continue;
        }
        CHECK_EQ(number_of(&n), datagram);
        for (unsigned k = sizeof datagram; k < n.len; k++)
            CHECK_EQ(n.data[k], (uint8_t)datagram);
        datagram += datagram % 3 == 1 ? 1 : 2;
    }
    pthread_join(thread, NULL);
    CHECK(!mailbox_take(m, RF_QUEUE_KNOWN, &n));
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
    RUN(test_the_rooms_are_all_there_is);
    RUN(test_order_and_room);
    RUN(test_the_longest);
    RUN(test_rooms_are_apart);
    RUN(test_one_who_floods_leaves_room);
    RUN(test_the_known_share_by_address_and_port);
    RUN(test_places_are_given_back);
    RUN(test_a_worker_and_the_control_plane);
    RUN(test_local_addresses);
    RUN(test_a_choice_of_addresses);
    return 0;
}
