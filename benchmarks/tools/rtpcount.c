/* Counting receiver: many subscribers' sockets, exact counts per port and session, and the time
 * from the generator's send to the kernel's receive time stamp here.
 * SIGUSR1 prints one line of totals; SIGTERM prints everything and ends. See README.md. */
#define _GNU_SOURCE
#include "bench.h"

#include <getopt.h>
#include <math.h>
#include <sys/epoll.h>

enum {
    BATCH = 64,
    WINDOW = 1024,    /* indices behind the highest that tell duplicate from late */
    STEPS = 32,       /* histogram steps per octave, from 1 us */
    BUCKETS = 24 * STEPS,
    PENDING = 1 << 16, /* packets of which not every copy has come yet */
    FLOWS = 1 << 21,
};

struct histogram {
    uint64_t counts[BUCKETS], total, max_ns;
};

/* One session as seen by one subscriber. */
struct flow {
    uint64_t key, highest, packets;
    uint64_t seen[WINDOW / 64];
};

struct port {
    int fd;
    uint64_t packets, bytes, lost, duplicates, reordered, altered;
};

/* A packet on its way to all subscribers: its last copy makes one observation. */
struct pending {
    uint64_t id, latest_ns;
    uint32_t copies;
};

struct receiver {
    unsigned port_count, copies_per_packet;
    size_t max_packet;
    int verify, epoll_fd;
    struct port *ports;
    struct flow *flows;
    struct pending *pending;
    struct histogram every_copy, last_copy;
    uint8_t *pattern, *buffers;
    struct mmsghdr messages[BATCH];
    struct iovec iovecs[BATCH];
    uint8_t control[BATCH][CMSG_SPACE(sizeof(struct timespec))];
};

static void observe(struct histogram *histogram, uint64_t ns)
{
    double steps = ns > 1000 ? log2((double)ns / 1000.0) * STEPS : 0;
    unsigned bucket = (unsigned)steps;

    histogram->counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    histogram->total++;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
}

/* Upper bound, in microseconds, of the bucket in which the quantile lies. */
static double quantile(const struct histogram *histogram, double q)
{
    uint64_t need = (uint64_t)ceil(q * (double)histogram->total), seen = 0;

    for (unsigned i = 0; i < BUCKETS && histogram->total > 0; i++) {
        seen += histogram->counts[i];
        if (seen >= need)
            return exp2((double)(i + 1) / STEPS);
    }
    return 0;
}

static uint64_t mix(uint64_t value)
{
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdu;
    value ^= value >> 33;
    value *= 0xc4ceb9fe1a85ec53u;
    return value ^ value >> 33;
}

static struct flow *flow_of(struct receiver *receiver, unsigned port, uint32_t ssrc)
{
    uint64_t key = ((uint64_t)(port + 1) << 32) | ssrc;
    size_t at = mix(key) % FLOWS;

    for (unsigned tries = 0; tries < FLOWS; tries++, at = (at + 1) % FLOWS) {
        struct flow *flow = &receiver->flows[at];
        if (flow->key == 0)
            flow->key = key;
        if (flow->key == key)
            return flow;
    }
    die("more than %d sessions x ports", FLOWS);
    return NULL;
}

static int test_and_set(struct flow *flow, uint64_t index)
{
    uint64_t bit = UINT64_C(1) << (index % 64), *word = &flow->seen[index % WINDOW / 64];
    int was_set = (*word & bit) != 0;

    *word |= bit;
    return was_set;
}

/* Loss is what is missing below the highest index seen; a late packet takes its loss back. */
static void count_order(struct port *port, struct flow *flow, uint64_t index)
{
    uint64_t first_new = flow->packets++ == 0 ? 0 : flow->highest + 1;

    if (index >= first_new) {
        uint64_t clear = index - first_new + 1 > WINDOW ? index - WINDOW + 1 : first_new;
        for (uint64_t i = clear; i <= index; i++)
            flow->seen[i % WINDOW / 64] &= ~(UINT64_C(1) << (i % 64));
        port->lost += index - first_new;
        flow->highest = index;
        test_and_set(flow, index);
    } else if (flow->highest - index < WINDOW && test_and_set(flow, index)) {
        port->duplicates++;
    } else {
        port->reordered++;
        port->lost--;
    }
}

static void count_last_copy(struct receiver *receiver, uint32_t ssrc, uint64_t index, uint64_t ns)
{
    uint64_t id = (uint64_t)ssrc << 32 ^ index ^ UINT64_C(1) << 63;
    struct pending *pending = &receiver->pending[mix(id) % PENDING];

    if (pending->id != id)
        *pending = (struct pending){ .id = id };
    if (ns > pending->latest_ns)
        pending->latest_ns = ns;
    if (++pending->copies == receiver->copies_per_packet)
        observe(&receiver->last_copy, pending->latest_ns);
}

static uint64_t arrival_ns(struct msghdr *header)
{
    struct timespec stamp;
    struct cmsghdr *control = CMSG_FIRSTHDR(header);

    if (control == NULL || control->cmsg_type != SO_TIMESTAMPNS)
        return clock_ns(CLOCK_REALTIME);
    memcpy(&stamp, CMSG_DATA(control), sizeof(stamp));
    return (uint64_t)stamp.tv_sec * 1000000000u + (uint64_t)stamp.tv_nsec;
}

static void count_packet(struct receiver *receiver, unsigned number, unsigned slot)
{
    struct port *port = &receiver->ports[number];
    const uint8_t *packet = receiver->iovecs[slot].iov_base;
    size_t length = receiver->messages[slot].msg_len;
    uint64_t index, sent_ns, now_ns = arrival_ns(&receiver->messages[slot].msg_hdr);
    uint32_t ssrc;

    port->packets++;
    port->bytes += length;
    if (length < MIN_PACKET) {
        port->altered++;
        return;
    }
    ssrc = load32(packet + 8);
    index = load64(packet + INDEX_OFFSET);
    sent_ns = load64(packet + SEND_TIME_OFFSET);
    if (load16(packet + 2) != (uint16_t)index ||
        (receiver->verify && memcmp(packet + PATTERN_OFFSET, receiver->pattern + PATTERN_OFFSET,
                                    length - PATTERN_OFFSET) != 0))
        port->altered++;
    count_order(port, flow_of(receiver, number, ssrc), index);
    now_ns = now_ns > sent_ns ? now_ns - sent_ns : 0;
    observe(&receiver->every_copy, now_ns);
    count_last_copy(receiver, ssrc, index, now_ns);
}

static void drain(struct receiver *receiver, unsigned number)
{
    int count;

    do {
        for (unsigned i = 0; i < BATCH; i++)
            receiver->messages[i].msg_hdr.msg_controllen = sizeof(receiver->control[i]);
        count = recvmmsg(receiver->ports[number].fd, receiver->messages, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++)
            count_packet(receiver, number, (unsigned)i);
    } while (count == BATCH);
}

static void open_port(struct receiver *receiver, unsigned number, struct sockaddr_in address,
                      int buffer_bytes)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = number };
    int yes = 1, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        die("socket %u: %s", number, strerror(errno));
    set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, buffer_bytes);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof(yes));
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("port %u: %s", ntohs(address.sin_port), strerror(errno));
    epoll_ctl(receiver->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    receiver->ports[number].fd = fd;
}

static void prepare(struct receiver *receiver)
{
    receiver->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    receiver->ports = must_alloc(receiver->port_count, sizeof(*receiver->ports));
    receiver->flows = must_alloc(FLOWS, sizeof(*receiver->flows));
    receiver->pending = must_alloc(PENDING, sizeof(*receiver->pending));
    receiver->pattern = must_alloc(receiver->max_packet, 1);
    receiver->buffers = must_alloc(BATCH, receiver->max_packet);
    for (size_t i = 0; i < receiver->max_packet; i++)
        receiver->pattern[i] = pattern_byte(i);
    for (unsigned i = 0; i < BATCH; i++) {
        receiver->iovecs[i].iov_base = receiver->buffers + i * receiver->max_packet;
        receiver->iovecs[i].iov_len = receiver->max_packet;
        receiver->messages[i].msg_hdr.msg_iov = &receiver->iovecs[i];
        receiver->messages[i].msg_hdr.msg_iovlen = 1;
        receiver->messages[i].msg_hdr.msg_control = receiver->control[i];
    }
}

static void print_histogram(const char *name, const struct histogram *histogram)
{
    const char *separator = "";

    printf(", \"%s\": {\"count\": %" PRIu64 ", \"p50_us\": %.1f, \"p99_us\": %.1f,"
           " \"p999_us\": %.1f, \"max_us\": %.1f, \"buckets\": {",
           name, histogram->total, quantile(histogram, 0.5), quantile(histogram, 0.99),
           quantile(histogram, 0.999), (double)histogram->max_ns / 1000);
    for (unsigned i = 0; i < BUCKETS; i++) {
        if (histogram->counts[i] == 0)
            continue;
        printf("%s\"%.1f\": %" PRIu64, separator, exp2((double)(i + 1) / STEPS),
               histogram->counts[i]);
        separator = ", ";
    }
    printf("}}");
}

static void print_totals(const struct receiver *receiver, int full)
{
    struct port sum = { 0 };
    uint64_t fewest = UINT64_MAX, most = 0;

    for (unsigned i = 0; i < receiver->port_count; i++) {
        const struct port *port = &receiver->ports[i];
        sum.packets += port->packets;
        sum.bytes += port->bytes;
        sum.lost += port->lost;
        sum.duplicates += port->duplicates;
        sum.reordered += port->reordered;
        sum.altered += port->altered;
        fewest = port->packets < fewest ? port->packets : fewest;
        most = port->packets > most ? port->packets : most;
    }
    printf("{\"packets\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"duplicates\": %" PRIu64 ", \"reordered\": %" PRIu64 ", \"altered\": %" PRIu64
           ", \"fewest_on_a_port\": %" PRIu64 ", \"most_on_a_port\": %" PRIu64,
           sum.packets, sum.bytes, sum.lost, sum.duplicates, sum.reordered, sum.altered, fewest,
           most);
    if (full) {
        print_histogram("every_copy", &receiver->every_copy);
        print_histogram("last_copy", &receiver->last_copy);
        printf(", \"ports\": [");
        for (unsigned i = 0; i < receiver->port_count; i++) {
            const struct port *port = &receiver->ports[i];
            printf("%s[%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", i ? ", " : "",
                   port->packets, port->lost, port->duplicates, port->reordered);
        }
        printf("]");
    }
    puts("}");
    fflush(stdout);
}

static void receive(struct receiver *receiver)
{
    struct epoll_event events[64];

    while (!stop_requested) {
        int count = epoll_wait(receiver->epoll_fd, events, 64, -1);
        for (int i = 0; i < count; i++)
            drain(receiver, events[i].data.u32);
        if (report_requested) {
            report_requested = 0;
            print_totals(receiver, 0);
        }
    }
    for (unsigned i = 0; i < receiver->port_count; i++)
        drain(receiver, i);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        { "bind", required_argument, NULL, 'b' },   { "count", required_argument, NULL, 'c' },
        { "by-address", no_argument, NULL, 'a' },   { "verify", no_argument, NULL, 'v' },
        { "buffer", required_argument, NULL, 'r' }, { "limit", required_argument, NULL, 'l' },
        { "copies", required_argument, NULL, 'n' }, { 0 },
    };
    struct receiver *receiver = must_alloc(1, sizeof(*receiver));
    struct sockaddr_in first = { 0 };
    unsigned limit_seconds = 600;
    int letter, by_address = 0, buffer_bytes = 8 << 20;

    receiver->port_count = 1;
    receiver->max_packet = 65536;
    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (letter) {
        case 'b': first = parse_endpoint("bind", optarg); break;
        case 'c': receiver->port_count = (unsigned)parse_number("count", optarg, 1, 60000); break;
        case 'n':
            receiver->copies_per_packet = (unsigned)parse_number("copies", optarg, 1, 60000);
            break;
        case 'a': by_address = 1; break;
        case 'v': receiver->verify = 1; break;
        case 'r': buffer_bytes = (int)parse_number("buffer", optarg, 4096, 1 << 30); break;
        case 'l': limit_seconds = (unsigned)parse_number("limit", optarg, 1, 3600); break;
        default:
            die("usage: rtpcount --bind ip:first_port [--count N] [--by-address] [--verify]"
                " [--copies PER_PACKET] [--buffer BYTES] [--limit SECONDS]");
        }
    }
    if (first.sin_port == 0)
        die("--bind ip:port is needed");
    if (receiver->copies_per_packet == 0)
        receiver->copies_per_packet = receiver->port_count;
    allow_many_sockets();
    prepare(receiver);
    for (unsigned i = 0; i < receiver->port_count; i++)
        open_port(receiver, i, nth_endpoint(first, i, by_address), buffer_bytes);
    install_signals(limit_seconds);
    puts("ready");
    fflush(stdout);
    receive(receiver);
    print_totals(receiver, 1);
    return 0;
}
