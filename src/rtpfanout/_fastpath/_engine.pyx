"""`Engine`: converts values, releases the GIL, checks return codes; decides nothing.

The contract is the docstring of `rtpfanout._fastpath`.
"""

import errno
import os
import time

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from rtpfanout._fastpath cimport core

from rtpfanout.model import Address

ctypedef const char *(*name_function)(size_t) noexcept nogil


cdef tuple names(name_function name):
    cdef size_t i = 0
    found = []
    while name(i) != NULL:
        found.append((<bytes>name(i)).decode())
        i += 1
    return tuple(found)


DROP_REASONS = names(core.rf_drop_reason_name)
SEND_FAILURES = names(core.rf_send_failure_name)
WORKER_FIELDS = names(core.rf_worker_field_name)
SESSION_FIELDS = names(core.rf_session_field_name)
LATENCY_BOUNDS_NS = tuple(core.rf_latency_bound(i) for i in range(core.RF_LATENCY_BOUNDS))

cdef dict EXCEPTIONS = {
    errno.EEXIST: FileExistsError,
    errno.EAGAIN: BlockingIOError,
    errno.ENOENT: KeyError,
    errno.ESRCH: KeyError,
    errno.ENOMEM: MemoryError,
}


cdef int check(int rc) except -1:
    """0, or the exception for -errno; what has no entry above is an OSError of that errno."""
    if rc == 0:
        return 0
    kind = EXCEPTIONS.get(-rc, OSError)
    if issubclass(kind, OSError):
        raise kind(-rc, os.strerror(-rc))
    raise kind(os.strerror(-rc))


cdef int write_address(core.rf_addr *out, object address) except -1:
    cdef bytes packed = address.packed
    memcpy(out.ip, <const char *>packed, 16)
    out.port = address.port
    out.scope = address.scope
    return 0


cdef int write_network(core.rf_network *out, object address, object prefix) except -1:
    """`prefix` counts the address's own bits: 0 to 32 for IPv4, where C counts the mapped 128."""
    cdef int bits = 32 if address.ip.version == 4 else 128
    if not 0 <= prefix <= bits:
        raise ValueError(f"prefix {prefix} of {address.ip} is not a number from 0 to {bits}")
    write_address(&out.addr, address)
    out.prefix = 128 - bits + prefix
    return 0


cdef int write_source(
    core.rf_source *out, object address, object prefix, bint latch, uint64_t after, object relatch
) except -1:
    memset(out, 0, sizeof(core.rf_source))
    if latch and prefix is None:
        prefix = 32 if address.ip.version == 4 else 128
    if prefix is None:
        out.policy = core.RF_EXACT
        write_address(&out.exact, address)
        if relatch is not None:
            out.relatch_after_ns = after
            write_network(&out.network, relatch[0], relatch[1])
    else:
        out.policy = core.RF_LATCH if latch else core.RF_NETWORK
        write_network(&out.network, address, prefix)
    return 0


cdef object read_address(const core.rf_addr *addr):
    return Address.unpack((<const char *>addr.ip)[:16], addr.port, addr.scope)


cdef tuple read_notice(const core.rf_notice *notice):
    source = read_address(&notice.source)
    if notice.kind == core.RF_NOTICE_DATAGRAM:
        return "datagram", source, (<const char *>notice.data)[: notice.len]
    if notice.kind == core.RF_NOTICE_SOURCE:
        return "source", notice.handle, source
    return "misrouted", notice.handle


cdef dict counters(tuple fields, const uint64_t *first):
    return {name: first[i] for i, name in enumerate(fields)}


cdef dict session_dict(const core.rf_session_stats *s):
    cdef dict values = counters(SESSION_FIELDS, &s.packets_received)
    values["subscribers"] = s.subscribers
    values["dropped_overload"] = s.dropped_overload
    values["dropped_rate_limit"] = s.dropped_rate_limit
    values["dropped_paused"] = s.dropped_paused
    values["created_ns"] = s.created_ns
    values["last_packet_ns"] = s.last_packet_ns
    values["packets_per_second"] = s.packets_per_second
    return values


cdef tuple read_latency(const core.rf_latency *latency):
    return [latency.count[i] for i in range(core.RF_LATENCY_BOUNDS + 1)], latency.sum_ns


cdef class AddressArray:
    """Addresses as C has them, and a flag for each that C fills in."""

    cdef core.rf_addr *addrs
    cdef core.rf_bool *flags
    cdef size_t count

    def __cinit__(self, list addresses):
        self.count = len(addresses)
        self.addrs = <core.rf_addr *>malloc((self.count + 1) * sizeof(core.rf_addr))
        self.flags = <core.rf_bool *>malloc((self.count + 1) * sizeof(core.rf_bool))
        if self.addrs == NULL or self.flags == NULL:
            raise MemoryError
        for i in range(self.count):
            write_address(&self.addrs[i], addresses[i])

    def __dealloc__(self):
        free(self.addrs)
        free(self.flags)

    cdef list flag_list(self):
        return [bool(self.flags[i]) for i in range(self.count)]


cdef class Engine:
    """One UDP port, one session table, one packet loop per worker."""

    cdef core.rf_engine *engine
    cdef readonly uint32_t workers

    def __cinit__(
        self,
        bind,
        *,
        max_sessions,
        max_subscribers,
        receive_queue_packets,
        workers=1,
        split_threshold=256,
        busy_poll_us=0,
        check_padding=True,
        segmentation=True,
    ):
        cdef core.rf_config config
        write_address(&config.bind, bind)
        config.max_sessions = max_sessions
        config.max_subscribers = max_subscribers
        config.receive_queue_packets = receive_queue_packets
        config.workers = self.workers = workers
        config.split_threshold = split_threshold
        config.busy_poll_ns = busy_poll_us * 1000
        config.check_padding = check_padding
        config.no_segmentation = not segmentation
        check(core.rf_engine_new(&config, &self.engine))

    def __dealloc__(self):
        core.rf_engine_free(self.engine)

    cdef core.rf_socket_info socket_info(self):
        cdef core.rf_socket_info info
        core.rf_engine_socket(self.engine, &info)
        return info

    @property
    def bound(self):
        cdef core.rf_socket_info info = self.socket_info()
        return read_address(&info.bound)

    @property
    def receiving_workers(self):
        return self.socket_info().receiving

    @property
    def egress_lanes(self):
        return self.socket_info().lanes

    @property
    def sends_ipv4(self):
        return bool(self.socket_info().sends_ipv4)

    @property
    def sends_ipv6(self):
        return bool(self.socket_info().sends_ipv6)

    @property
    def gso(self):
        return bool(self.socket_info().gso)

    @property
    def gro(self):
        return bool(self.socket_info().gro)

    @property
    def receive_buffer_bytes(self):
        return self.socket_info().receive_buffer

    @property
    def requested_receive_buffer_bytes(self):
        return self.socket_info().requested_receive_buffer

    @property
    def send_buffer_bytes(self):
        return self.socket_info().send_buffer

    @property
    def requested_send_buffer_bytes(self):
        return self.socket_info().requested_send_buffer

    def run(self, worker=0):
        cdef uint32_t index = worker
        cdef int rc
        with nogil:
            rc = core.rf_engine_run(self.engine, index)
        check(rc)

    def stop(self):
        core.rf_engine_stop(self.engine)

    def add_session(
        self,
        source,
        uint32_t ssrc,
        uint64_t now_ns,
        *,
        prefix=None,
        latch=False,
        relatch_after_ns=0,
        relatch=None,
    ):
        cdef core.rf_source from_
        cdef uint64_t handle = 0
        cdef int rc
        write_source(&from_, source, prefix, latch, relatch_after_ns, relatch)
        with nogil:  # a move may be under way, and its grace period
            rc = core.rf_session_add_from(self.engine, &from_, ssrc, now_ns, &handle)
        check(rc)
        return handle

    def move_session(
        self,
        uint64_t handle,
        source,
        *,
        prefix=None,
        latch=False,
        relatch_after_ns=0,
        relatch=None,
    ):
        cdef core.rf_source from_
        cdef uint64_t now_ns = time.monotonic_ns()
        cdef int rc
        write_source(&from_, source, prefix, latch, relatch_after_ns, relatch)
        with nogil:
            rc = core.rf_session_move(self.engine, handle, &from_, now_ns)
        check(rc)

    def rehome_session(self, uint64_t handle):
        cdef int rc
        with nogil:
            rc = core.rf_session_rehome(self.engine, handle)
        check(rc)

    def pause_session(self, uint64_t handle, bint paused):
        cdef int rc
        with nogil:
            rc = core.rf_session_pause(self.engine, handle, paused)
        check(rc)

    def limit_session(self, uint64_t handle, uint64_t bits_per_second):
        check(core.rf_session_limit(self.engine, handle, bits_per_second))

    def set_local_addresses(self, addresses):
        cdef AddressArray array = AddressArray(list(addresses))
        check(core.rf_local_addresses(self.engine, array.addrs, array.count))

    @property
    def notice_fd(self):
        return core.rf_notice_fd(self.engine)

    def notices(self):
        cdef size_t capacity = 64
        cdef size_t n = capacity
        cdef core.rf_notice *taken = <core.rf_notice *>malloc(capacity * sizeof(core.rf_notice))
        if taken == NULL:
            raise MemoryError
        found = []
        try:
            while n == capacity and len(found) < 256 * self.workers:
                with nogil:
                    n = core.rf_notices(self.engine, taken, capacity)
                found.extend([read_notice(&taken[i]) for i in range(n)])
            return found
        finally:
            free(taken)

    def send(self, address, bytes data):
        cdef core.rf_addr to
        cdef const char *bytes_ = data
        cdef size_t size = len(data)
        cdef int rc
        write_address(&to, address)
        with nogil:
            rc = core.rf_send(self.engine, &to, bytes_, size)
        return rc == 0

    def remove_session(self, uint64_t handle):
        cdef int rc
        with nogil:
            rc = core.rf_session_remove(self.engine, handle)
        check(rc)

    def add_subscribers(self, uint64_t handle, list addresses, uint64_t now_ns):
        cdef AddressArray array = AddressArray(addresses)
        check(
            core.rf_subscribers_add(
                self.engine, handle, array.addrs, array.count, now_ns, array.flags
            )
        )
        return array.flag_list()

    def add_packed_subscribers(self, uint64_t handle, bytes records, uint64_t now_ns):
        cdef const core.rf_addr *addrs = <const core.rf_addr *><const char *>records
        cdef size_t count = len(records) // sizeof(core.rf_addr)
        cdef core.rf_bool *added
        cdef int rc
        if len(records) % sizeof(core.rf_addr) != 0:
            raise ValueError(f"records are of {sizeof(core.rf_addr)} bytes each")
        added = <core.rf_bool *>malloc((count + 1) * sizeof(core.rf_bool))
        if added == NULL:
            raise MemoryError
        try:
            with nogil:
                rc = core.rf_subscribers_add(self.engine, handle, addrs, count, now_ns, added)
            check(rc)
            return sum(added[i] for i in range(count))
        finally:
            free(added)

    def remove_subscribers(self, uint64_t handle, list addresses):
        cdef AddressArray array = AddressArray(addresses)
        cdef int rc
        with nogil:
            rc = core.rf_subscribers_remove(
                self.engine, handle, array.addrs, array.count, array.flags
            )
        check(rc)
        return array.flag_list()

    def subscribers(self, uint64_t handle, uint64_t after_ns, size_t limit):
        cdef size_t count = 0
        # calloc refuses what malloc's argument could not express
        cdef core.rf_subscriber_stats *stats = <core.rf_subscriber_stats *>calloc(
            max(limit, <size_t>1), sizeof(core.rf_subscriber_stats)
        )
        if stats == NULL:
            raise MemoryError
        try:
            check(core.rf_subscribers(self.engine, handle, after_ns, stats, limit, &count))
            return [
                (
                    read_address(&stats[i].addr),
                    stats[i].since_ns,
                    stats[i].packets_sent,
                    stats[i].send_failures,
                )
                for i in range(count)
            ]
        finally:
            free(stats)

    def stats(self):
        cdef core.rf_stats stats
        core.rf_engine_stats(self.engine, &stats)
        values = counters(WORKER_FIELDS, &stats.packets_received)
        values["kernel_drops"] = stats.kernel_drops
        values["control_sent"] = stats.control_sent
        values["control_send_failures"] = stats.control_send_failures
        return values

    def latency(self):
        cdef core.rf_latency first
        cdef core.rf_latency last
        core.rf_engine_latency(self.engine, &first, &last)
        return read_latency(&first), read_latency(&last)

    def session_stats(self, uint64_t handle, uint64_t now_ns):
        cdef core.rf_session_stats stats
        check(core.session_stats(self.engine, handle, now_ns, &stats))
        return session_dict(&stats)

    def session_latency(self, uint64_t handle):
        cdef core.rf_latency first
        cdef core.rf_latency last
        check(core.rf_session_latency(self.engine, handle, &first, &last))
        return read_latency(&first), read_latency(&last)

    def all_session_stats(self, uint64_t now_ns):
        cdef size_t capacity = 0
        cdef size_t n = core.rf_sessions_stats(self.engine, now_ns, NULL, 0)
        cdef core.rf_session_stats *stats = NULL
        try:
            while n > capacity:  # there may be more of them each time
                capacity = n + 64
                free(stats)
                stats = <core.rf_session_stats *>calloc(capacity, sizeof(core.rf_session_stats))
                if stats == NULL:
                    raise MemoryError
                with nogil:
                    n = core.rf_sessions_stats(self.engine, now_ns, stats, capacity)
            return {stats[i].handle: session_dict(&stats[i]) for i in range(n)}
        finally:
            free(stats)

    def tick(self, uint64_t now_ns, uint64_t idle_timeout_ns):
        cdef size_t capacity = core.rf_sessions_stats(self.engine, now_ns, NULL, 0) + 1
        cdef size_t n
        cdef uint64_t *idle = <uint64_t *>malloc(capacity * sizeof(uint64_t))
        if idle == NULL:
            raise MemoryError
        try:
            with nogil:
                n = core.rf_engine_tick(self.engine, now_ns, idle_timeout_ns, idle, capacity)
            return [idle[i] for i in range(n)]
        finally:
            free(idle)
