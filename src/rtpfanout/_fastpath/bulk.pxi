# What adds many at once; part of _engine.pyx.

cdef list add_exact_sessions(
    core.rf_engine *engine, bytes records, list ssrcs, uint64_t now_ns
):
    cdef size_t count = record_count(records)
    cdef const core.rf_addr *addrs = record_addresses(records)
    cdef core.rf_source source
    cdef uint64_t handle
    if <size_t>len(ssrcs) != count:
        raise ValueError(f"there are {len(ssrcs)} ssrcs for {count} sources")
    handles = []
    memset(&source, 0, sizeof(source))
    source.policy = core.RF_EXACT
    for i in range(count):
        source.exact = addrs[i]
        rc = core.rf_session_add_from(engine, &source, ssrcs[i], now_ns, &handle)
        handles.append(handle if rc == 0 else None)
    return handles


cdef size_t add_run(
    core.rf_engine *engine,
    uint64_t handle,
    bytes records,
    uint64_t now_ns,
    uint32_t lease_until,
    uint8_t subscriber_class,
    uint8_t withheld,
) except? 0:
    """How many are new."""
    cdef size_t count = record_count(records)
    cdef const core.rf_addr *addrs = record_addresses(records)
    cdef core.rf_terms terms
    cdef core.rf_bool *added = <core.rf_bool *>malloc((count + 1) * sizeof(core.rf_bool))
    cdef size_t new = 0
    cdef int rc
    if added == NULL:
        raise MemoryError
    try:
        terms.lease_until = lease_until
        terms.subscriber_class = subscriber_class
        terms.withheld = withheld
        with nogil:
            rc = core.rf_subscribers_add_on(engine, handle, addrs, count, &terms, now_ns, added)
        check(rc)
        for i in range(count):
            new += added[i]
        return new
    finally:
        free(added)


cdef int add_runs(core.rf_engine *engine, list runs) except -1:
    for handle, records, since_ns, lease_until, subscriber_class, withheld in runs:
        add_run(engine, handle, records, since_ns, lease_until, subscriber_class, withheld)
    return 0
