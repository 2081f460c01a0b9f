# How sessions are received; part of _engine.pyx.

RECEPTION_FIELDS = described(core.rf_reception_field_name, core.rf_reception_field_help)
ENCODINGS = names(core.rf_encoding_name)[1:]
CONDITION_NAMES = names(core.rf_condition_name)
CONDITIONS = described(core.rf_condition_name, core.rf_condition_help)

from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize

cdef dict ORIGINS = {
    core.RF_ORIGIN_NONE: "",
    core.RF_ORIGIN_ASSUMED: "assumed",
    core.RF_ORIGIN_MEASURED: "measured",
    core.RF_ORIGIN_SNIFFED: "sniffed",
    core.RF_ORIGIN_STATIC: "static",
    core.RF_ORIGIN_GIVEN: "given",
}


cdef int write_media(
    core.rf_media *out,
    str encoding,
    object payload_type,
    uint32_t clock_rate,
    uint32_t assumed_clock_rate,
    bint sealed,
    bint has_parameter_sets,
) except -1:
    if encoding not in ENCODINGS and encoding != "":
        raise ValueError(f"encoding {encoding!r} is none of {', '.join(ENCODINGS)}")
    if payload_type is not None and not 0 <= payload_type <= 127:
        raise ValueError(f"payload type {payload_type} is not a number from 0 to 127")
    out.encoding = <core.rf_encoding><int>(ENCODINGS.index(encoding) + 1 if encoding else 0)
    out.payload_type = core.RF_ANY_PAYLOAD_TYPE if payload_type is None else payload_type
    out.clock_rate = clock_rate
    out.assumed_clock_rate = assumed_clock_rate
    out.sealed = sealed
    out.has_parameter_sets = has_parameter_sets
    return 0


cdef dict reception_dict(const core.rf_reception *r):
    cdef const int64_t *first = &r.received
    cdef int64_t absent = core.RF_ABSENT
    cdef bint fed = r.payload_type != core.RF_ANY_PAYLOAD_TYPE
    cdef dict values = {
        name: None if first[i] == absent else first[i] for i, name in enumerate(RECEPTION_FIELDS)
    }
    values["bitrate_bps"] = r.bitrate_bps
    values["frame_rate"] = r.frame_rate if r.frame_rate >= 0 else None
    values["ssrc"] = r.ssrc if fed else None
    values["payload_type"] = r.payload_type if fed else None
    values["payload_types"] = tuple([r.payload_types[i] for i in range(r.payload_type_count)])
    values["encoding"] = ENCODINGS[r.encoding - 1] if r.encoding else ""
    values["encoding_from"] = ORIGINS[r.encoding_from]
    values["encoding_sureness"] = r.encoding_sureness
    values["clock_rate"] = r.clock_rate or None
    values["clock_from"] = ORIGINS[r.clock_from]
    values["condition"] = CONDITION_NAMES[r.condition]
    return values


cdef dict all_receptions(core.rf_engine *engine, uint64_t now_ns):
    cdef size_t capacity = 0
    cdef size_t n = core.rf_sessions_reception(engine, now_ns, NULL, 0)
    cdef core.rf_reception *found = NULL
    try:
        while n > capacity:  # there may be more of them each time
            capacity = n + 64
            free(found)
            found = <core.rf_reception *>calloc(capacity, sizeof(core.rf_reception))
            if found == NULL:
                raise MemoryError
            with nogil:
                n = core.rf_sessions_reception(engine, now_ns, found, capacity)
        return {found[i].handle: reception_dict(&found[i]) for i in range(n)}
    finally:
        free(found)


cdef tuple read_figures(core.rf_engine *engine, uint64_t now_ns):
    """(handles, figures), a record each."""
    cdef size_t n = core.rf_sessions_stats(engine, now_ns, NULL, 0)
    cdef size_t capacity = 0
    cdef bytes handles = b""
    cdef bytes found = b""
    cdef uint64_t *handle = NULL
    cdef core.rf_reception_figures *figure = NULL
    while n > capacity:  # there may be more of them each time
        capacity = n
        handles = PyBytes_FromStringAndSize(NULL, capacity * sizeof(uint64_t))
        found = PyBytes_FromStringAndSize(NULL, capacity * sizeof(core.rf_reception_figures))
        handle = <uint64_t *>PyBytes_AsString(handles)
        figure = <core.rf_reception_figures *>PyBytes_AsString(found)
        with nogil:
            n = core.rf_sessions_figures(engine, now_ns, handle, figure, capacity)
    if n == capacity:
        return handles, found
    return handles[: n * sizeof(uint64_t)], found[: n * sizeof(core.rf_reception_figures)]


cdef list read_parameter_sets(core.rf_engine *engine, uint64_t handle):
    cdef uint8_t room[core.RF_PARAMETER_BYTES]
    cdef size_t length = 0
    cdef size_t at = 0
    cdef size_t size
    found = []
    check(core.rf_session_parameter_sets(engine, handle, room, &length))
    while at < length:
        size = (<size_t>room[at] << 8) + room[at + 1]
        found.append((<const char *>room)[at + 2 : at + 2 + size])
        at += 2 + size
    return found


cdef dict receptions_sum(core.rf_engine *engine, uint64_t now_ns):
    cdef core.rf_reception of_all
    cdef const int64_t *first = &of_all.received
    with nogil:
        core.rf_receptions_sum(engine, now_ns, &of_all)
    values = {name: first[i] for i, name in enumerate(RECEPTION_FIELDS)}
    values["bitrate_bps"] = of_all.bitrate_bps
    return values


cdef list changed_conditions(core.rf_engine *engine, uint64_t now_ns, uint64_t lately_ns):
    # Room for all: each look is one pass.
    cdef size_t capacity = core.rf_sessions_reception(engine, now_ns, NULL, 0) + 64
    cdef core.rf_condition_change *changes
    cdef size_t n
    found = []
    changes = <core.rf_condition_change *>malloc(capacity * sizeof(core.rf_condition_change))
    if changes == NULL:
        raise MemoryError
    try:
        with nogil:
            n = core.rf_conditions(engine, now_ns, lately_ns, changes, capacity)
        for i in range(n):
            condition = CONDITION_NAMES[changes[i].condition]
            found.append((changes[i].handle, condition, changes[i].active, changes[i].restarts))
        return found
    finally:
        free(changes)


cdef class Receptions:
    """What an engine has to do with how sessions are received; the rest is in `Engine`."""

    cdef core.rf_engine *engine

    def set_media(
        self,
        uint64_t handle,
        str encoding="",
        *,
        payload_type=None,
        clock_rate=0,
        assumed_clock_rate=0,
        sealed=False,
        has_parameter_sets=False,
    ):
        cdef core.rf_media media
        write_media(
            &media, encoding, payload_type, clock_rate, assumed_clock_rate, sealed,
            has_parameter_sets,
        )
        check(core.rf_session_media(self.engine, handle, &media))

    def session_reception(self, uint64_t handle, uint64_t now_ns):
        cdef core.rf_reception found
        check(core.session_reception(self.engine, handle, now_ns, &found))
        return reception_dict(&found)

    def all_session_receptions(self, uint64_t now_ns):
        return all_receptions(self.engine, now_ns)

    def reception_figures(self, uint64_t now_ns):
        return read_figures(self.engine, now_ns)

    def parameter_sets(self, uint64_t handle):
        return read_parameter_sets(self.engine, handle)

    def receptions_sum(self, uint64_t now_ns):
        return receptions_sum(self.engine, now_ns)

    def conditions(self, uint64_t now_ns, uint64_t lately_ns):
        return changed_conditions(self.engine, now_ns, lately_ns)
