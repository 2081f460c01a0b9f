/* The part of core.h about who sends, and what: SSRCs that are not fixed, strangers, readings. */
#ifndef RF_CORE_SENDERS_H
#define RF_CORE_SENDERS_H

#include "core.h"

enum { RF_SOURCE_SSRCS = 8 };

/* What a session's source sends, where its SSRC is not fixed. */
struct rf_source_ssrc {
    uint32_t ssrc;
    uint8_t payload_type;       /* of its last packet, or of its first */
    uint64_t since_ns, last_ns; /* when its first and its last packet came */
};

/* A stranger: packets of one SSRC and source that no session admits, or that send beside what one of
 * their source follows. */
struct rf_knock {
    struct rf_addr source;
    uint32_t ssrc;
    uint8_t payload_type, reason; /* of the last one; as rf_drop_reason_name counts them */
    bool by_feeder;               /* it came from where what its session follows began */
    uint64_t handle;              /* of the session that it came for, 0: none has the SSRC */
    uint64_t packets;             /* since it got its place here */
    uint64_t first_ns, last_ns;
};

enum { RF_KNOCKS = 256 };

/* Those of its source now, the newest first: those that came in the last ten seconds of any. `out` has
 * room for RF_SOURCE_SSRCS; returns how many there are, 0 where the SSRC is fixed; -ENOENT. */
int rf_session_ssrcs(struct rf_engine *e, uint64_t handle, struct rf_source_ssrc *out);
/* How its packets are read, bits of it: at first none. -ENOENT. */
enum {
    RF_READ_PADDING = 1,    /* whether the padding fits is asked, */
    RF_READ_NO_PADDING = 2, /* or not asked, whatever the engine does with others */
    RF_READ_NO_RTCP = 4,    /* payload types 64 to 95 with marker are RTP */
    RF_READ_SRTP = 8,       /* what is behind the header is encrypted */
};
int rf_session_read(struct rf_engine *e, uint64_t handle, unsigned how);
/* The strangers that came latest, of all workers, the latest first, without those whom a session
 * admits by now: up to RF_KNOCKS, of which `out`
 * has room for `capacity`. -ENOMEM, else how many. */
int rf_knocks(struct rf_engine *e, struct rf_knock *out, size_t capacity);
/* Whence the last packet came that had the session's SSRC, and no session of that admitted it; ip all
 * zero: none has. -ENOENT. */
int rf_session_wrong_source(struct rf_engine *e, uint64_t handle, struct rf_addr *out);

#endif
