# RTCP of sessions and their subscribers; part of _engine.pyx.

cdef tuple read_report(const core.rf_subscriber_stats *s):
    """None without RTCP."""
    if s.terms.rtcp == core.RF_RTCP_OFF:
        return None
    return (
        s.terms.rtcp,
        s.report.at_ns,
        s.report.fraction,
        s.report.lost,
        s.report.jitter_secs,
        s.report.round_trip_secs,
    )


cdef int change_rtcp(
    core.rf_engine *engine, uint64_t handle, bytes records, core.rf_rtcp rtcp
) except -1:
    cdef size_t count = record_count(records)
    cdef const core.rf_addr *addrs = record_addresses(records)
    cdef int rc
    with nogil:
        rc = core.rf_subscribers_rtcp(engine, handle, addrs, count, rtcp)
    return check(rc)


cdef list read_rtcp(core.rf_engine *engine, uint64_t handle, bytes records):
    cdef size_t count = record_count(records)
    cdef const core.rf_addr *addrs = record_addresses(records)
    cdef core.rf_terms *terms = <core.rf_terms *>calloc(count + 1, sizeof(core.rf_terms))
    cdef core.rf_bool *found = <core.rf_bool *>calloc(count + 1, sizeof(core.rf_bool))
    try:
        if terms == NULL or found == NULL:
            raise MemoryError
        check(core.rf_subscribers_find(engine, handle, addrs, count, terms, found))
        return [terms[i].rtcp if found[i] else core.RF_RTCP_OFF for i in range(count)]
    finally:
        free(terms)
        free(found)


cdef dict feedback_dict(const core.rf_feedback *f):
    cdef dict values = counters(FEEDBACK_FIELDS, &f.sender_reports)
    values["sender_report_ns"] = f.sender_report_ns
    values["reporters"] = f.reporters
    return values


cdef dict read_all_feedback(core.rf_engine *engine):
    """By handle."""
    cdef size_t capacity = 0
    cdef size_t n = core.rf_sessions_feedback(engine, NULL, 0)
    cdef core.rf_feedback *feedback = NULL
    try:
        while n > capacity:  # there may be more of them each time
            capacity = n + 64
            free(feedback)
            feedback = <core.rf_feedback *>calloc(capacity, sizeof(core.rf_feedback))
            if feedback == NULL:
                raise MemoryError
            with nogil:
                n = core.rf_sessions_feedback(engine, feedback, capacity)
        return {feedback[i].handle: feedback_dict(&feedback[i]) for i in range(n)}
    finally:
        free(feedback)


cdef class Feedback(Receptions):
    """What an engine has to do with RTCP; the rest is in `Engine`."""

    def set_rtcp(self, uint64_t handle, bytes records, core.rf_rtcp rtcp):
        change_rtcp(self.engine, handle, records, rtcp)

    def find_rtcp(self, uint64_t handle, bytes records):
        return read_rtcp(self.engine, handle, records)

    def feedback(self, uint64_t handle):
        cdef core.rf_feedback feedback
        check(core.rf_session_feedback(self.engine, handle, &feedback))
        return feedback_dict(&feedback)

    def all_feedback(self):
        return read_all_feedback(self.engine)

    def set_keyframe_format(self, uint64_t handle, unsigned formats):
        check(core.rf_session_keyframe_format(self.engine, handle, formats))

    def set_report_class(self, uint64_t handle, subscriber_class):
        cdef unsigned number = core.RF_CLASSES if subscriber_class is None else subscriber_class
        check(core.rf_session_report_class(self.engine, handle, number))

    def repair_source(self, uint64_t handle, bint on):
        check(core.rf_session_repair(self.engine, handle, on))

    def request_keyframe(self, uint64_t handle):
        check(core.rf_session_want_keyframe(self.engine, handle))
