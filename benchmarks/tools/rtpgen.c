/* RTP generator: frames of equal packets over many sessions, paced or flat out, always bounded.
 * Prints one JSON object when it ends. See README.md. */
#define _GNU_SOURCE
#include "bench.h"

#include <getopt.h>
#include <netinet/udp.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
    GSO_MAX_SEGMENTS = 64,
    GSO_MAX_BYTES = 65000,
    BATCH_MESSAGES = 64, /* messages gathered before one sendmmsg, whole frames at least */
    VIDEO_CLOCK = 90000,
};

struct options {
    struct sockaddr_in destination, source;
    unsigned sessions, burst, size;
    uint32_t base_ssrc;
    double rate, duration; /* packets per second, 0: flat out; seconds */
    uint64_t count;        /* packets, 0: until the duration is over */
    int port_per_session, gso, random_ssrc;
    uint8_t payload[MAX_PACKET]; /* sent as it is in place of RTP, where `has_payload` */
    int has_payload;
};

struct session {
    uint64_t next_index;
    int fd;
};

struct generator {
    struct options options;
    struct session *sessions;
    uint8_t *packets; /* frames_per_batch x burst x size */
    struct mmsghdr *messages;
    struct iovec *iovecs;
    unsigned frames_per_batch, packets_per_message, next_session;
    uint64_t sent, bytes, errors, late_frames, random;
};

static void parse_payload(struct options *options, const char *hex)
{
    unsigned byte;

    options->has_payload = 1;
    for (options->size = 0; *hex; hex += 2) {
        if (options->size == MAX_PACKET || sscanf(hex, "%2x", &byte) != 1 || !hex[1])
            die("--payload: not up to %d bytes in hexadecimal", MAX_PACKET);
        options->payload[options->size++] = (uint8_t)byte;
    }
    if (options->size == 0)
        die("--payload: no bytes");
}

static struct options parse_options(int argc, char **argv)
{
    static const struct option known[] = {
        { "to", required_argument, NULL, 't' },       { "from", required_argument, NULL, 'f' },
        { "sessions", required_argument, NULL, 'n' }, { "ssrc", required_argument, NULL, 'i' },
        { "burst", required_argument, NULL, 'b' },    { "size", required_argument, NULL, 's' },
        { "rate", required_argument, NULL, 'r' },     { "duration", required_argument, NULL, 'd' },
        { "count", required_argument, NULL, 'c' },    { "port-per-session", no_argument, NULL, 'p' },
        { "gso", no_argument, NULL, 'g' },            { "random-ssrc", no_argument, NULL, 'R' },
        { "payload", required_argument, NULL, 'P' },
        { 0 },
    };
    struct options options = {
        .source = { .sin_family = AF_INET }, .sessions = 1, .burst = 14, .size = 1200,
        .base_ssrc = 0x1000, .duration = 5,
    };
    int letter;

    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (letter) {
        case 't': options.destination = parse_endpoint("to", optarg); break;
        case 'f': options.source = parse_endpoint("from", optarg); break;
        case 'n': options.sessions = (unsigned)parse_number("sessions", optarg, 1, 60000); break;
        case 'i': options.base_ssrc = (uint32_t)parse_number("ssrc", optarg, 0, 4294967295.0); break;
        case 'b': options.burst = (unsigned)parse_number("burst", optarg, 1, 1024); break;
        case 's': options.size = (unsigned)parse_number("size", optarg, MIN_PACKET, MAX_PACKET); break;
        case 'r': options.rate = parse_number("rate", optarg, 0, 1e9); break;
        case 'd': options.duration = parse_number("duration", optarg, 0.01, 3600); break;
        case 'c': options.count = (uint64_t)parse_number("count", optarg, 1, 1e15); break;
        case 'p': options.port_per_session = 1; break;
        case 'g': options.gso = 1; break;
        case 'R': options.random_ssrc = 1; break;
        case 'P': parse_payload(&options, optarg); break;
        default:
            die("usage: rtpgen --to ip:port [--from ip:port] [--sessions N] [--ssrc N] [--burst N]"
                " [--size BYTES] [--rate PACKETS/S] [--duration S] [--count PACKETS]"
                " [--port-per-session] [--gso] [--random-ssrc] [--payload HEX]");
        }
    }
    if (options.destination.sin_port == 0)
        die("--to ip:port is needed");
    return options;
}

static int open_socket(const struct options *options, unsigned index)
{
    struct sockaddr_in source = nth_endpoint(options->source, index, 0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (options->source.sin_port == 0)
        source.sin_port = 0;
    set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, 4 << 20);
    if (bind(fd, (struct sockaddr *)&source, sizeof(source)) != 0)
        die("--from port %u: %s", ntohs(source.sin_port), strerror(errno));
    if (connect(fd, (const struct sockaddr *)&options->destination, sizeof(source)) != 0)
        die("--to: %s", strerror(errno));
    if (options->gso) {
        int segment = (int)options->size;
        if (setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) != 0)
            die("--gso: %s", strerror(errno));
    }
    return fd;
}

static void open_sessions(struct generator *generator)
{
    const struct options *options = &generator->options;

    allow_many_sockets();
    generator->sessions = must_alloc(options->sessions, sizeof(*generator->sessions));
    for (unsigned i = 0; i < options->sessions; i++)
        generator->sessions[i].fd = i == 0 || options->port_per_session
                                        ? open_socket(options, i)
                                        : generator->sessions[0].fd;
}

/* Everything that does not change from packet to packet is written here, once. */
static void prepare_packets(struct generator *generator)
{
    const struct options *options = &generator->options;
    unsigned per_message = 1, messages_per_frame, messages;
    size_t slots;

    if (options->gso) {
        per_message = GSO_MAX_BYTES / options->size;
        per_message = per_message > GSO_MAX_SEGMENTS ? GSO_MAX_SEGMENTS : per_message;
        per_message = per_message == 0 ? 1 : per_message;
    }
    messages_per_frame = (options->burst + per_message - 1) / per_message;
    generator->packets_per_message = per_message;
    generator->frames_per_batch = BATCH_MESSAGES / messages_per_frame;
    if (generator->frames_per_batch == 0)
        generator->frames_per_batch = 1;
    slots = (size_t)generator->frames_per_batch * options->burst;
    messages = generator->frames_per_batch * messages_per_frame;
    generator->packets = must_alloc(slots, options->size);
    generator->messages = must_alloc(messages, sizeof(*generator->messages));
    generator->iovecs = must_alloc(messages, sizeof(*generator->iovecs));
    for (size_t slot = 0; slot < slots; slot++) {
        uint8_t *packet = generator->packets + slot * options->size;
        packet[0] = 0x80; /* version 2 */
        for (size_t i = PATTERN_OFFSET; i < options->size; i++)
            packet[i] = pattern_byte(i);
        if (options->has_payload)
            memcpy(packet, options->payload, options->size);
    }
    for (unsigned i = 0; i < messages; i++) {
        generator->messages[i].msg_hdr.msg_iov = &generator->iovecs[i];
        generator->messages[i].msg_hdr.msg_iovlen = 1;
    }
}

/* xorshift64 (Marsaglia 2003): its upper half, so that each packet has an SSRC of its own. */
static uint32_t random_ssrc(struct generator *generator)
{
    uint64_t x = generator->random;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    generator->random = x;
    return (uint32_t)(x >> 32);
}

/* Writes one frame of the session into the batch and returns the messages it takes. */
static unsigned write_frame(struct generator *generator, unsigned slot, unsigned message,
                            unsigned session_number, uint64_t now)
{
    const struct options *options = &generator->options;
    struct session *session = &generator->sessions[session_number];
    uint32_t timestamp = (uint32_t)(now / 1000 * VIDEO_CLOCK / 1000000);
    uint8_t *frame = generator->packets + (size_t)slot * options->burst * options->size;
    unsigned added = 0;

    for (unsigned i = 0; i < options->burst && !options->has_payload; i++) {
        uint8_t *packet = frame + (size_t)i * options->size;
        packet[1] = (uint8_t)(96 | (i + 1 == options->burst ? 0x80 : 0)); /* marker, type */
        store16(packet + 2, (uint16_t)session->next_index);
        store32(packet + 4, timestamp);
        store32(packet + 8, options->random_ssrc ? random_ssrc(generator)
                                                 : options->base_ssrc + session_number);
        store64(packet + SEND_TIME_OFFSET, now);
        store64(packet + INDEX_OFFSET, session->next_index++);
    }
    for (unsigned i = 0; i < options->burst; i += generator->packets_per_message, added++) {
        unsigned packets = options->burst - i;
        if (packets > generator->packets_per_message)
            packets = generator->packets_per_message;
        generator->iovecs[message + added].iov_base = frame + (size_t)i * options->size;
        generator->iovecs[message + added].iov_len = (size_t)packets * options->size;
    }
    return added;
}

static void flush(struct generator *generator, int fd, unsigned count)
{
    unsigned done = 0;

    while (done < count && !stop_requested) {
        int result = sendmmsg(fd, generator->messages + done, count - done, 0);
        if (result <= 0) {
            generator->errors++;
            /* ECONNREFUSED reports an earlier packet, so this one is still to be sent. */
            if (errno != EINTR && errno != ECONNREFUSED)
                done++;
            continue;
        }
        for (unsigned end = done + (unsigned)result; done < end; done++) {
            size_t bytes = generator->iovecs[done].iov_len;
            generator->bytes += bytes;
            generator->sent += bytes / generator->options.size;
        }
    }
}

/* Sends up to `frames` frames that share a socket; returns how many. */
static unsigned send_batch(struct generator *generator, uint64_t frames)
{
    unsigned written = 0, messages = 0;
    int fd = generator->sessions[generator->next_session].fd;
    uint64_t now = clock_ns(CLOCK_REALTIME);

    while (written < frames && written < generator->frames_per_batch &&
           generator->sessions[generator->next_session].fd == fd) {
        messages += write_frame(generator, written++, messages, generator->next_session, now);
        generator->next_session = (generator->next_session + 1) % generator->options.sessions;
    }
    flush(generator, fd, messages);
    return written;
}

static void sleep_until(uint64_t monotonic_ns)
{
    struct timespec until = {
        .tv_sec = (time_t)(monotonic_ns / 1000000000u),
        .tv_nsec = (long)(monotonic_ns % 1000000000u),
    };

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void generate(struct generator *generator)
{
    const struct options *options = &generator->options;
    uint64_t start = clock_ns(CLOCK_MONOTONIC), frames = 0;
    uint64_t end = start + (uint64_t)(options->duration * 1e9);
    uint64_t limit = options->count ? (options->count + options->burst - 1) / options->burst
                                    : UINT64_MAX;
    double interval = options->rate > 0 ? options->burst / options->rate * 1e9 : 0;

    while (!stop_requested && frames < limit) {
        uint64_t now = clock_ns(CLOCK_MONOTONIC), due = limit - frames;
        if (now >= end)
            break;
        if (interval > 0) {
            uint64_t next = start + (uint64_t)((double)frames * interval);
            if (next > now) {
                sleep_until(next < end ? next : end);
                continue;
            }
            uint64_t owed = (uint64_t)((double)(now - start) / interval) + 1 - frames;
            generator->late_frames += owed - 1;
            due = owed < due ? owed : due;
        }
        frames += send_batch(generator, due);
    }
}

int main(int argc, char **argv)
{
    struct generator generator = { .options = parse_options(argc, argv), .random = 0x9e3779b97f4a7c15 };
    uint64_t start;
    double seconds;

    open_sessions(&generator);
    prepare_packets(&generator);
    install_signals((unsigned)generator.options.duration + 5);
    start = clock_ns(CLOCK_MONOTONIC);
    generate(&generator);
    seconds = (double)(clock_ns(CLOCK_MONOTONIC) - start) / 1e9;
    printf("{\"sent\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"errors\": %" PRIu64
           ", \"late_frames\": %" PRIu64 ", \"seconds\": %.6f}\n",
           generator.sent, generator.bytes, generator.errors, generator.late_frames, seconds);
    return 0;
}
