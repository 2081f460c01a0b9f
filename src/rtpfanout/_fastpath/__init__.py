"""The seam between Python and the packet path: `Engine`, the only door to C.

The contract
------------
One `Engine` owns one UDP port, one session table and one packet loop per worker.

* ``Engine(bind, ...)`` opens the socket and raises OSError with the errno the
  kernel gave (EADDRINUSE, EACCES, EADDRNOTAVAIL). After it returns, datagrams
  queue in the kernel. Port 0 picks a free one; `bound` tells which.
  ``segmentation=False`` sends each copy by an entry of its own, UDP_SEGMENT or not.
* ``open_sockets(bind, count, receive_queue_packets)`` opens the ingress sockets alone, in
  steering order: one for each of `count` workers, or one where the kernel can't steer.
  ``Engine(bind, sockets=fds)`` then duplicates and adopts them in place of opening `bind`;
  their address and buffers are as they are, kernel drops count from then on, and what
  the engine opens to send by never gets a packet. Their owner keeps them while
  engines come and go, crash or hand over: what comes meanwhile is queued. OSError EINVAL:
  more sockets than workers, or not of one bound UDP port.
* ``run(worker)`` is a worker's packet loop. It is called by one thread for each
  worker, releases the GIL for all of its life and returns only after ``stop()``,
  having forwarded what was already queued (for 200 ms at the most). After
  ``stop(drain=False)`` it ends with the turn at hand: the queue is left for the next engine.
* Control calls may come from any thread, before, during and after ``run()``. They
  serialise on one writer mutex; the packet loop never takes it.
* ``add_session`` returns a handle: an opaque int that stays unique when its slot
  is used again. It raises FileExistsError when SSRC and source are taken and
  BlockingIOError (EAGAIN) when `max_sessions` are there.
* ``remove_session`` and ``remove_subscribers`` release the GIL and return after the
  grace period: no packet of that session, or to those subscribers, leaves after.
* ``add_subscribers`` adds all or none: it returns, for each address, True if it
  is new and False if it was there already; it raises BlockingIOError when the
  list would exceed `max_subscribers`. ``add_packed_subscribers`` is the same for
  addresses written by `model.ADDRESS_RECORD` one behind the other, with no object for
  each, and returns how many are new. ``remove_subscribers`` returns, for each
  address, whether it was there.
* ``add_packed_subscribers`` also says on which terms: `lease_until` (seconds of
  CLOCK_MONOTONIC, 0: no lease), `subscriber_class` (0 pilot, 1 recorder, 2 monitor; others:
  OSError EINVAL) and `withheld`. Those that are there already get lease and class anew and keep
  what is withheld. ``expired_subscribers`` gives the records of those whose lease is over; it
  removes none.
* ``withhold`` sets or clears bits (1 consent, 2 shed) of subscribers by record, ``shed_class``
  bit 2 of all of a class that are there now; both return of how many. With any bit a subscriber
  gets no copies: they count as ``copies_withheld`` and not as attempted. Switching on releases
  the GIL and returns after the grace period: nothing leaves to them after.
* ``subscribers`` lists (address, since, packets sent, send failures, class, lease_until,
  withheld) of up to `limit` subscribers added after `after_ns`, oldest first; no two subscribers of
  a session have the same `since`, so the last one's is the next page's `after_ns`.
* All of these raise KeyError for an unknown handle.
* ``stats()`` sums the workers' counters by name (`WORKER_FIELDS`): received,
  forwarded, ``dropped_<reason>`` for each of `DROP_REASONS`, copies attempted and
  sent, ``failed_<reason>`` for each of `SEND_FAILURES`, kernel drops. Counters
  are 64 bits, are never reset, and obey, whenever no packet is in flight::

      packets_received = packets_forwarded + sum of dropped_<reason>
      copies_attempted = packets_sent + sum of failed_<reason>

* ``worker_health()`` gives, for each worker, CLOCK_MONOTONIC nanoseconds of its last sign of
  life (now, while it sleeps because there is nothing to do; 0 if it never ran) and how many
  it spent in turns and in shares of others' turns.
* ``latency()`` is two histograms, to the first and to the last subscriber served:
  each one count per bucket, `LATENCY_BOUNDS_NS` being the inclusive upper bounds
  (one more count stands for everything above), and the sum in nanoseconds; from the
  kernel's receive time stamp to the return of the send that took that copy, one
  observation per forwarded packet with a subscriber. ``session_latency`` is the
  same of one session.
* ``session_stats`` and ``all_session_stats`` give `SESSION_FIELDS` plus
  ``subscribers``, ``dropped_overload``, ``created_ns``, ``last_packet_ns`` (0: none yet) and
  ``packets_per_second``. Times are CLOCK_MONOTONIC nanoseconds
  (``time.monotonic_ns()``), passed in by the caller: the core reads no clock.
* ``tick`` belongs to housekeeping, about once a second: it rolls the rate windows,
  frees memory whose grace period is over, and returns the handles of sessions
  that have been without a packet for `idle_timeout_ns` (0: never).
"""

from __future__ import annotations

try:
    from rtpfanout._fastpath._engine import (
        DROP_REASONS,
        LATENCY_BOUNDS_NS,
        SEND_FAILURES,
        SESSION_FIELDS,
        WORKER_FIELDS,
        Engine,
        open_sockets,
    )
except ImportError as error:
    import sys

    reason = (
        "the packet path is written for Linux only"
        if sys.platform != "linux"
        else "the extension is not compiled: run 'pip install .' in the source tree"
    )
    raise ImportError(f"rtpfanout._fastpath cannot be loaded: {reason} ({error})") from error

__all__ = [
    "DROP_REASONS",
    "LATENCY_BOUNDS_NS",
    "SEND_FAILURES",
    "SESSION_FIELDS",
    "WORKER_FIELDS",
    "Engine",
    "open_sockets",
]
