/* What of the datagrams that are no RTP the worker's mailbox must hold after an input. */
#ifndef FUZZ_CONTROLS_H
#define FUZZ_CONTROLS_H

#include "check.h"
#include "notice.h"

enum { CONTROLS = NOTICE_SLOTS - NOTICE_RESERVE };

static struct {
    unsigned count;
    const uint8_t *data[CONTROLS];
    size_t len[CONTROLS];
} controls;

static inline void expect_foreign(struct rf_stats *expected, const uint8_t *p, size_t len)
{
    bool control = len > 3 && p[0] == 0x52 && p[1] == 0x46 && p[2] == 0x4f && p[3] == 1;

    if (!control) {
        expected->dropped_not_rtp++;
    } else if (len > 512 || controls.count == CONTROLS) {
        expected->dropped_control_full++;
    } else {
        controls.data[controls.count] = p;
        controls.len[controls.count++] = len;
        expected->dropped_control++;
    }
}

/* Those and no other, in order. */
static inline void check_mailbox(struct mailbox *m)
{
    struct rf_notice n;

    for (unsigned i = 0; i < controls.count; i++) {
        CHECK(mailbox_take(m, &n));
        CHECK_EQ(n.kind, RF_NOTICE_DATAGRAM);
        CHECK_EQ(n.len, controls.len[i]);
        CHECK(memcmp(n.data, controls.data[i], n.len) == 0);
    }
    CHECK(!mailbox_take(m, &n));
    controls.count = 0;
}

#endif
