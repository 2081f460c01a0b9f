/* The facade of core.h: one engine = one port, one table, one packet loop per worker.
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
    /* Large enough that what waits for dead neighbours (212,992 bytes each, the sysctl
     * unres_qlen_bytes) and in slow queues never fills it: those queues then drop their own
     * tail, and a good subscriber beside them loses nothing. */
    SEND_BUFFER = 512 << 20,
};

struct rf_engine {
    uint32_t max_subscribers;
    uint32_t requested_receive_buffer;
    uint32_t worker_count, sock_count;
    struct sock sock[RF_MAX_WORKERS];
    struct worker *worker[RF_MAX_WORKERS];
    _Atomic bool running[RF_MAX_WORKERS];
    struct qsbr qsbr;

    pthread_mutex_t control;
    struct session_pool sessions;
    struct table table;
    uint64_t kernel_drops;
    uint32_t kernel_drops_seen[RF_MAX_WORKERS]; /* as the sockets count them, modulo 2^32 */
};

static uint32_t receive_buffer(uint32_t packets)
{
    uint64_t bytes = (uint64_t)packets * PACKET_CHARGE;

    return bytes > INT32_MAX / 2 ? INT32_MAX / 2 : (uint32_t)bytes;
}

/* One socket per worker where the kernel can steer by source address, else one for all. */
static int open_sockets(struct rf_engine *e, const struct rf_addr *bind)
{
    int rc = sock_open(&e->sock[0], bind, e->requested_receive_buffer, SEND_BUFFER);

    if (rc)
        return rc;
    e->sock_count = 1;
    for (uint32_t i = 1; i < e->worker_count; i++) {
        rc = sock_open_another(&e->sock[i], &e->sock[0], e->requested_receive_buffer, SEND_BUFFER);
        if (rc)
            return rc;
        e->sock_count++;
        /* At once, so that nothing is steered to a socket nobody reads. */
        if (sock_steer_by_source(&e->sock[0], e->sock_count) != 0) {
            sock_close(&e->sock[--e->sock_count]);
            return 0;
        }
    }
    return 0;
}

static int start_workers(struct rf_engine *e, const struct rf_config *config)
{
    for (uint32_t i = 0; i < e->worker_count; i++) {
        struct worker_options options = {
            .index = i,
            .receives = i < e->sock_count,
            .check_padding = config->check_padding,
            .no_segmentation = config->no_segmentation,
            .split_threshold = config->split_threshold,
            .busy_poll_ns = config->busy_poll_ns,
        };
        struct worker *w = aligned_alloc(alignof(struct worker), sizeof *w);
        int rc;

        if (!w)
            return -ENOMEM;
        rc = worker_init(w, &options, &e->sock[i < e->sock_count ? i : 0], &e->table, &e->qsbr,
                         e->worker, e->worker_count);
        if (rc) {
            free(w);
            return rc;
        }
        e->worker[i] = w;
    }
    return 0;
}

static int engine_init(struct rf_engine *e, const struct rf_config *config)
{
    int rc;

    e->max_subscribers = config->max_subscribers;
    e->worker_count = config->workers;
    e->requested_receive_buffer = receive_buffer(config->receive_queue_packets);
    qsbr_init(&e->qsbr);
    pthread_mutex_init(&e->control, NULL);
    if ((rc = session_pool_init(&e->sessions, config->max_sessions)) ||
        (rc = table_init(&e->table, &e->sessions, &e->qsbr)) ||
        (rc = open_sockets(e, &config->bind)))
        return rc;
    return start_workers(e, config);
}

int rf_engine_new(const struct rf_config *config, struct rf_engine **out)
{
    if (config->max_sessions == 0 || config->max_subscribers == 0 ||
        config->receive_queue_packets == 0 || config->workers == 0 ||
        config->workers > RF_MAX_WORKERS)
        return -EINVAL;
    struct rf_engine *e = aligned_alloc(alignof(struct rf_engine), sizeof *e);

    if (!e)
        return -ENOMEM;
    memset(e, 0, sizeof *e);
    int rc = engine_init(e, config);

    if (rc) {
        rf_engine_free(e);
        return rc;
    }
    *out = e;
    return 0;
}

/* Also of an engine that engine_init gave up on half-way. */
void rf_engine_free(struct rf_engine *e)
{
    if (!e)
        return;
    for (uint32_t i = 0; i < e->worker_count && e->worker[i]; i++) {
        worker_destroy(e->worker[i]);
        free(e->worker[i]);
    }
    for (uint32_t i = 0; i < e->sock_count; i++)
        sock_close(&e->sock[i]);
    table_destroy(&e->table);
    session_pool_destroy(&e->sessions);
    qsbr_destroy(&e->qsbr);
    pthread_mutex_destroy(&e->control);
    free(e);
}

int rf_engine_run(struct rf_engine *e, uint32_t worker)
{
    if (worker >= e->worker_count)
        return -EINVAL;
    if (exchange_seq(&e->running[worker], true))
        return -EBUSY;
    worker_run(e->worker[worker]);
    store_rls(&e->running[worker], false);
    return 0;
}

void rf_engine_stop(struct rf_engine *e)
{
    for (uint32_t i = 0; i < e->worker_count; i++)
        worker_stop(e->worker[i]);
}

void rf_engine_socket(const struct rf_engine *e, struct rf_socket_info *out)
{
    const struct sock *s = &e->sock[0];

    *out = (struct rf_socket_info){
        .bound = s->bound,
        .receive_buffer = sock_buffer_size(s, SO_RCVBUF),
        .requested_receive_buffer = e->requested_receive_buffer,
        .send_buffer = sock_buffer_size(s, SO_SNDBUF),
        .requested_send_buffer = SEND_BUFFER,
        .sends_ipv4 = s->family == AF_INET || s->dual_stack,
        .sends_ipv6 = s->family == AF_INET6,
        .gso = e->worker[0]->gso,
        .gro = ingress_has_gro(e->worker[0]->ingress),
        .receiving = e->sock_count,
    };
}

/* Widens the sockets' 32-bit counts; read at every tick, so no wrap goes unseen. */
static void read_kernel_drops(struct rf_engine *e)
{
    for (uint32_t i = 0; i < e->sock_count; i++) {
        uint32_t seen = sock_drops(&e->sock[i]);

        e->kernel_drops += (uint32_t)(seen - e->kernel_drops_seen[i]);
        e->kernel_drops_seen[i] = seen;
    }
}

void rf_engine_stats(struct rf_engine *e, struct rf_stats *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < e->worker_count; i++)
        stats_sum(out, &e->worker[i]->counters);
    pthread_mutex_lock(&e->control);
    read_kernel_drops(e);
    out->kernel_drops = e->kernel_drops;
    pthread_mutex_unlock(&e->control);
}

void rf_engine_latency(struct rf_engine *e, struct rf_latency *first, struct rf_latency *last)
{
    memset(first, 0, sizeof *first);
    memset(last, 0, sizeof *last);
    for (uint32_t i = 0; i < e->worker_count; i++) {
        latency_sum(first, &e->worker[i]->latency_first);
        latency_sum(last, &e->worker[i]->latency_last);
    }
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

int rf_session_latency(struct rf_engine *e, uint64_t handle, struct rf_latency *first,
                       struct rf_latency *last)
{
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        memset(first, 0, sizeof *first);
        memset(last, 0, sizeof *last);
        latency_sum(first, &s->latency_first);
        latency_sum(last, &s->latency_last);
    }
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
                       uint64_t now, bool *added)
{
    struct subscriber_list *old, *list;
    int rc = -ENOENT;

    pthread_mutex_lock(&e->control);
    qsbr_reclaim(&e->qsbr);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        old = load_rlx(&s->subscribers);
        rc = subscriber_list_add(old, addrs, n, e->sock[0].family, e->max_subscribers, now,
                                 added, &list);
        if (rc == 0 && list != old) {
            /* Pairs with the acquire in fanout_start. */
            store_rls(&s->subscribers, list);
            qsbr_retire(&e->qsbr, &old->retired);
        }
    }
    pthread_mutex_unlock(&e->control);
    return rc;
}

int rf_subscribers_remove(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs,
                          size_t n, bool *found)
{
    struct subscriber_list *old, *list, *removed = NULL;
    int rc = -ENOENT;

    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        old = load_rlx(&s->subscribers);
        rc = subscriber_list_remove(old, addrs, n, e->sock[0].family, found, &list, &removed);
        if (rc == 0 && list != old) {
            store_rls(&s->subscribers, list);
            qsbr_retire(&e->qsbr, &old->retired);
        }
    }
    pthread_mutex_unlock(&e->control);
    if (removed) {
        qsbr_synchronize(&e->qsbr);
        subscriber_list_free(removed);
    }
    return rc;
}

/* Index of the first whose `since_ns` is above `after`. */
static uint32_t first_after(const struct subscriber_list *list, uint64_t after)
{
    uint32_t low = 0, high = list->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (list->item[middle]->since_ns > after)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int rf_subscribers(struct rf_engine *e, uint64_t handle, uint64_t after,
                   struct rf_subscriber_stats *out, size_t capacity, size_t *count)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        struct subscriber_list *list = load_rlx(&s->subscribers);

        for (uint32_t i = first_after(list, after); i < list->count && n < capacity; i++) {
            struct subscriber *from = list->item[i];

            addr_from_sockaddr(&out[n].addr, &from->name);
            out[n].since_ns = from->since_ns;
            out[n].packets_sent = load_rlx(&from->packets_sent);
            out[n++].send_failures = load_rlx(&from->send_failures);
        }
        *count = n;
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
