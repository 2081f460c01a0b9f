/* awaited.c: whose consent is awaited, and that those who are not are hardly ever taken for them. */
#include "awaited.h"

#include "endpoints.h"

static struct awaited awaited;

static struct rf_addr subscriber(uint32_t number)
{
    struct rf_addr a = address("10.0.0.0", (uint16_t)number);

    memcpy(a.ip + 13, &number, 3);
    return a;
}

static void set_up(void)
{
    CHECK_EQ(awaited_init(&awaited), 0);
    awaited.key = (struct hash_key){1, 2};
}

static void test_those_and_no_others(void)
{
    enum { AWAITED = 1000, OTHERS = 100000 };
    unsigned mistaken = 0;

    set_up();
    for (uint32_t i = 0; i < AWAITED; i++) {
        struct rf_addr a = subscriber(i);

        CHECK(!awaited_has(&awaited, &a));
        awaited_change(&awaited, &a, true);
    }
    for (uint32_t i = 0; i < AWAITED + OTHERS; i++) {
        struct rf_addr a = subscriber(i);

        CHECK(i >= AWAITED || awaited_has(&awaited, &a));
        mistaken += i >= AWAITED && awaited_has(&awaited, &a);
    }
    CHECK(mistaken <= OTHERS / 1000); /* (1000 / 65536)^2 of them, by chance */
    for (uint32_t i = 0; i < AWAITED; i++) {
        struct rf_addr a = subscriber(i);

        awaited_change(&awaited, &a, false);
    }
    for (uint32_t i = 0; i < AWAITED + OTHERS; i++) {
        struct rf_addr a = subscriber(i);

        CHECK(!awaited_has(&awaited, &a));
    }
}

static void test_an_address_is_that_with_its_port_and_zone(void)
{
    struct rf_addr a = address("fe80::1", 7), port = a, scope = a, again = a;

    set_up();
    port.port++;
    scope.scope++;
    memset((uint8_t *)&again + offsetof(struct rf_addr, port) + sizeof again.port, 0x5a,
           sizeof again - offsetof(struct rf_addr, port) - sizeof again.port);
    awaited_change(&awaited, &a, true);
    CHECK(awaited_has(&awaited, &again)); /* whatever is in its padding */
    CHECK(!awaited_has(&awaited, &port) && !awaited_has(&awaited, &scope));
}

static void test_for_two_reasons(void)
{
    struct rf_addr a = address("192.0.2.1", 7);

    set_up();
    awaited_change(&awaited, &a, true);
    awaited_change(&awaited, &a, true);
    awaited_change(&awaited, &a, false);
    CHECK(awaited_has(&awaited, &a));
    awaited_change(&awaited, &a, false);
    CHECK(!awaited_has(&awaited, &a));
    awaited_change(&awaited, &a, false); /* none too many */
    awaited_change(&awaited, &a, true);
    CHECK(awaited_has(&awaited, &a));
}

/* More than a cell can count: then it is never taken for less than it was. */
static void test_a_full_cell_stays_full(void)
{
    struct rf_addr a = address("192.0.2.1", 7);

    set_up();
    for (unsigned i = 0; i < 300; i++)
        awaited_change(&awaited, &a, true);
    for (unsigned i = 0; i < 299; i++)
        awaited_change(&awaited, &a, false);
    CHECK(awaited_has(&awaited, &a));
}

int main(void)
{
    RUN(test_those_and_no_others);
    RUN(test_an_address_is_that_with_its_port_and_zone);
    RUN(test_for_two_reasons);
    RUN(test_a_full_cell_stays_full);
    return 0;
}
