/* Every counter, declared once: X(name) or X(name, help) becomes a struct member, a sum, a name, a
 * snapshot field and a metric (stats.h, core.h, _engine.pyx by rf_*_name, metrics.py). Without help
 * it is no metric of its own: a reason of a family, or a sum of others. */
#ifndef RF_STATS_FIELDS_H
#define RF_STATS_FIELDS_H

/* Why a received datagram was not forwarded. */
#define RF_DROP_REASONS(X) \
    X(malformed)    /* RFC 3550 appendix A.1, or too short to tell */ \
    X(not_rtp)      /* version is not 2: STUN, DTLS (RFC 7983), anything */ \
    X(rtcp)         /* RFC 5761: no packet of a session; what becomes of it is counted by rtcp_ */ \
    X(unknown_ssrc) /* no session has this SSRC */ \
    X(wrong_source) /* a session has, but from another address */ \
    X(closed_port)  /* to a session's own port, and it is closed since */ \
    X(truncated)    /* longer than the receive buffer */ \
    X(misrouted)    /* of another worker's session, which could not be handed over */ \
    X(abandoned)    /* in hand when a process died, again and again */ \
    X(overload)     /* beyond its session's share while more comes than can be sent, or \
                       than a stop has time for */ \
    X(latching)     /* from where a session may latch on to a source, which it has not yet */ \
    X(no_port)      /* from UDP port 0 where a port is needed: nobody is answered or pinned there */ \
    X(paused)       /* of a paused session */ \
    X(rate_limit)   /* beyond its session's limit */ \
    X(loop)         /* our own egress, or from a subscriber of the very session */ \
    X(probation)    /* of another SSRC than its session follows, which did not pass */ \
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
    X(probation) \
    X(misrouted)

/* Why a packet that came for a session was not admitted, beside those. */
#define RF_SESSION_DROPS(X) \
    X(overload) \
    X(rate_limit) \
    X(paused) \
    X(wrong_source)

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

/* What RTCP (RFC 3550 section 6) of a session's source or of its subscribers was; of a datagram with
 * several packets the first of these that it has. */
#define RF_RTCP_KINDS(X) \
    X(sender_report) \
    X(keyframe_request) /* PLI, FIR */ \
    X(nack)             /* counted; nothing is sent again yet */ \
    X(bitrate)          /* REMB; not passed on */ \
    X(receiver_report) \
    X(bye)              /* taken for what it is from anybody: never acted on, never passed on */ \
    X(other)            /* SDES alone, APP, XR, and feedback of other kinds */

/* Why RTCP was not taken. */
#define RF_RTCP_DROPS(X) \
    X(malformed)      /* RFC 3550 appendix A.2 */ \
    X(rate)           /* beyond what is taken a second: of a worker, a source, a subscriber */ \
    X(wrong_ssrc)     /* it names no session */ \
    X(unknown_sender) /* it names one, and comes from neither its source nor a subscriber with RTCP */ \
    X(implausible)    /* a sender report off the clock of the packets, or of what has none yet */ \
    X(paused)         /* of a paused session */

#define RF_RTCP_TAKEN(name) X(rtcp_taken_##name, "")
#define RF_RTCP_DROPPED(name) X(rtcp_dropped_##name, "")

#define RF_DROPPED(name) X(dropped_##name, "")
#define RF_FAILED(name) X(failed_##name, "")
#define RF_GSO_FALLBACK(name) X(gso_fallback_##name, "")

/* Per worker. In the sums over all of them packets_received = packets_forwarded + sum of
 * dropped_*, copies_attempted = packets_sent + sum of failed_*, and copies_attempted + copies_withheld =
 * copies_due + copies_rtcp, whenever none is in flight. A
 * packet that is handed over is received by one worker, and forwarded or dropped by the other. */
#define RF_WORKER_FIELDS(X) \
    X(packets_received, "Datagrams received at the ingest sockets.") \
    X(bytes_received, "UDP payload bytes received.") \
    X(packets_forwarded, "Packets that passed the gate; received = forwarded + dropped.") \
    RF_DROP_REASONS(RF_DROPPED) \
    X(copies_due, "Packets forwarded, each times the subscribers its session had then; attempted + " \
      "withheld = due + rtcp.") \
    X(copies_attempted, "Copies handed to the kernel; attempted = sent + send failures.") \
    X(copies_withheld, \
      "Copies not made: the subscriber's consent is missing, it is shed, or refused.") \
    X(copies_rtcp, "Those of the copies that were sender reports, to subscribers with RTCP.") \
    X(packets_sent, "Copies the kernel took for sending.") \
    X(bytes_sent, "UDP payload bytes of the copies sent.") \
    RF_SEND_FAILURES(RF_FAILED) \
    X(sends, "Sends the kernel took, each with one copy or, by GSO, several to one subscriber.") \
    RF_GSO_FALLBACKS(RF_GSO_FALLBACK) \
    X(egress_address_missing, \
      "Copies that left from another address of this host than they were to: it hasn't got that.") \
    X(receives, "Receive buffers filled, each with one packet or, by GRO, several.") \
    X(receive_errors, "Failed receive system calls.") \
    RF_RTCP_KINDS(RF_RTCP_TAKEN) \
    RF_RTCP_DROPS(RF_RTCP_DROPPED) \
    X(rtcp_sent, "RTCP datagrams of our own: reports and keyframe requests to sources, farewells.") \
    X(rtcp_send_failures, "RTCP datagrams of our own that the kernel did not take.") \
    X(turns, "Turns of the packet loops, each with what was received until it began to send.") \
    X(packets_recovered, \
      "Packets received, and in hand when the server process before this one died.") \
    X(lingers, "Turns that waited a little for the rest of a frame.") \
    X(tasks_shared, "Parts of a worker's sends that another worker took over.") \
    X(handed_over, \
      "Packets that another worker received than their session's, and passed on to it.")

/* In the same sums dropped_rtcp = sum of rtcp_taken_* and rtcp_dropped_*.
 *
 * Of the whole engine, counted under the writer mutex. drops.h says how what the kernel dropped is
 * told apart. */
#define RF_ENGINE_FIELDS(X) \
    X(kernel_drops, "Datagrams the kernel dropped because the receive queue was full.") \
    X(kernel_errors, \
      "Datagrams the kernel dropped at the socket, but not for a full queue: a wrong checksum.") \
    X(control_sent, "Control datagrams sent from the ingest port; no copies.") \
    X(control_send_failures, "Control datagrams the kernel did not take.")

/* Per session; written by the one worker that owns it. Packets are `received` that were admitted. */
#define RF_SESSION_FIELDS(X) \
    X(packets_received, \
      "Packets of the session that were admitted; dropped ones are not among them.") \
    X(packets_sent, "Copies the kernel took for sending.") \
    X(bytes_received, "UDP payload bytes admitted.") \
    X(bytes_sent, "UDP payload bytes of the copies sent.") \
    X(copies_attempted, "") \
    X(send_failures, "Copies the kernel refused.") \
    X(copies_withheld, "Copies not made for subscribers that await consent, are shed or refused.")

/* What payloads are in, by the names of SDP (RFC 8866); unknown: neither told nor found out. Those from
 * H264 to JPEG have keyframes. */
#define RF_ENCODINGS(X) \
    X(UNKNOWN, "") \
    X(H264, "H264") \
    X(H265, "H265") \
    X(VP8, "VP8") \
    X(VP9, "VP9") \
    X(AV1, "AV1") \
    X(JPEG, "JPEG") \
    X(OPUS, "OPUS") \
    X(PCMU, "PCMU") \
    X(PCMA, "PCMA") \
    X(L16, "L16") \
    X(MP2T, "MP2T")

/* How a session's source fares. The first that applies, from behind. */
#define RF_CONDITIONS(X) \
    X(flowing, "Packets come, and nothing is wrong with them.") \
    X(no_parameter_sets, \
      "Keyframes come, but never a parameter set: a decoder can't begin, if its SDP has none.") \
    X(no_keyframes, "No keyframe for long: who joins now sees nothing until one is asked for.") \
    X(frozen, "Packets come, but always the same picture's.") \
    X(silent, "No packets any more.") \
    X(never_fed, "No packet yet.")

/* What came of a session, see reception.h; of all SSRCs it had. Times are nanoseconds. */
#define RF_RECEPTION_FIELDS(X) \
    X(received, "Packets of its SSRC that are in a sequence, duplicates included.") \
    X(expected, "Packets from the first to the highest sequence number (RFC 3550 A.3).") \
    X(lost, "Expected packets that have not come; less again when late ones do.") \
    X(cumulative_lost, "Expected less received, by RFC 3550 A.3: duplicates make up for losses.") \
    X(missing_now, "Of the last 64 sequence numbers those that have not come.") \
    X(duplicates, "Packets whose sequence number had come, among the last 64.") \
    X(reordered, "Packets that came behind a later one, among the last 64.") \
    X(late, "Packets that came more than 63 behind the highest: nobody can tell duplicates there.") \
    X(restarts, "Times the source began another numbering or SSRC.") \
    X(timestamp_jumps, "Times an RTP timestamp was more than 5 s off the clock.") \
    X(out_of_sequence, "Packets beside: far off the sequence, or of another SSRC than the session's.") \
    X(highest_sequence, "Extended highest sequence number, 32 bits (RFC 3550 6.4.1).") \
    X(jitter_ns, "Interarrival jitter (RFC 3550 A.8).") \
    X(jitter_units, "The same in units of the RTP clock.") \
    X(frames, "Timestamps newer than all before; not of MP2T.") \
    X(longest_frame_gap_ns, "Between two frames, or since the last; of the last 10 s.") \
    X(frame_age_ns, "Since the last frame began.") \
    X(keyframes, "Keyframes.") \
    X(keyframe_interval_ns, "Between the last two keyframes.") \
    X(keyframe_age_ns, "Since the last keyframe.") \
    X(parameter_sets_age_ns, "Since the last parameter set.")

/* Per session, of its RTCP; written by its owner. */
#define RF_FEEDBACK_FIELDS(X) \
    X(sender_reports, "Sender reports of its source.") \
    X(receiver_reports, "Receiver reports of its subscribers.") \
    X(keyframe_requests, "Requests for a keyframe, by its subscribers (PLI, FIR) and by calls.") \
    X(keyframe_requests_sent, "Requests for a keyframe to its source, repeats included.") \
    X(packets_nacked, "Packets that its subscribers asked to be sent again; none is yet.") \
    X(reports_sent, "Receiver reports to its source.") \
    X(bitrates_sent, "Bitrates that its source was asked not to exceed (REMB).") \
    X(packets_asked, "Packets that its source was asked to send again (NACK), each time counted.") \
    X(packets_repaired, "Packets that came after they had been asked for.") \
    X(copies_rtcp, "Copies of sender reports, among the copies attempted.")

#endif
