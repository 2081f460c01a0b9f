/* The gate of an engine's first worker, whose loop does not run: packets are put to it one by one, at a
 * time of the test's own. */
#ifndef TEST_AT_GATE_H
#define TEST_AT_GATE_H

#include "endpoints.h"
#include "engine.h"

static struct rf_engine *engine;
static struct gate *gate;
static uint64_t now = UINT64_C(1000000000000);

static inline void gates_open_for(uint32_t sessions, unsigned workers)
{
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = sessions,
        .max_subscribers = 1000,
        .receive_queue_packets = 64,
        .workers = workers,
        .check_padding = true,
    };

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    gate = &engine->worker[0]->gate;
}

static inline void gate_open_for(uint32_t sessions)
{
    gates_open_for(sessions, 1);
}

static inline void gate_close(void)
{
    rf_engine_free(engine);
}

/* What became of one packet. `data` is to live until the next. */
static inline const struct arrival *pass(uint8_t *data, uint32_t len, const struct rf_addr *source)
{
    static struct datagram d;

    d = (struct datagram){.data = data, .len = len, .segment = len, .source = *source,
                          .received_ns = now};
    gate->now = now;
    gate->count = 0;
    gate_add(gate, data, len, &d);
    gate_pass(gate);
    gate->count = 0;
    return &gate->arrival[0];
}

static inline const struct arrival *pass_rtp(uint32_t ssrc, const struct rf_addr *source,
                                             uint8_t payload_type, uint16_t sequence)
{
    static uint8_t data[200];

    rtp_make(data, sizeof data, ssrc, sequence);
    data[1] = payload_type;
    return pass(data, sizeof data, source);
}

static inline uint64_t must_add(const struct rf_source *source, uint32_t ssrc)
{
    uint64_t handle;

    CHECK_EQ(rf_session_add(engine, source, ssrc, now, &handle), 0);
    return handle;
}

static inline uint64_t handle_of(const struct arrival *a)
{
    return a->session ? session_handle(a->session) : 0;
}

#endif
