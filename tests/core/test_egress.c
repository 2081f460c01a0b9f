/* egress.c: the errno policy, with every error put at every place of a batch.
 * wraps: sendmmsg poll */
#include "egress.h"

#include "endpoints.h"

/* What the kernel of this test does: entries before `at` go through, then `error`, `times`
 * times at that entry (0: for ever); stuck, at each entry. `most` entries are taken by one call. */
static struct {
    int error;
    unsigned at, times, most;
    bool stuck;
    struct mmsghdr *first;
    unsigned sent[EGRESS_BATCH];
    unsigned calls, polls;
    int poll_result;
} kernel;

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags);
int __wrap_poll(struct pollfd *p, nfds_t n, int timeout);

int __wrap_sendmmsg(int fd, struct mmsghdr *headers, unsigned n, int flags)
{
    unsigned start = (unsigned)(headers - kernel.first), end = start + n;

    kernel.calls++;
    CHECK_EQ(fd, 99);
    CHECK(flags & MSG_DONTWAIT);
    CHECK(n > 0);
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
        kernel.sent[i]++;
    return (int)(end - start);
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

static struct subscriber subscribers[EGRESS_BATCH];
static uint8_t payload[100];
static struct packet packet = {.bytes = {payload, sizeof payload}};
static struct batch batch;

static void fill(unsigned n)
{
    batch.used = 0;
    memset(&kernel, 0, sizeof kernel);
    kernel.first = batch.header;
    for (unsigned i = 0; i < n; i++) {
        struct copy copy = {.subscriber = &subscribers[i], .packet = &packet};

        copy.outcome = SEND_FAILURE_COUNT + 1;
        batch_add(&batch, copy, sizeof(struct sockaddr_in));
    }
}

static void check_all_sent_but(unsigned n, unsigned at, enum send_failure expected)
{
    CHECK_EQ(batch.used, n);
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(batch.copy[i].outcome, i == at ? expected : SENT);
        CHECK_EQ(kernel.sent[i], i == at && expected != SENT ? 0 : 1);
    }
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

static void test_the_whole_errno_range(void)
{
    for (int error = 0; error < 256; error++)
        CHECK_EQ(egress_failure(error), expected_of(error));
}

static void test_a_message_for_each_copy(void)
{
    fill(3);
    for (unsigned i = 0; i < 3; i++) {
        struct msghdr *m = &batch.header[i].msg_hdr;

        CHECK(m->msg_name == &subscribers[i].name);
        CHECK_EQ(m->msg_namelen, sizeof(struct sockaddr_in));
        CHECK(m->msg_iov == &packet.bytes && m->msg_iovlen == 1);
        CHECK(m->msg_control == NULL && m->msg_controllen == 0);
    }
    egress_flush(99, &batch, 0);
    CHECK_EQ(kernel.calls, 1);
    check_all_sent_but(3, 3, SENT);
}

static void test_empty_batch_is_no_call(void)
{
    fill(0);
    egress_flush(99, &batch, 2);
    CHECK_EQ(kernel.calls, 0);
}

/* One bad entry, at every place: it alone fails, by its own reason. EINTR is borne 64
 * times, and is no reason of its own. */
static void test_every_error_at_every_place(void)
{
    static const unsigned places[] = {0, 1, 2, 100, 254, 255};

    for (int error = 1; error < 134; error++) {
        for (unsigned p = 0; p < COUNT(places); p++) {
            fill(EGRESS_BATCH);
            kernel.error = error;
            kernel.at = places[p];
            egress_flush(99, &batch, 0);
            check_all_sent_but(EGRESS_BATCH, places[p], expected_of(error));
            CHECK(kernel.calls <= 3 + 65);
        }
    }
    for (unsigned at = 0; at < EGRESS_BATCH; at++) {
        fill(EGRESS_BATCH);
        kernel.error = EHOSTUNREACH;
        kernel.at = at;
        egress_flush(99, &batch, 0);
        check_all_sent_but(EGRESS_BATCH, at, FAILED_unreachable);
    }
}

static void test_the_kernel_takes_few_at_a_time(void)
{
    for (unsigned most = 1; most < 50; most += 7) {
        fill(EGRESS_BATCH);
        kernel.most = most;
        kernel.error = EPERM;
        kernel.at = 130;
        egress_flush(99, &batch, 0);
        check_all_sent_but(EGRESS_BATCH, 130, FAILED_denied);
    }
}

static void test_interrupts_are_borne(void)
{
    fill(8);
    kernel.error = EINTR;
    kernel.at = 3;
    kernel.times = 64;
    egress_flush(99, &batch, 0);
    check_all_sent_but(8, 8, SENT);
}

static void test_room_is_waited_for_then_not(void)
{
    fill(8);
    kernel.error = EAGAIN;
    kernel.at = 3;
    kernel.times = 2;
    kernel.poll_result = 1;
    egress_flush(99, &batch, 2);
    CHECK_EQ(kernel.polls, 2);
    check_all_sent_but(8, 8, SENT);

    fill(8);
    kernel.error = EAGAIN;
    kernel.at = 3;
    egress_flush(99, &batch, 2);
    CHECK_EQ(kernel.polls, 2);
    check_all_sent_but(8, 3, FAILED_would_block);

    fill(8); /* poll itself fails */
    kernel.error = EAGAIN;
    kernel.poll_result = -1;
    egress_flush(99, &batch, 50);
    CHECK_EQ(kernel.polls, 1);
    check_all_sent_but(8, 0, FAILED_would_block);
}

/* A stuck device: every entry fails, every time. The waits are bounded by the batch. */
static void test_an_end_when_nothing_goes(void)
{
    static const int errors[] = {EAGAIN, EINTR, ENOBUFS, 0};

    for (unsigned e = 0; e < COUNT(errors); e++) {
        fill(EGRESS_BATCH);
        kernel.error = errors[e];
        kernel.stuck = true;
        egress_flush(99, &batch, 2);
        CHECK_EQ(kernel.polls, errors[e] == EAGAIN ? 2 : 0);
        CHECK(kernel.calls <= EGRESS_BATCH + 64);
        for (unsigned i = 0; i < EGRESS_BATCH; i++)
            CHECK_EQ(batch.copy[i].outcome, expected_of(errors[e]));
    }
}

int main(void)
{
    RUN(test_the_whole_errno_range);
    RUN(test_a_message_for_each_copy);
    RUN(test_empty_batch_is_no_call);
    RUN(test_every_error_at_every_place);
    RUN(test_the_kernel_takes_few_at_a_time);
    RUN(test_interrupts_are_borne);
    RUN(test_room_is_waited_for_then_not);
    RUN(test_an_end_when_nothing_goes);
    return 0;
}
