#include "port.h"

#include <errno.h>
#include <string.h>

#include "core.h"
#include "steer.h"

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

/* Returns how many there are then. */
static int open_group(struct sock *socks, uint32_t workers, uint32_t receive_buffer)
{
    for (uint32_t count = 1; count < workers; count++) {
        int rc = sock_open_another(&socks[count], &socks[0], receive_buffer, SEND_BUFFER);

        if (rc) {
            close_all(socks + 1, count - 1);
            return rc;
        }
        /* At once, so that nothing is steered to a socket nobody reads. */
        if (steer_by_source(socks[0].fd, count + 1) != 0) {
            sock_close(&socks[count]);
            return (int)count;
        }
    }
    return (int)workers;
}

int port_open(struct sock *socks, const struct rf_addr *bind, uint32_t workers,
              uint32_t receive_buffer, struct sock *deaf)
{
    int count, rc = sock_open(&socks[0], bind, receive_buffer, SEND_BUFFER);

    deaf->fd = -1;
    if (rc)
        return rc;
    count = open_group(socks, workers, receive_buffer);
    if (count < 0) {
        sock_close(&socks[0]);
        return count;
    }
    rc = port_share(socks, (uint32_t)count, deaf);
    if (rc)
        close_all(socks, (uint32_t)count);
    return rc ? rc : count;
}

static int take_shares(const struct sock *socks, uint32_t count)
{
    bool can_leave = true;
    int rc = 0;

    for (uint32_t i = 1; i < count; i++)
        can_leave &= sock_take_joined_only(&socks[i], true);
    for (uint32_t i = 0; i < count && rc == 0; i++)
        rc = steer_take_share(socks[i].fd, i, count, !can_leave);
    return rc;
}

int port_share(const struct sock *socks, uint32_t count, struct sock *deaf)
{
    bool is_ours = deaf->fd < 0;
    int rc;

    if (count == 1)
        return 0;
    if (is_ours && (rc = sock_open_deaf(deaf, &socks[0], 0)))
        return rc;
    rc = take_shares(socks, count);
    if (is_ours && rc)
        sock_close(deaf);
    else if (is_ours) /* until now the others refused nothing */
        sock_set_note(deaf, sock_queue(deaf).drops);
    return rc;
}

int port_adopt(struct sock *socks, const int *fds, uint32_t count, struct sock *deaf)
{
    struct sock adopted[RF_MAX_WORKERS + 1];
    uint32_t receiving = port_receiving(fds, count), i;
    int rc = 0;

    deaf->fd = -1;
    for (i = 0; i < count && rc == 0; i++) {
        rc = sock_adopt(&adopted[i], fds[i]);
        if (rc == 0 && !addr_equal(&adopted[i].bound, &adopted[0].bound)) {
            sock_close(&adopted[i]);
            rc = -EINVAL;
        }
    }
    if (rc) {
        close_all(adopted, i - 1);
        return rc;
    }
    memcpy(socks, adopted, receiving * sizeof *socks);
    if (receiving < count)
        *deaf = adopted[receiving];
    return 0;
}

uint32_t port_receiving(const int *fds, uint32_t count)
{
    return count > 1 && steer_takes_nothing(fds[count - 1]) ? count - 1 : count;
}

/* A group of one has a program too: else the kernel would give a socket that joins later, to
 * send by, its share of the sources until the program is there. What makes it a group
 * is a second member, for a moment. */
static void steer_to_one(struct sock *s)
{
    struct sock other;

    if (sock_open_deaf(&other, s, 0) != 0)
        return;
    (void)steer_by_source(s->fd, 1);
    sock_close(&other);
}

int rf_sockets_open(const struct rf_addr *bind, uint32_t count, uint32_t receive_queue_packets,
                    int *fds)
{
    struct sock socks[RF_MAX_WORKERS], deaf;

    if (count == 0 || count > RF_MAX_WORKERS || receive_queue_packets == 0)
        return -EINVAL;
    int n = port_open(socks, bind, count, port_receive_buffer(receive_queue_packets), &deaf);

    if (n == 1)
        steer_to_one(&socks[0]);
    for (int i = 0; i < n; i++)
        fds[i] = socks[i].fd;
    if (n > 1)
        fds[n++] = deaf.fd;
    return n;
}

uint32_t rf_sockets_receiving(const int *fds, uint32_t count)
{
    return port_receiving(fds, count);
}
