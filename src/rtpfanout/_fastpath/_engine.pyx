"""`Engine`: converts values, releases the GIL, checks return codes; decides nothing.

The contract is the docstring of `rtpfanout._fastpath`.
"""

import errno
import os
import time
from typing import NamedTuple

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
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


cdef dict described(name_function name, name_function help):
    return dict(zip(names(name), names(help)))


DROP_REASONS = names(core.rf_drop_reason_name)
SEND_FAILURES = names(core.rf_send_failure_name)
RTCP_KINDS = names(core.rf_rtcp_kind_name)
RTCP_DROPS = names(core.rf_rtcp_drop_name)
FEEDBACK_FIELDS = described(core.rf_feedback_field_name, core.rf_feedback_field_help)
STATS_FIELDS = described(core.rf_stats_field_name, core.rf_stats_field_help)
SESSION_FIELDS = described(core.rf_session_field_name, core.rf_session_field_help)
LATENCY_BOUNDS_NS = tuple(core.rf_latency_bound(i) for i in range(core.RF_LATENCY_BOUNDS))

# What `withheld` and `subscriber_class` are told by.
WITHHELD = {
    "consent": core.RF_WITHHELD_CONSENT,
    "shed": core.RF_WITHHELD_SHED,
    "refused": core.RF_WITHHELD_REFUSED,
}
CLASSES = {
    "pilot": core.RF_CLASS_PILOT,
    "recorder": core.RF_CLASS_RECORDER,
    "monitor": core.RF_CLASS_MONITOR,
}

# What a session's `ssrc_policy` is told by, and how its packets may be read.
SSRC_POLICIES = {
    "exact": core.RF_SSRC_EXACT,
    "follow": core.RF_SSRC_FOLLOW,
    "any": core.RF_SSRC_ANY,
}
READINGS = {
    "padding": core.RF_READ_PADDING,
    "no_padding": core.RF_READ_NO_PADDING,
    "no_rtcp": core.RF_READ_NO_RTCP,
    "srtp": core.RF_READ_SRTP,
}
RTCP = {"off": core.RF_RTCP_OFF, "mux": core.RF_RTCP_MUX, "next_port": core.RF_RTCP_NEXT_PORT}
KEYFRAME_FORMATS = {
    "pli": core.RF_KEYFRAME_PLI,
    "fir": core.RF_KEYFRAME_FIR,
    "both": core.RF_KEYFRAME_PLI | core.RF_KEYFRAME_FIR,
}

include "values.pxi"
include "bulk.pxi"
include "reception.pxi"
include "feedback.pxi"
include "proofs.pxi"
include "sockets.pxi"


cdef class Engine(Feedback):
    """One UDP port, one session table, one packet loop per worker."""

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
        path_mtu_discovery=False,
        egress_address=None,
        sockets=(),
        in_hand=None,
    ):
        cdef core.rf_config config
        cdef int fds[core.RF_MAX_WORKERS + 1]
        cdef int memory = -1 if in_hand is None else in_hand
        config.sockets = fds
        config.socket_count = write_sockets(fds, sockets)
        config.in_hand = NULL if in_hand is None else &memory
        write_address(&config.bind, bind)
        config.max_sessions = max_sessions
        config.max_subscribers = max_subscribers
        config.receive_queue_packets = receive_queue_packets
        config.workers = self.workers = workers
        config.split_threshold = split_threshold
        config.busy_poll_ns = busy_poll_us * 1000
        config.check_padding = check_padding
        config.no_segmentation = not segmentation
        config.discover_path_mtu = path_mtu_discovery
        write_ip(config.egress, b"" if egress_address is None else Address(egress_address, 0).packed)
        check(core.rf_engine_new(&config, &self.engine))

    def __dealloc__(self):
        core.rf_engine_free(self.engine)

    @property
    def bound(self):
        return self.sockets.bound

    @property
    def sockets(self):
        return read_sockets(self.engine)

    def run(self, worker=0):
        cdef uint32_t index = worker
        cdef int rc
        with nogil:
            rc = core.rf_engine_run(self.engine, index)
        check(rc)

    def stop(self, drain=True):
        if drain:
            core.rf_engine_stop(self.engine)
        else:
            core.rf_engine_leave(self.engine)

    def join_group(self, group, sources, uint32_t interface):
        join(self.engine, group, sources, interface)

    def leave_group(self, group, uint32_t interface):
        return leave(self.engine, group, interface)

    def take_groups_of_others(self, bint taken):
        core.rf_groups_of_others(self.engine, taken)

    def worker_health(self):
        return read_health(self.engine, self.workers)

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
        at_own_port=False, ssrc_policy="exact", uint64_t followed=0,
    ):
        cdef core.rf_source from_
        cdef uint64_t handle = 0
        cdef int rc
        write_source(
            &from_, source, prefix, latch, relatch_after_ns, relatch, at_own_port, ssrc_policy
        )
        from_.followed = followed
        with nogil:  # a move may be under way, and its grace period
            rc = core.rf_session_add(self.engine, &from_, ssrc, now_ns, &handle)
        check(rc)
        return handle

    def add_sessions(
        self, bytes records, bytes prefixes, list ssrcs, uint64_t now_ns, bytes policies=b"",
        list followed=[],
    ):
        return add_plain_sessions(self.engine, records, prefixes, ssrcs, now_ns, policies, followed)

    def move_session(
        self,
        uint64_t handle,
        source,
        *,
        prefix=None,
        latch=False,
        relatch_after_ns=0,
        relatch=None,
        at_own_port=False,
        ssrc_policy="exact",
        ssrc=None,
        pins=False,
    ):
        cdef core.rf_source from_
        cdef uint64_t now_ns = time.monotonic_ns()
        cdef bint stays = ssrc is None
        cdef uint32_t number = 0 if stays else ssrc
        cdef int rc
        write_source(
            &from_, source, prefix, latch, relatch_after_ns, relatch, at_own_port, ssrc_policy, pins
        )
        with nogil:
            if stays:
                rc = core.rf_session_move(self.engine, handle, &from_, now_ns)
            else:
                rc = core.rf_session_retune(self.engine, handle, &from_, number, now_ns)
        check(rc)

    def add_rtcp_port(self, int socket):
        check(core.rf_rtcp_port(self.engine, socket))

    def give_ports(self, uint64_t handle, int rtp, int rtcp):
        cdef int rc
        with nogil:  # a move may be under way, and its grace period
            rc = core.rf_session_ports(self.engine, handle, rtp, rtcp)
        check(rc)

    def read_session(self, uint64_t handle, unsigned how):
        check(core.rf_session_read(self.engine, handle, how))

    def session_ssrcs(self, uint64_t handle):
        return read_ssrcs(self.engine, handle)

    def wrong_source(self, uint64_t handle):
        cdef core.rf_addr addr
        check(core.rf_session_wrong_source(self.engine, handle, &addr))
        return None if addr.ip[:16] == NO_IP else read_address(&addr)

    def knocks(self):
        return read_knocks(self.engine)

    def pause_session(self, uint64_t handle, bint paused):
        cdef int rc
        with nogil:
            rc = core.rf_session_pause(self.engine, handle, paused)
        check(rc)

    def limit_session(self, uint64_t handle, uint64_t bits_per_second):
        check(core.rf_session_limit(self.engine, handle, bits_per_second))

    def mark_session(self, uint64_t handle, int dscp):
        check(core.rf_session_dscp(self.engine, handle, dscp))

    def set_idle_timeout(self, uint64_t handle, idle_timeout_ns):
        cdef uint64_t timeout = 0
        if idle_timeout_ns is not None:
            timeout = idle_timeout_ns or core.RF_IDLE_FOREVER
        check(core.rf_session_idle_timeout(self.engine, handle, timeout))

    def set_local_addresses(self, addresses, interfaces=()):
        cdef AddressArray array = AddressArray(list(addresses))
        for i, index in enumerate(interfaces[: array.count]):
            array.addrs[i].scope = index
        check(core.rf_local_addresses(self.engine, array.addrs, array.count))

    def follow_sources(self):
        with nogil:
            core.rf_follow_sources(self.engine)

    @property
    def notice_fd(self):
        return core.rf_notice_fd(self.engine, core.RF_QUEUE_KNOWN)

    @property
    def stranger_notice_fd(self):
        return core.rf_notice_fd(self.engine, core.RF_QUEUE_STRANGERS)

    def notices(self):
        return take_notices(self.engine, core.RF_QUEUE_KNOWN, 256 * self.workers)

    def stranger_notices(self):
        return take_notices(self.engine, core.RF_QUEUE_STRANGERS, 256 * self.workers)

    def set_cookie_key(self, bytes key):
        core.rf_cookie_key(self.engine, proof_key(key))

    def await_consent(self, bytes records, bint on):
        core.rf_await(self.engine, record_addresses(records), record_count(records), on)

    def set_stamp_key(self, bytes key):
        core.rf_stamp_key(self.engine, proof_key(key))

    def send(self, address, bytes data):
        return send_one(self.engine, address, data)

    def remove_session(self, uint64_t handle):
        cdef int rc
        with nogil:
            rc = core.rf_session_remove(self.engine, handle)
        check(rc)

    def add_subscribers(
        self,
        uint64_t handle,
        bytes records,
        uint64_t now_ns,
        *,
        lease_until=0,
        subscriber_class=core.RF_CLASS_MONITOR,
        withheld=0,
        bytes local=b"",
    ):
        return add_run(
            self.engine, handle, records, now_ns, lease_until, subscriber_class, withheld, local
        )

    def add_subscriber_rows(self, dict handles, list rows, int64_t offset_ns):
        return add_rows(self.engine, handles, rows, offset_ns)

    def find_subscribers(self, uint64_t handle, bytes records):
        return find_terms(self.engine, handle, records)

    def withhold(self, uint64_t handle, bytes records, uint8_t reason, bint on):
        cdef size_t count = record_count(records)
        cdef const core.rf_addr *addrs = record_addresses(records)
        cdef size_t changed = 0
        cdef int rc
        with nogil:
            rc = core.rf_subscribers_withhold(
                self.engine, handle, addrs, count, reason, on, &changed
            )
        check(rc)
        return changed

    def deliver_from(self, uint64_t handle, bytes records, bytes local):
        deliver_run(self.engine, handle, records, local)

    def expired_subscribers(self, uint64_t handle, uint32_t now_secs):
        return read_expired(self.engine, handle, now_secs)

    def remove_subscribers(self, uint64_t handle, list addresses):
        cdef AddressArray array = AddressArray(addresses)
        cdef int rc
        with nogil:
            rc = core.rf_subscribers_remove(
                self.engine, handle, array.addrs, array.count, array.flags
            )
        check(rc)
        return array.flag_list()

    def withheld_records(self, uint64_t handle, uint8_t reason):
        return read_records(self.engine, handle, False, reason)

    def subscriber_records(self, uint64_t handle):
        return read_records(self.engine, handle, True, 0)

    def subscribers(self, uint64_t handle, uint64_t after_ns, size_t limit):
        return read_subscribers(self.engine, handle, after_ns, limit)

    def stats(self):
        cdef core.rf_stats stats
        core.rf_engine_stats(self.engine, &stats)
        return counters(STATS_FIELDS, &stats.packets_received)

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
        return read_all_stats(self.engine, now_ns)

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
