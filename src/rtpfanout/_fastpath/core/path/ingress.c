#include "ingress.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/udp.h>
#include <time.h>

#include "atomic.h"

/* A stride of exactly 64 KiB would put every packet's header into the same cache set. */
enum { STRIDE = INGRESS_DATAGRAM + 2 * 64 };

/* In msg_flags, which the kernel writes with each datagram, and never so: nothing is in hand. A
 * length of 0 does not say that, for there are datagrams without a byte. */
enum { OUT_OF_HAND = -1 };

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(struct timespec)) + 2 * CMSG_SPACE(sizeof(int)) + LOCAL_CONTROL];
};

struct ingress {
    int fd;
    bool gro;
    bool is_ours; /* the memory */
    unsigned recoveries; /* of the slice at hand, see ingress_recover */
    bool careful;        /* a process died of the first slice already */
    struct mmsghdr header[INGRESS_BATCH];
    struct iovec iov[INGRESS_BATCH];
    union sockaddr_any name[INGRESS_BATCH];
    union control control[INGRESS_BATCH];
    uint16_t port[INGRESS_BATCH]; /* that what comes next comes to; 0: the main one */
    /* Copies out of packets that begin on a cache line are 6 % faster. */
    alignas(64) uint8_t buffers[INGRESS_BATCH][STRIDE];
};

size_t ingress_size(void)
{
    return sizeof(struct ingress);
}

static bool in_hand(const struct ingress *in, unsigned i)
{
    return in->header[i].msg_hdr.msg_flags != OUT_OF_HAND;
}

/* Ready for recvmmsg, which writes over the lengths. */
static void give_room(struct ingress *in, unsigned i)
{
    in->header[i].msg_hdr.msg_flags = OUT_OF_HAND;
    signal_fence_rls(); /* the process may die between any two stores: out of hand first */
    in->header[i].msg_hdr.msg_namelen = sizeof in->name[i];
    in->header[i].msg_hdr.msg_controllen = sizeof in->control[i];
}

int ingress_new(int fd, void *memory, struct ingress **out)
{
    struct ingress *in = memory ? memory : aligned_alloc(alignof(struct ingress), sizeof *in);
    int on = 1;

    if (!in)
        return -ENOMEM;
    in->fd = fd;
    in->gro = setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) == 0;
    in->is_ours = !memory;
    if (in->is_ours) {
        in->recoveries = 0;
        memset(in->header, 0, sizeof in->header);
    }
    in->careful = in->recoveries > 0;
    for (unsigned i = 0; i < INGRESS_BATCH; i++) {
        bool fresh = !in->header[i].msg_hdr.msg_iov;

        if (fresh || !in_hand(in, i))
            give_room(in, i);
        signal_fence_rls(); /* it is out of hand before it is no longer fresh */
        in->iov[i] = (struct iovec){in->buffers[i], INGRESS_DATAGRAM};
        in->header[i].msg_hdr.msg_iov = &in->iov[i];
        in->header[i].msg_hdr.msg_iovlen = 1;
        in->header[i].msg_hdr.msg_name = &in->name[i];
        in->header[i].msg_hdr.msg_control = &in->control[i];
    }
    *out = in;
    return 0;
}

void ingress_use_gro(int fd)
{
    int on = 1;

    (void)setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
}

void ingress_free(struct ingress *in)
{
    if (in && in->is_ours)
        free(in);
}

bool ingress_has_gro(const struct ingress *in)
{
    return in->gro;
}

int ingress_receive(struct ingress *in)
{
    return ingress_receive_behind(in, 0);
}

int ingress_receive_behind(struct ingress *in, unsigned used)
{
    return ingress_receive_by(in, used, INGRESS_BATCH - used, in->fd, 0);
}

/* Only those that are filled need their port noted, and nobody knows which will be. */
int ingress_receive_by(struct ingress *in, unsigned used, unsigned most, int fd, uint16_t port)
{
    for (unsigned i = used; i < used + most; i++)
        in->port[i] = port;
    int n = recvmmsg(fd, in->header + used, most, MSG_DONTWAIT, NULL);

    if (n < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
    return n;
}

static void read_control(const struct msghdr *msg, struct datagram *out)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR((struct msghdr *)msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;

            memcpy(&t, CMSG_DATA(c), sizeof t);
            out->received_ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
        } else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int segment;

            memcpy(&segment, CMSG_DATA(c), sizeof segment);
            if (segment > 0)
                out->segment = (uint32_t)segment;
        } else if (!tos_from_control(&out->tos, c)) {
            addr_from_control(out->local, c);
        }
    }
}

void ingress_datagram(const struct ingress *in, unsigned i, struct datagram *out)
{
    const struct msghdr *msg = &in->header[i].msg_hdr;

    out->data = msg->msg_iov->iov_base;
    out->len = in->header[i].msg_len;
    out->truncated = msg->msg_flags & MSG_TRUNC;
    out->port = in->port[i];
    out->segment = INGRESS_DATAGRAM;
    out->received_ns = 0;
    out->tos = 0;
    memset(out->local, 0, sizeof out->local);
    read_control(msg, out);
    addr_from_sockaddr(&out->source, &in->name[i]);
}

void ingress_settle(struct ingress *in, unsigned begin, unsigned end)
{
    if (begin == end)
        return;
    for (unsigned i = begin; i < end; i++)
        give_room(in, i);
    in->recoveries = 0;
}

uint32_t datagram_packets(const struct datagram *d)
{
    return d->len && !d->truncated ? (d->len + d->segment - 1) / d->segment : 1;
}

/* Behind the buffers from `begin` that are tried together. */
static unsigned slice_end(const struct ingress *in, unsigned begin)
{
    unsigned end = begin;
    uint32_t packets = 0;
    struct datagram d;

    do {
        ingress_datagram(in, end, &d);
        packets += datagram_packets(&d);
        if (packets > INGRESS_SLICE && end > begin)
            break;
        end++;
    } while (!in->careful && end < INGRESS_BATCH && in_hand(in, end));
    return end;
}

bool ingress_recover(struct ingress *in, struct slice *out)
{
    unsigned begin = 0;

    while (begin < INGRESS_BATCH && !in_hand(in, begin))
        begin++;
    if (begin == INGRESS_BATCH)
        return false;
    *out = (struct slice){begin, slice_end(in, begin), in->recoveries < INGRESS_RECOVERIES};
    in->recoveries++;
    return true;
}
