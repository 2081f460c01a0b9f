/* The control plane's datagrams: notices of what came, by what key their senders are known, and
 * what is answered. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine.h"

int rf_notice_fd(const struct rf_engine *e, enum rf_queue queue)
{
    return e->notice_fd[queue];
}

void rf_cookie_key(struct rf_engine *e, const uint8_t key[RF_PROOF_KEY])
{
    proof_key_set(&e->proofs.cookies, key);
}

void rf_stamp_key(struct rf_engine *e, const uint8_t key[RF_PROOF_KEY])
{
    proof_key_set(&e->proofs.stamps, key);
}

void rf_await(struct rf_engine *e, const struct rf_addr *addrs, size_t n, bool on)
{
    pthread_mutex_lock(&e->control);
    for (size_t i = 0; i < n; i++)
        awaited_change(&e->proofs.awaited, &addrs[i], on);
    pthread_mutex_unlock(&e->control);
}

/* The session may have gone since: then nobody wants to hear of it. From here on the worker may
 * post another notice of the kind. */
static bool is_of_interest(struct rf_engine *e, const struct rf_notice *notice)
{
    if (notice->kind == RF_NOTICE_DATAGRAM)
        return true;
    struct session *s = session_by_handle(&e->sessions, notice->handle);

    if (s)
        fetch_and_acq_rel(&s->noticed, ~(1u << notice->kind));
    return s != NULL;
}

/* The descriptor first: what is posted later makes it readable again. */
size_t rf_notices(struct rf_engine *e, enum rf_queue queue, struct rf_notice *out, size_t capacity)
{
    uint32_t *from = &e->notices_from[queue];
    uint64_t wakeups;
    size_t n = 0;

    (void)!read(e->notice_fd[queue], &wakeups, sizeof wakeups);
    pthread_mutex_lock(&e->control);
    for (uint32_t i = 0; i < e->worker_count; i++) {
        struct worker *w = e->worker[(*from + i) % e->worker_count];

        while (n < capacity && mailbox_take(w->gate.mailbox, queue, &out[n]))
            n += is_of_interest(e, &out[n]);
    }
    *from = (*from + 1) % e->worker_count;
    pthread_mutex_unlock(&e->control);
    if (n == capacity) /* there may be more */
        eventfd_write(e->notice_fd[queue], 1);
    return n;
}

int rf_send(struct rf_engine *e, const struct rf_addr *to, const uint8_t *from, const void *data,
            size_t len)
{
    int rc = sock_send(&e->sock[0], to, from, data, len);

    pthread_mutex_lock(&e->control);
    *(rc ? &e->control_send_failures : &e->control_sent) += 1;
    pthread_mutex_unlock(&e->control);
    return rc;
}
