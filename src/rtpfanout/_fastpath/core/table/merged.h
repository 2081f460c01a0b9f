/* What the reporters of one class say together, for the source. */
#ifndef RF_MERGED_H
#define RF_MERGED_H

#include "reporter.h"

enum { MERGED_FEW = 8 }; /* up to so many the worst counts, of more the median: one may be forged, or broken */

#define MERGED_FRESH_NS UINT64_C(15000000000) /* three times what lies between two reports at most, as a rule */

struct merged {
    uint8_t fraction; /* lost, of 256; 0 where nobody has reported lately */
    uint64_t bitrate; /* the least that one can take, bits a second; UINT64_MAX: nobody says */
};

struct merged merged_report(const struct reporters *set, enum rf_class of, uint64_t now);

#endif
