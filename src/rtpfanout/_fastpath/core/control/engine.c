/* The facade of core.h: an engine's life, its packet loops and its figures. sources.c has the calls
 * about sessions, subscription.c those about subscribers, figures.c the figures of sessions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine.h"
#include "membership.h"
#include "steer.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static int take_sockets(struct rf_engine *e, const struct rf_config *config)
{
    int n;

    e->adopted = config->socket_count > 0;
    if (e->adopted) {
        n = port_adopt(e->sock, config->sockets, config->socket_count, &e->deaf);
        if (n)
            return n;
        e->sock_count = port_receiving(config->sockets, config->socket_count);
        n = port_share(e->sock, e->sock_count, &e->deaf);
    } else {
        n = port_open(e->sock, &config->bind, e->worker_count, e->requested_receive_buffer,
                      &e->deaf);
        e->sock_count = n < 0 ? 0 : (uint32_t)n;
    }
    if (n >= 0)
        drops_begin(&e->drops, e->sock, e->sock_count, e->adopted);
    return n < 0 ? n : 0;
}

int rf_in_hand_open(uint32_t count)
{
    if (count == 0 || count > RF_MAX_WORKERS)
        return -EINVAL;
    int fd = memfd_create("rtpfanout in hand", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL) /* older than Linux 6.3 */
        fd = memfd_create("rtpfanout in hand", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)(count * ingress_size())) == 0)
        return fd;
    int rc = -errno;

    close(fd);
    return rc;
}

static int take_in_hand(struct rf_engine *e, const struct rf_config *config)
{
    size_t size = e->sock_count * ingress_size();
    struct stat file;

    if (!config->in_hand)
        return 0;
    if (fstat(*config->in_hand, &file) != 0)
        return -errno;
    if (file.st_size != (off_t)size)
        return -EINVAL;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *config->in_hand, 0);

    if (memory == MAP_FAILED)
        return -errno;
    e->in_hand = memory;
    return 0;
}

/* Where the kernel cuts the send buffer (no CAP_NET_ADMIN, a small net.core.wmem_max): as many
 * sockets as it takes to have that much room after all. They join the group after those
 * that receive, and the program that steers never picks them. */
static int open_lanes(struct rf_engine *e)
{
    uint64_t granted = sock_buffer_size(&e->sock[0], SO_SNDBUF);
    uint64_t wanted = granted ? (2ull * SEND_BUFFER + granted - 1) / granted : 1;
    uint32_t count = wanted < EGRESS_LANES ? (uint32_t)wanted : EGRESS_LANES;

    for (uint32_t i = 0; count > 1 && i < count; i++) {
        int rc = sock_open_deaf(&e->lane[i], &e->sock[0], SEND_BUFFER);

        if (rc)
            return rc;
        e->lane_count++;
        /* At once, so that nothing is steered to a socket nobody reads. */
        if (i == 0 && steer_by_source(e->sock[0].fd, e->sock_count) != 0) {
            sock_close(&e->lane[--e->lane_count]);
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
            .in_hand = e->in_hand && i < e->sock_count ? e->in_hand + i * ingress_size() : NULL,
            .split_threshold = config->split_threshold,
            .busy_poll_ns = config->busy_poll_ns,
            .max_sessions = config->max_sessions,
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
        worker_report(w, &e->local, e->notice_fd, &e->proofs);
        worker_use_side_ports(w, e->side_ports);
        if (e->lane_count > 0)
            worker_use_lanes(w, e->lane, e->lane_count);
        e->worker[i] = w;
        if ((rc = parameter_spares_fill(&w->spares, &e->sessions.parameters)))
            return rc;
    }
    return 0;
}

static int open_notices(struct rf_engine *e)
{
    struct local_set *none = local_set_new(NULL, 0);
    int rc;

    if (!none)
        return -ENOMEM;
    store_rlx(&e->local, none);
    for (unsigned i = 0; i < RF_QUEUES; i++) {
        e->notice_fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (e->notice_fd[i] < 0)
            return -errno;
    }
    if ((rc = proof_key_init(&e->proofs.cookies)) || (rc = proof_key_init(&e->proofs.stamps)))
        return rc;
    return awaited_init(&e->proofs.awaited);
}

/* Of adopted ones too, whoever opened them. */
static int set_path_mtu(struct rf_engine *e, bool discover)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < e->sock_count; i++)
        rc = sock_set_path_mtu(&e->sock[i], discover);
    for (uint32_t i = 0; rc == 0 && i < e->lane_count; i++)
        rc = sock_set_path_mtu(&e->lane[i], discover);
    return rc;
}

/* Bound to one address, that is the answer. */
static int tell_local(struct rf_engine *e)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && sock_is_wildcard(&e->sock[0]) && i < e->sock_count; i++)
        rc = sock_tell_local(&e->sock[i]);
    return rc;
}

static int engine_init(struct rf_engine *e, const struct rf_config *config)
{
    int rc;

    e->max_subscribers = config->max_subscribers;
    memcpy(e->egress, config->egress, sizeof e->egress);
    e->worker_count = config->workers;
    e->requested_receive_buffer = port_receive_buffer(config->receive_queue_packets);
    qsbr_init(&e->qsbr);
    pthread_mutex_init(&e->control, NULL);
    pthread_mutex_init(&e->sources, NULL);
    for (unsigned i = 0; i < RF_QUEUES; i++)
        e->notice_fd[i] = -1;
    e->deaf.fd = -1;
    e->drops.snmp = (struct snmp){{-1, -1}};
    if ((rc = open_notices(e)) || (rc = session_pool_init(&e->sessions, config->max_sessions)) ||
        (rc = table_init(&e->table, &e->sessions, &e->qsbr)) ||
        (rc = take_sockets(e, config)) || (rc = take_in_hand(e, config)) || (rc = open_lanes(e)) ||
        (rc = set_path_mtu(e, config->discover_path_mtu)) || (rc = tell_local(e)))
        return rc;
    e->side_ports = side_ports_new(e->sock[0].bound.port);
    return e->side_ports ? start_workers(e, config) : -ENOMEM;
}

int rf_engine_new(const struct rf_config *config, struct rf_engine **out)
{
    if (config->max_sessions == 0 || config->max_sessions > RF_MAX_SESSIONS ||
        config->max_subscribers == 0 ||
        config->receive_queue_packets == 0 || config->workers == 0 ||
        config->workers > RF_MAX_WORKERS || config->socket_count > RF_MAX_WORKERS + 1 ||
        port_receiving(config->sockets, config->socket_count) > config->workers)
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
    if (e->in_hand)
        munmap(e->in_hand, e->sock_count * ingress_size());
    for (uint32_t i = 0; i < e->lane_count; i++)
        sock_close(&e->lane[i]);
    for (uint32_t i = 0; i < e->sock_count; i++)
        sock_close(&e->sock[i]);
    if (e->deaf.fd >= 0)
        sock_close(&e->deaf);
    side_ports_free(e->side_ports);
    drops_end(&e->drops);
    table_destroy(&e->table);
    session_pool_destroy(&e->sessions);
    qsbr_destroy(&e->qsbr);
    pthread_mutex_destroy(&e->control);
    pthread_mutex_destroy(&e->sources);
    free(load_rlx(&e->local));
    for (unsigned i = 0; i < RF_QUEUES; i++) {
        if (e->notice_fd[i] >= 0)
            close(e->notice_fd[i]);
    }
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

/* Whoever looks at our counts may have gone by now. What sockets that outlive us drop from here on,
 * the next engine counts. */
static void leave_drops(struct rf_engine *e)
{
    pthread_mutex_lock(&e->control);
    e->leaves_drops = e->adopted;
    pthread_mutex_unlock(&e->control);
}

void rf_engine_stop(struct rf_engine *e)
{
    leave_drops(e);
    for (uint32_t i = 0; i < e->worker_count; i++)
        worker_stop(e->worker[i]);
}

void rf_engine_leave(struct rf_engine *e)
{
    leave_drops(e);
    for (uint32_t i = 0; i < e->worker_count; i++)
        worker_leave(e->worker[i]);
}

int rf_engine_health(struct rf_engine *e, uint32_t worker, uint64_t now, struct rf_health *out)
{
    if (worker >= e->worker_count)
        return -EINVAL;
    worker_health(e->worker[worker], now, out);
    return 0;
}

/* The same one each time, and not the first one for all: one worker has what it takes. */
static const struct sock *member(const struct rf_engine *e, const struct rf_addr *group)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < sizeof group->ip; i++)
        sum += group->ip[i];
    return &e->sock[sum % e->sock_count];
}

int rf_group_join(struct rf_engine *e, const struct rf_addr *group, const struct rf_addr *sources,
                  uint32_t count, uint32_t interface)
{
    return membership_set(member(e, group), group, sources, count, interface);
}

int rf_group_leave(struct rf_engine *e, const struct rf_addr *group, uint32_t interface)
{
    return membership_end(member(e, group), group, interface);
}

void rf_groups_of_others(struct rf_engine *e, bool taken)
{
    (void)sock_take_joined_only(&e->sock[0], !taken);
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
        .sends_ipv4 = sock_sends_ipv4(s),
        .sends_ipv6 = sock_sends_ipv6(s),
        .gso = e->worker[0]->gso,
        .gro = ingress_has_gro(e->worker[0]->ingress),
        .receiving = e->sock_count,
        .lanes = e->lane_count ? e->lane_count : 1,
    };
}

void engine_read_kernel_drops(struct rf_engine *e)
{
    if (!e->leaves_drops)
        drops_take(&e->drops, e->sock, e->sock_count, e->deaf.fd >= 0 ? &e->deaf : NULL,
                   e->side_ports->socks, e->side_ports->count);
}

void rf_engine_stats(struct rf_engine *e, struct rf_stats *out)
{
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < e->worker_count; i++)
        stats_sum(out, &e->worker[i]->counters);
    pthread_mutex_lock(&e->control);
    engine_read_kernel_drops(e);
    out->kernel_drops = e->drops.full;
    out->kernel_errors = e->drops.other;
    out->control_sent = e->control_sent;
    out->control_send_failures = e->control_send_failures;
    out->rtcp_sent += e->rtcp_sent;
    out->rtcp_send_failures += e->rtcp_send_failures;
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
