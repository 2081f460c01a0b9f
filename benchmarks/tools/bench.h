/* What the three load tools share: clocks, numbers from the command line, addresses, signals.
 *
 * Payload of a generated packet, after the 12-byte RTP header (RFC 3550 section 5.1), all in
 * network order: send time (CLOCK_REALTIME, ns), 8 bytes; index of the packet in its session,
 * counted from 0, 8 bytes; then a fixed pattern. The sequence number is the index modulo 2^16. */
#ifndef BENCH_H
#define BENCH_H

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    RTP_HEADER = 12,
    SEND_TIME_OFFSET = 12,
    INDEX_OFFSET = 20,
    PATTERN_OFFSET = 28,
    MIN_PACKET = PATTERN_OFFSET,
    MAX_PACKET = 65507,
};

static volatile sig_atomic_t stop_requested;
static volatile sig_atomic_t report_requested;

static inline void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline double parse_number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= least && value <= most))
        die("--%s %s: expected a number from %g to %g", name, text, least, most);
    return value;
}

/* "192.0.2.7:5000" */
static inline struct sockaddr_in parse_endpoint(const char *name, const char *text)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    const char *colon = strrchr(text, ':');
    char host[INET_ADDRSTRLEN];

    if (colon == NULL || (size_t)(colon - text) >= sizeof(host))
        die("--%s %s: expected ip:port", name, text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("--%s %s: %s is not an IPv4 address", name, text, host);
    address.sin_port = htons((uint16_t)parse_number(name, colon + 1, 0, 65535));
    return address;
}

/* `base` moved on by `index` ports, or by `index` addresses. */
static inline struct sockaddr_in nth_endpoint(struct sockaddr_in base, unsigned index,
                                              int by_address)
{
    if (by_address)
        base.sin_addr.s_addr = htonl(ntohl(base.sin_addr.s_addr) + index);
    else
        base.sin_port = htons((uint16_t)(ntohs(base.sin_port) + index));
    return base;
}

static inline void *must_alloc(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL)
        die("out of memory (%zu x %zu bytes)", count, size);
    return memory;
}

/* SO_SNDBUF or SO_RCVBUF, beyond rmem_max/wmem_max where privileged. */
static inline void set_buffer(int fd, int force_option, int option, int bytes)
{
    if (setsockopt(fd, SOL_SOCKET, force_option, &bytes, sizeof(bytes)) != 0)
        setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof(bytes));
}

static inline void allow_many_sockets(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline void on_signal(int number)
{
    if (number == SIGUSR1)
        report_requested = 1;
    else
        stop_requested = 1;
}

/* SIGTERM, SIGINT and the end of `limit_seconds` stop; SIGUSR1 asks for one line of counters. */
static inline void install_signals(unsigned limit_seconds)
{
    struct sigaction action = { .sa_handler = on_signal };

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    alarm(limit_seconds);
}

static inline uint16_t load16(const uint8_t *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return be16toh(value);
}

static inline uint32_t load32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return be32toh(value);
}

static inline uint64_t load64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return be64toh(value);
}

static inline void store16(uint8_t *at, uint16_t value)
{
    value = htobe16(value);
    memcpy(at, &value, sizeof(value));
}

static inline void store32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof(value));
}

static inline void store64(uint8_t *at, uint64_t value)
{
    value = htobe64(value);
    memcpy(at, &value, sizeof(value));
}

static inline uint8_t pattern_byte(size_t offset)
{
    return (uint8_t)(offset * 131u + 7u);
}

#endif
