/* The facade of core.h: one engine = one socket, one table, one packet loop.
 *
 * `control` is the writer mutex. It guards the session pool, the table's writer side, the
 * publication of subscriber lists, the retired list and the kernel drop count. It is
 * never held while a grace period is awaited, and it nests inside no other lock. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "worker.h"

enum {
    /* What one 1200-byte packet takes of SO_RCVBUF: half of its truesize, 2304 bytes of
     * sk_buff and data, since the kernel doubles what is asked for (socket(7)). */
    PACKET_CHARGE = 1152,
    SEND_BUFFER = 8 << 20,
};

struct engine_limits {
    uint32_t sessions, subscribers;
};

struct rf_engine {
    struct engine_limits limits;
    uint32_t requested_receive_buffer;
    struct sock sock;
    struct qsbr qsbr;
    _Atomic bool running;

    pthread_mutex_t control;
    struct session_pool sessions;
    struct table table;
    uint64_t kernel_drops;
    uint32_t kernel_drops_seen; /* as the socket counts them, modulo 2^32 */

    struct worker worker;
};

static uint32_t receive_buffer(uint32_t packets)
{
    uint64_t bytes = (uint64_t)packets * PACKET_CHARGE;

    return bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (uint32_t)bytes;
}

/* Everything but the memory of `e` itself. */
static int engine_init(struct rf_engine *e, const struct rf_config *config)
{
    int rc;

    e->limits = (struct engine_limits){config->max_sessions, config->max_subscribers};
    e->requested_receive_buffer = receive_buffer(config->receive_queue_packets);
    qsbr_init(&e->qsbr);
    rc = session_pool_init(&e->sessions, config->max_sessions);
    if (rc)
        return rc;
    rc = table_init(&e->table, &e->sessions, &e->qsbr);
    if (rc)
        goto free_sessions;
    rc = sock_open(&e->sock, &config->bind, e->requested_receive_buffer, SEND_BUFFER);
    if (rc)
        goto free_table;
    rc = worker_init(&e->worker, &e->sock, &e->table, &e->qsbr, 0, config->check_padding);
    if (rc)
        goto close_socket;
    pthread_mutex_init(&e->control, NULL);
    return 0;

close_socket:
    sock_close(&e->sock);
free_table:
    table_destroy(&e->table);
free_sessions:
    session_pool_destroy(&e->sessions);
    return rc;
}

int rf_engine_new(const struct rf_config *config, struct rf_engine **out)
{
    if (config->max_sessions == 0 || config->max_subscribers == 0 ||
        config->receive_queue_packets == 0)
        return -EINVAL;
    struct rf_engine *e = aligned_alloc(alignof(struct rf_engine), sizeof *e);

    if (!e)
        return -ENOMEM;
    memset(e, 0, sizeof *e);
    int rc = engine_init(e, config);

    if (rc) {
        free(e);
        return rc;
    }
    *out = e;
    return 0;
}

void rf_engine_free(struct rf_engine *e)
{
    if (!e)
        return;
    worker_destroy(&e->worker);
    sock_close(&e->sock);
    table_destroy(&e->table);
    session_pool_destroy(&e->sessions);
    qsbr_destroy(&e->qsbr);
    pthread_mutex_destroy(&e->control);
    free(e);
}

int rf_engine_run(struct rf_engine *e)
{
    if (exchange_seq(&e->running, true))
        return -EBUSY;
    worker_run(&e->worker);
    store_rls(&e->running, false);
    return 0;
}

void rf_engine_stop(struct rf_engine *e)
{
    worker_stop(&e->worker);
}

void rf_engine_socket(const struct rf_engine *e, struct rf_socket_info *out)
{
    *out = (struct rf_socket_info){
        .bound = e->sock.bound,
        .receive_buffer = sock_buffer_size(&e->sock, SO_RCVBUF),
        .requested_receive_buffer = e->requested_receive_buffer,
        .send_buffer = sock_buffer_size(&e->sock, SO_SNDBUF),
        .sends_ipv4 = e->sock.family == AF_INET || e->sock.dual_stack,
        .sends_ipv6 = e->sock.family == AF_INET6,
        .gso = e->worker.gso,
        .gro = ingress_has_gro(e->worker.ingress),
    };
}

/* Widens the socket's 32-bit count; read at every tick, so no wrap goes unseen. */
static void read_kernel_drops(struct rf_engine *e)
{
    uint32_t seen = sock_drops(&e->sock);

    e->kernel_drops += (uint32_t)(seen - e->kernel_drops_seen);
    e->kernel_drops_seen = seen;
}

void rf_engine_stats(struct rf_engine *e, struct rf_stats *out)
{
    memset(out, 0, sizeof *out);
    stats_sum(out, &e->worker.counters);
    pthread_mutex_lock(&e->control);
    read_kernel_drops(e);
    out->kernel_drops = e->kernel_drops;
    pthread_mutex_unlock(&e->control);
}

void rf_engine_latency(struct rf_engine *e, struct rf_latency *out)
{
    memset(out, 0, sizeof *out);
    latency_sum(out, &e->worker.latency);
}

int rf_session_add(struct rf_engine *e, const struct rf_addr *source, uint32_t ssrc, uint64_t now,
                   uint64_t *handle)
{
    struct session *s;

    pthread_mutex_lock(&e->control);
    qsbr_reclaim(&e->qsbr);
    int rc = session_new(&e->sessions, source, ssrc, now, &s);

    if (rc == 0) {
        rc = table_insert(&e->table, s);
        if (rc)
            session_release(&e->sessions, s);
        else
            *handle = session_handle(s);
    }
    pthread_mutex_unlock(&e->control);
    return rc;
}

int rf_session_remove(struct rf_engine *e, uint64_t handle)
{
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        table_remove(&e->table, s);
        s->in_use = false; /* no other control call finds it from here on */
    }
    pthread_mutex_unlock(&e->control);
    if (!s)
        return -ENOENT;

    qsbr_synchronize(&e->qsbr);

    pthread_mutex_lock(&e->control);
    session_release(&e->sessions, s);
    pthread_mutex_unlock(&e->control);
    return 0;
}

int rf_session_stats(struct rf_engine *e, uint64_t handle, uint64_t now,
                     struct rf_session_stats *out)
{
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s)
        session_snapshot(s, now, out);
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

size_t rf_sessions_stats(struct rf_engine *e, uint64_t now, struct rf_session_stats *out,
                         size_t capacity)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        struct session *s = session_at(&e->sessions, i);

        if (!s->in_use)
            continue;
        if (n < capacity)
            session_snapshot(s, now, &out[n]);
        n++;
    }
    pthread_mutex_unlock(&e->control);
    return n;
}

int rf_subscribers_add(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                       bool *added)
{
    struct subscriber_list *old, *list;
    int rc = -ENOENT;

    pthread_mutex_lock(&e->control);
    qsbr_reclaim(&e->qsbr);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        old = load_rlx(&s->subscribers);
        rc = subscriber_list_add(old, addrs, n, e->sock.family, e->limits.subscribers, added,
                                 &list);
        if (rc == 0 && list != old) {
            /* Pairs with the acquire in fanout_start. */
            store_rls(&s->subscribers, list);
            qsbr_retire(&e->qsbr, &old->retired);
        }
    }
    pthread_mutex_unlock(&e->control);
    return rc;
}

int rf_subscriber_remove(struct rf_engine *e, uint64_t handle, const struct rf_addr *addr)
{
    struct subscriber_list *old, *list;
    struct subscriber *removed = NULL;
    int rc = -ENOENT;

    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        old = load_rlx(&s->subscribers);
        rc = subscriber_list_remove(old, addr, e->sock.family, &list, &removed);
        if (rc == 0) {
            store_rls(&s->subscribers, list);
            qsbr_retire(&e->qsbr, &old->retired);
        }
    }
    pthread_mutex_unlock(&e->control);
    if (rc)
        return rc;

    qsbr_synchronize(&e->qsbr);
    free(removed);
    return 0;
}

int rf_subscribers(struct rf_engine *e, uint64_t handle, struct rf_addr *out, size_t capacity,
                   size_t *count)
{
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        struct subscriber_list *list = load_rlx(&s->subscribers);

        for (uint32_t i = 0; i < list->count && i < capacity; i++)
            addr_from_sockaddr(&out[i], &list->item[i]->name);
        *count = list->count;
    }
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

static bool is_idle(struct session *s, uint64_t now, uint64_t timeout)
{
    uint64_t last = load_rlx(&s->last_packet_ns);
    uint64_t since = last > s->created_ns ? last : s->created_ns;

    return timeout != 0 && now > since && now - since >= timeout;
}

size_t rf_engine_tick(struct rf_engine *e, uint64_t now, uint64_t idle_timeout, uint64_t *idle,
                      size_t capacity)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    qsbr_reclaim(&e->qsbr);
    read_kernel_drops(e);
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        struct session *s = session_at(&e->sessions, i);

        if (!s->in_use)
            continue;
        session_roll_rate(s, now);
        if (n < capacity && is_idle(s, now, idle_timeout))
            idle[n++] = session_handle(s);
    }
    pthread_mutex_unlock(&e->control);
    return n;
}
