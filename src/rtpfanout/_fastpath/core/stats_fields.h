/* Every counter, declared once: X(name) becomes a struct member, a sum, a name and
 * a snapshot field (stats.h, core.h, _engine.pyx by rf_*_name). */
#ifndef RF_STATS_FIELDS_H
#define RF_STATS_FIELDS_H

/* Why a received datagram was not forwarded. */
#define RF_DROP_REASONS(X) \
    X(malformed)    /* RFC 3550 appendix A.1, or too short to tell */ \
    X(not_rtp)      /* version is not 2: STUN, DTLS (RFC 7983), anything */ \
    X(rtcp)         /* RFC 5761; not forwarded yet */ \
    X(unknown_ssrc) /* no session has this SSRC */ \
    X(wrong_source) /* a session has, but from another address */ \
    X(truncated)    /* longer than the receive buffer */ \
    X(misrouted)    /* of another worker's session, which could not be handed over */ \
    X(abandoned)    /* in hand when a process died, again and again */ \
    X(overload)     /* beyond its session's share while more comes than can be sent, or \
                       than a stop has time for */ \
    X(latching)     /* from where a session may latch on to a source, which it has not yet */ \
    X(no_port)      /* from UDP port 0 where a port is needed: nobody is answered or pinned there */ \
    X(paused)       /* of a paused session */ \
    X(rate_limit)   /* beyond its session's ingest limit */ \
    X(loop)         /* our own egress, or from a subscriber of the very session */ \
    X(control)      /* a control datagram, handed to the control plane */ \
    X(control_malformed) /* it begins as one, and is none */ \
    X(control_full) /* one of somebody who has proved nothing, and the mailbox had no room */ \
    X(control_known_full) /* the same of who returned a cookie */

/* Those among them that are of a session, and are counted by whichever worker drops. wrong_source is
 * one count for all sessions of an SSRC: nobody can tell which of them was meant. */
#define RF_SESSION_REFUSALS(X) \
    X(latching) \
    X(no_port) \
    X(loop) \
    X(misrouted)

/* Why the kernel did not take a copy (egress.c holds the errno policy). */
#define RF_SEND_FAILURES(X) \
    X(would_block) /* the send buffer stayed full */ \
    X(no_buffer)   /* ENOBUFS, ENOMEM: queue discipline or memory */ \
    X(unreachable) /* no route, network or host down */ \
    X(denied)      /* packet filter, broadcast, policy route */ \
    X(too_big)     /* EMSGSIZE */ \
    X(invalid)     /* EINVAL: the kernel refuses this destination */ \
    X(other)

/* Why a segmented send (UDP_SEGMENT) had to be repeated packet by packet. */
#define RF_GSO_FALLBACKS(X) \
    X(invalid) /* EINVAL: segments longer than the path's MTU, on older kernels */ \
    X(too_big) /* EMSGSIZE: the same on newer ones */ \
    X(io)      /* EIO: the device can't do the checksums */

#define RF_DROPPED(name) X(dropped_##name)
#define RF_FAILED(name) X(failed_##name)
#define RF_GSO_FALLBACK(name) X(gso_fallback_##name)

/* Per worker. In the sums over all of them packets_received = packets_forwarded + sum of
 * dropped_*, and copies_attempted = packets_sent + sum of failed_*, whenever none is in flight. A
 * packet that is handed over is received by one worker, and forwarded or dropped by the other. */
#define RF_WORKER_FIELDS(X) \
    X(packets_received) \
    X(bytes_received) \
    X(packets_forwarded) \
    RF_DROP_REASONS(RF_DROPPED) \
    X(copies_attempted) \
    X(copies_withheld) /* not made: consent is missing, or its class is shed */ \
    X(packets_sent) \
    X(bytes_sent) \
    RF_SEND_FAILURES(RF_FAILED) \
    X(sends) /* send entries the kernel took, of one or more copies each */ \
    RF_GSO_FALLBACKS(RF_GSO_FALLBACK) \
    X(egress_address_missing) /* of those sent: from another address than they were to leave from, \
                                 which this host does not have */ \
    X(receives) /* receive buffers filled, of one or more packets each */ \
    X(receive_errors) \
    X(turns) \
    X(packets_recovered) /* of those received: in hand when a process before died */ \
    X(lingers) /* turns that waited for the rest of a frame */ \
    X(tasks_shared) /* of other workers' turns */ \
    X(handed_over) /* to the workers of their sessions */

/* Per session; written by the one worker that owns it. Packets are `received` that were admitted. */
#define RF_SESSION_FIELDS(X) \
    X(packets_received) \
    X(bytes_received) \
    X(copies_attempted) \
    X(packets_sent) \
    X(bytes_sent) \
    X(send_failures) \
    X(copies_withheld)

#endif
