#include "egress.h"

#include <errno.h>
#include <poll.h>

enum { INTERRUPTS_BORNE = 64 };

void batch_add(struct batch *b, struct copy copy, socklen_t name_len)
{
    struct msghdr *msg = &b->header[b->used].msg_hdr;

    msg->msg_name = &copy.subscriber->name;
    msg->msg_namelen = name_len;
    msg->msg_iov = &copy.packet->bytes;
    msg->msg_iovlen = 1;
    b->copy[b->used++] = copy;
}

enum send_failure egress_failure(int error)
{
    switch (error) {
    case EAGAIN:
#if EWOULDBLOCK != EAGAIN
    case EWOULDBLOCK:
#endif
        return FAILED_would_block;
    case ENOBUFS:
    case ENOMEM:
        return FAILED_no_buffer;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case ENODEV:
    case ENXIO:
    case EADDRNOTAVAIL:
    case ECONNREFUSED:
        return FAILED_unreachable;
    case EPERM:
    case EACCES:
        return FAILED_denied;
    case EMSGSIZE:
        return FAILED_too_big;
    case EINVAL:
    case EAFNOSUPPORT:
    case EDESTADDRREQ:
        return FAILED_invalid;
    default:
        return FAILED_other;
    }
}

/* Up to a millisecond; false when it can't be waited for. */
static bool wait_for_room(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 1) >= 0 || errno == EINTR;
}

void egress_flush(int fd, struct batch *b, int wait_ms)
{
    int interrupts = INTERRUPTS_BORNE;
    unsigned done = 0;

    while (done < b->used) {
        int n = sendmmsg(fd, b->header + done, b->used - done, MSG_DONTWAIT);

        if (n > 0) {
            for (unsigned end = done + (unsigned)n; done < end; done++)
                b->copy[done].outcome = SENT;
            continue;
        }
        int error = n < 0 ? errno : EIO;

        if (error == EINTR && interrupts-- > 0)
            continue;
        if (error == EAGAIN && wait_ms-- > 0 && wait_for_room(fd))
            continue;
        b->copy[done++].outcome = egress_failure(error);
    }
}
