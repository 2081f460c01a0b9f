#include "steer.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

enum { MOST_STEPS = 64 };

/* Where a load finds bytes of the IP header, and what the kernel knows beside the packet. */
#define IP(at) ((uint32_t)(SKF_NET_OFF + (at)))
#define BESIDE(what) ((uint32_t)(SKF_AD_OFF + (what)))

static const uint32_t ALL = UINT32_MAX, NONE = 0; /* bytes of a datagram that a filter lets in */

struct program {
    unsigned short steps;
    struct sock_filter step[MOST_STEPS];
};

static void append(struct program *p, const struct sock_filter *steps, size_t count)
{
    memcpy(&p->step[p->steps], steps, count * sizeof *steps);
    p->steps += (unsigned short)count;
}

/* A becomes the number, 0 to count - 1, of the socket that a source belongs to. Classic BPF sees the
 * payload; SKF_NET_OFF reaches back to the IP header.
 * hash = xor of the words of the source IP address and the multiplied source port, spread by
 * another multiplication. The port is multiplied for plans where camera n has address a + n and
 * port p + n: plain, the two cancel out. */
static void append_choice(struct program *p, unsigned count)
{
    const struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, IP(0)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x60, 9, 0),
        /* IPv4: X = header length; port at X, address at 12 */
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, IP(0)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x0f),
        BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 2),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_H | BPF_IND, IP(0)),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x85ebca6b),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP(12)),
        BPF_STMT(BPF_JMP | BPF_JA, 13),
        /* IPv6: port at 40, address at 8 to 23 */
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, IP(40)),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x85ebca6b),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP(8)),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP(12)),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP(16)),
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP(20)),
        /* both: A and X are what is left to combine */
        BPF_STMT(BPF_ALU | BPF_XOR | BPF_X, 0),
        BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 0x9e3779b1),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 16),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, count),
    };

    append(p, steps, COUNT_OF(steps));
}

/* All but what may be broadcast: unicast must pass by whatever way it came. Multicast comes by who has
 * joined, and one socket of the port has. The kind of the frame doesn't say all: on loopback, and where
 * an access point has made unicast frames of it, a broadcast comes as if for this host alone. But the
 * last two bits of every subnet's broadcast address are ones. */
static void append_others_pass(struct program *p, bool ipv6_multicast)
{
    const struct sock_filter multicast[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, BESIDE(SKF_AD_PROTOCOL)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 0, 2),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, IP(24)), /* to ff00::/8? */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xff, 12, 0),
    };
    const struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, BESIDE(SKF_AD_PROTOCOL)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 9, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, IP(16)), /* where to; the one load that costs */
        BPF_STMT(BPF_MISC | BPF_TAX, 0),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 28),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xe, 5, 0), /* 224.0.0.0/4 */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, BESIDE(SKF_AD_PKTTYPE)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 0, 4),
        BPF_STMT(BPF_MISC | BPF_TXA, 0),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 3),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 3, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, ALL),
    };

    if (ipv6_multicast)
        append(p, multicast, COUNT_OF(multicast));
    append(p, steps, COUNT_OF(steps));
}

static int attach(int fd, int option, struct program *p)
{
    struct sock_fprog filter = {.len = p->steps, .filter = p->step};

    return setsockopt(fd, SOL_SOCKET, option, &filter, sizeof filter) ? -errno : 0;
}

int steer_by_source(int fd, unsigned count)
{
    const struct sock_filter end[] = {BPF_STMT(BPF_RET | BPF_A, 0)};
    struct program p = {0};

    append_choice(&p, count);
    append(&p, end, COUNT_OF(end));
    return attach(fd, SO_ATTACH_REUSEPORT_CBPF, &p);
}

/* By the same choice as steer_by_source: what a source broadcasts keeps its order with the rest. */
int steer_take_share(int fd, unsigned index, unsigned count, bool ipv6_multicast)
{
    const struct sock_filter end[] = {
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, index, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, ALL),
        BPF_STMT(BPF_RET | BPF_K, NONE),
    };
    struct program p = {0};

    append_others_pass(&p, ipv6_multicast);
    append_choice(&p, count);
    append(&p, end, COUNT_OF(end));
    return attach(fd, SO_ATTACH_FILTER, &p);
}

static const struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};

int steer_take_nothing(int fd)
{
    struct program p = {0};

    append(&p, nothing, COUNT_OF(nothing));
    return attach(fd, SO_ATTACH_FILTER, &p);
}

/* SO_GET_FILTER counts in steps, not in bytes. */
bool steer_takes_nothing(int fd)
{
    struct sock_filter steps[MOST_STEPS] = {0};
    socklen_t count = 0;

    if (getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &count) != 0 || count != COUNT_OF(nothing))
        return false;
    return getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, steps, &count) == 0 &&
           memcmp(steps, nothing, sizeof nothing) == 0;
}
