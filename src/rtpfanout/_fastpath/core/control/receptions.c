/* The facade of media.h: how sessions are received, and what is told of their payloads, under the writer
 * mutex. */
#include <errno.h>

#include "engine.h"

int rf_session_media(struct rf_engine *e, uint64_t handle, const struct rf_media *media)
{
    if ((unsigned)media->encoding >= RF_ENCODING_COUNT ||
        (media->payload_type > 127 && media->payload_type != RF_ANY_PAYLOAD_TYPE))
        return -EINVAL;
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        struct reception *r = session_reception(&e->sessions, s);
        uint32_t rate = media->clock_rate ? media->clock_rate : media->assumed_clock_rate;
        uint8_t flags = (uint8_t)((media->sealed ? MEDIA_SEALED : 0) |
                                  (media->clock_rate ? 0 : MEDIA_CLOCK_ASSUMED));

        s->watch.has_parameter_sets = media->has_parameter_sets;
        reception_ask(r, media_word(media->encoding, media->payload_type, flags, rate));
    }
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

static struct watched watched(const struct session *s, const struct reception *r)
{
    enum rf_encoding encoding = (enum rf_encoding)load_acq(&r->encoding);

    return (struct watched){
        .bytes = load_rlx(&s->counters.bytes_received),
        .last_packet_ns = load_rlx(&s->last_packet_ns),
        .parameter_sets_ns = parameter_sets_seen(load_acq(&s->sets), encoding),
        .paused = load_rlx(&s->gating) & GATING_PAUSED,
    };
}

static void tell(const struct rf_engine *e, const struct session *s, uint64_t now,
                 struct rf_reception *out)
{
    const struct reception *r = session_reception(&e->sessions, s);
    struct watched of = watched(s, r);

    watch_figures(&s->watch, r, &of, now, out);
    out->handle = session_handle(s);
}

int rf_session_reception(struct rf_engine *e, uint64_t handle, uint64_t now,
                         struct rf_reception *out)
{
    pthread_mutex_lock(&e->control);
    const struct session *s = session_by_handle(&e->sessions, handle);

    if (s)
        tell(e, s, now, out);
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

size_t rf_sessions_reception(struct rf_engine *e, uint64_t now, struct rf_reception *out,
                             size_t capacity)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        const struct session *s = session_at(&e->sessions, i);

        if (!s->in_use)
            continue;
        if (n < capacity)
            tell(e, s, now, &out[n]);
        n++;
    }
    pthread_mutex_unlock(&e->control);
    return n;
}

size_t rf_sessions_figures(struct rf_engine *e, uint64_t now, uint64_t *handles,
                           struct rf_reception_figures *out, size_t capacity)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        const struct session *s = session_at(&e->sessions, i);
        struct rf_reception r;

        if (!s->in_use)
            continue;
        if (n < capacity) {
            tell(e, s, now, &r);
            handles[n] = r.handle;
            out[n] = (struct rf_reception_figures){
                .bitrate_bps = (float)r.bitrate_bps,
                .frame_rate = (float)r.frame_rate,
                .jitter_secs = r.jitter_ns == RF_ABSENT ? -1 : (float)((double)r.jitter_ns / 1e9),
                .expected = (uint32_t)r.expected,
                .lost = (uint32_t)r.lost,
            };
        }
        n++;
    }
    pthread_mutex_unlock(&e->control);
    return n;
}

static int64_t sum(int64_t all, int64_t one)
{
    return one == RF_ABSENT ? all : all + one;
}

static void add(struct rf_reception *all, const struct rf_reception *one)
{
#define X(name, help) all->name = sum(all->name, one->name);
    RF_RECEPTION_FIELDS(X)
#undef X
    all->bitrate_bps += one->bitrate_bps;
}

void engine_keep_reception(struct rf_engine *e, const struct session *s)
{
    struct rf_reception last;

    tell(e, s, 0, &last);
    last.bitrate_bps = 0;
    add(&e->gone, &last);
}

void rf_receptions_sum(struct rf_engine *e, uint64_t now, struct rf_reception *out)
{
    pthread_mutex_lock(&e->control);
    *out = e->gone;
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        const struct session *s = session_at(&e->sessions, i);
        struct rf_reception one;

        if (!s->in_use)
            continue;
        tell(e, s, now, &one);
        add(out, &one);
    }
    pthread_mutex_unlock(&e->control);
}

int rf_session_parameter_sets(struct rf_engine *e, uint64_t handle,
                              uint8_t out[RF_PARAMETER_BYTES], size_t *len)
{
    pthread_mutex_lock(&e->control);
    struct session *s = session_by_handle(&e->sessions, handle);

    if (s) {
        enum rf_encoding encoding =
            (enum rf_encoding)load_acq(&session_reception(&e->sessions, s)->encoding);

        *len = parameter_sets_read(load_acq(&s->sets), encoding, out);
    }
    pthread_mutex_unlock(&e->control);
    return s ? 0 : -ENOENT;
}

size_t rf_conditions(struct rf_engine *e, uint64_t now, uint64_t lately,
                     struct rf_condition_change *out, size_t capacity)
{
    size_t n = 0;

    pthread_mutex_lock(&e->control);
    for (uint32_t i = 0; i < e->worker_count; i++)
        (void)parameter_spares_fill(&e->worker[i]->spares, &e->sessions.parameters);
    for (uint32_t i = 0; i < e->sessions.used; i++) {
        struct session *s = session_at(&e->sessions, i);

        if (!s->in_use)
            continue;
        struct reception *r = session_reception(&e->sessions, s);
        struct watched of = watched(s, r);

        watch_roll(&s->watch, r, &of, now);
        /* A packet may have come since the clock was read. */
        bool active = of.last_packet_ns != 0 && now <= of.last_packet_ns + lately;
        uint32_t restarts = s->watch.restarts - s->watch.told_restarts;
        bool changed = s->watch.condition != s->watch.told || active != s->watch.told_active;

        if ((!changed && restarts == 0) || n == capacity)
            continue;
        s->watch.told = s->watch.condition;
        s->watch.told_active = active;
        s->watch.told_restarts = s->watch.restarts;
        out[n++] = (struct rf_condition_change){
            session_handle(s), (enum rf_condition)s->watch.condition, active, restarts};
    }
    pthread_mutex_unlock(&e->control);
    return n;
}

static const char *at(const char *const *names, size_t count, size_t i)
{
    return i < count ? names[i] : NULL;
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

const char *rf_encoding_name(size_t i)
{
#define X(name, shown) shown,
    static const char *const names[] = {RF_ENCODINGS(X)};
#undef X

    return at(names, COUNT(names), i);
}

const char *rf_condition_name(size_t i)
{
#define X(name, help) #name,
    static const char *const names[] = {RF_CONDITIONS(X)};
#undef X

    return at(names, COUNT(names), i);
}

const char *rf_condition_help(size_t i)
{
#define X(name, help) help,
    static const char *const helps[] = {RF_CONDITIONS(X)};
#undef X

    return at(helps, COUNT(helps), i);
}

const char *rf_reception_field_name(size_t i)
{
#define X(name, help) #name,
    static const char *const names[] = {RF_RECEPTION_FIELDS(X)};
#undef X

    return at(names, COUNT(names), i);
}

const char *rf_reception_field_help(size_t i)
{
#define X(name, help) help,
    static const char *const helps[] = {RF_RECEPTION_FIELDS(X)};
#undef X

    return at(helps, COUNT(helps), i);
}
