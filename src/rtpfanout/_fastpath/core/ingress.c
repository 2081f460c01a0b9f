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

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(struct timespec)) + CMSG_SPACE(sizeof(int)) + LOCAL_CONTROL];
};

struct ingress {
    int fd;
    bool gro;
    bool is_ours; /* the memory */
    unsigned recoveries; /* of what is in hand */
    /* msg_len is 0 in those that are not in hand. */
    struct mmsghdr header[INGRESS_BATCH];
    struct iovec iov[INGRESS_BATCH];
    union sockaddr_any name[INGRESS_BATCH];
    union control control[INGRESS_BATCH];
    /* Copies out of packets that begin on a cache line are 6 % faster. */
    alignas(64) uint8_t buffers[INGRESS_BATCH][STRIDE];
};

size_t ingress_size(void)
{
    return sizeof(struct ingress);
}

/* Ready for recvmmsg, which writes over the lengths. */
static void give_room(struct ingress *in, unsigned i)
{
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
    for (unsigned i = 0; i < INGRESS_BATCH; i++) {
        in->iov[i] = (struct iovec){in->buffers[i], INGRESS_DATAGRAM};
        in->header[i].msg_hdr.msg_iov = &in->iov[i];
        in->header[i].msg_hdr.msg_iovlen = 1;
        in->header[i].msg_hdr.msg_name = &in->name[i];
        in->header[i].msg_hdr.msg_control = &in->control[i];
        if (in->header[i].msg_len == 0)
            give_room(in, i);
    }
    *out = in;
    return 0;
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
    int n = recvmmsg(in->fd, in->header + used, INGRESS_BATCH - used, MSG_DONTWAIT, NULL);

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
        } else {
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
    out->segment = INGRESS_DATAGRAM;
    out->received_ns = 0;
    memset(out->local, 0, sizeof out->local);
    read_control(msg, out);
    addr_from_sockaddr(&out->source, &in->name[i]);
}

void ingress_settle(struct ingress *in, unsigned begin, unsigned end)
{
    for (unsigned i = begin; i < end; i++) {
        in->header[i].msg_len = 0;
        signal_fence_rls(); /* the process may die between any two stores: out of hand first */
        give_room(in, i);
    }
    in->recoveries = 0;
}

unsigned ingress_recover(struct ingress *in, bool *again)
{
    unsigned n = INGRESS_BATCH;

    while (n > 0 && in->header[n - 1].msg_len == 0)
        n--;
    *again = in->recoveries < INGRESS_RECOVERIES;
    if (n > 0)
        in->recoveries++;
    return n;
}
