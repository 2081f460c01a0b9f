/* A reception by itself, for tests in Python: orders by lines of standard input, in virtual time.
 *
 *   new                     another record
 *   media ENCODING CLOCK    what is told of it, the first by number
 *   packet NS HEX           a packet
 *   figures                 answered by a line of "name value" pairs; absent ones are left out */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "watch.h"

static struct reception r;
static struct watch w;
static uint64_t now;

static void tell(void)
{
    struct watched s = {.last_packet_ns = now};
    struct rf_reception f;

    watch_figures(&w, &r, &s, now, &f);
#define X(name, help)                                 \
    if (f.name != RF_ABSENT)                          \
        printf(#name " %" PRId64 " ", f.name);
    RF_RECEPTION_FIELDS(X)
#undef X
    printf("encoding %d\n", (int)f.encoding);
    fflush(stdout);
}

static void take(const char *hex)
{
    uint8_t packet[2048];
    size_t len = 0;
    unsigned byte;

    for (; len < sizeof packet && sscanf(hex, "%2x", &byte) == 1; hex += 2)
        packet[len++] = (uint8_t)byte;
    struct reception_packet p = {packet, len, now, false};

    reception_take(&r, &p);
}

int main(void)
{
    static char line[8192];
    unsigned encoding, clock;
    int used;

    reception_begin(&r);
    while (fgets(line, sizeof line, stdin)) {
        if (strcmp(line, "new\n") == 0) {
            reception_begin(&r);
            memset(&w, 0, sizeof w);
        } else if (sscanf(line, "media %u %u", &encoding, &clock) == 2) {
            reception_ask(&r, media_word((enum rf_encoding)encoding, RF_ANY_PAYLOAD_TYPE, 0, clock));
        } else if (sscanf(line, "packet %" SCNu64 " %n", &now, &used) == 1) {
            take(line + used);
        } else if (strcmp(line, "figures\n") == 0) {
            tell();
        } else {
            return 1;
        }
    }
    return 0;
}
