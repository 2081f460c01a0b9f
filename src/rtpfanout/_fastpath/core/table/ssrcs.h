/* Which SSRCs the source of a session sends, where that is not fixed. Only the owner of the session
 * writes; what the control plane reads of it is atomic. */
#ifndef RF_SSRCS_H
#define RF_SSRCS_H

#include "addr.h"
#include "atomic.h"
#include "core_senders.h"

enum { SSRCS_MOST = RF_SOURCE_SSRCS, SSRCS_OTHERS = 8 };

/* Another SSRC of a source that is followed. */
struct ssrc_candidate {
    struct rf_addr source;
    uint32_t ssrc;
    uint16_t next;  /* sequence number that continues it */
    uint16_t count; /* packets in sequence; 0: there is none */
    uint64_t last_ns;
};

/* An SSRC that comes, and is not followed. */
struct ssrc_other {
    uint32_t ssrc;
    uint16_t packets; /* up to UINT16_MAX; 0: a free place */
    bool is_another;  /* camera than the followed one: it sent beside it for long */
    uint64_t first_ns, last_ns; /* the first of those without a pause */
    uint64_t first_received_ns; /* by the kernel */
};

struct ssrcs {
    /* Where one is followed it is the first, and alone: a packet of it touches these alone. */
    uint64_t alive_received_ns; /* of its last, by the kernel */
    bool untold;                /* the control plane has not been told of the last change */
    _Atomic uint64_t last_ns[SSRCS_MOST];
    _Atomic uint64_t what[SSRCS_MOST]; /* SSRC and payload type, see ssrc_what; 0: none */
    _Atomic uint64_t since_ns[SSRCS_MOST];
    uint64_t payload_types[2]; /* bits of those that were admitted */
    struct rf_addr feeder; /* whence the first of the followed one came */
    struct ssrc_candidate candidate;
    struct ssrc_other other[SSRCS_OTHERS];
    uint32_t newcomers; /* that found no free place */
    uint16_t hold;  /* 1 + where the owner keeps what its candidate sent; 0: nowhere */
    uint64_t told_ns; /* when the control plane was told last */
};

#define SSRC_EXPECTED (UINT64_C(1) << 41) /* it is followed, but has not come yet */

static inline uint64_t ssrc_what(uint32_t ssrc, uint8_t payload_type)
{
    return rf_followed(ssrc, payload_type);
}

/* One of several has come; whether it is new. Then it has a free place of the list, or that of the one
 * that has been silent longest. */
bool ssrcs_note(struct ssrcs *k, uint32_t ssrc, uint8_t payload_type, uint64_t now);
/* Before a packet comes: that was followed by an earlier process, as rf_followed has it. Nothing if it
 * is not like that. */
void ssrcs_expect(struct ssrcs *k, uint64_t followed);
/* It is the one that is followed from here on. */
void ssrcs_follow(struct ssrcs *k, uint32_t ssrc, uint8_t payload_type, uint64_t now);
/* One that is not followed has come: its place among the others. NULL where each is another camera's,
 * that came within a minute, or of somebody who goes on sending. */
struct ssrc_other *ssrcs_note_other(struct ssrcs *k, uint32_t ssrc, uint64_t received_ns, uint64_t now);
/* Up to SSRCS_MOST, the newest first: those that came in the last ten seconds of any. */
unsigned ssrcs_read(struct ssrcs *k, struct rf_source_ssrc *out);

static inline void ssrcs_prefetch(const struct ssrcs *k)
{
    __builtin_prefetch(k);
    __builtin_prefetch(&k->what[0]);
}

static inline bool ssrcs_is_followed(struct ssrcs *k, uint32_t ssrc)
{
    uint64_t what = load_rlx(&k->what[0]);

    return what != 0 && (uint32_t)what == ssrc;
}

static inline void ssrcs_note_type(struct ssrcs *k, uint8_t payload_type)
{
    k->payload_types[payload_type / 64 & 1] |= UINT64_C(1) << payload_type % 64;
}

static inline bool ssrcs_knows_type(const struct ssrcs *k, uint8_t payload_type)
{
    return k->payload_types[payload_type / 64 & 1] >> payload_type % 64 & 1;
}

#endif
