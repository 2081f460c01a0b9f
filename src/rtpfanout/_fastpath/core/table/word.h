/* What a slot of a table's index holds: part of a hash, and which session that is of. */
#ifndef RF_WORD_H
#define RF_WORD_H

#include "core.h"

/* The low bits of a hash choose the slot, the highest ones are told apart in its word. */
static inline uint32_t word_tag(uint64_t hash)
{
    return (uint32_t)(hash >> 32) & ~RF_MAX_SESSIONS;
}

static inline uint32_t word_make(uint64_t hash, uint32_t index)
{
    return word_tag(hash) | (index + 1);
}

static inline bool word_live(uint32_t word)
{
    return (word & RF_MAX_SESSIONS) != 0;
}

static inline uint32_t word_index(uint32_t word)
{
    return (word & RF_MAX_SESSIONS) - 1;
}

/* Not 0, and its index is none: probing goes on past it. */
static const uint32_t word_deleted = RF_MAX_SESSIONS + 1;

#endif
