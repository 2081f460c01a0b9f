/* Opens the UDP sockets the packet path lives on. */
#ifndef RF_SOCK_H
#define RF_SOCK_H

#include "addr.h"

struct sock {
    int fd;
    int family;
    struct rf_addr bound;
    bool dual_stack; /* an AF_INET6 socket that also speaks IPv4 */
};

/* Non-blocking, bound, with kernel receive time stamps (SO_TIMESTAMPNS). IPV6_V6ONLY is
 * off for [::] only. IP_RECVERR stays off: with it, one subscriber's ICMP error would fail
 * the next send to another. 0 or -errno. */
int sock_open(struct sock *out, const struct rf_addr *bind, uint32_t receive_buffer,
              uint32_t send_buffer);
/* One more socket on the address of `first`, of its SO_REUSEPORT group. Only `first` was bound
 * alone, so a second server finds the port in use. Of multicast it takes what it has joined. 0 or
 * -errno. */
int sock_open_another(struct sock *out, const struct sock *first, uint32_t receive_buffer,
                      uint32_t send_buffer);
/* The same, to send by: it takes nothing. What comes to every socket of the port, a broadcast,
 * counts as one of its drops. 0 or -errno. */
int sock_open_deaf(struct sock *out, const struct sock *first, uint32_t send_buffer);
/* Whether multicast of groups that other sockets of the host have joined is left to them. One that
 * sock_open opened takes it. False where IPv6's is taken by all sockets in any case: the kernel is
 * older than Linux 4.20. */
bool sock_take_joined_only(const struct sock *s, bool only);
/* A duplicate of a UDP socket that sock_open bound, here or in another process; stamps are on
 * afterwards. -EINVAL (no such socket), or -errno. */
int sock_adopt(struct sock *out, int fd);
void sock_close(struct sock *s);
/* One datagram; from any thread. It leaves from `from` (an IP address, NULL or all zero: the kernel
 * chooses), or, where this host doesn't have that any more, from what the kernel chooses. 0 or
 * -errno, -EAGAIN when there is no room for it. */
int sock_send(const struct sock *s, const struct rf_addr *to, const uint8_t *from, const void *data,
              size_t len);
/* Not to one address: then what is received tells to which one it came, and what is sent may be told
 * from which to leave. */
bool sock_is_wildcard(const struct sock *s);
/* 0 or -errno. */
int sock_tell_local(const struct sock *s);
/* How what is received is marked (IP_TOS, IPV6_TCLASS); best effort. */
void sock_tell_tos(const struct sock *s, bool on);
/* From which address the kernel would send to `to`: asked of a socket made for that by
 * sock_open_probe(family). 0 or -errno. */
int sock_open_probe(int family);
int sock_probe(int fd, const union sockaddr_any *to, struct rf_addr *from);
void sock_close_probe(int fd);

/* How long a packet may be without being cut, the same for single ones and for UDP_SEGMENT. Usually
 * what the interface takes, and never "don't fragment" (IP_PMTUDISC_OMIT): then no ICMP
 * message, which anybody can forge, has a say, and no path that swallows such messages swallows
 * packets. With `discover` what the kernel has learnt of the path (IP_PMTUDISC_WANT). 0 or -errno. */
int sock_set_path_mtu(const struct sock *s, bool discover);

/* Whether it can send to addresses of that family. */
bool sock_sends_ipv4(const struct sock *s);
bool sock_sends_ipv6(const struct sock *s);

/* SO_RCVBUF or SO_SNDBUF as the kernel accounts it: twice what was granted. */
uint32_t sock_buffer_size(const struct sock *s, int option);
enum { SOCK_NOTE_MAX = 0x3fffffff };

struct sock_queue {
    /* Datagrams that came to the socket and not into its queue since it was opened, modulo 2^32: it
     * was full, the checksum is wrong, or a filter refused (SK_MEMINFO_DROPS, the counter
     * SO_RXQ_OVFL reports with the next packet). */
    uint32_t drops;
    uint32_t used, size; /* bytes, as the kernel accounts them */
};

struct sock_queue sock_queue(const struct sock *s);
/* A number that the socket itself keeps, whoever has it then: 0 at first, up to SOCK_NOTE_MAX. */
uint32_t sock_note(const struct sock *s);
void sock_set_note(const struct sock *s, uint32_t note);

#endif
