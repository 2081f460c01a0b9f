#include "local.h"

#include <stdlib.h>
#include <string.h>

static int compare_ips(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

struct local_set *local_set_new(const struct rf_addr *addrs, uint32_t count)
{
    struct local_set *set = malloc(sizeof *set + 16 * (size_t)count);

    if (!set)
        return NULL;
    set->count = count;
    for (uint32_t i = 0; i < count; i++)
        memcpy(set->ip[i], addrs[i].ip, 16);
    if (count > 0)
        qsort(set->ip, count, 16, compare_ips);
    return set;
}

bool local_set_has(const struct local_set *set, const uint8_t ip[16])
{
    uint32_t low = 0, high = set->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = memcmp(ip, set->ip[middle], 16);

        if (order == 0)
            return true;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return false;
}
