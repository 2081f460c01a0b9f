/* parameters.c: sets are kept once, the last of each, and read in order meanwhile. */
#include <pthread.h>
#include <string.h>

#include "check.h"
#include "parameters.h"
#include "rtp.h"

static struct parameter_pool pool;
static struct parameter_spares spares;

static struct parameter_sets *fresh(void)
{
    struct parameter_sets *s = parameter_spares_take(&spares);

    CHECK(s != NULL);
    return s;
}

static void keep(struct parameter_sets *s, const void *bytes, size_t len, uint64_t now)
{
    parameter_sets_keep(s, RF_ENCODING_H264, (struct payload){bytes, len}, now);
}

static const uint8_t sps[] = {0x67, 0x42, 0xc0, 0x1f, 0x8c}, sps_b[] = {0x67, 0x64, 0, 0x28, 0xac, 1},
                     sps_1[] = {0x67, 0x42, 0xc0, 0x1f, 0x4c}, pps[] = {0x68, 0xce, 0x3c};

/* Each set as "length bytes", in order. */
static void holds(const struct parameter_sets *s, const void *bytes, size_t len)
{
    uint8_t got[RF_PARAMETER_BYTES];

    CHECK_EQ(parameter_sets_read(s, RF_ENCODING_H264, got), len);
    CHECK(memcmp(got, bytes, len) == 0);
}

static void the_last_of_each(void)
{
    struct parameter_sets *s = fresh();

    holds(NULL, "", 0);
    holds(s, "", 0);
    CHECK_EQ(parameter_sets_seen(s, RF_ENCODING_H264), 0);
    keep(s, pps, sizeof pps, 1);
    keep(s, sps, sizeof sps, 2);
    holds(s, "\0\5\x67\x42\xc0\x1f\x8c\0\3\x68\xce\x3c", 12);
    CHECK_EQ(parameter_sets_seen(s, RF_ENCODING_H264), 2);
    CHECK_EQ(parameter_sets_seen(s, RF_ENCODING_H265), 0);
    keep(s, sps, sizeof sps, 3);
    CHECK_EQ(load_rlx(&s->len), 8 + sizeof sps + sizeof pps);
    CHECK_EQ(parameter_sets_seen(s, RF_ENCODING_H264), 3);
    keep(s, sps_b, sizeof sps_b, 4); /* the same number: in its place */
    holds(s, "\0\6\x67\x64\0\x28\xac\1\0\3\x68\xce\x3c", 13);
    keep(s, sps_1, sizeof sps_1, 5); /* another */
    holds(s, "\0\6\x67\x64\0\x28\xac\1\0\5\x67\x42\xc0\x1f\x4c\0\3\x68\xce\x3c", 20);
}

static void another_encoding_clears(void)
{
    struct parameter_sets *s = fresh();
    static const uint8_t vps[] = {0x40, 1, 0xc};
    uint8_t got[RF_PARAMETER_BYTES];

    keep(s, sps, sizeof sps, 1);
    parameter_sets_keep(s, RF_ENCODING_H265, (struct payload){vps, sizeof vps}, 2);
    holds(s, "", 0);
    CHECK_EQ(parameter_sets_read(s, RF_ENCODING_H265, got), 5);
}

static void what_has_no_room_is_left_out(void)
{
    struct parameter_sets *s = fresh();
    uint8_t large[RF_PARAMETER_BYTES + 8] = {0x68, 0x80};

    large[1] = 0xff;
    keep(s, sps, sizeof sps, 1);
    keep(s, large, sizeof large, 2);
    holds(s, "\0\5\x67\x42\xc0\x1f\x8c", 7);
    keep(s, large, RF_PARAMETER_BYTES - 8 - sizeof sps, 3); /* just fits */
    CHECK_EQ(load_rlx(&s->len), RF_PARAMETER_BYTES);
    keep(s, sps_b, sizeof sps_b, 4); /* a byte longer than what it was to replace */
    CHECK(load_rlx(&s->len) < RF_PARAMETER_BYTES);
}

static void spares_run_out_and_are_filled(void)
{
    unsigned n = 0;

    while (parameter_spares_take(&spares))
        n++;
    CHECK(n > 0 && n < PARAMETER_SPARES); /* the cases before had some */
    CHECK_EQ(parameter_spares_fill(&spares, &pool), 0);
    struct parameter_sets *s = fresh();

    keep(s, sps, sizeof sps, 1);
    parameter_pool_put(&pool, s);
    CHECK_EQ(parameter_spares_fill(&spares, &pool), 0); /* it comes round, and is empty */
    for (n = 0; n < PARAMETER_SPARES; n++)
        holds(fresh(), "", 0);
    CHECK(parameter_spares_take(&spares) == NULL);
}

static _Atomic bool done;

static void *writes(void *s)
{
    for (uint64_t i = 1; !load_rlx(&done); i++)
        keep(s, i % 2 ? sps : sps_b, i % 2 ? sizeof sps : sizeof sps_b, i);
    return NULL;
}

static void read_meanwhile(void)
{
    CHECK_EQ(parameter_spares_fill(&spares, &pool), 0);
    struct parameter_sets *s = fresh();
    uint8_t got[RF_PARAMETER_BYTES];
    pthread_t thread;

    store_rlx(&done, false);
    CHECK(pthread_create(&thread, NULL, writes, s) == 0);
    for (unsigned i = 0; i < 5000; i++) {
        size_t len = parameter_sets_read(s, RF_ENCODING_H264, got);

        if (len == 2 + sizeof sps)
            CHECK(memcmp(got + 2, sps, sizeof sps) == 0);
        else if (len > 0)
            CHECK(len == 2 + sizeof sps_b && memcmp(got + 2, sps_b, sizeof sps_b) == 0);
    }
    store_rlx(&done, true);
    pthread_join(thread, NULL);
}

int main(void)
{
    CHECK_EQ(parameter_spares_fill(&spares, &pool), 0);
    RUN(the_last_of_each);
    RUN(another_encoding_clears);
    RUN(what_has_no_room_is_left_out);
    RUN(spares_run_out_and_are_filled);
    RUN(read_meanwhile);
    parameter_pool_destroy(&pool);
    return 0;
}
