#include "rule.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned bytes = bits / 8, rest = bits % 8;

    return memcmp(a, b, bytes) == 0 && (rest == 0 || ((a[bytes] ^ b[bytes]) >> (8 - rest)) == 0);
}

static void clear_beyond(uint8_t *ip, unsigned bits)
{
    for (unsigned i = 0; i < 16; i++) {
        if (bits < 8 * (i + 1))
            ip[i] &= bits > 8 * i ? (uint8_t)(0xff00 >> (bits - 8 * i)) : 0;
    }
}

int rule_new(const struct rf_source *source, uint64_t now, struct source_rule **out)
{
    const struct rf_network *network = &source->network;
    bool exact = source->policy == RF_EXACT;
    struct source_rule *rule;

    *out = NULL;
    if (exact && source->relatch_after_ns == 0)
        return 0;
    if (!network->anybody &&
        (network->prefix > 128 || (addr_is_ipv4(&network->addr) && network->prefix < 96)))
        return -EINVAL;
    rule = calloc(1, sizeof *rule);
    if (!rule)
        return -ENOMEM;
    rule->kind = exact                         ? RULE_RELATCH
                 : source->policy == RF_LATCH ? RULE_LATCH
                                               : RULE_ADMIT;
    rule->network.anybody = network->anybody;
    if (!network->anybody) {
        memcpy(rule->network.addr.ip, network->addr.ip, sizeof network->addr.ip);
        rule->network.addr.scope = network->addr.scope;
        rule->network.prefix = network->prefix;
        clear_beyond(rule->network.addr.ip, network->prefix);
    }
    rule->silence_ns = source->relatch_after_ns;
    rule->since_ns = now;
    *out = rule;
    return 0;
}

int rule_new_whole(const struct rf_source *source, uint64_t now, struct source_rule **out)
{
    int rc = rule_new(source, now, out);

    if (rc)
        return rc;
    if (!*out && !(*out = calloc(1, sizeof **out)))
        return -ENOMEM;
    (*out)->has_exact = source->policy == RF_EXACT;
    if ((*out)->has_exact) {
        (*out)->exact = source->exact;
        if (source->relatch_after_ns == 0)
            (*out)->kind = RULE_EXACT;
    }
    return 0;
}

bool rule_covers(const struct source_rule *rule, const struct rf_addr *addr)
{
    const struct rf_network *n = &rule->network;

    if (n->anybody)
        return true;
    return same_bits(n->addr.ip, addr->ip, n->prefix) &&
           (n->addr.scope == 0 || n->addr.scope == addr->scope) &&
           (n->prefix >= 96 || !addr_is_ipv4(addr));
}

bool rule_same_network(const struct source_rule *a, const struct source_rule *b)
{
    return a->network.anybody == b->network.anybody && a->network.prefix == b->network.prefix &&
           addr_equal(&a->network.addr, &b->network.addr);
}

unsigned rule_narrowness(const struct source_rule *rule)
{
    return rule->network.anybody ? 0 : 1u + rule->network.prefix;
}
