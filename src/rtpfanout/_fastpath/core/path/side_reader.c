#include "side_reader.h"

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

int side_reader_init(struct side_reader *r)
{
    *r = (struct side_reader){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    return r->epoll_fd < 0 ? -errno : 0;
}

void side_reader_destroy(struct side_reader *r)
{
    if (r->epoll_fd >= 0)
        close(r->epoll_fd);
    r->epoll_fd = -1;
}

int side_reader_add(struct side_reader *r, const struct side_port *port)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = port->sock.bound.port};

    if (epoll_ctl(r->epoll_fd, EPOLL_CTL_ADD, port->sock.fd, &event))
        return -errno;
    fetch_add_rlx(&r->count, 1);
    return 0;
}

/* By its number: the kernel knows it by the descriptor and what that is open on, which others may
 * have, too, so closing ours would not do. */
void side_reader_remove(struct side_reader *r, const struct side_port *port)
{
    struct epoll_event none = {0};

    if (epoll_ctl(r->epoll_fd, EPOLL_CTL_DEL, port->sock.fd, &none) == 0)
        fetch_add_rlx(&r->count, UINT32_MAX);
}

/* The kernel names those that were named last at the end next time, so all get their turn. */
unsigned side_reader_receive(struct side_reader *r, const struct side_ports *ports,
                             struct ingress *in, unsigned used, unsigned end, uint64_t now,
                             counter *errors)
{
    struct epoll_event event[INGRESS_BATCH];
    unsigned begin = used;
    int n = used < end ? epoll_wait(r->epoll_fd, event, (int)(end - used), 0) : 0;

    r->asked_ns = now;
    r->ready = n > 0 && (unsigned)n == end - begin; /* then there may be more of them */
    for (int i = 0; i < n && used < end; i++) {
        uint16_t number = (uint16_t)event[i].data.u32;
        const struct side_port *port = side_port_at(ports, number);
        unsigned most = (end - used) / (unsigned)(n - i); /* to look once more in vain costs time */
        int got = port ? ingress_receive_by(in, used, most, port->sock.fd, number) : 0;

        r->ready |= got == (int)most;
        if (got < 0)
            counter_add(errors, 1);
        else
            used += (unsigned)got;
    }
    return used - begin;
}
