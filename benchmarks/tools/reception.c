/* What it costs to note how packets are received; run by reception.py.
 *
 * The gate, and a worker's last step with a packet that was admitted, with and without its session's
 * reception: of one session, and of 10,000 in random order, in singles and in bursts of 14, which came in one
 * buffer each, of H264 that was told. In turns of four blocks, made outside of the time. The gate begins to load the
 * receptions in both: `without` they are all in one chunk, which stays in the nearest cache. */
#include "random.h" /* of tests/core */
#include "worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 10000, PACKET = 1200, TURN = 4 * GATE_BLOCK, TURNS = 400 };
enum { CHUNKS = (MANY + SESSION_CHUNK - 1) / SESSION_CHUNK };

static struct session_pool pool;
static struct session *session[MANY];
static uint16_t sequence[2][MANY]; /* without and with: none is ever missing */
static uint8_t packet[TURN][PACKET];
static uint64_t random_state = 1, clock_at = 1000000000;
static struct qsbr qsbr;
static struct table table;
static struct worker_counters counters;
static struct gate gate;
static struct rf_addr own;
static struct inbox *inboxes[1];
static struct datagram datagram[TURN]; /* of a burst the first one */
static unsigned burst_of[TURN];        /* where that is */
static struct packet packets[TURN];

static void demand(int rc)
{
    if (rc == 0)
        return;
    fprintf(stderr, "reception: %s\n", strerror(-rc));
    exit(1);
}

/* Eight cameras to a host of 10.0.0.0/8. */
static struct rf_addr source_of(uint32_t i)
{
    return (struct rf_addr){
        .ip = {[10] = 0xff, 0xff, 10, 0, (uint8_t)(i / 8 >> 8), (uint8_t)(i / 8)},
        .port = (uint16_t)(4000 + 2 * (i % 8)),
    };
}

static void open_all(void)
{
    qsbr_init(&qsbr);
    demand(session_pool_init(&pool, MANY));
    demand(table_init(&table, &pool, &qsbr));
    for (uint32_t i = 0; i < MANY; i++) {
        struct rf_addr source = source_of(i);

        demand(session_new(&pool, &source, i, 0, &session[i]));
        reception_ask(session_reception(&pool, session[i]),
                      media_word(RF_ENCODING_H264, RF_ANY_PAYLOAD_TYPE, 0, 90000));
        demand(table_insert(&table, session[i]));
    }
    gate = (struct gate){
        .table = &table, .counters = &counters, .own = &own, .inboxes = inboxes};
    fair_init(&gate.fair);
}

/* A frame is a burst. */
static void make_turn(uint32_t sessions, unsigned burst, bool notes)
{
    uint32_t which = 0;

    for (unsigned i = 0; i < TURN; i++) {
        uint8_t *p = packet[i];

        if (i % burst == 0)
            which = random_below(&random_state, sessions);
        uint16_t n = sequence[notes][which]++;
        uint32_t timestamp = n / burst * 3000;

        burst_of[i] = i - i % burst;
        packets[i] = (struct packet){.bytes = {p, PACKET}};
        datagram[i] = (struct datagram){
            .data = p, .len = PACKET, .segment = PACKET, .source = source_of(which)};
        memset(p, 0, 16);
        p[0] = 0x80;
        p[1] = 96;
        p[2] = (uint8_t)(n >> 8);
        p[3] = (uint8_t)n;
        for (unsigned k = 0; k < 4; k++) {
            p[4 + k] = (uint8_t)(timestamp >> (24 - 8 * k));
            p[8 + k] = (uint8_t)(which >> (24 - 8 * k));
        }
        p[12] = 0x7c; /* FU-A of a slice */
        p[13] = 0x01;
    }
    clock_at += TURN * 1000; /* a million packets a second */
}

/* As the worker does with `n` packets of one buffer and session. */
static void note(struct session *s, unsigned first, unsigned n, bool notes)
{
    struct reception *r = session_reception(&pool, s);

    counter_add(&s->counters.packets_received, n);
    counter_add(&s->counters.bytes_received, n * PACKET);
    store_rlx(&s->last_packet_ns, clock_at);
    for (unsigned i = 0; notes && i < n;) {
        struct reception_packet p = {packet[first + i], PACKET, clock_at, false};

        reception_take(r, &p);
        if (++i < n)
            i += reception_take_alike(r, &packets[first + i], n - i, clock_at);
    }
}

static void take_block(unsigned first, bool notes)
{
    for (unsigned i = first; i < first + GATE_BLOCK; i++)
        gate_add(&gate, packet[i], PACKET, &datagram[burst_of[i]]);
    gate_pass(&gate);
    for (unsigned i = 0, n; i < GATE_BLOCK; i += n) {
        const struct arrival *a = &gate.arrival[i];

        for (n = 1; i + n < GATE_BLOCK && a[n].datagram == a->datagram;)
            n++;
        note(a->session, first + i, n, notes);
    }
    gate.count = 0;
}

static double measure(uint32_t sessions, unsigned burst, bool notes)
{
    static struct reception *chunks[CHUNKS];
    uint64_t spent = 0;

    if (!chunks[0])
        memcpy(chunks, pool.reception_chunks, sizeof chunks);
    for (unsigned i = 0; i < CHUNKS; i++)
        pool.reception_chunks[i] = chunks[notes ? i : 0];

    for (unsigned n = 0; n < TURNS; n++) {
        make_turn(sessions, burst, notes);
        uint64_t before = clock_ns(CLOCK_MONOTONIC);

        for (unsigned first = 0; first < TURN; first += GATE_BLOCK)
            take_block(first, notes);
        spent += clock_ns(CLOCK_MONOTONIC) - before;
    }
    return (double)spent / TURNS / TURN;
}

/* Each session has been received before. */
static void warm_up(void)
{
    for (uint32_t i = 0; i < MANY; i++) {
        uint8_t first[PACKET] = {0x80, 96, 0xff, 0xff};

        for (unsigned k = 0; k < 4; k++)
            first[8 + k] = (uint8_t)(i >> (24 - 8 * k));
        struct reception_packet p = {first, PACKET, clock_at, false};

        reception_take(session_reception(&pool, session[i]), &p);
    }
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 20;
    static const struct {
        const char *name;
        uint32_t sessions;
        unsigned burst;
    } cells[] = {{"one", 1, 14}, {"bursts", MANY, 14}, {"singles", MANY, 1}};

    open_all();
    warm_up();
    printf("{");
    for (unsigned c = 0; c < 3; c++) {
        double best[2] = {1e9, 1e9};

        for (unsigned round = 0; round < rounds; round++) {
            for (unsigned notes = 0; notes < 2; notes++) {
                double ns = measure(cells[c].sessions, cells[c].burst, notes);

                if (ns < best[notes])
                    best[notes] = ns;
            }
        }
        printf("%s\"%s\": {\"without_ns\": %.2f, \"with_ns\": %.2f, \"costs_ns\": %.2f}",
               c ? ", " : "", cells[c].name, best[0], best[1], best[1] - best[0]);
    }
    printf("}\n");
    return 0;
}
