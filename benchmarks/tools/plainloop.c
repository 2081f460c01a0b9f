/* The baseline: one UDP socket, recvmmsg in, sendmmsg out, a fixed list of destinations and no
 * lookup at all. Written as one would by hand when in need of a fast fan-out: batched over
 * packets and destinations, one mmsghdr per copy, nothing copied in user space.
 * SIGUSR1 prints one line of counters; SIGTERM prints them and ends. See README.md. */
#define _GNU_SOURCE
#include "bench.h"
#include "loop.h"

enum {
    RECEIVE_BATCH = 64,
    SEND_BATCH = 1024, /* UIO_MAXIOV, the most sendmmsg takes */
    PACKET_BYTES = 2048,
};

struct loop {
    int fd;
    unsigned destinations, queued;
    struct sockaddr_in *addresses;
    uint64_t received, bytes_received, sent, bytes_sent, failed;
    struct iovec iovecs[RECEIVE_BATCH];
    struct mmsghdr ingress[RECEIVE_BATCH], egress[SEND_BATCH];
    uint8_t packets[RECEIVE_BATCH][PACKET_BYTES];
};

static void print_counters(const struct loop *loop)
{
    printf("{\"received\": %" PRIu64 ", \"bytes_received\": %" PRIu64 ", \"sent\": %" PRIu64
           ", \"bytes_sent\": %" PRIu64 ", \"failed\": %" PRIu64 "}\n",
           loop->received, loop->bytes_received, loop->sent, loop->bytes_sent, loop->failed);
    fflush(stdout);
}

static void flush(struct loop *loop)
{
    unsigned done = 0;

    while (done < loop->queued) {
        int result = sendmmsg(loop->fd, loop->egress + done, loop->queued - done, 0);
        if (result <= 0) {
            if (errno == EINTR)
                continue;
            loop->failed++;
            done++;
            continue;
        }
        loop->sent += (unsigned)result;
        for (unsigned end = done + (unsigned)result; done < end; done++)
            loop->bytes_sent += loop->egress[done].msg_len;
    }
    loop->queued = 0;
}

static void fan_out(struct loop *loop, unsigned packet)
{
    for (unsigned i = 0; i < loop->destinations; i++) {
        struct msghdr *header = &loop->egress[loop->queued].msg_hdr;
        header->msg_name = &loop->addresses[i];
        header->msg_iov = &loop->iovecs[packet];
        if (++loop->queued == SEND_BATCH)
            flush(loop);
    }
}

static void turn(struct loop *loop)
{
    int count;

    for (unsigned i = 0; i < RECEIVE_BATCH; i++)
        loop->iovecs[i].iov_len = PACKET_BYTES;
    count = recvmmsg(loop->fd, loop->ingress, RECEIVE_BATCH, MSG_WAITFORONE, NULL);
    for (int i = 0; i < count; i++) {
        loop->iovecs[i].iov_len = loop->ingress[i].msg_len;
        loop->received++;
        loop->bytes_received += loop->ingress[i].msg_len;
        fan_out(loop, (unsigned)i);
    }
    flush(loop);
}

static void prepare(struct loop *loop, const struct loop_options *options)
{
    loop->fd = open_loop_socket(options);
    loop->destinations = options->destinations;
    loop->addresses = loop_destinations(options);
    for (unsigned i = 0; i < RECEIVE_BATCH; i++) {
        loop->iovecs[i].iov_base = loop->packets[i];
        loop->ingress[i].msg_hdr.msg_iov = &loop->iovecs[i];
        loop->ingress[i].msg_hdr.msg_iovlen = 1;
    }
    for (unsigned i = 0; i < SEND_BATCH; i++) {
        loop->egress[i].msg_hdr.msg_namelen = sizeof(struct sockaddr_in);
        loop->egress[i].msg_hdr.msg_iovlen = 1;
    }
}

int main(int argc, char **argv)
{
    return loop_main(argc, argv, must_alloc(1, sizeof(struct loop)));
}
