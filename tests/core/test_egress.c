/* egress.c: the errno policy, with every error put at every place of a batch.
 * wraps: sendmmsg sendmsg poll */
#include "fanout.h"

#include <netinet/in.h>

#include "endpoints.h"
#include "random.h"

enum { PACKETS = 4, LENGTH = 100, LAST_LENGTH = 60, NOW = 5000 };
enum { GROUP_LENGTH = (PACKETS - 1) * LENGTH + LAST_LENGTH };

static struct subscriber subscribers[EGRESS_BATCH];
static struct packet packets[PACKETS];
static struct iovec whole;
static struct group group;
static struct tally tally;
static struct egress egress;
static struct batch batch;
static struct worker_counters counters;

/* What the kernel of this test does. Entries before `at` go through, then `error`, `times` times
 * at that entry (0: for ever); stuck, at each entry. `most` entries are taken by one call.
 * Packets sent one by one to a subscriber fail by `single_error`, those of `single_mask`. With
 * `random` all that is by chance. */
static struct {
    int error, single_error;
    unsigned at, times, most, single_mask;
    bool stuck;
    uint64_t random;
    unsigned calls, single_calls, polls;
    int poll_result;
} kernel;

/* What it took: the packets of each subscriber in order of leaving. */
static struct {
    unsigned count, entries;
    uint8_t packet[PACKETS];
} taken[EGRESS_BATCH];

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);

static unsigned packet_at(const void *base)
{
    for (unsigned i = 0; i < PACKETS; i++)
        if (packets[i].bytes.iov_base == base)
            return i;
    CHECK(false);
    return 0;
}

static void take(const struct msghdr *m)
{
    unsigned who = (unsigned)((const struct subscriber *)m->msg_name - subscribers);
    unsigned first = packet_at(m->msg_iov->iov_base), n = m->msg_control ? PACKETS : 1;

    CHECK(who < EGRESS_BATCH);
    CHECK_EQ(m->msg_iovlen, 1);
    CHECK_EQ(m->msg_iov->iov_len, n > 1 ? whole.iov_len : packets[first].bytes.iov_len);
    taken[who].entries++;
    for (unsigned i = 0; i < n; i++) {
        CHECK(taken[who].count < PACKETS);
        taken[who].packet[taken[who].count++] = (uint8_t)(first + i);
    }
}

static int any_error(void)
{
    static const int usual[] = {EAGAIN, EINTR, EINVAL, EMSGSIZE, EIO, ENOBUFS, EPERM, EHOSTUNREACH};
    uint32_t i = random_below(&kernel.random, 2 * COUNT(usual));

    return i < COUNT(usual) ? usual[i] : 1 + (int)random_below(&kernel.random, 133);
}

static int fail_by_chance(struct mmsghdr *headers, unsigned n)
{
    unsigned sent = 0;

    while (sent < n && random_below(&kernel.random, 5) > 0)
        take(&headers[sent++].msg_hdr);
    errno = any_error();
    return sent > 0 ? (int)sent : -1;
}

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
    unsigned start = (unsigned)(headers - batch.header), end = start + n;

    kernel.calls++;
    CHECK_EQ(fd, 99);
    CHECK(flags & MSG_DONTWAIT);
    CHECK(n > 0 && end == batch.used);
    if (kernel.random)
        return fail_by_chance(headers, n);
    if (kernel.stuck || (start == kernel.at && kernel.error)) {
        errno = kernel.error;
        if (kernel.times && --kernel.times == 0)
            kernel.error = 0;
        return errno ? -1 : 0; /* 0 is nothing it should ever say */
    }
    if (kernel.error && start < kernel.at && end > kernel.at)
        end = kernel.at;
    if (kernel.most && end - start > kernel.most)
        end = start + kernel.most;
    for (unsigned i = start; i < end; i++)
        take(&batch.header[i].msg_hdr);
    return (int)(end - start);
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    unsigned packet = packet_at(msg->msg_iov->iov_base);

    kernel.single_calls++;
    CHECK_EQ(fd, 99);
    CHECK(flags & MSG_DONTWAIT);
    CHECK(msg->msg_control == NULL && msg->msg_controllen == 0);
    CHECK_EQ(msg->msg_namelen, sizeof(struct sockaddr_in));
    if (kernel.random ? random_below(&kernel.random, 4) == 0 : kernel.single_mask >> packet & 1) {
        errno = kernel.random ? any_error() : kernel.single_error;
        return -1;
    }
    take(msg);
    return (ssize_t)msg->msg_iov->iov_len;
}

int __wrap_poll(struct pollfd *p, nfds_t n, int timeout)
{
    kernel.polls++;
    CHECK_EQ(n, 1);
    CHECK_EQ(p->events, POLLOUT);
    CHECK(timeout >= 0 && timeout <= 1);
    errno = EBADF;
    return kernel.poll_result;
}

static void reset(void)
{
    static uint8_t bytes[GROUP_LENGTH];

    memset(&kernel, 0, sizeof kernel);
    memset(taken, 0, sizeof taken);
    memset(&counters, 0, sizeof counters);
    memset(&tally, 0, sizeof tally);
    egress = (struct egress){.lanes = 1, .fd = {99}};
    memset(subscribers, 0, sizeof subscribers);
    for (unsigned i = 0; i < EGRESS_BATCH; i++)
        subscribers[i].segment_limit = UINT16_MAX;
    for (unsigned i = 0; i < PACKETS; i++) {
        packets[i].bytes.iov_base = bytes + LENGTH * i;
        packets[i].bytes.iov_len = i + 1 < PACKETS ? LENGTH : LAST_LENGTH;
        packets[i].next = i + 1 < PACKETS ? &packets[i + 1] : NULL;
    }
    whole = (struct iovec){bytes, GROUP_LENGTH};
    group = (struct group){.first = packets, .packets = PACKETS, .bytes = GROUP_LENGTH,
                           .segment = LENGTH, .iov = &whole, .iov_count = 1};
    group_tell(&group, 0);
    batch.used = 0;
}

static void add(unsigned who, struct packet *packet)
{
    struct copy copy = {.tally = &tally,
                        .subscriber = &subscribers[who],
                        .name = &subscribers[who].name,
                        .group = &group,
                        .packet = packet};

    batch_add(&batch, &copy, sizeof(struct sockaddr_in));
}

/* One entry for each of n subscribers: the whole group, or its first packet. */
static void fill(unsigned n, bool segmented)
{
    reset();
    for (unsigned i = 0; i < n; i++)
        add(i, segmented ? NULL : packets);
}

static struct rf_stats sum_of_counters(void)
{
    struct rf_stats sum = {0};

    stats_sum(&sum, &counters);
    return sum;
}

static uint64_t failures(const struct rf_stats *sum)
{
    uint64_t failed = 0;

#define X(name) failed += sum->failed_##name;
    RF_SEND_FAILURES(X)
#undef X
    return failed;
}

/* Worker, tally and subscribers agree with each other and with what the kernel took. */
static void check_counts(uint64_t attempted)
{
    struct rf_stats sum = sum_of_counters();
    uint64_t sent = 0, failed = 0, bytes = 0, entries = 0;

    for (unsigned i = 0; i < EGRESS_BATCH; i++) {
        CHECK_EQ(load_rlx(&subscribers[i].packets_sent), taken[i].count);
        sent += taken[i].count;
        entries += taken[i].entries;
        failed += load_rlx(&subscribers[i].send_failures);
        for (unsigned k = 0; k < taken[i].count; k++) {
            bytes += packets[taken[i].packet[k]].bytes.iov_len;
            CHECK(k == 0 || taken[i].packet[k] > taken[i].packet[k - 1]); /* in order, once */
        }
    }
    CHECK_EQ(sum.copies_attempted, attempted);
    CHECK_EQ(sum.packets_sent, sent);
    CHECK_EQ(sum.bytes_sent, bytes);
    CHECK_EQ(sum.sends, entries);
    CHECK_EQ(failures(&sum), failed);
    CHECK_EQ(sent + failed, attempted);
    CHECK_EQ(tally.packets_sent, sent);
    CHECK_EQ(tally.bytes_sent, bytes);
    CHECK_EQ(tally.packets_failed, failed);
}

static uint64_t count_of(const struct rf_stats *sum, enum send_failure reason)
{
    switch (reason) {
#define X(name) case FAILED_##name: return sum->failed_##name;
        RF_SEND_FAILURES(X)
#undef X
    default:
        return 0;
    }
}

static void check_all_sent_but(unsigned n, unsigned at, enum send_failure reason, unsigned each)
{
    struct rf_stats sum = sum_of_counters();

    check_counts((uint64_t)n * each);
    for (unsigned i = 0; i < n; i++)
        CHECK_EQ(taken[i].count, i == at ? 0 : each);
    CHECK_EQ(failures(&sum), at < n ? each : 0);
    if (at < n)
        CHECK_EQ(count_of(&sum, reason), each);
}

static const struct {
    int error;
    enum send_failure expected;
} policy[] = {
    {EAGAIN, FAILED_would_block},      {EWOULDBLOCK, FAILED_would_block},
    {ENOBUFS, FAILED_no_buffer},       {ENOMEM, FAILED_no_buffer},
    {ENETUNREACH, FAILED_unreachable}, {EHOSTUNREACH, FAILED_unreachable},
    {ENETDOWN, FAILED_unreachable},    {EHOSTDOWN, FAILED_unreachable},
    {ENODEV, FAILED_unreachable},      {ENXIO, FAILED_unreachable},
    {EADDRNOTAVAIL, FAILED_unreachable}, {ECONNREFUSED, FAILED_unreachable},
    {EPERM, FAILED_denied},            {EACCES, FAILED_denied},
    {EMSGSIZE, FAILED_too_big},        {EINVAL, FAILED_invalid},
    {EAFNOSUPPORT, FAILED_invalid},    {EDESTADDRREQ, FAILED_invalid},
};

static enum send_failure expected_of(int error)
{
    for (unsigned i = 0; i < COUNT(policy); i++)
        if (policy[i].error == error)
            return policy[i].expected;
    return FAILED_other;
}

static bool of_segmentation(int error)
{
    return error == EINVAL || error == EMSGSIZE || error == EIO;
}

static void test_the_whole_errno_range(void)
{
    for (int error = 0; error < 256; error++)
        CHECK_EQ(egress_failure(error), expected_of(error));
}

static void test_a_message_for_each_copy(void)
{
    reset();
    add(0, NULL);
    add(1, &packets[3]);
    for (unsigned i = 0; i < 2; i++) {
        struct msghdr *m = &batch.header[i].msg_hdr;

        CHECK(m->msg_name == &subscribers[i].name);
        CHECK_EQ(m->msg_namelen, sizeof(struct sockaddr_in));
        CHECK(m->msg_iov == (i == 0 ? &whole : &packets[3].bytes) && m->msg_iovlen == 1);
        CHECK(m->msg_control == (i == 0 ? &group.control : NULL));
        CHECK_EQ(m->msg_controllen, i == 0 ? CMSG_SPACE(sizeof(uint16_t)) : 0);
    }
    egress_flush(&egress, &batch, &counters, 0, NOW);
    CHECK_EQ(kernel.calls, 1);
    check_counts(PACKETS + 1);
}

static void test_empty_batch_is_no_call(void)
{
    fill(0, true);
    egress_flush(&egress, &batch, &counters, 2, NOW);
    CHECK_EQ(kernel.calls, 0);
    check_counts(0);
}

/* One bad entry: it alone fails, by its own reason, and all of its packets do. */
static void fail_one(int error, unsigned at, bool segmented)
{
    fill(EGRESS_BATCH, segmented);
    kernel.error = error;
    kernel.at = at;
    egress_flush(&egress, &batch, &counters, 0, NOW);
    CHECK(kernel.calls <= 3 + 65); /* EINTR is borne 64 times */
    if (segmented && of_segmentation(error)) {
        check_all_sent_but(EGRESS_BATCH, EGRESS_BATCH, 0, PACKETS);
        CHECK_EQ(kernel.single_calls, PACKETS);
    } else {
        check_all_sent_but(EGRESS_BATCH, at, expected_of(error), segmented ? PACKETS : 1);
        CHECK_EQ(kernel.single_calls, 0);
    }
}

static void test_every_error_at_every_place(void)
{
    static const int at_all[] = {EHOSTUNREACH, EAGAIN, EINVAL, EMSGSIZE, EIO};

    for (int error = 1; error < 134; error++) {
        static const unsigned places[] = {0, 1, 2, 100, 254, 255};

        for (unsigned p = 0; p < 2 * COUNT(places); p++)
            fail_one(error, places[p / 2], p % 2);
    }
    for (unsigned at = 0; at < EGRESS_BATCH; at++)
        for (unsigned e = 0; e < 2 * COUNT(at_all); e++)
            fail_one(at_all[e / 2], at, e % 2);
}

/* Nothing is lost, that one subscriber is limited, and the others stay as they were. */
static void test_fallback_limits_one_subscriber(void)
{
    static const struct {
        int error;
        uint16_t limit;
    } cases[] = {{EINVAL, LENGTH - 1}, {EMSGSIZE, LENGTH - 1}, {EIO, 0}};

    for (unsigned i = 0; i < COUNT(cases); i++) {
        fill(5, true);
        kernel.error = cases[i].error;
        kernel.at = 3;
        egress_flush(&egress, &batch, &counters, 0, NOW);
        struct rf_stats sum = sum_of_counters();

        check_all_sent_but(5, 5, 0, PACKETS);
        CHECK_EQ(sum.gso_fallback_invalid, i == 0);
        CHECK_EQ(sum.gso_fallback_too_big, i == 1);
        CHECK_EQ(sum.gso_fallback_io, i == 2);
        CHECK_EQ(sum.sends, 4 + PACKETS);
        for (unsigned k = 0; k < 5; k++)
            CHECK_EQ(subscribers[k].segment_limit, k == 3 ? cases[i].limit : UINT16_MAX);
        CHECK(!egress_may_segment(&subscribers[3], &group, NOW));
        CHECK(!egress_may_segment(&subscribers[3], &group, NOW + 59));
        CHECK(egress_may_segment(&subscribers[2], &group, NOW));
        CHECK(egress_may_segment(&subscribers[3], &group, NOW + 60));
        CHECK_EQ(subscribers[3].segment_limit, UINT16_MAX);
    }
}

/* A batch can hold several groups for one subscriber: the shortest that failed counts. */
static void test_a_later_failure_does_not_lift_the_limit(void)
{
    fill(1, true);
    subscribers[0].segment_limit = 20;
    kernel.error = EMSGSIZE;
    egress_flush(&egress, &batch, &counters, 0, NOW);
    check_all_sent_but(1, 1, 0, PACKETS);
    CHECK_EQ(subscribers[0].segment_limit, 20);
    CHECK_EQ(subscribers[0].probe_at, NOW + 60);
}

/* With one packet there is no segmentation to blame. */
static void test_a_group_of_one_does_not_fall_back(void)
{
    reset();
    group.packets = 1;
    group.bytes = LENGTH;
    whole.iov_len = LENGTH;
    add(0, NULL);
    CHECK(batch.header[0].msg_hdr.msg_control == NULL);
    kernel.error = EMSGSIZE;
    egress_flush(&egress, &batch, &counters, 0, NOW);
    CHECK_EQ(kernel.single_calls, 0);
    CHECK_EQ(sum_of_counters().failed_too_big, 1);
    CHECK_EQ(subscribers[0].segment_limit, UINT16_MAX);
    check_counts(1);
}

static void test_a_fallbacks_own_errors(void)
{
    static const int errors[] = {EMSGSIZE, EPERM, EINTR, EAGAIN, EIO};

    for (unsigned mask = 0; mask < 1u << PACKETS; mask++) {
        for (unsigned e = 0; e < COUNT(errors); e++) {
            unsigned failed = (unsigned)__builtin_popcount(mask);

            fill(3, true);
            kernel.error = EMSGSIZE;
            kernel.at = 1;
            kernel.single_error = errors[e];
            kernel.single_mask = mask;
            egress_flush(&egress, &batch, &counters, 0, NOW);
            struct rf_stats sum = sum_of_counters();

            check_counts(3 * PACKETS);
            CHECK_EQ(failures(&sum), failed);
            CHECK_EQ(count_of(&sum, expected_of(errors[e])), failed);
            CHECK_EQ(taken[1].count, PACKETS - failed);
            CHECK_EQ(taken[2].count, PACKETS);
            CHECK(kernel.single_calls <= PACKETS + 64);
        }
    }
}

static void test_the_kernel_takes_few_at_a_time(void)
{
    for (unsigned most = 1; most < 50; most += 7) {
        fill(EGRESS_BATCH, most % 2);
        kernel.most = most;
        kernel.error = EPERM;
        kernel.at = 130;
        egress_flush(&egress, &batch, &counters, 0, NOW);
        check_all_sent_but(EGRESS_BATCH, 130, FAILED_denied, most % 2 ? PACKETS : 1);
    }
}

static void test_interrupts_are_borne(void)
{
    fill(8, true);
    kernel.error = EINTR;
    kernel.at = 3;
    kernel.times = 64;
    egress_flush(&egress, &batch, &counters, 0, NOW);
    check_all_sent_but(8, 8, 0, PACKETS);
}

static void test_room_is_waited_for_then_not(void)
{
    fill(8, true);
    kernel.error = EAGAIN;
    kernel.at = 3;
    kernel.times = 2;
    kernel.poll_result = 1;
    egress_flush(&egress, &batch, &counters, 2, NOW);
    CHECK_EQ(kernel.polls, 2);
    check_all_sent_but(8, 8, 0, PACKETS);

    fill(8, true);
    kernel.error = EAGAIN;
    kernel.at = 3;
    egress_flush(&egress, &batch, &counters, 2, NOW);
    CHECK_EQ(kernel.polls, 2);
    check_all_sent_but(8, 3, FAILED_would_block, PACKETS);

    fill(8, true); /* poll itself fails */
    kernel.error = EAGAIN;
    kernel.poll_result = -1;
    egress_flush(&egress, &batch, &counters, 50, NOW);
    CHECK_EQ(kernel.polls, 1);
    check_all_sent_but(8, 0, FAILED_would_block, PACKETS);
}

/* A stuck device: every entry fails, every time. The waits are bounded by the batch. */
static void test_an_end_when_nothing_goes(void)
{
    static const int errors[] = {EAGAIN, EINTR, ENOBUFS, 0};

    for (unsigned e = 0; e < COUNT(errors); e++) {
        fill(EGRESS_BATCH, false);
        kernel.error = errors[e];
        kernel.stuck = true;
        egress_flush(&egress, &batch, &counters, 2, NOW);
        CHECK_EQ(kernel.polls, errors[e] == EAGAIN ? 2 : 0);
        CHECK(kernel.calls <= EGRESS_BATCH + 64);
        struct rf_stats sum = sum_of_counters();

        check_counts(EGRESS_BATCH);
        CHECK_EQ(count_of(&sum, expected_of(errors[e])), EGRESS_BATCH);
    }
}

/* Whatever fails whenever: no packet twice, none out of order, each counted once. */
static void test_by_chance(void)
{
    uint64_t random = 88172645463325252, calls = 0, segmented = 0;

    for (unsigned round = 0; calls < 200000; round++) {
        unsigned n = 1 + random_below(&random, EGRESS_BATCH);
        uint64_t attempted = 0;

        reset();
        for (unsigned who = 0; batch.used < n; who++) {
            bool singly = random_below(&random, 3) == 0;

            for (unsigned k = 0; k < (singly ? PACKETS : 1) && batch.used < n; k++)
                add(who, singly ? &packets[k] : NULL);
        }
        for (unsigned i = 0; i < n; i++)
            attempted += batch.copy[i].packet ? 1 : PACKETS;
        kernel.random = next_random(&random);
        kernel.poll_result = random_below(&random, 4) > 0 ? 1 : -1;
        egress_flush(&egress, &batch, &counters, (int)random_below(&random, 5), NOW + round);
        check_counts(attempted);
        CHECK_EQ(batch.used, n);
        calls += kernel.calls + kernel.single_calls;
        segmented += load_rlx(&counters.gso_fallback_io);
    }
    CHECK(segmented > 100);
    printf("  %" PRIu64 " calls\n", calls);
}

int main(void)
{
    RUN(test_the_whole_errno_range);
    RUN(test_a_message_for_each_copy);
    RUN(test_empty_batch_is_no_call);
    RUN(test_every_error_at_every_place);
    RUN(test_fallback_limits_one_subscriber);
    RUN(test_a_later_failure_does_not_lift_the_limit);
    RUN(test_a_group_of_one_does_not_fall_back);
    RUN(test_a_fallbacks_own_errors);
    RUN(test_the_kernel_takes_few_at_a_time);
    RUN(test_interrupts_are_borne);
    RUN(test_room_is_waited_for_then_not);
    RUN(test_an_end_when_nothing_goes);
    RUN(test_by_chance);
    return 0;
}
