/* Control calls on the usual terms: one exact source, monitors without a lease. */
#ifndef TEST_CALLS_H
#define TEST_CALLS_H

#include "core.h"

static const struct rf_terms usual_terms = {.subscriber_class = RF_CLASS_MONITOR};

static inline int session_add(struct rf_engine *e, const struct rf_addr *source, uint32_t ssrc,
                              uint64_t now, uint64_t *handle)
{
    struct rf_source exact = {.policy = RF_EXACT, .exact = *source};

    return rf_session_add(e, &exact, ssrc, now, handle);
}

static inline int subscribers_add(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs,
                                  size_t n, uint64_t now, bool *added)
{
    return rf_subscribers_add(e, handle, addrs, n, &usual_terms, now, added);
}

#endif
