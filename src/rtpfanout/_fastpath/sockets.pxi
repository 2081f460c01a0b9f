# The ingress sockets, what outlives the process with them, and their groups; part of _engine.pyx.

def open_sockets(bind, count, receive_queue_packets):
    """The ingress sockets of an address, for `Engine(sockets=...)`; the caller closes them."""
    cdef core.rf_addr addr
    cdef int fds[core.RF_MAX_WORKERS + 1]
    write_address(&addr, bind)
    cdef int n = core.rf_sockets_open(&addr, count, receive_queue_packets, fds)
    if n < 0:
        check(n)
    return [fds[i] for i in range(n)]


def open_socket(bind, receive_queue_packets):
    """One socket, for a port beside the main one; the caller closes it."""
    cdef core.rf_addr addr
    write_address(&addr, bind)
    cdef int fd = core.rf_socket_open(&addr, receive_queue_packets)
    if fd < 0:
        check(fd)
    return fd


def receiving(sockets):
    """How many of `open_sockets`' are to receive by, each by a worker."""
    cdef int fds[core.RF_MAX_WORKERS + 1]
    return core.rf_sockets_receiving(fds, write_sockets(fds, sockets))


cdef uint32_t write_sockets(int *fds, sockets) except? 0:
    if len(sockets) > core.RF_MAX_WORKERS + 1:
        check(-errno.EINVAL)
    for i, fd in enumerate(sockets):
        fds[i] = fd
    return len(sockets)


def open_in_hand(count):
    """Memory for what `count` workers have in hand, for `Engine(in_hand=...)`; the caller closes it."""
    cdef int fd = core.rf_in_hand_open(count)
    if fd < 0:
        check(fd)
    return fd


cdef int join(core.rf_engine *engine, group, sources, uint32_t interface) except -1:
    cdef core.rf_addr addr
    cdef core.rf_addr from_[core.RF_GROUP_SOURCES]
    if len(sources) > core.RF_GROUP_SOURCES:
        check(-errno.EINVAL)
    write_address(&addr, group)
    for i, source in enumerate(sources):
        write_address(&from_[i], source)
    return check(core.rf_group_join(engine, &addr, from_, len(sources), interface))


cdef object leave(core.rf_engine *engine, group, uint32_t interface):
    """Whether it had been joined."""
    cdef core.rf_addr addr
    write_address(&addr, group)
    cdef int rc = core.rf_group_leave(engine, &addr, interface)
    if rc != -errno.EADDRNOTAVAIL:
        check(rc)
    return rc == 0


class Sockets(NamedTuple):
    """An engine's sockets. Buffers: bytes of each, as the kernel counts them, and as asked for."""

    bound: Address
    receiving_workers: int
    egress_lanes: int
    sends_ipv4: bool
    sends_ipv6: bool
    gso: bool
    gro: bool
    receive_buffer_bytes: int
    requested_receive_buffer_bytes: int
    send_buffer_bytes: int
    requested_send_buffer_bytes: int


cdef object read_sockets(const core.rf_engine *engine):
    cdef core.rf_socket_info info
    core.rf_engine_socket(engine, &info)
    return Sockets(
        read_address(&info.bound),
        info.receiving,
        info.lanes,
        bool(info.sends_ipv4),
        bool(info.sends_ipv6),
        bool(info.gso),
        bool(info.gro),
        info.receive_buffer,
        info.requested_receive_buffer,
        info.send_buffer,
        info.requested_send_buffer,
    )
