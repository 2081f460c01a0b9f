/* What plainloop and gsoloop have in common: all but how a turn receives and sends. */
#ifndef LOOP_H
#define LOOP_H

#include "bench.h"

#include <getopt.h>

struct loop_options {
    struct sockaddr_in bind_address, first_destination;
    unsigned destinations, limit_seconds;
    int by_address, by_ssrc, receive_buffer;
};

static inline struct loop_options parse_loop_options(int argc, char **argv)
{
    static const struct option known[] = {
        { "bind", required_argument, NULL, 'b' },  { "to", required_argument, NULL, 't' },
        { "count", required_argument, NULL, 'c' }, { "by-address", no_argument, NULL, 'a' },
        { "by-ssrc", no_argument, NULL, 's' },
        { "limit", required_argument, NULL, 'l' },
        { "receive-buffer", required_argument, NULL, 'r' }, { 0 },
    };
    struct loop_options options = {
        .destinations = 1, .limit_seconds = 600, .receive_buffer = 64 << 20,
    };
    int letter;

    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (letter) {
        case 'b': options.bind_address = parse_endpoint("bind", optarg); break;
        case 't': options.first_destination = parse_endpoint("to", optarg); break;
        case 'c': options.destinations = (unsigned)parse_number("count", optarg, 1, 60000); break;
        case 'a': options.by_address = 1; break;
        case 's': options.by_ssrc = 1; break; /* of gsoloop alone */
        case 'l': options.limit_seconds = (unsigned)parse_number("limit", optarg, 1, 3600); break;
        case 'r':
            options.receive_buffer = (int)parse_number("receive-buffer", optarg, 4096, 1 << 30);
            break;
        default:
            die("usage: %s --bind ip:port --to ip:first_port [--count N] [--by-address]"
                " [--receive-buffer BYTES] [--limit SECONDS]", argv[0]);
        }
    }
    if (options.bind_address.sin_port == 0 || options.first_destination.sin_port == 0)
        die("--bind ip:port and --to ip:port are needed");
    return options;
}

/* Bound, with buffers as large as the kernel allows. */
static inline int open_loop_socket(const struct loop_options *options)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, options->receive_buffer);
    set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, 4 << 20);
    if (bind(fd, (const struct sockaddr *)&options->bind_address,
             sizeof(options->bind_address)) != 0)
        die("--bind: %s", strerror(errno));
    return fd;
}

static inline struct sockaddr_in *loop_destinations(const struct loop_options *options)
{
    struct sockaddr_in *addresses = must_alloc(options->destinations, sizeof(*addresses));

    for (unsigned i = 0; i < options->destinations; i++)
        addresses[i] = nth_endpoint(options->first_destination, i, options->by_address);
    return addresses;
}

/* Each has its own. */
struct loop;
static void prepare(struct loop *loop, const struct loop_options *options);
static void turn(struct loop *loop);
static void print_counters(const struct loop *loop);

static inline int loop_main(int argc, char **argv, struct loop *loop)
{
    struct loop_options options = parse_loop_options(argc, argv);

    prepare(loop, &options);
    install_signals(options.limit_seconds);
    puts("ready");
    fflush(stdout);
    while (!stop_requested) {
        turn(loop);
        if (report_requested) {
            report_requested = 0;
            print_counters(loop);
        }
    }
    print_counters(loop);
    return 0;
}

#endif
