/* An engine over loopback whose subscribers have RTCP: who sends, and what comes. */
#ifndef TEST_RTCP_LOOP_H
#define TEST_RTCP_LOOP_H

#include "atomic.h"
#include "calls.h"
#include "core_senders.h"
#include "endpoints.h"
#include "identities.h"
#include "loops.h"
#include "rtcp.h"
#include "rtp.h"

enum { SSRC = 0x11223344, VIEWER = 0x55667788, WAIT = 5000, SOON = 30, LEN = 100 };

static struct rf_engine *engine;
static struct rf_addr bound;
static struct loops loops;
static uint16_t sequence;
static uint64_t passed_by; /* packets times subscribers, as they were */
static uint8_t room[2048];

static void setup(uint32_t workers)
{
    struct rf_config config = {
        .bind = address("127.0.0.1", 0),
        .max_sessions = 100,
        .max_subscribers = 1000,
        .receive_queue_packets = 4096,
        .workers = workers,
        .split_threshold = 8,
    };
    struct rf_socket_info info;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    rf_engine_socket(engine, &info);
    bound = info.bound;
    passed_by = 0;
    loops_start(&loops, engine, workers);
}

static struct rf_stats figures(void)
{
    struct rf_stats s;

    rf_engine_stats(engine, &s);
    return s;
}

static void finish(void)
{
    rf_engine_stop(engine);
    loops_join(&loops);
    struct rf_stats s = figures();

    check_identities(&s);
    CHECK_EQ(s.copies_attempted + s.copies_withheld, passed_by + s.copies_rtcp);
    rf_engine_free(engine);
}

/* Until the engine has taken so many datagrams in all. */
static void await_received(uint64_t n)
{
    for (unsigned i = 0; i < 10000 && figures().packets_received < n; i++)
        sleep_ms(1);
    CHECK_EQ(figures().packets_received, n);
}

static uint64_t sends;

static void say(int fd, const void *data, size_t len)
{
    send_to(fd, &bound, data, len);
    await_received(++sends);
}

/* A packet of the session, which comes to these. */
static void feed(int source, const int *viewers, unsigned n)
{
    uint8_t packet[LEN], got[LEN];

    rtp_make(packet, sizeof packet, SSRC, ++sequence);
    for (int i = 0; i < 4; i++)
        packet[4 + i] = (uint8_t)((uint32_t)sequence * 3000 >> (24 - 8 * i));
    say(source, packet, sizeof packet);
    passed_by += n;
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(receive(viewers[i], got, sizeof got, WAIT), LEN);
        CHECK(memcmp(got, packet, LEN) == 0);
    }
}

static void write_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static size_t sender_report(uint8_t *out, uint32_t ntp)
{
    memset(out, 0, RTCP_SR_LEN);
    out[0] = 0x80;
    out[1] = RTCP_SR;
    out[3] = RTCP_SR_LEN / 4 - 1;
    write_u32(out + 4, SSRC);
    write_u32(out + 8, ntp);
    write_u32(out + 16, (uint32_t)sequence * 3000);
    return rtcp_write_cname(out, RTCP_SR_LEN, SSRC, "cam@r7");
}

static uint64_t session_of(const struct rf_addr *source)
{
    uint64_t handle;

    CHECK_EQ(session_add(engine, source, SSRC, 0, &handle), 0);
    return handle;
}

static void subscribe(uint64_t handle, const struct rf_addr *addr, enum rf_rtcp rtcp)
{
    bool added;

    CHECK_EQ(subscribers_add(engine, handle, addr, 1, clock_now(CLOCK_MONOTONIC), &added), 0);
    CHECK_EQ(rf_subscribers_rtcp(engine, handle, addr, 1, rtcp), 0);
}

/* A socket on this port and one on the next. */
static int pair(int *next, struct rf_addr *bound_to)
{
    for (;;) {
        int fd = endpoint("127.0.0.1", bound_to);
        struct rf_addr above = *bound_to;
        union sockaddr_any name;

        above.port++;
        *next = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        socklen_t len = addr_to_sockaddr(&name, &above, AF_INET);

        if (bind(*next, &name.any, len) == 0)
            return fd;
        close(fd);
        close(*next);
    }
}

static void expect(int fd, const uint8_t *data, size_t len)
{
    uint8_t got[LEN];

    CHECK_EQ(receive(fd, got, sizeof got, WAIT), len);
    CHECK(memcmp(got, data, len) == 0);
}

static void expect_nothing(int fd)
{
    CHECK_EQ(receive(fd, room, sizeof room, SOON), -1);
}

#endif
