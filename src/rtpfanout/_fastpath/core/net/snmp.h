/* What the host counts of UDP: the reasons that a socket's own count of drops doesn't tell. */
#ifndef RF_SNMP_H
#define RF_SNMP_H

#include <stdint.h>

/* Datagrams for sockets of a network namespace, since it is there, over both families. */
struct udp_errors {
    uint64_t full;     /* no room: RcvbufErrors and MemErrors */
    uint64_t checksum; /* InCsumErrors */
};

struct snmp {
    int fd[2]; /* of IPv4 and IPv6; -1: the host doesn't tell */
};

/* Of the calling thread's namespace. The files stay open, so that a process which has used up its
 * descriptors still can read them. */
void snmp_open(struct snmp *s);
void snmp_close(struct snmp *s);
/* -ENOENT where the host doesn't tell. */
int snmp_read(const struct snmp *s, struct udp_errors *out);
/* The contents of /proc/net/snmp and of /proc/net/snmp6 (proc(5)), added to `out`. */
void snmp_parse(const char *snmp, struct udp_errors *out);
void snmp_parse6(const char *snmp6, struct udp_errors *out);

#endif
