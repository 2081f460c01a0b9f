"""The seam between Python and the packet path: `Engine`, the only door to C.

The contract. One `Engine` owns one UDP port, one session table and one packet loop per worker.

Life
----
* ``Engine(bind, ...)`` opens the socket and raises OSError with the errno the
  kernel gave (EADDRINUSE, EACCES, EADDRNOTAVAIL). After it returns, datagrams
  queue in the kernel. Port 0 picks a free one; `bound` tells which,
  and ``sockets`` what the kernel has given: buffers, lanes, UDP_SEGMENT and UDP_GRO, families.
  ``segmentation=False`` sends each copy by an entry of its own, UDP_SEGMENT or not.
  ``path_mtu_discovery=True`` lets ICMP say how long packets may be; else they leave as long as the
  interface takes, and without "don't fragment". ``egress_address`` is an IP address of this host.
* ``open_sockets(bind, count, receive_queue_packets)`` opens the ingress sockets alone, in
  steering order: one for each of `count` workers, or one where the kernel can't steer. Behind
  several comes one that takes nothing and counts what they refuse of broadcasts, of which the
  kernel offers each its own copy; ``receiving(fds)`` tells how many are to receive by.
  ``Engine(bind, sockets=fds)`` then duplicates and adopts them in place of opening `bind`;
  their address and buffers are as they are, what they dropped and no engine has counted yet is
  counted, and what the engine opens to send by never gets a packet. Their owner keeps them while
  engines come and go, or crash: what comes meanwhile is queued. OSError EINVAL:
  more sockets to receive by than workers, or not of one bound UDP port.
* ``open_socket(bind, receive_queue_packets)`` opens one for a port beside that. An engine
  duplicates it: ``add_rtcp_port(fd)`` receives RTCP by it (by convention the main port + 1), and
  ``give_ports(handle, rtp, rtcp)`` what is for one session, see below. OSError EEXIST: the port is
  one of this engine's already; EINVAL: not of its IP address.
* ``open_in_hand(count)`` makes memory for what the workers of `count` sockets have received and
  not sent, as a descriptor. ``Engine(sockets=fds, in_hand=fd)`` receives into it, and its ``run``
  begins with what an engine of a process that died had left there (``packets_recovered``): of
  what that one was sending, those whom it had sent it to get it a second time. What was in hand
  at three deaths is dropped as `abandoned`. One engine uses it at a time. OSError EINVAL: it is
  not for as many sockets.
* ``join_group(group, sources, interface)`` takes multicast of a group on an interface (its index),
  of these sources alone (64 at the most) or of any; ports are ignored. What the engine took of it
  there before is replaced. Each group comes to one worker, once; what sockets have joined they keep
  as long as they live. OSError: EINVAL (no group, too many), ENODEV, ENOBUFS (a sysctl limits
  memberships or sources). ``leave_group`` tells whether it had been joined.
  ``take_groups_of_others``: whether groups that others on this host have joined are taken as
  well, which they are at first.
* ``set_local_addresses`` tells the addresses of this host (ports are ignored), and the indexes of
  their interfaces in the same order. What comes from one of them and our own port is our own
  egress, and dropped as `loop`. Bound to one address, only that one counts.
* ``run(worker)`` is a worker's packet loop. It is called by one thread for each
  worker, releases the GIL for all of its life and returns only after ``stop()``,
  having forwarded what was already queued (for 200 ms at the most). After
  ``stop(drain=False)`` it ends with the turn at hand: the queue is left for the next engine. It
  waits until no other worker that runs receives any more, so nothing handed over is left behind.
  A worker runs once: called again after its end, ``run`` returns.
* Control calls may come from any thread, before, during and after ``run()``. They
  serialise on one writer mutex; the packet loop never takes it.
* ``tick`` belongs to housekeeping, about once a second: it rolls the rate windows,
  frees memory whose grace period is over, and returns the handles of sessions
  that have been without a packet for `idle_timeout_ns` (0: never), or for what
  ``set_idle_timeout`` gave them instead (0: never, None: as all).

Sessions
--------
A call with a handle raises KeyError when no session has it.

* ``add_session`` returns a handle: an opaque int that stays unique when its slot
  is used again. It raises FileExistsError when SSRC and source are taken and
  BlockingIOError (EAGAIN) when `max_sessions` are there. Who may feed the session:

  - no `prefix`: exactly `source`, or with port 0 any port of its address. With `relatch` (a
    network as (address, prefix)) a packet of the SSRC from there makes a "source" notice once the
    session has had none for `relatch_after_ns` (0: never), and waits as with `latch`.
  - `prefix` (0 to 32 for IPv4, else 0 to 128): any port of any address in
    source.ip/prefix; no IPv4 address is in an IPv6 network. The most specific network
    wins; an exact source goes before all. A packet from one of the session's own
    subscribers is dropped as `loop`.
  - no `source` (None, also in `relatch`): anybody, of both families; the least specific network.
  - `latch` (of all of source.ip/prefix, without prefix that one address): nobody yet. A
    packet from there makes a "source" notice. It waits for a second, at most 256 packets and
    256 KiB a source, 8 sources a session, and leaves first when ``move_session`` pins the session
    to its source (exactly; with `pins`); else it is dropped as `latching`.

  - `at_own_port`: whoever of these sends to the port that ``give_ports`` gives it then, whatever
    his SSRC; what comes to the main port is not for it. Such sessions may have the same SSRC and
    source. What came to a port that is closed since is dropped as `closed_port`.

  UDP's source port may be 0 (RFC 768: not used): networks admit that, but it can't be pinned or
  answered, so it makes no notice and is dropped as `no_port`.

  ``add_sessions(records, prefixes, ssrcs, now_ns, policies)`` is ``add_session`` of many: a
  record, a byte and an SSRC each, the byte being 255 for an exact source, else the prefix of a
  network (of IPv4 96 to 128) with port 0; and a byte each of `SSRC_POLICIES`, or none where all
  are exact. Their handles in order, None for one that can't be added.

  FileExistsError as well when a session of the SSRC has the very same network (`relatch`
  networks may be the same); OSError (EMLINK) when 16 of the SSRC have networks already,
  `latch` and `relatch` ones included; ValueError for a prefix the address has not.
* `ssrc_policy` says which SSRCs of its source a session takes. "exact": the one of `ssrc`. Else
  `ssrc` is a hint (0: none), no two sessions have the same source, 64 of them may have networks
  (OSError EMLINK), and where a session of one SSRC admits the source that one has it.

  - "any": whatever comes, several at once.
  - "follow": one at a time. The one of `ssrc`, whenever it comes, and the first of all are taken
    at once; another once the followed one has been silent for 200 ms, by five packets in sequence
    of a payload type that had come. One that had come beside the followed one waits for five times
    as long a silence as they were together; after a second of that it is another camera, which is
    not taken, and knocks. So does one of another payload type. What is not yet taken waits, at
    most 256 packets and 256 KiB a session and 2 MiB a worker, and leaves first when it is; else it
    is dropped as `probation`.

  Of "follow" `followed` tells which one came before, 2**40 + 2**32 * payload type + SSRC:
  that is expected, and not the first one of all; anything else is none.

  A "ssrc" notice says that a session has another one than before (of "any" ten a second at the
  most). ``session_ssrcs`` lists (SSRC, payload type, since, last) of those that came in the last
  ten seconds of any, the newest first, eight at the most; none of "exact".
* ``read_session`` says by bits of `READINGS` how a session's packets are read: whether it is asked
  if padding fits ("padding", "no_padding"; else as `check_padding` of the engine says), whether
  payload types 64 to 95 with marker are RTP ("no_rtcp"), and that they are encrypted ("srtp").
* ``move_session`` gives a session another source, as ``add_session`` takes it, and raises the
  same and KeyError; nothing is changed then. At no moment are the old and the new source both
  admitted (packets that only one of them admits are dropped for a grace period), and when it
  returns none is forwarded that only the old one admits. Handle, subscribers and counters stay. So
  does the SSRC, unless another is given; when that changes, or whether it is exact, nothing is
  admitted for a grace period. What waits for the session is dropped, but with `pins` for what came
  of the new source while it could be latched on to.
* One worker owns a session: who first receives a packet of it. What another one receives, which
  can happen with networks and where the kernel steers otherwise, is counted as `handed_over` and
  put into the inbox of the owner, which forwards or drops it: in order for each source, and once.
  It is dropped as `misrouted` when the inbox (2048 packets) is full, or a move has taken the
  session from that owner meanwhile.
* ``pause_session`` drops what comes as `paused`; when it has begun, no packet leaves any more.
  ``limit_session`` drops what exceeds that many bits a second of RTP (0: no limit; at
  once may come 100 ms of it, at least 64 KiB) as `rate_limit`. Such packets keep the session alive.
* ``mark_session`` lets its copies leave with this DSCP, 0 to 63; 64: with that of the packet that
  came; -1, as at first: with what the kernel gives them. ECN bits are never copied.
* ``remove_session`` releases the GIL and returns after the grace period: no packet of the session
  leaves after. So does ``pause_session``.

Subscribers
-----------
So do these.

* ``add_subscribers`` takes addresses written by `model.ADDRESS_RECORD` one behind the other, adds
  all or none, and returns how many are new; it raises BlockingIOError when the list would exceed
  `max_subscribers`. ``remove_subscribers`` returns, for each address, whether it was there,
  with the GIL released and after the grace period: no packet leaves to them after.
* ``add_subscribers`` also says on which terms: `lease_until` (seconds of
  CLOCK_MONOTONIC, 0: no lease), `subscriber_class` (`CLASSES`; others:
  OSError EINVAL) and `withheld`. Those that are there already get lease and class anew and keep
  what is withheld. Who is added with bit 4 fits beyond `max_subscribers` and in any family.
  ``expired_subscribers`` gives the records of those whose lease is over; it removes none.
* ``add_subscriber_rows(handles, rows, offset_ns)`` is the same of (key of `handles`, second,
  lease, class, now_ns, one record, rtcp) each, those of a key in one piece; `offset_ns` is to be
  added to leases, nanoseconds or 0 for none, to be CLOCK_MONOTONIC. It answers with (key, how many,
  the last now_ns) for each key that `handles` has, and (key, lease_until) for each lease.
* ``find_subscribers`` gives, for each record, None or (lease_until, class, withheld).
* ``subscribers`` lists (address, since, packets sent, send failures, class, lease_until,
  withheld, report) of up to `limit` subscribers added after `after_ns`, oldest first; no two
  subscribers of a session have the same `since`, so the last one's is the next page's `after_ns`.
* ``withheld_records(handle, bits)`` gives the records of those with one of the bits, oldest first;
  ``subscriber_records`` gives the addresses of all as `model.ADDRESS_RECORD`, oldest first, with
  no object for each.
* ``withhold`` sets or clears bits (`WITHHELD`) of subscribers by record and returns of how many.
  With any bit a subscriber gets no copies: they count as ``copies_withheld`` and not as attempted.
  Switching on releases the GIL and returns after the grace period: nothing leaves to them after.
* Copies leave from `local` (16 bytes as ``Address.packed``) where ``add_subscribers`` or
  ``deliver_from`` told so. Else from `egress_address`, to subscribers of its family; else from
  the address of ours that the session's source speaks to, if it is of the interface by which the
  subscriber was reached when it was added, or at the last ``follow_sources``; else the kernel
  chooses. It also does where this host has not got the address (``egress_address_missing`` counts
  those copies), and where a session's subscribers have more than 31 of them.

RTCP
----
* ``set_rtcp(handle, records, rtcp)`` says of those of `records` that are subscribers whether they
  have RTCP (`RTCP`: off, which they are at first, mux: at their own port, next_port: at the one
  above), ``find_rtcp`` tells. To who has it goes the last sender report of the session's source,
  its 28 bytes as they came, and the packet with its CNAME: to all when it comes, to who joins with
  the next packet if it is not older than 10 s. One within 40 ms of another waits for that and a
  packet, or for the next report. Blocks, BYE, APP and feedback of a source go to nobody. When the
  session is removed, a BYE does.
* RTCP of a source is told by its SSRC and IP address, whatever the port; of a subscriber with RTCP
  by the SSRC it speaks of and its address, or the port above that. A sender report is taken if its
  RTP time is within 10 s of the packets' clock. ``dropped_rtcp`` is the sum of
  ``rtcp_taken_<kind>`` (`RTCP_KINDS`) and ``rtcp_dropped_<reason>`` (`RTCP_DROPS`); nothing is
  answered. A worker takes 20,000 datagrams a second, 50 of them from one subscriber or source.
* The `report` of ``subscribers`` is None without RTCP, else (rtcp, at_ns or 0 for none yet,
  fraction lost, lost, jitter, round trip), the last two in seconds, below 0 where not known.
* Of all requests for a keyframe (PLI, FIR) one goes to the source: for pilots, and by
  ``request_keyframe``, half a second after the one before, for others five; not while keyframes
  take more than a fifth of the bytes of 5 to 10 s, and not where one has come since. It is sent
  with a packet of the source, to where the source's RTCP comes from, else to the port above that
  of its packets, and only if the session admits no more than one IP address (else
  ``request_keyframe`` raises OSError EHOSTUNREACH). ``set_keyframe_format`` takes
  `KEYFRAME_FORMATS`.
* ``set_report_class`` (of `CLASSES`, None: nobody's) puts into our receiver reports the worst
  loss that subscribers of that class reported in the last 15 s, of more than eight the median, if
  that is more than the session's own, and adds the least bitrate that one said it could take.
  ``repair_source`` asks the source for what is missing: once three later packets or 10 ms have
  passed, then once a round trip, ten times and for 2 s at most.
* ``feedback`` gives `FEEDBACK_FIELDS` plus ``sender_report_ns`` (when the last one came, 0: never)
  and ``reporters``, how many have RTCP; ``all_feedback`` the same by handle, of those sessions that
  have or had any.

Control datagrams
-----------------
* A datagram that begins with ``52 46 4F 01`` is no packet of any session. It is dropped as
  `control` and told by a notice, or as `control_malformed` when its length, type or reserved
  bytes are not of what docs/api.md lets a server be sent, or as `control_full` or
  `control_known_full` when the mailbox has no room.
* ``notice_fd`` is an eventfd, readable while notices wait; it belongs to the engine. ``notices``
  takes those that wait, and never blocks: ("datagram", source, data) of who has returned a cookie,
  ("source", handle, source) or ("ssrc", handle, source). Of the latter two one of a kind waits for
  each session at a time; what finds no room is made again by the next such packet.
  ``stranger_notice_fd`` and ``stranger_notices`` are the same for datagrams of everybody else.
  Each worker's mailbox has 1,024 places for those who returned a cookie, 256 for those who have a
  stamped token, 128 for signed moves and 256 for the others; an address gets a fifth of them at
  the most, its network half, and who has none there gets one as long as any is free.
* ``set_cookie_key`` and ``set_stamp_key`` take 16 bytes, from any thread. ``make_cookie(key,
  address, made_us)`` makes a cookie of 24 bytes: who returns it is known to the packet path.
  ``stamp_claims(key, claims)`` writes what tells it that claims are of a token issued here.
  Until a key is set nobody has proved anything. ``await_consent(records, on)`` says whose consent
  is awaited, each beginning to be ended once: what they send gets places of those with a token.
* The source of a datagram has `spoken_to`, the address of ours that it came to, unless the engine
  is bound to one. ``send`` leaves from there if this host has it still.
* ``send`` sends one datagram from the port and tells whether the kernel took it. It counts as
  ``control_sent`` or ``control_send_failures``, not as a copy.

Figures
-------
Times are CLOCK_MONOTONIC nanoseconds (``time.monotonic_ns()``), passed in by the caller: the core
reads no clock.

* ``stats()`` sums the workers' counters by name (`STATS_FIELDS`, which also explains them):
  received, forwarded, ``dropped_<reason>`` for each of `DROP_REASONS`, copies attempted and
  sent, ``failed_<reason>`` for each of `SEND_FAILURES`, packets ``handed_over`` between
  workers, ``kernel_drops`` (of a full receive queue), ``kernel_errors`` (dropped by the kernel at
  the socket for another reason: a wrong checksum), control datagrams sent. Counters
  are 64 bits, are never reset, and obey, whenever no packet is in flight::

      packets_received = packets_forwarded + sum of dropped_<reason>
      copies_attempted = packets_sent + sum of failed_<reason>
* ``session_stats`` and ``all_session_stats`` give `SESSION_FIELDS` plus
  ``subscribers``, ``created_ns``, ``last_packet_ns`` (0: none yet) and ``packets_per_second``.
  ``packets_received`` were admitted; with the ``dropped_<reason>`` they are all that came for it.
  ``dropped_wrong_source`` all sessions of the SSRC have in common, each since it was added.
* ``wrong_source`` is where the last of those came from, or None.
* ``knocks()`` lists who sent packets that no session admits: (source, SSRC, payload type, reason,
  handle or 0 of the session that it came for, packets since it is in the list, first, last,
  whether it came from the address and port that feed the session), the
  latest first, 256 at the most of all workers, without those whom a session admits by now.
  Newcomers get into it at 100 a second and worker,
  and take the places of those who came least often.
* ``session_reception(handle, now_ns)`` tells how a session is received, and
  ``all_session_receptions`` the same of all in one pass: `RECEPTION_FIELDS`, which also explains
  them; None where there is none (a clock or an encoding is not known, nothing came yet).
  ``*_ns`` are nanoseconds, ``*_age_ns`` until `now_ns`; counts go on when a source restarts.
  Besides ``bitrate_bps`` (of RTP) and ``frame_rate`` (Hz) of the last one to two calls of
  ``conditions``; ``ssrc``, ``payload_type`` (of the packets that are looked into) and
  ``payload_types`` (the first eight that were seen); ``encoding`` (of `ENCODINGS`, "" for none)
  with ``encoding_sureness`` in percent, ``clock_rate`` in Hz, and where each is from: "given",
  "static" (RFC 3551), "sniffed", "measured", "assumed" or "". ``lost`` are those that never came,
  ``cumulative_lost`` is as RFC 3550 reports it. A session's record follows one SSRC; of a session
  that takes several at once that is the first, until it has been silent for 2 s.
* ``reception_figures(now_ns)`` is what a plot of all of them needs, without an object for each: the
  handles, 8 bytes each, and as many `RECEPTION_FIGURES` (bitrate in bit/s, frames per second and
  jitter in seconds, below 0 where not known; the lower 32 bits of ``expected`` and ``lost``).
* ``receptions_sum(now_ns)`` has the sums of those figures that count over all sessions, also those
  that were removed.
* ``condition`` is one of `CONDITIONS`, and changes in ``conditions(now_ns, lately_ns)``, which
  belongs to housekeeping as ``tick`` does, about once a second. It returns (handle, condition,
  whether a packet of its source came in the last `lately_ns`, how often its source restarted
  since) of those of which any has changed since the last call; a new session is never_fed, and
  that is no change.
  silent: without a packet for 1 s and 5 frames; frozen: the last packets came 0.5 s and 5 frames
  after a timestamp changed; no_keyframes: none for 20 s and three intervals, where there are such;
  no_parameter_sets: keyframes of H264 or H265, and never a set. In a pause the condition stays.
* ``set_media`` says what a session's payloads are: `encoding` ("": to be found out, by static
  payload types and by votes over packets), their payload type (None: the first that comes),
  the RTP clock (0: that of the encoding, else measured, `assumed_clock_rate` until then).
  `sealed`: they are encrypted, and tell nothing. `has_parameter_sets`: receivers have them from
  elsewhere, so that none are missed. ValueError: no such encoding or payload type.
* ``parameter_sets`` are the VPS, SPS and PPS that came of H264 or H265, as NAL units in that order,
  1 KiB at the most; the last of each number.
* ``latency()`` is two histograms, to the first and to the last subscriber served:
  each one count per bucket, `LATENCY_BOUNDS_NS` being the inclusive upper bounds
  (one more count stands for everything above), and the sum in nanoseconds; from the
  kernel's receive time stamp to the return of the send that took that copy, one
  observation per forwarded packet with a subscriber. ``session_latency`` is the
  same of one session.
* ``worker_health()`` gives, for each worker, CLOCK_MONOTONIC nanoseconds of its last sign of
  life (0 if it never ran; now, while it sleeps because there is nothing to do, but not beyond a
  second after it fell asleep, when it should have woken, and while it waits for others that help
  it), how many it spent in turns and in shares of others' turns, and the CPU time of its thread
  (0: unknown, or it has ended).
"""

from __future__ import annotations

import struct

try:
    from rtpfanout._fastpath._engine import (
        CLASSES,
        CONDITIONS,
        DROP_REASONS,
        ENCODINGS,
        FEEDBACK_FIELDS,
        KEYFRAME_FORMATS,
        LATENCY_BOUNDS_NS,
        READINGS,
        RECEPTION_FIELDS,
        RTCP,
        RTCP_DROPS,
        RTCP_KINDS,
        SEND_FAILURES,
        SESSION_FIELDS,
        SSRC_POLICIES,
        STATS_FIELDS,
        WITHHELD,
        Engine,
        Sockets,
        make_cookie,
        open_in_hand,
        open_socket,
        open_sockets,
        receiving,
        stamp_claims,
    )
except ImportError as error:
    import sys

    reason = (
        "the packet path is written for Linux only"
        if sys.platform != "linux"
        else "the extension is not compiled: run 'pip install .' in the source tree"
    )
    raise ImportError(f"rtpfanout._fastpath cannot be loaded: {reason} ({error})") from error

RECEPTION_FIGURES = struct.Struct("=fffII")
"""A record of `reception_figures`."""

__all__ = [
    "CLASSES",
    "CONDITIONS",
    "DROP_REASONS",
    "ENCODINGS",
    "FEEDBACK_FIELDS",
    "KEYFRAME_FORMATS",
    "LATENCY_BOUNDS_NS",
    "READINGS",
    "RECEPTION_FIELDS",
    "RECEPTION_FIGURES",
    "RTCP",
    "RTCP_DROPS",
    "RTCP_KINDS",
    "SEND_FAILURES",
    "SESSION_FIELDS",
    "SSRC_POLICIES",
    "STATS_FIELDS",
    "WITHHELD",
    "Engine",
    "Sockets",
    "make_cookie",
    "open_in_hand",
    "open_socket",
    "open_sockets",
    "receiving",
    "stamp_claims",
]
