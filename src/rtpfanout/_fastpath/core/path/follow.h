/* One SSRC at a time: which packets of a source belong to the one that is followed, and when
 * another takes its place. Only the owner of the session asks. */
#ifndef RF_FOLLOW_H
#define RF_FOLLOW_H

#include "ingress.h"
#include "session.h"

/* RFC 3550 appendix A.1 takes a source for valid after two packets in sequence; a false one costs
 * more here. */
enum { FOLLOW_IN_SEQUENCE = 5 };
#define FOLLOW_SILENCE_NS UINT64_C(200000000)
/* Two at once are no restart: who has sent beside the followed one waits for a silence of so many times
 * as long, and after so long he is another camera. */
enum { FOLLOW_AFTER = 5 };
#define FOLLOW_TOGETHER_NS UINT64_C(1000000000)

enum follow_verdict {
    FOLLOW_ADMIT,
    FOLLOW_SWITCH, /* admitted, and the first of its SSRC: what waits can't pass any more */
    FOLLOW_PASS,   /* the same, but those that wait are of this SSRC, and go first */
    FOLLOW_WAIT,   /* it may yet pass */
    FOLLOW_WAIT_ALONE, /* the same, and no other that waits can any more */
    FOLLOW_REFUSE,
    FOLLOW_OTHER, /* neither now nor when the followed one ends */
};

/* A packet of `s` that its source sent; `now`: CLOCK_MONOTONIC.
 *
 * The SSRC that the session was told is taken at once, whenever it comes, and the first one of all,
 * unless one is expected;
 * another when the followed one has been silent for FOLLOW_SILENCE_NS, by FOLLOW_IN_SEQUENCE packets
 * of a payload type that was admitted before. Who has sent two in sequence keeps others from
 * trying until he has been silent for a moment. Who was another camera stays that. */
enum follow_verdict follow_judge(struct session *s, const uint8_t *packet,
                                 const struct datagram *d, uint32_t ssrc, uint64_t now);

#endif
