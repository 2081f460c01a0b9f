#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LATENCY_CHUNK_BYTES (SESSION_CHUNK * sizeof(struct session_latency))
#define FEEDBACK_CHUNK_BYTES (SESSION_CHUNK * sizeof(struct feedback))

/* Zeros that take no memory until they are written: a session that gets no packets needs none
 * for its latencies, one without RTCP none for that, and 10,000 are restored in a third of the time.
 * calloc clears what it has used before. */
static void *zeros_new(size_t bytes)
{
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return pages == MAP_FAILED ? NULL : pages;
}

static void zeros_free(void *pages, size_t bytes)
{
    if (pages)
        munmap(pages, bytes);
}

int session_pool_init(struct session_pool *p, uint32_t max)
{
    memset(p, 0, sizeof *p);
    p->chunks = calloc((max + SESSION_CHUNK - 1) / SESSION_CHUNK, sizeof *p->chunks);
    p->latency_chunks = calloc((max + SESSION_CHUNK - 1) / SESSION_CHUNK,
                               sizeof *p->latency_chunks);
    p->feedback_chunks = calloc((max + SESSION_CHUNK - 1) / SESSION_CHUNK,
                                sizeof *p->feedback_chunks);
    p->reception_chunks = calloc((max + SESSION_CHUNK - 1) / SESSION_CHUNK,
                                 sizeof *p->reception_chunks);
    p->found = calloc(max, sizeof *p->found);
    if (!p->chunks || !p->latency_chunks || !p->feedback_chunks || !p->reception_chunks || !p->found)
        return -ENOMEM;
    p->max = max;
    return 0;
}

/* Only of one that has RTCP: of others it takes no memory as long as nobody looks. */
static void free_repair(struct session *s)
{
    if (!(load_rlx(&s->gating) & GATING_FEEDBACK))
        return;
    free(load_rlx(&s->feedback->repair));
    store_rlx(&s->feedback->repair, NULL);
}

static void leave_refusals(struct session *s)
{
    if (s->refusals && --s->refusals->sessions == 0)
        free(s->refusals);
    s->refusals = NULL;
}

void session_share_refusals(struct session *s, const struct session *other)
{
    uint64_t counted = load_rlx(&s->refusals->wrong_source) - s->refusals_before;

    leave_refusals(s);
    s->refusals = other->refusals;
    s->refusals->sessions++;
    s->refusals_before = load_rlx(&s->refusals->wrong_source) - counted;
}

void session_change_ssrc(struct session *s, uint32_t ssrc, struct ssrc_refusals *fresh)
{
    uint64_t counted = load_rlx(&s->refusals->wrong_source) - s->refusals_before;

    leave_refusals(s);
    s->refusals = fresh;
    fresh->sessions = 1;
    s->refusals_before = 0 - counted; /* what it had counted goes on */
    s->ssrc = ssrc;
}

/* Where somebody else is at it there is one as late as this. */
static void note_wrong_source(struct ssrc_refusals *r, const struct rf_addr *source)
{
    fetch_add_rlx(&r->wrong_source, 1);
    if (exchange_seq(&r->busy, true))
        return;
    r->last = *source;
    store_rls(&r->busy, false);
}

bool session_wrong_source(struct session *s, struct rf_addr *out)
{
    struct ssrc_refusals *r = s->refusals;

    for (unsigned tries = 0; tries < 1000; tries++) {
        if (exchange_seq(&r->busy, true))
            continue;
        *out = r->last;
        store_rls(&r->busy, false);
        return ip_is_known(out->ip);
    }
    return false; /* a worker was interrupted in the middle */
}

void session_count_refusal(struct session *s, enum drop_reason reason,
                           const struct rf_addr *source)
{
    switch (reason) {
    case DROP_wrong_source: note_wrong_source(s->refusals, source); break;
#define X(name) case DROP_##name: fetch_add_rlx(&s->dropped.name, 1); break;
        RF_SESSION_REFUSALS(X)
#undef X
    default: break; /* counted by its owner */
    }
}

void session_pool_destroy(struct session_pool *p)
{
    for (uint32_t i = 0; i < p->used; i++) {
        struct subscriber_list *list = load_rlx(&session_at(p, i)->subscribers);

        if (list)
            subscriber_list_free(list);
        free(load_rlx(&session_at(p, i)->rule));
        free(session_at(p, i)->ssrcs);
        free_repair(session_at(p, i));
        leave_refusals(session_at(p, i));
    }
    for (uint32_t i = 0; i < p->used; i += SESSION_CHUNK) {
        free(load_rlx(&p->chunks[i / SESSION_CHUNK]));
        zeros_free(p->latency_chunks[i / SESSION_CHUNK], LATENCY_CHUNK_BYTES);
        zeros_free(p->feedback_chunks[i / SESSION_CHUNK], FEEDBACK_CHUNK_BYTES);
        free(p->reception_chunks[i / SESSION_CHUNK]);
    }
    free(p->chunks);
    free(p->latency_chunks);
    free(p->feedback_chunks);
    free(p->reception_chunks);
    free(p->found);
    parameter_pool_destroy(&p->parameters);
}

static int chunk_new(struct session_pool *p, uint32_t number)
{
    size_t size = SESSION_CHUNK * sizeof(struct session);
    struct session *chunk = aligned_alloc(alignof(struct session), size);
    struct session_latency *latency = zeros_new(LATENCY_CHUNK_BYTES);
    struct feedback *feedback = zeros_new(FEEDBACK_CHUNK_BYTES);
    struct reception *reception =
        aligned_alloc(alignof(struct reception), SESSION_CHUNK * sizeof *reception);

    if (!chunk || !latency || !feedback || !reception) {
        free(chunk);
        zeros_free(latency, LATENCY_CHUNK_BYTES);
        zeros_free(feedback, FEEDBACK_CHUNK_BYTES);
        free(reception);
        return -ENOMEM;
    }
    memset(chunk, 0, size);
    p->latency_chunks[number] = latency;
    p->feedback_chunks[number] = feedback;
    p->reception_chunks[number] = reception;
    store_rls(&p->chunks[number], chunk);
    return 0;
}

/* The next record that was never used. */
static int session_fresh(struct session_pool *p, struct session **out)
{
    if (p->used == p->max)
        return -EAGAIN;
    uint32_t chunk = p->used / SESSION_CHUNK, place = p->used % SESSION_CHUNK;

    if (place == 0) {
        int rc = chunk_new(p, chunk);

        if (rc)
            return rc;
    }
    *out = session_at(p, p->used);
    (*out)->index = p->used++;
    (*out)->latency = &p->latency_chunks[chunk][place];
    (*out)->feedback = &p->feedback_chunks[chunk][place];
    return 0;
}

int session_new(struct session_pool *p, const struct rf_addr *source, uint32_t ssrc, uint64_t now,
                struct session **out)
{
    struct subscriber_list *empty = subscriber_list_new(0);
    struct ssrc_refusals *refusals = calloc(1, sizeof *refusals);
    struct session *s = p->free;
    int rc = empty && refusals ? 0 : -ENOMEM;

    if (rc == 0 && !s)
        rc = session_fresh(p, &s);
    else if (rc == 0)
        p->free = s->next_free;
    if (rc) {
        free(empty);
        free(refusals);
        return rc;
    }
    uint32_t index = s->index, generation = s->generation;
    struct session_latency *latency = s->latency;
    struct feedback *feedback = s->feedback;

    if (load_rlx(&s->gating) & GATING_FEEDBACK) /* else it is zero */
        memset(feedback, 0, sizeof *feedback);
    memset(s, 0, sizeof *s);
    if (generation > 0) /* else it is zero already */
        memset(latency, 0, sizeof *latency);
    s->index = index;
    s->latency = latency;
    s->feedback = feedback;
    s->generation = generation + 1;
    s->in_use = true;
    s->source = *source;
    s->exact = true;
    s->ssrc = ssrc;
    s->created_ns = now;
    s->older.at = s->newer.at = s->watch.older.at = s->watch.newer.at = now;
    s->watch.condition = s->watch.told = RF_CONDITION_never_fed;
    reception_begin(session_reception(p, s));
    s->refusals = refusals;
    refusals->sessions = 1;
    store_rlx(&s->subscribers, empty);
    *out = s;
    return 0;
}

void session_release(struct session_pool *p, struct session *s)
{
    subscriber_list_free(load_rlx(&s->subscribers));
    store_rlx(&s->subscribers, NULL);
    free(load_rlx(&s->rule));
    store_rlx(&s->rule, NULL);
    free(s->ssrcs);
    s->ssrcs = NULL;
    free_repair(s);
    leave_refusals(s);
    parameter_pool_put(&p->parameters, load_rlx(&s->sets));
    store_rlx(&s->sets, NULL);
    s->in_use = false;
    s->next_free = p->free;
    p->free = s;
}

struct session *session_by_handle(const struct session_pool *p, uint64_t handle)
{
    uint32_t index = (uint32_t)handle;

    if (index >= p->used)
        return NULL;
    struct session *s = session_at(p, index);

    return s->in_use && session_handle(s) == handle ? s : NULL;
}

bool session_may_relatch(struct session *s, const struct source_rule *rule, uint64_t now)
{
    uint64_t last = load_rlx(&s->last_packet_ns);

    if (last < rule->since_ns)
        last = rule->since_ns;
    return now > last && now - last >= rule->silence_ns;
}

void session_keep_sets(struct session *s, struct parameter_spares *spares, enum rf_encoding encoding,
                       struct payload payload, uint64_t now)
{
    struct parameter_sets *sets = load_rlx(&s->sets);
    bool is_new = !sets;

    if (is_new)
        sets = parameter_spares_take(spares);
    if (!sets)
        return;
    parameter_sets_keep(sets, encoding, payload, now);
    if (is_new)
        store_rls(&s->sets, sets);
}

void session_roll_rate(struct session *s, uint64_t now)
{
    s->older = s->newer;
    s->newer.at = now;
    s->newer.packets = load_rlx(&s->counters.packets_received);
}

void session_snapshot(struct session *s, uint64_t now, struct rf_session_stats *out)
{
    out->handle = session_handle(s);
    session_counters_read(out, &s->counters);
    out->dropped_overload = load_rlx(&s->fair_use.dropped);
    out->dropped_rate_limit = load_rlx(&s->limit.dropped);
    out->dropped_paused = load_rlx(&s->dropped_paused);
    out->dropped_wrong_source = load_rlx(&s->refusals->wrong_source) - s->refusals_before;
#define X(name) out->dropped_##name = load_rlx(&s->dropped.name);
    RF_SESSION_REFUSALS(X)
#undef X
    out->created_ns = s->created_ns;
    out->last_packet_ns = load_rlx(&s->last_packet_ns);
    out->subscribers = load_rlx(&s->subscribers)->count;
    out->packets_per_second =
        now > s->older.at
            ? (double)(out->packets_received - s->older.packets) * 1e9 / (double)(now - s->older.at)
            : 0.0;
}
