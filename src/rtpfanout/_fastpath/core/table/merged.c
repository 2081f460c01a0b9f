#include "merged.h"

static bool is_fresh(uint64_t at, uint64_t now)
{
    return at != 0 && now - at <= MERGED_FRESH_NS;
}

/* Of `n` values, so many of each. */
static uint8_t worst_or_median(const uint32_t count[256], uint32_t n)
{
    uint32_t below = n > MERGED_FEW ? n / 2 : n - 1, seen = 0;

    for (unsigned value = 0; value < 255; value++) {
        seen += count[value];
        if (seen > below)
            return (uint8_t)value;
    }
    return 255;
}

struct merged merged_report(const struct reporters *set, enum rf_class of, uint64_t now)
{
    struct merged out = {0, UINT64_MAX};
    uint32_t count[256] = {0}, n = 0;

    for (uint32_t i = 0; set && i < set->count; i++) {
        const struct reporter *r = set->item[i];

        if (subscriber_class(r->subscriber) != of || load_rlx(&r->subscriber->withheld))
            continue;
        if (is_fresh(load_rlx(&r->report.at_ns), now)) {
            count[load_rlx(&r->report.fraction) & 255]++;
            n++;
        }
        if (is_fresh(r->bitrate_ns, now) && r->bitrate < out.bitrate)
            out.bitrate = r->bitrate;
    }
    if (n > 0)
        out.fraction = worst_or_median(count, n);
    return out;
}
