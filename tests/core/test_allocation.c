/* When memory runs out: the n-th request of the core fails, for every n until none is left
 * to fail. Each call then says -ENOMEM, has changed nothing, leaks nothing, and works when
 * it is made again.
 * wraps: malloc calloc aligned_alloc free mmap munmap getrandom eventfd socket */
#include "core.h"

#include <sys/mman.h>

#include "calls.h"
#include "endpoints.h"

static int fail_at; /* counts down; the request that reaches 0 fails. 0: none does */
static int held;    /* blocks the core and this file have now */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *p);
void *__real_mmap(void *p, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *p, size_t size);
ssize_t __real_getrandom(void *p, size_t len, unsigned flags);
int __real_eventfd(unsigned value, int flags);
int __real_socket(int family, int type, int protocol);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *p);
void *__wrap_mmap(void *p, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *p, size_t size);
ssize_t __wrap_getrandom(void *p, size_t len, unsigned flags);
int __wrap_eventfd(unsigned value, int flags);
int __wrap_socket(int family, int type, int protocol);

static bool fails(void)
{
    if (fail_at == 0 || --fail_at > 0)
        return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *p)
{
    held += p != NULL;
    return p;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : counted(__real_aligned_alloc(alignment, size));
}

void __wrap_free(void *p)
{
    held -= p != NULL;
    __real_free(p);
}

void *__wrap_mmap(void *p, size_t size, int protection, int flags, int fd, off_t offset)
{
    return fails() ? MAP_FAILED : counted(__real_mmap(p, size, protection, flags, fd, offset));
}

int __wrap_munmap(void *p, size_t size)
{
    held -= p != NULL;
    return __real_munmap(p, size);
}

ssize_t __wrap_getrandom(void *p, size_t len, unsigned flags)
{
    return fails() ? -1 : __real_getrandom(p, len, flags);
}

int __wrap_eventfd(unsigned value, int flags)
{
    return fails() ? -1 : __real_eventfd(value, flags);
}

int __wrap_socket(int family, int type, int protocol)
{
    return fails() ? -1 : __real_socket(family, type, protocol);
}

/* Calls until it succeeds, one request further each time; at least `least` of them exist. */
#define EACH_FAILURE(least, call, unchanged)            \
    do {                                                \
        int rc_ = -1, n_ = 0;                           \
                                                        \
        while (rc_) {                                   \
            int held_before_ = held;                    \
                                                        \
            CHECK(n_ < 120);                            \
            fail_at = ++n_;                             \
            rc_ = (call);                               \
            bool failed_ = fail_at == 0;                \
                                                        \
            fail_at = 0;                                \
            CHECK_EQ(rc_, failed_ ? -ENOMEM : 0);       \
            if (rc_) {                                  \
                CHECK_EQ(held, held_before_);           \
                unchanged;                              \
            }                                           \
        }                                               \
        CHECK(n_ > (least));                            \
    } while (0)

static struct rf_engine *engine;

static struct rf_config config_of(uint32_t max_sessions)
{
    return (struct rf_config){address("127.0.0.1", 0), max_sessions, 100, 100, .workers = 1};
}

/* Each worker more asks for memory and descriptors of its own. So do the figures of the host, and
 * with several ingress sockets the deaf one. */
static void test_engine_new(void)
{
    int figures = (access("/proc/net/snmp", R_OK) == 0) + (access("/proc/net/snmp6", R_OK) == 0);

    for (uint32_t workers = 1; workers <= 4; workers++) {
        struct rf_config config = config_of(10);
        int files = open_files();

        config.workers = workers;
        engine = NULL;
        EACH_FAILURE(14 + 10 * (int)workers, rf_engine_new(&config, &engine), {
            CHECK(engine == NULL);
            CHECK_EQ(open_files(), files);
        });
        CHECK_EQ(open_files(), files + 2 + 3 * (int)workers + figures + (workers > 1));
        rf_engine_free(engine);
        CHECK_EQ(held, 0);
        CHECK_EQ(open_files(), files);
    }
}

static struct rf_addr source_of(uint32_t i)
{
    return address("127.0.0.1", (uint16_t)(1 + i));
}

/* Every session so far still stands under its handle, and no other does. */
static void check_sessions(const uint64_t *handle, uint32_t n)
{
    struct rf_session_stats stats;

    CHECK_EQ(rf_sessions_stats(engine, 0, NULL, 0), n);
    for (uint32_t i = 0; i < n; i++)
        CHECK_EQ(rf_session_stats(engine, handle[i], 0, &stats), 0);
}

/* Through several growths of both indexes and a new chunk of records. */
static void test_session_add(void)
{
    enum { N = 600 };
    static uint64_t handle[N];
    struct rf_config config = config_of(N + 1);
    uint64_t again;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    for (uint32_t i = 0; i < N; i++) {
        struct rf_addr source = source_of(i);

        handle[i] = 0;
        /* what a failed call had grown already, it may keep: so blocks are not compared */
        for (int n = 1, rc = -1; rc; n++) {
            fail_at = n;
            rc = session_add(engine, &source, i, 0, &handle[i]);
            CHECK_EQ(rc, fail_at == 0 ? -ENOMEM : 0);
            fail_at = 0;
            CHECK(rc == 0 || handle[i] == 0);
            if (rc && i % 64 == 0)
                check_sessions(handle, i);
        }
        CHECK_EQ(session_add(engine, &source, i, 0, &again), -EEXIST);
    }
    check_sessions(handle, N);
    for (uint32_t i = 0; i < N; i++)
        CHECK_EQ(rf_session_remove(engine, handle[i]), 0);
    rf_engine_free(engine);
    CHECK_EQ(held, 0);
}

static void check_subscribers(uint64_t handle, const struct rf_addr *expected, size_t n)
{
    struct rf_subscriber_stats out[100];
    size_t count;

    CHECK_EQ(rf_subscribers(engine, handle, 0, out, 100, &count), 0);
    CHECK_EQ(count, n);
    for (size_t i = 0; i < n; i++)
        CHECK(addr_equal(&out[i].addr, &expected[i]));
}

static void test_subscribers(void)
{
    struct rf_config config = config_of(1);
    struct rf_addr source = source_of(0), addrs[30];
    uint64_t handle;
    bool added[30], found[30];

    for (uint32_t i = 0; i < 30; i++)
        addrs[i] = source_of(100 + i);
    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    CHECK_EQ(session_add(engine, &source, 1, 0, &handle), 0);
    EACH_FAILURE(4, subscribers_add(engine, handle, addrs, 1, 0, added),
                 check_subscribers(handle, addrs, 0));
    rf_engine_tick(engine, 0, 0, NULL, 0); /* frees what was retired */
    EACH_FAILURE(33, subscribers_add(engine, handle, addrs, 30, 0, added),
                 check_subscribers(handle, addrs, 1));
    for (unsigned i = 0; i < 30; i++)
        CHECK_EQ(added[i], i > 0);
    for (unsigned i = 30; i > 1;) { /* two at a time, the first of them twice */
        struct rf_addr leaving[] = {addrs[i - 2], addrs[i - 1], addrs[i - 2]};

        rf_engine_tick(engine, 0, 0, NULL, 0); /* what the last removal retired */
        EACH_FAILURE(4, rf_subscribers_remove(engine, handle, leaving, 3, found),
                     check_subscribers(handle, addrs, i));
        CHECK(found[0] && found[1] && !found[2]);
        i -= 2;
        check_subscribers(handle, addrs, i);
    }
    rf_engine_tick(engine, 0, 0, NULL, 0);
    EACH_FAILURE(3, rf_subscribers_remove(engine, handle, addrs, 30, found),
                 check_subscribers(handle, addrs, 0));
    CHECK_EQ(rf_session_remove(engine, handle), 0);
    rf_engine_free(engine);
    CHECK_EQ(held, 0);
}

static struct rf_source network(const char *ip, uint8_t prefix)
{
    return (struct rf_source){RF_NETWORK, .network = {address(ip, 0), prefix}};
}

/* Through growths of the index by network, and back to one exact source. */
static void test_moves(void)
{
    enum { N = 200 };
    static uint64_t handle[N];
    struct rf_config config = config_of(N + 1);
    struct rf_source from = network("10.0.0.0", 104), to = network("10.1.0.0", 112);
    struct rf_source back = {RF_EXACT, .exact = source_of(1)}, twin = back;
    struct rf_addr local[] = {address("10.0.0.1", 0), address("10.0.0.2", 0)};
    uint64_t other;

    CHECK_EQ(rf_engine_new(&config, &engine), 0);
    for (uint32_t i = 0; i < N; i++) {
        for (int n = 1, rc = -1; rc; n++) {
            fail_at = n;
            rc = rf_session_add(engine, &from, i, 0, &handle[i]);
            CHECK_EQ(rc, fail_at == 0 ? -ENOMEM : 0);
            fail_at = 0;
        }
    }
    rf_engine_tick(engine, 0, 0, NULL, 0);
    for (uint32_t i = 0; i < N; i++) {
        for (int n = 1, rc = -1; rc; n++) {
            fail_at = n;
            rc = rf_session_move(engine, handle[i], i % 2 ? &to : &back, 0);
            CHECK_EQ(rc, fail_at == 0 ? -ENOMEM : 0);
            fail_at = 0;
            if (rc) /* nothing is changed: its old network is still taken */
                CHECK_EQ(rf_session_add(engine, &from, i, 0, &other), -EEXIST);
        }
        CHECK_EQ(rf_session_add(engine, i % 2 ? &to : &twin, i, 0, &other), -EEXIST);
    }
    check_sessions(handle, N);
    rf_engine_tick(engine, 0, 0, NULL, 0);
    EACH_FAILURE(1, rf_local_addresses(engine, local, 2), (void)0);
    for (uint32_t i = 0; i < N; i++)
        CHECK_EQ(rf_session_remove(engine, handle[i]), 0);
    rf_engine_free(engine);
    CHECK_EQ(held, 0);
}

int main(void)
{
    RUN(test_engine_new);
    RUN(test_session_add);
    RUN(test_subscribers);
    RUN(test_moves);
    return 0;
}
