# Values of C and of Python, one into the other; part of _engine.pyx.

cdef bytes NO_IP = bytes(16)
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


cdef int write_ip(uint8_t *out, bytes ip) except -1:
    """16 bytes as `Address.packed`; all zero for none."""
    if len(ip) not in (0, 16):
        raise ValueError(f"an IP address has 16 bytes here, not {len(ip)}")
    memset(out, 0, 16)
    memcpy(out, <const char *>ip, len(ip))
    return 0


cdef int write_network(core.rf_network *out, object address, object prefix) except -1:
    """`prefix` counts the address's own bits: 0 to 32 for IPv4, where C counts the mapped 128.

    Without an address it is anybody.
    """
    if address is None:
        out.anybody = True
        return 0
    cdef int bits = 32 if address.ip.version == 4 else 128
    if not 0 <= prefix <= bits:
        raise ValueError(f"prefix {prefix} of {address.ip} is not a number from 0 to {bits}")
    write_address(&out.addr, address)
    out.prefix = 128 - bits + prefix
    return 0


cdef int write_source(
    core.rf_source *out,
    object address,
    object prefix,
    bint latch,
    uint64_t after,
    object relatch,
    bint at_own_port,
    object ssrc_policy,
    bint pins=False,
) except -1:
    memset(out, 0, sizeof(core.rf_source))
    out.pins = pins
    out.own_port = at_own_port
    out.ssrc_policy = SSRC_POLICIES[ssrc_policy]
    if prefix is None and (latch or address is None):
        prefix = 32 if address is not None and address.ip.version == 4 else 128
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


cdef object read_address(const core.rf_addr *addr, bytes spoken_to=b""):
    return Address.unpack((<const char *>addr.ip)[:16], addr.port, addr.scope, spoken_to)


cdef tuple read_notice(const core.rf_notice *notice):
    if notice.kind == core.RF_NOTICE_DATAGRAM:
        local = (<const char *>notice.local)[:16]
        source = read_address(&notice.source, b"" if local == NO_IP else local)
        return "datagram", source, (<const char *>notice.data)[: notice.len]
    kind = "ssrc" if notice.kind == core.RF_NOTICE_SSRC else "source"
    return kind, notice.handle, read_address(&notice.source)


cdef list read_health(core.rf_engine *engine, uint32_t workers):
    cdef core.rf_health health
    found = []
    for i in range(workers):
        check(core.rf_engine_health(engine, i, time.monotonic_ns(), &health))
        found.append((health.alive_ns, health.busy_ns, health.cpu_ns))
    return found


cdef list read_ssrcs(core.rf_engine *engine, uint64_t handle):
    cdef core.rf_source_ssrc seen[core.RF_SOURCE_SSRCS]
    cdef int n = core.rf_session_ssrcs(engine, handle, seen)
    check(min(n, 0))
    return [
        (seen[i].ssrc, seen[i].payload_type, seen[i].since_ns, seen[i].last_ns) for i in range(n)
    ]


cdef list read_knocks(core.rf_engine *engine):
    cdef core.rf_knock found[core.RF_KNOCKS]
    cdef int n
    with nogil:
        n = core.rf_knocks(engine, found, core.RF_KNOCKS)
    check(min(n, 0))
    return [
        (
            read_address(&found[i].source),
            found[i].ssrc,
            found[i].payload_type,
            DROP_REASONS[found[i].reason],
            found[i].handle,
            found[i].packets,
            found[i].first_ns,
            found[i].last_ns,
            found[i].by_feeder,
        )
        for i in range(n)
    ]


cdef bint send_one(core.rf_engine *engine, object address, bytes data) except -1:
    """Whether the kernel took it."""
    cdef core.rf_addr to
    cdef uint8_t local[16]
    cdef const char *bytes_ = data
    cdef size_t size = len(data)
    cdef int rc
    write_address(&to, address)
    write_ip(local, address.spoken_to)
    with nogil:
        rc = core.rf_send(engine, &to, local, bytes_, size)
    return rc == 0


cdef list take_notices(core.rf_engine *engine, core.rf_queue queue, size_t most):
    cdef size_t capacity = 64
    cdef size_t n = capacity
    cdef core.rf_notice *taken = <core.rf_notice *>malloc(capacity * sizeof(core.rf_notice))
    if taken == NULL:
        raise MemoryError
    found = []
    try:
        while n == capacity and len(found) < most:
            with nogil:
                n = core.rf_notices(engine, queue, taken, capacity)
            found.extend([read_notice(&taken[i]) for i in range(n)])
        return found
    finally:
        free(taken)


cdef list find_terms(core.rf_engine *engine, uint64_t handle, bytes records):
    cdef size_t count = record_count(records)
    cdef const core.rf_addr *addrs = record_addresses(records)
    cdef core.rf_terms *terms = <core.rf_terms *>calloc(count + 1, sizeof(core.rf_terms))
    cdef core.rf_bool *found = <core.rf_bool *>calloc(count + 1, sizeof(core.rf_bool))
    cdef int rc
    try:
        if terms == NULL or found == NULL:
            raise MemoryError
        with nogil:
            rc = core.rf_subscribers_find(engine, handle, addrs, count, terms, found)
        check(rc)
        return [
            (terms[i].lease_until, terms[i].subscriber_class, terms[i].withheld)
            if found[i]
            else None
            for i in range(count)
        ]
    finally:
        free(terms)
        free(found)


cdef dict counters(dict fields, const uint64_t *first):
    return {name: first[i] for i, name in enumerate(fields)}


cdef dict session_dict(const core.rf_session_stats *s):
    cdef dict values = counters(SESSION_FIELDS, &s.packets_received)
    values["subscribers"] = s.subscribers
    values["created_ns"] = s.created_ns
    values["last_packet_ns"] = s.last_packet_ns
    values["packets_per_second"] = s.packets_per_second
    return values


cdef tuple read_latency(const core.rf_latency *latency):
    return [latency.count[i] for i in range(core.RF_LATENCY_BOUNDS + 1)], latency.sum_ns


cdef size_t record_count(bytes records) except? 0:
    if len(records) % sizeof(core.rf_addr) != 0:
        raise ValueError(f"records are of {sizeof(core.rf_addr)} bytes each")
    return len(records) // sizeof(core.rf_addr)


cdef const core.rf_addr *record_addresses(bytes records):
    return <const core.rf_addr *><const char *>records


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
