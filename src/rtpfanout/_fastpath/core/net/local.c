#include "local.h"

#include <stdlib.h>
#include <string.h>

static int compare_ips(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

static bool gives_choice(const struct local_address *a, const struct local_address *b)
{
    return ip_is_ipv4(a->ip) == ip_is_ipv4(b->ip) && a->interface == b->interface && !ip_is_of_here(b->ip);
}

static bool has_several(const struct local_set *set)
{
    for (uint32_t i = 0; i < set->count; i++) {
        const struct local_address *a = &set->item[i];

        if (ip_is_of_here(a->ip))
            continue;
        if (a->interface == LOOPBACK_INDEX)
            return true;
        for (uint32_t k = i + 1; k < set->count; k++) {
            if (gives_choice(a, &set->item[k]))
                return true;
        }
    }
    return false;
}

static void find_only(struct local_set *set, bool ipv4)
{
    unsigned count = 0;

    memset(set->only[ipv4], 0, sizeof set->only[ipv4]);
    for (uint32_t i = 0; i < set->count; i++) {
        const uint8_t *ip = set->item[i].ip;

        if (ip_is_ipv4(ip) == ipv4 && !ip_is_of_here(ip) && count++ == 0)
            memcpy(set->only[ipv4], ip, sizeof set->only[ipv4]);
    }
    if (count > 1)
        memset(set->only[ipv4], 0, sizeof set->only[ipv4]);
}

struct local_set *local_set_new(const struct rf_addr *addrs, uint32_t count)
{
    struct local_set *set = malloc(sizeof *set + sizeof set->item[0] * (size_t)count);

    if (!set)
        return NULL;
    set->number = 0;
    set->count = count;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(set->item[i].ip, addrs[i].ip, 16);
        set->item[i].interface = addrs[i].scope;
    }
    if (count > 0)
        qsort(set->item, count, sizeof set->item[0], compare_ips);
    set->several = has_several(set);
    find_only(set, false);
    find_only(set, true);
    return set;
}

static const struct local_address *find(const struct local_set *set, const uint8_t ip[16])
{
    uint32_t low = 0, high = set->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = memcmp(ip, set->item[middle].ip, 16);

        if (order == 0)
            return &set->item[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

bool local_set_has(const struct local_set *set, const uint8_t ip[16])
{
    return find(set, ip) != NULL;
}

uint32_t local_set_interface(const struct local_set *set, const uint8_t ip[16])
{
    const struct local_address *found = ip_is_of_here(ip) ? NULL : find(set, ip);

    return found ? found->interface : 0;
}
