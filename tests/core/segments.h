/* Sending many datagrams by one UDP_SEGMENT call, as a camera with segmentation offload does. */
#ifndef TEST_SEGMENTS_H
#define TEST_SEGMENTS_H

#include <netinet/udp.h>

#include "endpoints.h"

/* False when the kernel has no room, or does not take that many segments. */
static inline bool try_send_segments(int fd, const struct rf_addr *to, const void *data,
                                     size_t size, uint16_t segment)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
    } control = {.align = {.cmsg_len = CMSG_LEN(sizeof segment),
                           .cmsg_level = IPPROTO_UDP,
                           .cmsg_type = UDP_SEGMENT}};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    union sockaddr_any name;
    struct msghdr msg = {
        .msg_name = &name,
        .msg_namelen = addr_to_sockaddr(&name, to, addr_is_ipv4(to) ? AF_INET : AF_INET6),
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof control,
    };

    memcpy(CMSG_DATA(&control.align), &segment, sizeof segment);
    ssize_t sent = sendmsg(fd, &msg, 0);

    CHECK(sent == (ssize_t)size || (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == EINVAL)));
    return sent > 0;
}

static inline void send_segments(int fd, const struct rf_addr *to, const void *data, size_t size,
                                 uint16_t segment)
{
    CHECK(try_send_segments(fd, to, data, size, segment));
}

#endif
