/* C11 atomics by the name of their memory order; nothing else touches _Atomic.
 *
 * A counter has one writing thread, so its increment is a relaxed load and a
 * relaxed store, never a locked read-modify-write. */
#ifndef RF_ATOMIC_H
#define RF_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

#define load_rlx(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acq(p) atomic_load_explicit((p), memory_order_acquire)
#define load_seq(p) atomic_load_explicit((p), memory_order_seq_cst)
#define store_rlx(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_rls(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define store_seq(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define fetch_add_rlx(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define fetch_add_seq(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define fetch_add_rls(p, v) atomic_fetch_add_explicit((p), (v), memory_order_release)
#define compare_exchange_acq_rel(p, expected, v) \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, \
                                            memory_order_acquire)
#define fetch_or_acq_rel(p, v) atomic_fetch_or_explicit((p), (v), memory_order_acq_rel)
#define fetch_and_acq_rel(p, v) atomic_fetch_and_explicit((p), (v), memory_order_acq_rel)
#define exchange_seq(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)

/* What is written before is written first, also for who looks after this process has died. */
#define signal_fence_rls() atomic_signal_fence(memory_order_release)

#define CACHE_LINE 64

typedef _Atomic uint64_t counter;

static inline void counter_add(counter *c, uint64_t n)
{
    store_rlx(c, load_rlx(c) + n);
}

#endif
