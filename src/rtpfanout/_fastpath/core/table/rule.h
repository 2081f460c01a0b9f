/* Who may feed a session whose source is not, or not only, one exact address. */
#ifndef RF_RULE_H
#define RF_RULE_H

#include "addr.h"
#include "qsbr.h"

enum rule_kind {
    RULE_ADMIT,   /* any port of any address in the network */
    RULE_LATCH,   /* nobody yet: the control plane is told who knocks */
    RULE_RELATCH, /* beside an exact source: told when that has been silent */
    RULE_EXACT,   /* of a session at its own port: `exact` and nobody else */
};

/* Immutable once published; a change makes another and retires this one. */
struct source_rule {
    struct qsbr_retired retired;
    enum rule_kind kind;
    /* Of a session at its own port that has an exact source: it, beside what `kind` says. */
    bool has_exact;
    struct rf_addr exact;
    struct rf_network network; /* its address has no bits beyond the prefix, and port 0 */
    uint64_t silence_ns;       /* RULE_RELATCH; CLOCK_MONOTONIC, since the later of the last */
    uint64_t since_ns;         /* packet and this */
};

/* The rule that `source` needs, by malloc; NULL in `*out` when it needs none. -EINVAL (a prefix
 * of more bits than there are), -ENOMEM. */
int rule_new(const struct rf_source *source, uint64_t now, struct source_rule **out);

/* The same of a session at its own port: always one, which says all of who feeds it. */
int rule_new_whole(const struct rf_source *source, uint64_t now, struct source_rule **out);

/* IPv4 addresses are in no IPv6 network, not even in ::/0; anybody is a network of its own. */
bool rule_covers(const struct source_rule *rule, const struct rf_addr *addr);
bool rule_same_network(const struct source_rule *a, const struct source_rule *b);
/* The more, the fewer addresses of a family it covers. */
unsigned rule_narrowness(const struct source_rule *rule);

#endif
