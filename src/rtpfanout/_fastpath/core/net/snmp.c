#include "snmp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGEST = 16384 };

void snmp_open(struct snmp *s)
{
    s->fd[0] = open("/proc/thread-self/net/snmp", O_RDONLY | O_CLOEXEC);
    s->fd[1] = open("/proc/thread-self/net/snmp6", O_RDONLY | O_CLOEXEC);
}

void snmp_close(struct snmp *s)
{
    for (int i = 0; i < 2; i++) {
        if (s->fd[i] >= 0)
            close(s->fd[i]);
        s->fd[i] = -1;
    }
}

static bool is_word(const char *text, size_t len, const char *word)
{
    return strlen(word) == len && memcmp(text, word, len) == 0;
}

static void add(struct udp_errors *e, const char *name, size_t len, uint64_t value)
{
    if (is_word(name, len, "RcvbufErrors") || is_word(name, len, "MemErrors"))
        e->full += value;
    else if (is_word(name, len, "InCsumErrors"))
        e->checksum += value;
}

/* Two lines for each protocol: "Udp: NAME NAME ..." and "Udp: VALUE VALUE ...". */
void snmp_parse(const char *snmp, struct udp_errors *out)
{
    const char *names = strstr(snmp, "\nUdp: ");

    if (!names)
        return;
    const char *values = strstr(names + 1, "\nUdp: ");

    if (!values)
        return;
    for (names += 6, values += 6; *names != '\n' && *values && *values != '\n';) {
        size_t len = strcspn(names, " \n");
        char *end;
        uint64_t value = strtoull(values, &end, 10);

        add(out, names, len, value);
        names += len + (names[len] == ' ');
        values = end + (*end == ' ');
    }
}

/* A line for each: "Udp6NAME VALUE". */
void snmp_parse6(const char *snmp6, struct udp_errors *out)
{
    for (const char *line = snmp6; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, "Udp6", 4) == 0) {
            size_t len = strcspn(line, " \t\n");

            add(out, line + 4, len - 4, strtoull(line + len, NULL, 10));
        }
    }
}

static bool contents(int fd, char *text)
{
    ssize_t n = fd < 0 ? -1 : pread(fd, text, LARGEST - 1, 0);

    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

int snmp_read(const struct snmp *s, struct udp_errors *out)
{
    struct udp_errors e = {0};
    char text[LARGEST];

    if (!contents(s->fd[0], text))
        return -ENOENT;
    snmp_parse(text, &e);
    if (contents(s->fd[1], text)) /* else there is no IPv6 */
        snmp_parse6(text, &e);
    *out = e;
    return 0;
}
