/* Whose RTCP a datagram is, and what becomes of it.
 *
 * A source is told by its SSRC and its IP address, whatever the port: senders of RTP have RTCP on the
 * port above, and some on any. A subscriber is told by the SSRC that it speaks of and by its address, or the
 * port above that. What comes to
 * a session's own port, or the one above, is of that session. Everybody else is a stranger, and nothing is answered or looked up for long. */
#ifndef RF_RTCP_GATE_H
#define RF_RTCP_GATE_H

#include "ingress.h"
#include "side_ports.h"
#include "table.h"

struct rtcp_gate {
    /* When buckets of this worker are full: of all from whom RTCP is expected, of strangers, and of each
     * address of those who are expected. */
    uint64_t full_at, strangers_full_at, *address_full_at;
    struct session *due; /* those that something is due of, by `feedback.due_next` */
};

/* -ENOMEM. */
int rtcp_gate_init(struct rtcp_gate *g);
void rtcp_gate_destroy(struct rtcp_gate *g);

/* What stands for an IP address in `session.feeder`: never 0. Nobody who doesn't know our random key
 * finds two that have the same. */
uint64_t rtcp_feeder(const struct table *t, const struct rf_addr *addr);

/* The session that the datagram is of; NULL: none, and `*why`. `limited`: it is counted for what a worker
 * takes a second. */
struct session *rtcp_find(struct rtcp_gate *g, const struct table *t, const struct side_ports *ports,
                          const struct datagram *d, const uint8_t *data, uint32_t len, bool limited,
                          uint64_t now, enum rtcp_verdict *why);
/* The owner of `s`, which rtcp_find has found. */
enum rtcp_verdict rtcp_take(struct rtcp_gate *g, const struct table *t, struct session *s,
                            const struct datagram *d, const uint8_t *data, uint32_t len, uint64_t now);

/* What is known of its packets. */
struct media_clock rtcp_media_clock(const struct session_pool *p, const struct session *s);

#endif
