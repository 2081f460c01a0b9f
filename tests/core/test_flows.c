/* Whole engines of 1 to 4 workers over loopback: where flows go, and that all is counted.
 * wraps: setsockopt */
#include <linux/filter.h>

#include "calls.h"
#include "identities.h"
#include "loops.h"
#include "segments.h"

static enum { STEERED, NO_STEERING, AT_RANDOM } steering;

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

static int steer_at_random(int fd)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_RANDOM),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 1),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog filter = {.len = COUNT(program), .filter = program};

    return __real_setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &filter, sizeof filter);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    if (level == SOL_SOCKET && name == SO_ATTACH_REUSEPORT_CBPF && steering != STEERED) {
        if (steering == AT_RANDOM)
            return steer_at_random(fd);
        errno = ENOPROTOOPT;
        return -1;
    }
    return __real_setsockopt(fd, level, name, value, len);
}

static struct {
    struct rf_engine *engine;
    struct rf_socket_info info;
    struct loops loops;
} server;

static void server_start(const char *bind_to, uint32_t workers)
{
    struct rf_config config = {
        .bind = address(bind_to, 0),
        .max_sessions = 200,
        .max_subscribers = 1000,
        .receive_queue_packets = 65536,
        .workers = workers,
        .split_threshold = 64,
        .busy_poll_ns = workers == 4 ? 200000 : 0,
    };

    CHECK_EQ(rf_engine_new(&config, &server.engine), 0);
    rf_engine_socket(server.engine, &server.info);
    CHECK_EQ(server.info.receiving, steering == NO_STEERING ? 1 : workers);
    loops_start(&server.loops, server.engine, workers);
}

static void server_stop(void)
{
    rf_engine_stop(server.engine);
    loops_join(&server.loops);
}

static void server_free(struct rf_stats *sum)
{
    rf_engine_stats(server.engine, sum);
    check_identities(sum);
    for (uint32_t i = 0; i < server.loops.count; i++)
        CHECK_EQ(rf_engine_run(server.engine, i), 0); /* it has ended: returns */
    rf_engine_free(server.engine);
}

enum { FLOWS = 40, SSRCS = 2, BURSTS = 10, SEGMENTS = 12, SEGMENT = 200 };

/* Each flow carries two sessions, mixed within one segmented send; the last is shorter. */
static void send_burst(int fd, unsigned flow, unsigned burst, const struct rf_addr *to)
{
    static uint8_t p[SEGMENTS * SEGMENT];

    for (unsigned i = 0; i < SEGMENTS; i++)
        rtp_make(p + i * SEGMENT, SEGMENT, flow * SSRCS + i % SSRCS,
                 (uint16_t)(burst * SEGMENTS + i));
    send_segments(fd, to, p, sizeof p - 50, SEGMENT);
}

static void await_received(uint64_t packets)
{
    struct rf_stats sum;

    for (unsigned i = 0; i < 20000; i++, sleep_ms(1)) {
        rf_engine_stats(server.engine, &sum);
        if (sum.packets_received >= packets)
            break;
    }
    CHECK_EQ(sum.kernel_drops, 0);
    CHECK_EQ(sum.packets_received, packets);
}

static void forward_flows(const char *bind_to, const char *from_ip, uint32_t workers)
{
    enum { VIEWERS = 3 };
    struct rf_addr camera[FLOWS], viewers[VIEWERS], to;
    uint64_t handle[FLOWS * SSRCS], received = 0, packets = 0;
    int fd[FLOWS], viewer[VIEWERS];
    struct rf_session_stats session;
    struct rf_stats sum;
    bool added[VIEWERS];

    server_start(bind_to, workers);
    to = address(from_ip, server.info.bound.port);
    for (unsigned i = 0; i < VIEWERS; i++)
        viewer[i] = endpoint(from_ip, &viewers[i]);
    for (unsigned i = 0; i < FLOWS * SSRCS; i++) {
        if (i % SSRCS == 0)
            fd[i / SSRCS] = endpoint(from_ip, &camera[i / SSRCS]);
        CHECK_EQ(session_add(server.engine, &camera[i / SSRCS], i, 0, &handle[i]), 0);
        CHECK_EQ(subscribers_add(server.engine, handle[i], viewers, VIEWERS, 0, added), 0);
    }
    for (unsigned burst = 0; burst < BURSTS; burst++) {
        for (unsigned i = 0; i < FLOWS; i++, packets += SEGMENTS)
            send_burst(fd[i], i, burst, &to);
        await_received(packets);
    }
    server_stop();
    for (unsigned i = 0; i < FLOWS * SSRCS; i++) {
        CHECK_EQ(rf_session_stats(server.engine, handle[i], 0, &session), 0);
        received += session.packets_received;
        CHECK_EQ(session.packets_received, BURSTS * SEGMENTS / SSRCS);
    }
    server_free(&sum);
    CHECK_EQ(sum.dropped_misrouted, 0);
    CHECK_EQ(sum.packets_forwarded, packets);
    CHECK_EQ(received, packets);
    CHECK_EQ(sum.copies_attempted, packets * VIEWERS);
    CHECK_EQ(sum.packets_sent, packets * VIEWERS);
    CHECK_EQ(sum.receives, BURSTS * FLOWS); /* UDP_GRO: a burst is one buffer */
    CHECK(workers > 1 || sum.tasks_shared == 0);
    for (unsigned i = 0; i < FLOWS; i++)
        close(fd[i]);
    for (unsigned i = 0; i < VIEWERS; i++)
        close(viewer[i]);
}

static void test_many_flows(void)
{
    for (uint32_t workers = 1; workers <= 4; workers *= 2) {
        forward_flows("127.0.0.1", "127.0.0.1", workers);
        if (!ipv6_here())
            continue;
        forward_flows("::1", "::1", workers);
        forward_flows("::", "::1", workers);
        forward_flows("::", "127.0.0.1", workers);
    }
}

/* Then one receives for all and the others help; nothing is misrouted either. */
static void test_many_flows_without_steering(void)
{
    steering = NO_STEERING;
    for (uint32_t workers = 2; workers <= 4; workers *= 2)
        forward_flows("127.0.0.1", "127.0.0.1", workers);
    steering = STEERED;
}

/* Steering gone wrong: packets of a session reach both workers. One forwards all of them, each
 * once; the other hands its part over. */
static void test_a_session_on_two_workers_is_whole(void)
{
    enum { PACKETS = 400 };
    struct rf_session_stats session;
    struct rf_addr camera, viewer;
    struct rf_stats sum;
    uint64_t handle;
    uint8_t p[60];
    bool added, seen[PACKETS] = {false};

    steering = AT_RANDOM;
    server_start("127.0.0.1", 2);
    steering = STEERED;
    int from = endpoint("127.0.0.1", &camera), to = endpoint("127.0.0.1", &viewer);

    CHECK_EQ(session_add(server.engine, &camera, 7, 0, &handle), 0);
    CHECK_EQ(subscribers_add(server.engine, handle, &viewer, 1, 0, &added), 0);
    for (uint16_t i = 0; i < PACKETS; i++) {
        rtp_make(p, sizeof p, 7, i);
        send_to(from, &server.info.bound, p, sizeof p);
    }
    await_received(PACKETS);
    server_stop();
    CHECK_EQ(rf_session_stats(server.engine, handle, 0, &session), 0);
    server_free(&sum);
    CHECK(sum.handed_over > PACKETS / 4 && sum.handed_over < PACKETS * 3 / 4);
    CHECK_EQ(sum.packets_forwarded, PACKETS);
    CHECK_EQ(session.packets_received, PACKETS);
    CHECK_EQ(session.packets_sent, PACKETS);
    for (unsigned i = 0; i < PACKETS; i++) {
        CHECK_EQ(receive(to, p, sizeof p, 5000), sizeof p);
        uint16_t number = (uint16_t)(p[2] << 8 | p[3]);

        CHECK(number < PACKETS && !seen[number]);
        seen[number] = true;
    }
    CHECK_EQ(receive(to, p, sizeof p, 20), -1);
    close(from);
    close(to);
}

int main(void)
{
    RUN(test_many_flows);
    RUN(test_many_flows_without_steering);
    RUN(test_a_session_on_two_workers_is_whole);
    return 0;
}
