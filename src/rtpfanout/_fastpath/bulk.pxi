# What adds and reads many at once; part of _engine.pyx.

cdef list add_plain_sessions(
    core.rf_engine *engine,
    bytes records,
    bytes prefixes,
    list ssrcs,
    uint64_t now_ns,
    bytes policies,
    list followed,
):
    cdef size_t count = record_count(records)
    cdef const core.rf_addr *addrs = record_addresses(records)
    cdef const uint8_t *prefix = prefixes
    cdef const uint8_t *policy = policies
    cdef core.rf_source source
    cdef uint64_t handle
    if <size_t>len(ssrcs) != count or <size_t>len(prefixes) != count:
        raise ValueError(
            f"there are {len(ssrcs)} ssrcs and {len(prefixes)} prefixes for {count} sources"
        )
    if policies and <size_t>len(policies) != count:
        raise ValueError(f"there are {len(policies)} policies for {count} sources")
    if followed and <size_t>len(followed) != count:
        raise ValueError(f"there are {len(followed)} followed for {count} sources")
    handles = []
    memset(&source, 0, sizeof(source))
    for i in range(count):
        source.followed = followed[i] if followed else 0
        source.policy = core.RF_EXACT if prefix[i] == 255 else core.RF_NETWORK
        source.exact = source.network.addr = addrs[i]
        source.network.prefix = prefix[i]
        if policies:
            source.ssrc_policy = <core.rf_ssrc_policy>policy[i]
        rc = core.rf_session_add(engine, &source, ssrcs[i], now_ns, &handle)
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
    bytes local,
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
        write_ip(terms.from_, local)
        with nogil:
            rc = core.rf_subscribers_add(engine, handle, addrs, count, &terms, now_ns, added)
        check(rc)
        for i in range(count):
            new += added[i]
        return new
    finally:
        free(added)


cdef int deliver_run(
    core.rf_engine *engine, uint64_t handle, bytes records, bytes local
) except -1:
    cdef size_t count = record_count(records)
    cdef const core.rf_addr *addrs = record_addresses(records)
    cdef uint8_t ip[16]
    cdef int rc
    write_ip(ip, local)
    with nogil:
        rc = core.rf_subscribers_deliver(engine, handle, addrs, count, ip)
    return check(rc)


cdef uint32_t lease_second(int64_t lease_ns, int64_t offset_ns):
    """Of CLOCK_MONOTONIC; 0: no lease."""
    cdef int64_t second = (lease_ns + offset_ns + 500000000) // 1000000000
    if lease_ns == 0:
        return 0
    return <uint32_t>min(max(second, <int64_t>1), <int64_t>UINT32_MAX)


cdef tuple add_rows(core.rf_engine *engine, dict handles, list rows, int64_t offset_ns):
    """Of each session (key, how many, the last one's since); (key, lease_until) of each lease."""
    cdef size_t n = len(rows)
    cdef size_t i = 0
    cdef size_t count
    cdef size_t total = 0
    cdef uint64_t since = 0
    cdef uint64_t last = 0
    cdef tuple row
    cdef bytes record
    cdef uint32_t until
    cdef core.rf_terms terms
    cdef core.rf_addr *addrs = <core.rf_addr *>malloc((n + 1) * sizeof(core.rf_addr))
    cdef core.rf_bool *added = <core.rf_bool *>malloc((n + 1) * sizeof(core.rf_bool))
    done = []
    leases = []
    try:
        if addrs == NULL or added == NULL:
            raise MemoryError
        memset(&terms, 0, sizeof(terms))
        while i < n:
            key, second, lease, kind, first, _, rtcp = rows[i]
            until = lease_second(lease, offset_ns)
            count = 0
            while i < n:
                row = rows[i]
                if count > 0 and not (
                    row[0] == key
                    and row[1] == second
                    and row[2] == lease
                    and row[3] == kind
                    and row[6] == rtcp
                ):
                    break
                record = row[5]
                if record_count(record) != 1:
                    raise ValueError("a row has one record")
                addrs[count] = record_addresses(record)[0]
                count += 1
                i += 1
            handle = handles.get(key)
            if handle is None:
                continue
            if done and done[len(done) - 1][0] == key:
                done.pop()
            else:
                last = total = 0
            since = max(<uint64_t>first, last + 1)
            terms.subscriber_class = kind
            terms.lease_until = until
            if until:
                leases.append((key, until))
            check(
                core.rf_subscribers_add(engine, handle, addrs, count, &terms, since, added)
            )
            if rtcp:
                check(core.rf_subscribers_rtcp(engine, handle, addrs, count, rtcp))
            last = since + count - 1
            total += count
            done.append((key, total, last))
        return done, leases
    finally:
        free(addrs)
        free(added)


cdef dict read_all_stats(core.rf_engine *engine, uint64_t now_ns):
    """Of each session, by its handle."""
    cdef size_t capacity = 0
    cdef size_t n = core.rf_sessions_stats(engine, now_ns, NULL, 0)
    cdef core.rf_session_stats *stats = NULL
    try:
        while n > capacity:  # there may be more of them each time
            capacity = n + 64
            free(stats)
            stats = <core.rf_session_stats *>calloc(capacity, sizeof(core.rf_session_stats))
            if stats == NULL:
                raise MemoryError
            with nogil:
                n = core.rf_sessions_stats(engine, now_ns, stats, capacity)
        return {stats[i].handle: session_dict(&stats[i]) for i in range(n)}
    finally:
        free(stats)


cdef list read_subscribers(
    core.rf_engine *engine, uint64_t handle, uint64_t after_ns, size_t limit
):
    """Up to `limit` that were added after that, oldest first."""
    cdef size_t count = 0
    # calloc refuses what malloc's argument could not express
    cdef core.rf_subscriber_stats *stats = <core.rf_subscriber_stats *>calloc(
        max(limit, <size_t>1), sizeof(core.rf_subscriber_stats)
    )
    if stats == NULL:
        raise MemoryError
    try:
        check(core.rf_subscribers(engine, handle, after_ns, stats, limit, &count))
        return [
            (
                read_address(&stats[i].addr),
                stats[i].since_ns,
                stats[i].packets_sent,
                stats[i].send_failures,
                stats[i].terms.subscriber_class,
                stats[i].terms.lease_until,
                stats[i].terms.withheld,
                read_report(&stats[i]),
            )
            for i in range(count)
        ]
    finally:
        free(stats)


cdef bytes read_records(
    core.rf_engine *engine, uint64_t handle, bint every, uint8_t withheld
):
    """Of all subscribers of a session, or those that get nothing for a reason, oldest first."""
    cdef core.rf_subscriber_stats stats[64]
    cdef uint64_t after = 0
    cdef size_t count = 64
    pieces = []
    while count == 64:
        check(core.rf_subscribers(engine, handle, after, stats, 64, &count))
        for i in range(count):
            if every or stats[i].terms.withheld & withheld:
                pieces.append((<const char *>&stats[i].addr)[: sizeof(core.rf_addr)])
            after = stats[i].since_ns
    return b"".join(pieces)


cdef bytes read_expired(core.rf_engine *engine, uint64_t handle, uint32_t now_secs):
    """Of those whose lease is over."""
    cdef size_t capacity = 0
    cdef size_t n = 0
    cdef core.rf_addr *addrs = NULL
    check(core.rf_subscribers_expired(engine, handle, now_secs, NULL, 0, &n))
    try:
        while n > capacity:  # there may be more of them each time
            capacity = n
            free(addrs)
            addrs = <core.rf_addr *>calloc(capacity, sizeof(core.rf_addr))
            if addrs == NULL:
                raise MemoryError
            check(
                core.rf_subscribers_expired(
                    engine, handle, now_secs, addrs, capacity, &n
                )
            )
        return (<const char *>addrs)[: n * sizeof(core.rf_addr)] if n else b""
    finally:
        free(addrs)
