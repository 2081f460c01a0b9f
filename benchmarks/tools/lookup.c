/* What it costs to find a packet's session among 10 and among 10,000; run by lookup.py.
 *
 * Packets of sessions drawn at random come in turns of four blocks, as the worker passes them. Built
 * with the core, and timed in its own terms: `hit` and `miss` are the lookups alone, `gate` all
 * that decides whether a packet gets in. A turn is made outside of the time, by arithmetic, so
 * the caches hold what the server has there and nothing of the measurement. Some hash keys are
 * luckier than others, so every pair of tables has its own, and the means count. */
#include "random.h" /* of tests/core */
#include "worker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FEW = 10, MANY = 10000, PACKET = 64, FIRST_SSRC = 1000 };
enum { TURN = 4 * GATE_BLOCK, TURNS = 50 };
enum kind { HIT, MISS, GATE, KINDS };
static const char *const kind_name[KINDS] = {"hit", "miss", "gate"};

struct setting {
    unsigned sessions;
    struct qsbr qsbr;
    struct session_pool pool;
    struct table table;
    struct worker_counters counters;
    struct gate gate;
};

static struct rf_addr own;
static struct inbox *inboxes[1];
static uint8_t packet[TURN][PACKET];
static struct datagram datagram[TURN];
static uint64_t random_state = 1;
static uintptr_t found; /* so that no lookup is left out */

static void demand(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "lookup: %s\n", strerror(-rc));
    exit(1);
}

/* Eight cameras to a host of 10.0.0.0/8. */
static struct rf_addr source_of(unsigned i)
{
    return (struct rf_addr){
        .ip = {[10] = 0xff, 0xff, 10, 0, (uint8_t)(i / 8 >> 8), (uint8_t)(i / 8)},
        .port = (uint16_t)(4000 + 2 * (i % 8)),
    };
}

static void setting_open(struct setting *s, unsigned sessions)
{
    memset(s, 0, sizeof *s);
    s->sessions = sessions;
    qsbr_init(&s->qsbr);
    demand(session_pool_init(&s->pool, sessions));
    demand(table_init(&s->table, &s->pool, &s->qsbr));
    for (unsigned i = 0; i < sessions; i++) {
        struct rf_addr source = source_of(i);
        struct session *session;

        demand(session_new(&s->pool, &source, FIRST_SSRC + i, 0, &session));
        demand(table_insert(&s->table, session));
    }
    s->gate = (struct gate){
        .table = &s->table,
        .counters = &s->counters,
        .own = &own,
        .inboxes = inboxes,
    };
    fair_init(&s->gate.fair);
}

static void setting_close(struct setting *s)
{
    table_destroy(&s->table);
    session_pool_destroy(&s->pool);
    qsbr_destroy(&s->qsbr);
}

static void make_turn(const struct setting *s, enum kind kind)
{
    for (unsigned i = 0; i < TURN; i++) {
        uint32_t which = random_below(&random_state, s->sessions);
        uint32_t ssrc = FIRST_SSRC + which + (kind == MISS ? 1000000 : 0);

        packet[i][0] = 0x80; /* version 2 */
        packet[i][1] = 96;
        for (unsigned byte = 0; byte < 4; byte++)
            packet[i][8 + byte] = (uint8_t)(ssrc >> (24 - 8 * byte));
        datagram[i] = (struct datagram){
            .data = packet[i], .len = PACKET, .segment = PACKET, .source = source_of(which)};
    }
}

static void look_up(const struct setting *s, unsigned first)
{
    struct table_key key[GATE_BLOCK];
    struct session *namesake;

    for (unsigned i = 0; i < GATE_BLOCK; i++) {
        uint32_t ssrc = rtp_read_u32(packet[first + i] + 8);

        key[i] = table_key(&s->table, ssrc, &datagram[first + i].source);
        table_prefetch(&s->table, &key[i]);
    }
    for (unsigned i = 0; i < GATE_BLOCK; i++) {
        struct session *session = table_find(&s->table, &key[i]);

        if (!session)
            session = table_namesake(&s->table, &key[i], &namesake);
        found += (uintptr_t)session;
    }
}

static void pass_gate(struct setting *s, unsigned first)
{
    for (unsigned i = first; i < first + GATE_BLOCK; i++)
        gate_add(&s->gate, packet[i], PACKET, &datagram[i]);
    gate_pass(&s->gate);
    s->gate.count = 0;
}

/* Nanoseconds a packet, with the reading of the clock. */
static double measure(struct setting *s, enum kind kind, unsigned turns)
{
    uint64_t spent = 0;

    for (unsigned n = 0; n < turns; n++) {
        make_turn(s, kind);
        uint64_t before = clock_ns(CLOCK_MONOTONIC);

        for (unsigned first = 0; first < TURN; first += GATE_BLOCK) {
            if (kind == GATE)
                pass_gate(s, first);
            else
                look_up(s, first);
        }
        spent += clock_ns(CLOCK_MONOTONIC) - before;
    }
    return (double)spent / turns / TURN;
}

/* The best of the rounds, in turn, after a look at all sessions. */
static void compare(struct setting *few, struct setting *many, enum kind kind, unsigned rounds,
                    double best[2])
{
    best[0] = best[1] = 1e9;
    for (unsigned round = 0; round < rounds; round++) {
        struct setting *const setting[2] = {few, many};

        for (unsigned i = 0; i < 2; i++) {
            measure(setting[i], kind, round == 0 ? 10 * TURNS : TURNS);
            double ns = measure(setting[i], kind, TURNS);

            if (ns < best[i])
                best[i] = ns;
        }
    }
}

static double clock_cost(void)
{
    uint64_t best = UINT64_MAX;

    for (unsigned n = 0; n < 100000; n++) {
        uint64_t before = clock_ns(CLOCK_MONOTONIC);
        uint64_t cost = clock_ns(CLOCK_MONOTONIC) - before;

        if (cost < best)
            best = cost;
    }
    return (double)best / TURN;
}

int main(int argc, char **argv)
{
    unsigned keys = argc > 1 ? (unsigned)atoi(argv[1]) : 32;
    unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 20;
    double sum[KINDS][2] = {0}, clock = clock_cost();
    static struct setting few, many;

    for (unsigned k = 0; k < keys; k++) {
        setting_open(&few, FEW);
        setting_open(&many, MANY);
        for (enum kind kind = 0; kind < KINDS; kind++) {
            double best[2];

            compare(&few, &many, kind, rounds, best);
            for (unsigned i = 0; i < 2; i++)
                sum[kind][i] += best[i] - clock;
        }
        setting_close(&few);
        setting_close(&many);
    }
    printf("{");
    for (enum kind kind = 0; kind < KINDS; kind++)
        printf("\"%s\": {\"ns_among_%d\": %.2f, \"ns_among_%d\": %.2f, \"ratio\": %.3f}%s",
               kind_name[kind], FEW, sum[kind][0] / keys, MANY, sum[kind][1] / keys,
               sum[kind][1] / sum[kind][0], kind + 1 < KINDS ? ", " : "}\n");
    return found == 1; /* never: records are aligned */
}
