/* repair.c: what is missing is asked for, as often as makes sense, and no more. */
#include "repair.h"

#include <string.h>

#include "check.h"
#include "random.h"

enum { SSRC = 0x1000 };

#define MS UINT64_C(1000000)

static struct repair r;
static uint16_t asked[REPAIR_AT_ONCE];

static bool take(uint16_t sequence, uint64_t ms)
{
    return repair_take(&r, SSRC, sequence, ms * MS);
}

static unsigned ask(uint64_t ms)
{
    return repair_ask(&r, asked, ms * MS);
}

static void begin_at(uint16_t sequence)
{
    memset(&r, 0, sizeof r);
    take(sequence, 1000);
}

static void test_three_later_ones_or_ten_milliseconds(void)
{
    begin_at(65534);
    take(1, 1000); /* 65535 and 0 are missing */
    CHECK_EQ(ask(1000), 0);
    take(2, 1001);
    CHECK_EQ(ask(1001), 1);
    CHECK_EQ(asked[0], 65535);
    take(3, 1002);
    CHECK_EQ(ask(1002), 1);
    CHECK_EQ(asked[0], 0);
    take(5, 1003);
    CHECK_EQ(ask(1004), 0);
    CHECK_EQ(ask(1013), 1);
    CHECK_EQ(asked[0], 4);
}

static void test_disorder_is_asked_for_by_nobody(void)
{
    begin_at(10);
    take(12, 1000);
    CHECK(!take(11, 1001)); /* nobody had asked for it */
    take(13, 1002);
    take(14, 1003);
    CHECK_EQ(ask(1003), 0);
    CHECK_EQ(ask(1500), 0);
}

/* Once in what it takes, which is learned; ten times in all. */
static void test_once_a_round_trip(void)
{
    unsigned times = 0;

    begin_at(10);
    take(15, 1000);
    CHECK_EQ(ask(1000), 2); /* 11 and 12 are three behind */
    CHECK(take(11, 1050));
    CHECK_EQ(r.round_trip_ns, 50 * MS);
    for (uint64_t ms = 1000; ms < 4000; ms++) {
        unsigned n = ask(ms);

        for (unsigned i = 0; i < n; i++) {
            times += asked[i] == 12;
            if (asked[i] == 12)
                CHECK_EQ((ms - 1000) % 50, 0);
        }
    }
    CHECK_EQ(times, REPAIR_TRIES - 1);
    CHECK_EQ(r.holes, 0);
    /* As long as nobody knows. */
    begin_at(10);
    take(20, 1000);
    CHECK(ask(1000) > 0);
    CHECK_EQ(r.hole[0].tries, 1);
    (void)ask(1099);
    CHECK_EQ(r.hole[0].tries, 1);
    (void)ask(1100);
    CHECK_EQ(r.hole[0].tries, 2);
    /* However near it is, 30 ms. */
    r.round_trip_ns = 1 * MS;
    (void)ask(1129);
    CHECK_EQ(r.hole[0].tries, 2);
    (void)ask(1130);
    CHECK_EQ(r.hole[0].tries, 3);
}

static void test_what_is_given_up(void)
{
    begin_at(10);
    take(12, 1000);
    CHECK_EQ(ask(3001), 0); /* two seconds later */
    CHECK_EQ(r.holes, 0);
    take(12 + REPAIR_HOLES + 1, 3002); /* a gap that nobody fills */
    CHECK_EQ(r.holes, 0);
    take(12 + 2 * REPAIR_HOLES + 1, 3003);
    CHECK_EQ(r.holes, REPAIR_HOLES - 1);
    take(12 + 2 * REPAIR_HOLES + 9, 3003); /* the oldest make room */
    CHECK_EQ(r.holes, REPAIR_HOLES);
    CHECK_EQ(ask(3004), REPAIR_AT_ONCE);
    repair_take(&r, SSRC + 2, 7, 3005 * MS); /* another source */
    CHECK_EQ(r.holes, 0);
}

static void test_repairs_of_another_ssrc(void)
{
    begin_at(10);
    take(15, 1000);
    CHECK(ask(1000) > 0);
    CHECK(repair_take(&r, SSRC | 1, 12, 1040 * MS));
    CHECK(!repair_take(&r, SSRC | 1, 900, 1041 * MS)); /* and begins nothing */
    CHECK_EQ(r.highest, 15);
    CHECK_EQ(r.holes, 3);
}

/* Whatever comes, nothing is asked for that came, and all that was asked for is in order. */
static void test_any_order(void)
{
    static uint64_t came_ms[65536];
    uint64_t random = 3;
    uint16_t next = 65000;

    begin_at(next);
    for (uint64_t ms = 1; ms < 20000; ms++) {
        unsigned n = random_below(&random, 4);

        while (n-- > 0) {
            uint16_t sequence = next++;

            if (random_below(&random, 5) == 0)
                continue;
            if (random_below(&random, 9) == 0)
                sequence = (uint16_t)(sequence - random_below(&random, 20));
            came_ms[sequence] = ms;
            take(sequence, ms);
        }
        n = ask(ms);
        for (unsigned i = 0; i < n; i++) {
            CHECK(came_ms[asked[i]] == 0 || ms - came_ms[asked[i]] > 5000);
            CHECK(i == 0 || (uint16_t)(asked[i] - asked[i - 1]) < 0x8000);
            CHECK((uint16_t)(r.highest - asked[i]) < 0x8000);
        }
        CHECK(r.holes <= REPAIR_HOLES);
    }
}

int main(void)
{
    RUN(test_three_later_ones_or_ten_milliseconds);
    RUN(test_disorder_is_asked_for_by_nobody);
    RUN(test_once_a_round_trip);
    RUN(test_what_is_given_up);
    RUN(test_repairs_of_another_ssrc);
    RUN(test_any_order);
    return 0;
}
