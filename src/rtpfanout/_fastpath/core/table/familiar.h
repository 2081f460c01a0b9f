/* From whom RTCP is expected: the addresses of subscribers who have it, and the IP addresses of sources.
 *
 * Counted in a fixed number of cells, by a hash that nobody can foresee. A cell with 0 says for sure that it
 * is a stranger; another says for how many RTCP may come from there. Rarely two addresses share one: then
 * a stranger is looked up as one who is expected, and found to be none.
 *
 * The writer counts, before they are published and after they are gone; workers read. */
#ifndef RF_FAMILIAR_H
#define RF_FAMILIAR_H

#include "addr.h"
#include "atomic.h"
#include "hash.h"

enum { FAMILIAR_CELLS = 1 << 18, FAMILIAR_FED = 1024 };

struct familiar {
    struct hash_key key;
    _Atomic uint32_t cell[FAMILIAR_CELLS];
    /* Of the sources whose IP address is not told beforehand, those that came lately; by any worker. */
    _Atomic uint64_t fed[FAMILIAR_FED];
};

/* NULL: -ENOMEM. Memory that is touched where somebody is counted. */
struct familiar *familiar_new(const struct hash_key *key);
void familiar_free(struct familiar *f);

/* What stands for an IP address: never 0. */
uint64_t familiar_host(const struct hash_key *key, const struct rf_addr *addr);

/* One more, or one less, from whatever port of that host (0: of none). */
void familiar_count_host(struct familiar *f, uint64_t host, int by);
/* From this address, and from the port above it. */
void familiar_count_pair(struct familiar *f, const struct rf_addr *addr, int by);
/* A worker: packets of a session that admits a network come from there. */
void familiar_note_fed(struct familiar *f, uint64_t host);

struct familiarity {
    uint32_t reporters, sources; /* for so many RTCP may come from there; 0, 0: a stranger */
    uint64_t hash;               /* of the one that counts more */
};

struct familiarity familiar_with(const struct familiar *f, const struct rf_addr *from);

#endif
