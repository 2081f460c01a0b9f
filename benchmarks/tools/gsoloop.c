/* The ceiling: what UDP_GRO in and UDP_SEGMENT out can do with no session logic around it. One
 * socket, a fixed list of destinations, no lookup, no parsing, no counters but totals. Packets of
 * equal length that follow each other leave as one group of up to 64 segments and 65,000 bytes,
 * once to each destination, all sharing one iovec array and one control message. With --by-ssrc a
 * group ends where the SSRC changes, and is what a server of sessions can send at the most.
 * SIGUSR1 prints one line of counters; SIGTERM prints them and ends. See README.md. */
#define _GNU_SOURCE
#include "bench.h"
#include "loop.h"

#include <netinet/udp.h>

enum {
    RECEIVE_BATCH = 64,
    SEND_BATCH = 1024, /* UIO_MAXIOV, the most sendmmsg takes */
    BUFFER_BYTES = 65536,
    BUFFER_STRIDE = BUFFER_BYTES + 128, /* not all first lines in one cache set */
    GROUP_PACKETS = 64,
    GROUP_BYTES = 65000,
    GROUPS = RECEIVE_BATCH * 64, /* no two packets of a turn alike in length */
};

union segment_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
};

union receive_control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
};

struct group {
    struct iovec *iov;
    unsigned iov_count, packets, bytes, segment;
    int closed; /* ended by a shorter packet */
    uint32_t ssrc;
    union segment_control control;
};

struct loop {
    int fd, by_ssrc;
    unsigned destinations, queued, group_count, iov_count;
    struct sockaddr_in *addresses;
    uint64_t received, bytes_received, sent, bytes_sent, sends, failed;
    struct iovec ingress_iov[RECEIVE_BATCH], iov[GROUPS];
    struct mmsghdr ingress[RECEIVE_BATCH], egress[SEND_BATCH];
    union receive_control ingress_control[RECEIVE_BATCH];
    struct group groups[GROUPS];
    unsigned packets_of[SEND_BATCH];
    uint8_t buffers[RECEIVE_BATCH][BUFFER_STRIDE];
};

static void print_counters(const struct loop *loop)
{
    printf("{\"received\": %" PRIu64 ", \"bytes_received\": %" PRIu64 ", \"sent\": %" PRIu64
           ", \"bytes_sent\": %" PRIu64 ", \"sends\": %" PRIu64 ", \"failed\": %" PRIu64 "}\n",
           loop->received, loop->bytes_received, loop->sent, loop->bytes_sent, loop->sends,
           loop->failed);
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
            loop->failed += loop->packets_of[done++];
            continue;
        }
        loop->sends += (unsigned)result;
        for (unsigned end = done + (unsigned)result; done < end; done++) {
            loop->sent += loop->packets_of[done];
            loop->bytes_sent += loop->egress[done].msg_len;
        }
    }
    loop->queued = 0;
}

static struct group *new_group(struct loop *loop, unsigned segment, uint32_t ssrc)
{
    struct group *group = &loop->groups[loop->group_count++];
    uint16_t value = (uint16_t)segment;

    group->iov = &loop->iov[loop->iov_count];
    group->iov_count = group->packets = group->bytes = 0;
    group->segment = segment;
    group->closed = 0;
    group->ssrc = ssrc;
    group->control.align.cmsg_len = CMSG_LEN(sizeof(value));
    group->control.align.cmsg_level = IPPROTO_UDP;
    group->control.align.cmsg_type = UDP_SEGMENT;
    memcpy(CMSG_DATA(&group->control.align), &value, sizeof(value));
    return group;
}

/* Packets of `segment` bytes, the last maybe shorter, side by side in one buffer. */
static void append(struct loop *loop, uint8_t *data, unsigned length, unsigned segment, uint32_t ssrc)
{
    struct group *group = loop->group_count ? &loop->groups[loop->group_count - 1] : NULL;

    if (group != NULL && group->ssrc != ssrc)
        group = NULL;
    while (length > 0) {
        unsigned room = 0, take;
        if (group != NULL && !group->closed && segment <= group->segment) {
            unsigned by_bytes = (GROUP_BYTES - group->bytes) / segment;
            room = GROUP_PACKETS - group->packets;
            room = by_bytes < room ? by_bytes : room;
            if (segment < group->segment && room > 1)
                room = 1;
        }
        if (room == 0) {
            group = new_group(loop, segment, ssrc);
            room = GROUP_BYTES / segment < GROUP_PACKETS ? GROUP_BYTES / segment : GROUP_PACKETS;
            room = room == 0 ? 1 : room;
        }
        take = length < room * segment ? length : room * segment;
        group->iov[group->iov_count++] = (struct iovec){ data, take };
        loop->iov_count++;
        group->packets += (take + segment - 1) / segment;
        group->bytes += take;
        group->closed = segment < group->segment || take % segment != 0;
        data += take;
        length -= take;
    }
}

static uint32_t ssrc_of(const struct loop *loop, const uint8_t *packet, unsigned length)
{
    return loop->by_ssrc && length >= RTP_HEADER ? load32(packet + 8) : 0;
}

/* A buffer: neighbours of one SSRC together. */
static void append_all(struct loop *loop, uint8_t *data, unsigned length, unsigned segment)
{
    unsigned begin = 0;

    for (unsigned at = segment; loop->by_ssrc && at < length; at += segment) {
        uint32_t ssrc = ssrc_of(loop, data + begin, length - begin);
        if (ssrc_of(loop, data + at, length - at) != ssrc) {
            append(loop, data + begin, at - begin, segment, ssrc);
            begin = at;
        }
    }
    append(loop, data + begin, length - begin, segment, ssrc_of(loop, data + begin, length - begin));
}

static unsigned segment_of(struct msghdr *header, unsigned length)
{
    int segment = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
            memcpy(&segment, CMSG_DATA(c), sizeof(segment));
    }
    return segment > 0 && (unsigned)segment < length ? (unsigned)segment : length;
}

static void fan_out(struct loop *loop)
{
    for (unsigned g = 0; g < loop->group_count; g++) {
        struct group *group = &loop->groups[g];
        for (unsigned i = 0; i < loop->destinations; i++) {
            struct msghdr *header = &loop->egress[loop->queued].msg_hdr;
            header->msg_name = &loop->addresses[i];
            header->msg_iov = group->iov;
            header->msg_iovlen = group->iov_count;
            header->msg_control = group->packets > 1 ? &group->control : NULL;
            header->msg_controllen = group->packets > 1 ? sizeof(group->control) : 0;
            loop->packets_of[loop->queued] = group->packets;
            if (++loop->queued == SEND_BATCH)
                flush(loop);
        }
    }
    flush(loop);
    loop->group_count = loop->iov_count = 0;
}

static void turn(struct loop *loop)
{
    int count;

    for (unsigned i = 0; i < RECEIVE_BATCH; i++)
        loop->ingress[i].msg_hdr.msg_controllen = sizeof(loop->ingress_control[i]);
    count = recvmmsg(loop->fd, loop->ingress, RECEIVE_BATCH, MSG_WAITFORONE, NULL);
    for (int i = 0; i < count; i++) {
        unsigned length = loop->ingress[i].msg_len;
        unsigned segment = segment_of(&loop->ingress[i].msg_hdr, length);
        if (length == 0)
            continue;
        loop->received += (length + segment - 1) / segment;
        loop->bytes_received += length;
        append_all(loop, loop->buffers[i], length, segment);
    }
    fan_out(loop);
}

static void prepare(struct loop *loop, const struct loop_options *options)
{
    int on = 1;

    loop->fd = open_loop_socket(options);
    loop->by_ssrc = options->by_ssrc;
    if (setsockopt(loop->fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on)) != 0)
        die("UDP_GRO: %s", strerror(errno));
    loop->destinations = options->destinations;
    loop->addresses = loop_destinations(options);
    for (unsigned i = 0; i < RECEIVE_BATCH; i++) {
        loop->ingress_iov[i] = (struct iovec){ loop->buffers[i], BUFFER_BYTES };
        loop->ingress[i].msg_hdr.msg_iov = &loop->ingress_iov[i];
        loop->ingress[i].msg_hdr.msg_iovlen = 1;
        loop->ingress[i].msg_hdr.msg_control = &loop->ingress_control[i];
    }
    for (unsigned i = 0; i < SEND_BATCH; i++)
        loop->egress[i].msg_hdr.msg_namelen = sizeof(struct sockaddr_in);
}

int main(int argc, char **argv)
{
    return loop_main(argc, argv, must_alloc(1, sizeof(struct loop)));
}
