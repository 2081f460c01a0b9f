#include "port.h"

#include <errno.h>

#include "core.h"

enum {
    /* What one 1200-byte packet takes of SO_RCVBUF: half of its truesize, 2304 bytes of
     * sk_buff and data, since the kernel doubles what is asked for (socket(7)). */
    PACKET_CHARGE = 1152,
};

uint32_t port_receive_buffer(uint32_t packets)
{
    uint64_t bytes = (uint64_t)packets * PACKET_CHARGE;

    return bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (uint32_t)bytes;
}

static void close_all(struct sock *socks, uint32_t count)
{
    while (count > 0)
        sock_close(&socks[--count]);
}

int port_open(struct sock *socks, const struct rf_addr *bind, uint32_t workers,
              uint32_t receive_buffer)
{
    int rc = sock_open(&socks[0], bind, receive_buffer, SEND_BUFFER);

    if (rc)
        return rc;
    for (uint32_t count = 1; count < workers; count++) {
        rc = sock_open_another(&socks[count], &socks[0], receive_buffer, SEND_BUFFER);
        if (rc) {
            close_all(socks, count);
            return rc;
        }
        /* At once, so that nothing is steered to a socket nobody reads. */
        if (sock_steer_by_source(&socks[0], count + 1) != 0) {
            sock_close(&socks[count]);
            return (int)count;
        }
    }
    return (int)workers;
}

int port_adopt(struct sock *socks, const int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        int rc = sock_adopt(&socks[i], fds[i]);

        if (rc == 0 && !addr_equal(&socks[i].bound, &socks[0].bound)) {
            sock_close(&socks[i]);
            rc = -EINVAL;
        }
        if (rc) {
            close_all(socks, i);
            return rc;
        }
    }
    return 0;
}

/* A group of one has a program too: else the kernel would give a socket that joins later, to
 * send by, its share of the sources until the program is there. What makes it a group
 * is a second member, for a moment. */
static void steer_to_one(struct sock *s)
{
    struct sock other;

    if (sock_open_another(&other, s, 0, 0) != 0)
        return;
    (void)sock_steer_by_source(s, 1);
    sock_close(&other);
}

int rf_sockets_open(const struct rf_addr *bind, uint32_t count, uint32_t receive_queue_packets,
                    int *fds)
{
    struct sock socks[RF_MAX_WORKERS];

    if (count == 0 || count > RF_MAX_WORKERS || receive_queue_packets == 0)
        return -EINVAL;
    int n = port_open(socks, bind, count, port_receive_buffer(receive_queue_packets));

    if (n == 1)
        steer_to_one(&socks[0]);
    for (int i = 0; i < n; i++)
        fds[i] = socks[i].fd;
    return n;
}
