/* The packet path behind opaque types and plain structs: all that Cython sees.
 *
 * Functions return 0 or -errno, and write their out-parameters only on success, but for
 * added[] and found[]. Control calls take the engine's writer mutex and may come from any
 * thread; the packet loop never takes it. Times are nanoseconds, of CLOCK_MONOTONIC unless
 * a name says otherwise, and are always passed in. */
#ifndef RF_CORE_H
#define RF_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "media.h"
#include "rtcp_api.h"
#include "stats_fields.h"

struct rf_engine;

enum { RF_MAX_WORKERS = 64, RF_GROUP_SOURCES = 64 };
#define RF_MAX_SESSIONS UINT32_C(0xfffff) /* all bits of it: see table_word */

struct rf_addr {
    uint8_t ip[16];  /* network order, IPv4 as ::ffff:a.b.c.d */
    uint32_t scope;  /* RFC 4007 interface index of a link-local address, else 0 */
    uint16_t port;   /* host order */
};

/* The addresses whose first `prefix` bits are those of addr.ip, in the 128-bit space of that; its
 * port means nothing, its scope something unless it is 0. */
struct rf_network {
    struct rf_addr addr;
    uint8_t prefix; /* 0 to 128, of IPv4 96 to 128 */
    bool anybody;   /* instead: all addresses of both families */
};

enum rf_source_policy {
    RF_EXACT,   /* `exact` alone; with port 0 any port of that address */
    RF_NETWORK, /* any port of any address in `network` */
    RF_LATCH,   /* nobody; a packet from `network` makes an RF_NOTICE_SOURCE, and is held for a second */
};

enum rf_ssrc_policy {
    RF_SSRC_EXACT, /* one SSRC */
    /* One at a time of its source: the one that was told, or the first, at once; and another after a
     * restart, when 200 ms have passed without a packet of the one before, by the fifth packet in
     * sequence of a payload type that had come. */
    RF_SSRC_FOLLOW,
    RF_SSRC_ANY, /* whatever its source sends, several at once */
};

/* Who may feed a session. */
struct rf_source {
    enum rf_source_policy policy;
    struct rf_addr exact;
    struct rf_network network;
    /* RF_EXACT: after so long a silence a packet of its SSRC from `network` makes an
     * RF_NOTICE_SOURCE, and is held; 0: never. */
    uint64_t relatch_after_ns;
    /* It is fed by what comes to a port of its own, whatever the SSRC, and by nothing else: see
     * rf_session_ports. */
    bool own_port;
    /* But for RF_SSRC_EXACT a session has all of its source, whatever other SSRC it was told (0:
     * none). Where another session has an SSRC for itself and admits the source, that one has it. */
    enum rf_ssrc_policy ssrc_policy;
    /* RF_SSRC_FOLLOW: which one it followed before, as rf_followed makes it; 0: none. Only of one that
     * is added. */
    uint64_t followed;
    /* Of a move, to RF_EXACT: the session latches on to it. What is held of it since before leaves
     * first, with its next packet; after any other move nothing does. */
    bool pins;
};

static inline uint64_t rf_followed(uint32_t ssrc, uint8_t payload_type)
{
    return UINT64_C(1) << 40 | (uint64_t)payload_type << 32 | ssrc;
}

enum rf_notice_kind {
    RF_NOTICE_DATAGRAM, /* a control datagram */
    RF_NOTICE_SOURCE,   /* who wants to feed a session that is latching */
    RF_NOTICE_SSRC,     /* a session has another SSRC than before, from `source` */
};

enum { RF_CONTROL_MAX = 96, RF_SSRC_NETWORKS = 16, RF_SENDER_NETWORKS = 64 };

/* Notices wait in two queues, so that the second can be left alone for a while. */
enum rf_queue {
    RF_QUEUE_KNOWN,     /* about sessions, and datagrams of who returned a cookie */
    RF_QUEUE_STRANGERS, /* all other datagrams */
    RF_QUEUES,
};

/* Bytes of the keys of cookies and stamps, of a cookie, and of the claims that have a stamp. */
enum { RF_PROOF_KEY = 16, RF_COOKIE = 24, RF_CLAIMS = 40 };

struct rf_notice {
    enum rf_notice_kind kind;
    uint16_t len; /* of `data`, for a datagram */
    uint64_t handle;
    struct rf_addr source;
    uint8_t local[16]; /* which of our addresses a datagram came to; all zero: not known */
    uint8_t data[RF_CONTROL_MAX];
};

struct rf_config {
    struct rf_addr bind;
    uint32_t max_sessions;          /* 1 to RF_MAX_SESSIONS */
    uint32_t max_subscribers;       /* per session */
    uint32_t receive_queue_packets; /* SO_RCVBUF is sized to hold that many of 1200 bytes */
    uint32_t workers;               /* 1 to RF_MAX_WORKERS; each is to run in a thread */
    uint32_t split_threshold;       /* sends of a turn from which idle workers take part */
    uint64_t busy_poll_ns;          /* look for packets that long before sleeping */
    /* Ingress sockets of rf_sockets_open, to duplicate and adopt in place of opening `bind`. */
    const int *sockets;
    uint32_t socket_count; /* 0: open them; else at most as many to receive by as workers */
    /* Of rf_in_hand_open for as many, not used by a process that lives: what the one before that
     * used it had received and not sent goes first. NULL: what is in hand dies with the process. */
    const int *in_hand;
    bool check_padding;
    uint8_t egress[16]; /* an IP address of ours, for subscribers of its family; all zero: none */
    bool discover_path_mtu; /* by ICMP, see sock_set_path_mtu */
    bool no_segmentation; /* one send entry per copy, though the kernel has UDP_SEGMENT */
};

struct rf_socket_info {
    struct rf_addr bound;
    uint32_t receive_buffer; /* bytes of each as the kernel accounts them, overhead included */
    uint32_t requested_receive_buffer;
    uint32_t send_buffer;
    uint32_t requested_send_buffer;
    bool sends_ipv4;
    bool sends_ipv6;
    bool gso, gro; /* whether UDP_SEGMENT and UDP_GRO are in use */
    uint32_t lanes;     /* sockets that subscribers are spread over */
    uint32_t receiving; /* workers with a socket of their own; 1: no steering to be had */
};

struct rf_stats {
#define X(name, help) uint64_t name;
    RF_WORKER_FIELDS(X)
    RF_ENGINE_FIELDS(X)
#undef X
};

struct rf_session_stats {
    uint64_t handle;
#define X(name, help) uint64_t name;
    RF_SESSION_FIELDS(X)
#undef X
#define X(name) uint64_t dropped_##name; /* wrong_source: of its SSRC, since it is there */
    RF_SESSION_DROPS(X)
    RF_SESSION_REFUSALS(X)
#undef X
    uint64_t created_ns;
    uint64_t last_packet_ns; /* 0: none yet */
    double packets_per_second;
    uint32_t subscribers;
};

enum rf_class { RF_CLASS_PILOT, RF_CLASS_RECORDER, RF_CLASS_MONITOR, RF_CLASSES };

/* Why a subscriber gets no copies. */
enum {
    RF_WITHHELD_CONSENT = 1,
    RF_WITHHELD_SHED = 2,
    /* The configuration refuses it: it is kept for the time when that changes, also beyond
     * max_subscribers and of a family that the socket can't reach. */
    RF_WITHHELD_REFUSED = 4,
};

/* On which a subscriber is one. */
struct rf_terms {
    uint32_t lease_until; /* seconds of CLOCK_MONOTONIC; 0: no lease */
    uint8_t subscriber_class;
    uint8_t withheld; /* bits; 0: it gets copies */
    uint8_t rtcp;     /* enum rf_rtcp; told, and changed by rf_subscribers_rtcp alone */
    /* Which of our IP addresses its copies leave from; all zero: not told, then it is config.egress,
     * else the one that the session's source speaks to if that is of the interface to the
     * subscriber, else what the kernel chooses. */
    uint8_t from[16];
};

struct rf_subscriber_stats {
    struct rf_addr addr;
    uint64_t since_ns; /* when it was added; no two of a session have the same */
    uint64_t packets_sent;
    uint64_t send_failures;
    struct rf_terms terms;
    struct rf_report report;
};

struct rf_health {
    /* Last sign of life, CLOCK_MONOTONIC; 0: it never ran. Of a sleeper it is now, until a second
     * after it fell asleep, when it should have woken by itself; and of who waits for those that help
     * it, as long as somebody does. */
    uint64_t alive_ns;
    uint64_t busy_ns;  /* spent in turns and in shares of others' turns */
    uint64_t cpu_ns;   /* CPU time of its thread; 0: unknown, or it has ended */
};

/* Latency buckets: 8 steps an octave from 1 us (1 us << 24 is 16.8 s), then one more for all above. */
enum {
    RF_LATENCY_FIRST_NS = 1000,
    RF_LATENCY_STEPS = 8,
    RF_LATENCY_OCTAVES = 24,
    RF_LATENCY_BOUNDS = 1 + RF_LATENCY_STEPS * RF_LATENCY_OCTAVES,
};

struct rf_latency {
    uint64_t count[RF_LATENCY_BOUNDS + 1];
    uint64_t sum_ns;
};

/* The ingress sockets of an address, in steering order: one for each of `count` workers where
 * the kernel can steer by source, else one. Behind several comes one more that takes nothing: it
 * belongs to them, and counts what they refuse of what the kernel gives to all. They outlive any
 * engine that adopts them; what comes while none reads is queued. `fds` has room for `count` + 1;
 * returns how many it wrote, or -EINVAL (`count`), or what the kernel says to the bind. */
int rf_sockets_open(const struct rf_addr *bind, uint32_t count, uint32_t receive_queue_packets,
                    int *fds);
/* One more, for one of the ports beside that: its descriptor, or as rf_sockets_open. */
int rf_socket_open(const struct rf_addr *bind, uint32_t receive_queue_packets);
/* How many of them are to receive by, each by a worker. */
uint32_t rf_sockets_receiving(const int *fds, uint32_t count);
/* Memory for what `count` workers receive, as a descriptor: it outlives the process that uses it.
 * -EINVAL (`count`), or -errno. */
int rf_in_hand_open(uint32_t count);
/* Opens the sockets, or adopts them, and counts then what they dropped that no engine has counted.
 * Adopted ones it leaves alone once it was told to stop or leave. -EINVAL (a limit is 0;
 * more sockets than workers, or they are not of one bound UDP port; `in_hand` is not for as many),
 * -ENOMEM, or what the kernel says to the bind. */
int rf_engine_new(const struct rf_config *config, struct rf_engine **out);
/* The packet loop must have returned. NULL is allowed. */
void rf_engine_free(struct rf_engine *e);
/* The packet loop of one worker: returns after rf_engine_stop, when those of all others that are
 * running receive no more either; called again, at once. -EINVAL (no such worker), -EBUSY (it is
 * running). */
int rf_engine_run(struct rf_engine *e, uint32_t worker);
void rf_engine_stop(struct rf_engine *e);
/* Ends each loop after the turn at hand and what others hand over meanwhile; what is queued stays in
 * the socket, for the next engine that adopts it. */
void rf_engine_leave(struct rf_engine *e);

/* Multicast of `group` on an interface (its index): from up to RF_GROUP_SOURCES alone, or from any if there
 * are none. One ingress socket takes it, so it comes once. Sockets that outlive the engine keep it.
 * -EINVAL (too many sources, or not a group), -ENODEV, -ENOBUFS, or what the kernel says. */
int rf_group_join(struct rf_engine *e, const struct rf_addr *group, const struct rf_addr *sources,
                  uint32_t count, uint32_t interface);
/* -EADDRNOTAVAIL: it wasn't joined there. */
int rf_group_leave(struct rf_engine *e, const struct rf_addr *group, uint32_t interface);
/* Whether groups that others of this host have joined are taken as well: they are at first. */
void rf_groups_of_others(struct rf_engine *e, bool taken);

/* Receives RTCP by a duplicate of a socket of rf_socket_open, too, the main port + 1 by convention.
 * -EEXIST (it has one, or that port is another of ours), -EINVAL (not of the same IP address), or
 * -errno. */
int rf_rtcp_port(struct rf_engine *e, int fd);
/* The same for a session with `own_port`: RTP by the one and RTCP by the other. What it had before is
 * closed, after a grace period. One worker reads both. -ENOENT, -EINVAL (also: it has no own_port),
 * and as rf_rtcp_port. */
int rf_session_ports(struct rf_engine *e, uint64_t handle, int rtp, int rtcp);

void rf_engine_socket(const struct rf_engine *e, struct rf_socket_info *out);
void rf_engine_stats(struct rf_engine *e, struct rf_stats *out);
/* `now`: the sign of life of a worker that sleeps because there is nothing to do. -EINVAL (no
 * such worker). */
int rf_engine_health(struct rf_engine *e, uint32_t worker, uint64_t now, struct rf_health *out);
/* From the kernel's receive time stamp to the return of the send that took a packet's copy for
 * the first, and for the last, subscriber served; one observation per packet in each. */
void rf_engine_latency(struct rf_engine *e, struct rf_latency *first, struct rf_latency *last);

/* -EEXIST (SSRC and source are taken, also when there are max_sessions, or a session of that SSRC
 * has the very same network), -EAGAIN (max_sessions), -EMLINK (RF_SSRC_NETWORKS sessions of that
 * SSRC have a network already), -EINVAL (prefix), -ENOMEM. Those that take any SSRC are together as
 * those of one SSRC are: no two of the same source; RF_SENDER_NETWORKS of them may have a network. */
int rf_session_add(struct rf_engine *e, const struct rf_source *source, uint32_t ssrc,
                   uint64_t now, uint64_t *handle);
/* Another source, in one step: at no moment are both admitted, and after the return none that
 * only the old one admits. Returns after the grace period. What it had counted goes on.
 * -ENOENT, and as rf_session_add says; nothing is changed then. */
int rf_session_move(struct rf_engine *e, uint64_t handle, const struct rf_source *source,
                    uint64_t now);
/* The same, and another SSRC. When that or whether it is fixed changes, there is a grace period in
 * which none is admitted. */
int rf_session_retune(struct rf_engine *e, uint64_t handle, const struct rf_source *source,
                      uint32_t ssrc, uint64_t now);
/* After a pause has begun, and a grace period, no packet of it leaves. -ENOENT. */
int rf_session_pause(struct rf_engine *e, uint64_t handle, bool paused);
/* Packets beyond so many bits a second (of UDP payload) are dropped; 0: none are. At once may
 * come what makes 100 ms, and 64 KiB. -ENOENT. */
int rf_session_limit(struct rf_engine *e, uint64_t handle, uint64_t bits_per_second);
/* Its copies leave with this DSCP (RFC 2474), 0 to 63; RF_DSCP_COPY: with that of the packet that came;
 * RF_DSCP_NONE: with what the socket has. -ENOENT, -EINVAL. */
enum { RF_DSCP_NONE = -1, RF_DSCP_COPY = 64 };
int rf_session_dscp(struct rf_engine *e, uint64_t handle, int dscp);
/* Of rf_engine_tick, for this session alone. -ENOENT. */
int rf_session_idle_timeout(struct rf_engine *e, uint64_t handle, uint64_t idle_timeout);
/* Returns after the grace period: no packet of it leaves afterwards. -ENOENT. */
int rf_session_remove(struct rf_engine *e, uint64_t handle);
int rf_session_stats(struct rf_engine *e, uint64_t handle, uint64_t now,
                     struct rf_session_stats *out);
/* The same as rf_engine_latency, of one session. -ENOENT. */
int rf_session_latency(struct rf_engine *e, uint64_t handle, struct rf_latency *first,
                       struct rf_latency *last);
/* All sessions in one pass: writes up to `capacity` and returns how many there are. */
size_t rf_sessions_stats(struct rf_engine *e, uint64_t now, struct rf_session_stats *out,
                         size_t capacity);

/* All or none, on these terms. added[i] tells a new address from one that was there already or
 * stands before in this call; after an error, nothing. Those that are there already get lease and
 * class, but what is withheld from them stays. On terms with RF_WITHHELD_REFUSED there is no -EAGAIN
 * and no -EAFNOSUPPORT: they count, but fit always.
 * -ENOENT, -EAGAIN (max_subscribers), -EAFNOSUPPORT (the socket can't reach one), -EINVAL (class),
 * -ENOMEM. */
int rf_subscribers_add(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                       const struct rf_terms *terms, uint64_t now, bool *added);
/* Sets or clears bits of `withheld` of these; `changed` tells of how many. When switching on it
 * returns after the grace period: no packet leaves to any of them afterwards. -ENOENT, -ENOMEM. */
int rf_subscribers_withhold(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs,
                            size_t n, uint8_t reason, bool on, size_t *changed);
/* found[i] tells whether addrs[i] is a subscriber; if so, out[i] its terms. -ENOENT, -ENOMEM. */
int rf_subscribers_find(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                        struct rf_terms *out, bool *found);
/* Copies to those of `addrs` that are subscribers leave from the IP address `from` of ours from now
 * on. When a session's subscribers use more than 31 addresses it is left to the kernel for the
 * others. -ENOENT, -ENOMEM. */
int rf_subscribers_deliver(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs, size_t n,
                           const uint8_t from[16]);
/* After rf_local_addresses: looks for every subscriber of whom nothing is told by which interface it
 * is reached. About 3 us each, and nothing where no interface has several addresses. */
void rf_follow_sources(struct rf_engine *e);
/* Those whose lease is over by `now_secs`: writes up to `capacity` and sets `count` to how many
 * there are. They stay subscribers. -ENOENT. */
int rf_subscribers_expired(struct rf_engine *e, uint64_t handle, uint32_t now_secs,
                           struct rf_addr *out, size_t capacity, size_t *count);
/* found[i] tells whether addrs[i] was a subscriber; after an error, nothing. Returns after the
 * grace period: no packet leaves to any of them afterwards. -ENOENT, -ENOMEM (nothing is
 * removed then). */
int rf_subscribers_remove(struct rf_engine *e, uint64_t handle, const struct rf_addr *addrs,
                          size_t n, bool *found);
/* Those whose `since_ns` is above `after`, in that order: writes up to `capacity` and sets
 * `count` to how many it wrote. -ENOENT. */
int rf_subscribers(struct rf_engine *e, uint64_t handle, uint64_t after,
                   struct rf_subscriber_stats *out, size_t capacity, size_t *count);

/* The addresses of this host, the scope of each being its interface's index (ports mean nothing). With our own port they are our egress, unless
 * the socket is bound to one address: then only that is. -ENOMEM. */
int rf_local_addresses(struct rf_engine *e, const struct rf_addr *addrs, size_t n);

/* Readable while notices of that queue wait; non-blocking. */
int rf_notice_fd(const struct rf_engine *e, enum rf_queue queue);
/* Takes up to `capacity` notices of it and returns how many. The descriptor stays readable when that
 * many were taken. */
size_t rf_notices(struct rf_engine *e, enum rf_queue queue, struct rf_notice *out, size_t capacity);
/* By what key the packet path tells who has proved something from a stranger: the cookies of
 * rf_cookie_make, and the stamps of rf_stamp_make. Until one is set it knows none. */
void rf_cookie_key(struct rf_engine *e, const uint8_t key[RF_PROOF_KEY]);
void rf_stamp_key(struct rf_engine *e, const uint8_t key[RF_PROOF_KEY]);
/* The consent of these addresses is awaited, or no more: each call that begins it is to be followed
 * by one that ends it. Until then the packet path expects them. */
void rf_await(struct rf_engine *e, const struct rf_addr *addrs, size_t n, bool on);
/* `made_us` in network order, and 16 bytes of SipHash-2-4 over it and the address. */
void rf_cookie_make(const uint8_t key[RF_PROOF_KEY], const struct rf_addr *to, uint64_t made_us,
                    uint8_t cookie[RF_COOKIE]);
/* Writes the second half of the token id, 4 bytes, by what is in the rest of the claims. */
void rf_stamp_make(const uint8_t key[RF_PROOF_KEY], uint8_t claims[RF_CLAIMS]);
/* One datagram from the ingress port, and from the IP address `from` if this host has it (NULL or all
 * zero: the kernel chooses). -errno, counted, when the kernel does not take it. */
int rf_send(struct rf_engine *e, const struct rf_addr *to, const uint8_t *from, const void *data,
            size_t len);

/* Of a session that is never idle, whatever the others are. */
#define RF_IDLE_FOREVER UINT64_MAX
/* Housekeeping, about once a second: rolls the rate windows, frees what is past its grace
 * period, and writes the handles of sessions without a packet for `idle_timeout` (0: never), or for
 * the one that rf_session_idle_timeout gave them (0: none).
 * Returns how many were written, at most `capacity`; the rest comes with the next call. */
size_t rf_engine_tick(struct rf_engine *e, uint64_t now, uint64_t idle_timeout, uint64_t *idle,
                      size_t capacity);

/* Names of the counters in rf_stats and rf_session_stats, in order, and what they tell ("" where
 * that is said of a family); NULL past the end. */
const char *rf_stats_field_name(size_t i);
const char *rf_stats_field_help(size_t i);
const char *rf_session_field_name(size_t i);
const char *rf_session_field_help(size_t i);
const char *rf_drop_reason_name(size_t i);
const char *rf_send_failure_name(size_t i);
/* Inclusive upper bound of latency bucket i in nanoseconds. */
uint64_t rf_latency_bound(size_t i);

#endif
