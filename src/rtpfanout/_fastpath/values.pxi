# Values of C and of Python, one into the other; part of _engine.pyx.

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


cdef object read_address(const core.rf_addr *addr):
    return Address.unpack((<const char *>addr.ip)[:16], addr.port, addr.scope)


cdef dict counters(tuple fields, const uint64_t *first):
    return {name: first[i] for i, name in enumerate(fields)}


cdef dict session_dict(const core.rf_session_stats *s):
    cdef dict values = counters(SESSION_FIELDS, &s.packets_received)
    values["subscribers"] = s.subscribers
    values["dropped_overload"] = s.dropped_overload
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
