/* The parameter sets that came of a session, kept so that who joins later can be told them.
 *
 * A block is written by the session's owner and read by the control plane, under a version lock as
 * reception.h has it. Owners allocate nothing: each worker has some blocks in hand, which the control
 * plane tops up once a second. A session has none before its first set. */
#ifndef RF_PARAMETERS_H
#define RF_PARAMETERS_H

#include "atomic.h"
#include "payload.h"

enum { PARAMETER_SPARES = 64 }; /* sessions of a worker that may begin within a second */

struct parameter_sets {
    _Atomic uint32_t version;
    _Atomic uint32_t len;
    _Atomic uint64_t seen_ns; /* CLOCK_MONOTONIC of the last one */
    _Atomic uint8_t encoding;
    struct parameter_sets *next_free;
    /* Type, number, length (2 bytes, network order) and NAL unit of each. */
    _Atomic uint8_t bytes[RF_PARAMETER_BYTES];
};

/* The owner. All of the payload; one that finds no room is left out. */
void parameter_sets_keep(struct parameter_sets *s, enum rf_encoding encoding, struct payload payload,
                         uint64_t now);
/* Anybody, of a session's block or NULL: as rf_session_parameter_sets. */
size_t parameter_sets_read(const struct parameter_sets *s, enum rf_encoding encoding,
                           uint8_t out[RF_PARAMETER_BYTES]);
/* When the last one came, or 0. */
uint64_t parameter_sets_seen(const struct parameter_sets *s, enum rf_encoding encoding);

/* All blocks there are; the writer's. */
struct parameter_pool {
    struct parameter_sets *free;
    struct parameter_slab *slabs;
};

void parameter_pool_destroy(struct parameter_pool *p);
/* Back into the pool, after the grace period; NULL is allowed. */
void parameter_pool_put(struct parameter_pool *p, struct parameter_sets *s);

/* A worker's blocks in hand. */
struct parameter_spares {
    _Atomic(struct parameter_sets *) block[PARAMETER_SPARES];
    uint32_t next; /* the worker's */
};

/* The writer: as many as it holds. 0 or -ENOMEM. */
int parameter_spares_fill(struct parameter_spares *spares, struct parameter_pool *p);
/* The worker; NULL when it has none. */
struct parameter_sets *parameter_spares_take(struct parameter_spares *spares);

#endif
