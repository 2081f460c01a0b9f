/* The command line that plainloop and gsoloop have in common. */
#ifndef LOOP_OPTIONS_H
#define LOOP_OPTIONS_H

#include "bench.h"

#include <getopt.h>

struct loop_options {
    struct sockaddr_in bind_address, first_destination;
    unsigned destinations, limit_seconds;
    int by_address, receive_buffer;
};

static inline struct loop_options parse_loop_options(int argc, char **argv)
{
    static const struct option known[] = {
        { "bind", required_argument, NULL, 'b' },  { "to", required_argument, NULL, 't' },
        { "count", required_argument, NULL, 'c' }, { "by-address", no_argument, NULL, 'a' },
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

#endif
