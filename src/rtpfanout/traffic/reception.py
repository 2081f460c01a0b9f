"""What a receiver can tell about one SSRC: loss, order, jitter and latency."""

import zlib
from collections import Counter
from dataclasses import dataclass, field

from rtpfanout.listening import NOBODY, SockAddr, from_sockaddr
from rtpfanout.traffic.rtp import RtpPacket, read_stamp

_MAX_DROPOUT = 3000
_MAX_MISORDER = 1000
MOST_SENDERS = 1000
"""Of one SSRC that are told apart."""
_WINDOW = (1 << (_MAX_MISORDER + 1)) - 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What tells a packet from another one of its number: when it came, and what it was."""

    arrival_ns: int
    timestamp: int
    digest: int


@dataclass(slots=True)
class _Rerun:
    """Numbers that came before and come again, in order, with nothing new between them."""

    before: tuple[int, ...]
    """The tracker's counts, for these are no duplicates if the source has begun anew."""
    numbers: list[int] = field(default_factory=list)
    began_ns: int = 0
    other_times: int = 0
    other_contents: int = 0

    _GAP = 16
    """Numbers that may be lost between two of them."""

    def goes_on(self, sequence: int) -> bool:
        return 0 < (sequence - self.numbers[-1]) & 0xFFFF <= self._GAP

    def add(self, sequence: int, seen: Seen, first: Seen) -> None:
        """`first`: what came by that number before."""
        if not self.numbers:
            self.began_ns = seen.arrival_ns
        self.numbers.append(sequence)
        self.other_times += seen.timestamp != first.timestamp
        self.other_contents += seen.digest != first.digest

    def is_new(self, now_ns: int) -> bool:
        """The source has begun anew. Two other time stamps say so, as in A.1; or so many other
        contents that no sender can have changed what it sends again; or that nothing else comes for
        a while, for what the network doubles comes at once."""
        return (
            self.other_times >= 2
            or self.other_contents >= 16
            or (len(self.numbers) >= 16 and now_ns - self.began_ns >= 250_000_000)
        )


class SequenceTracker:
    """Extended sequence numbers (RFC 3550 A.1) and exact loss (A.3).

    A.3 takes duplicates for packets; here a window of the last 1,000 numbers
    tells duplicates from late packets, so `lost` is what never came. A source that begins anew at a
    number of that window is told from duplicates by what the packets are, see `_Rerun`.
    """

    def __init__(self) -> None:
        self.duplicates = 0
        self.reordered = 0
        self.restarts = 0
        self._started = False
        self._first = 0
        self._highest = 0
        self._seen = 0  # bit n: the number n below the highest has come
        self._unique = 0
        self._finished_lost = 0  # of runs that a restart of the source has ended
        self._restart_at = -1
        self._contents: dict[int, Seen] = {}  # by number, of the window and perhaps some before
        self._rerun: _Rerun | None = None

    @property
    def lost(self) -> int:
        """Packets missing between the first and the highest number seen."""
        if not self._started:
            return 0
        return self._finished_lost + self._highest - self._first + 1 - self._unique

    def add(self, sequence: int, seen: Seen | None = None) -> None:
        """Count one packet by its 16-bit sequence number; without `seen` all that come by one are
        taken for the same packet."""
        if self._started and self._reruns(sequence, seen):
            return
        self._add(sequence)
        if seen is not None:
            self._remember(sequence, seen)

    def _add(self, sequence: int) -> None:
        if not self._started:
            self._start(sequence)
            return
        ahead = (sequence - self._highest) & 0xFFFF
        if 0 < ahead < _MAX_DROPOUT:
            self._seen = (self._seen << ahead | 1) & _WINDOW
            self._highest += ahead
            self._unique += 1
        elif (behind := -ahead & 0xFFFF) <= _MAX_MISORDER:
            self._add_late(behind)
        elif sequence == self._restart_at:  # A.1: two in a row mean the source restarted
            self._restart([sequence - 1 & 0xFFFF, sequence])
        else:
            self._restart_at = (sequence + 1) & 0xFFFF

    def _add_late(self, behind: int) -> None:
        if self._seen >> behind & 1:
            self.duplicates += 1
            return
        self._seen |= 1 << behind
        self.reordered += 1
        self._unique += 1
        self._first = min(self._first, self._highest - behind)

    def _reruns(self, sequence: int, seen: Seen | None) -> bool:
        """Follows numbers that come again; true when this one shows that the source began anew."""
        first = self._contents.get(sequence)
        behind = (self._highest - sequence) & 0xFFFF
        again = behind <= _MAX_MISORDER and self._seen >> behind & 1
        goes_on = self._rerun is not None and self._rerun.goes_on(sequence)
        if seen is None or behind > _MAX_MISORDER or not (again or goes_on):
            self._rerun = None
            return False
        if self._rerun is None or not goes_on:
            self._rerun = _Rerun(self._counts)
        self._rerun.add(sequence, seen, first or seen)
        if not self._rerun.is_new(seen.arrival_ns):
            return False
        numbers = self._rerun.numbers
        self._counts = self._rerun.before
        self._restart(numbers)
        self._remember(sequence, seen)
        return True

    @property
    def _counts(self) -> tuple[int, ...]:
        return self.duplicates, self.reordered, self._first, self._seen, self._unique

    @_counts.setter
    def _counts(self, counts: tuple[int, ...]) -> None:
        self.duplicates, self.reordered, self._first, self._seen, self._unique = counts

    def _remember(self, sequence: int, seen: Seen) -> None:
        self._contents.setdefault(sequence, seen)
        if len(self._contents) > 3 * _MAX_MISORDER:
            self._contents = {
                number: seen
                for number, seen in self._contents.items()
                if (self._highest - number) & 0xFFFF <= _MAX_MISORDER
            }

    def _restart(self, numbers: list[int]) -> None:
        """The source has begun anew, and these have come since."""
        self._finished_lost = self.lost
        self.restarts += 1
        self._rerun = None
        self._contents = {}
        self._start(numbers[0])
        for number in numbers[1:]:
            self._add(number)

    def _start(self, sequence: int) -> None:
        self._started = True
        self._first = self._highest = sequence
        self._seen = 1
        self._unique = 1
        self._restart_at = -1


class Jitter:
    """Interarrival jitter (RFC 3550 section 6.4.1, computed as in A.8)."""

    def __init__(self, clock_rate: int) -> None:
        self._clock_rate = clock_rate
        self._transit: int | None = None
        self._jitter = 0.0

    @property
    def milliseconds(self) -> float:
        return self._jitter / self._clock_rate * 1000

    def add(self, timestamp: int, arrival_ns: int) -> None:
        """Count one packet: its RTP time stamp, and when it arrived."""
        transit = arrival_ns * self._clock_rate // 1_000_000_000 - timestamp
        if self._transit is not None:
            # The time stamp wraps at 32 bits, so the difference is taken modulo 2**32.
            difference = (transit - self._transit + 2**31) % 2**32 - 2**31
            self._jitter += (abs(difference) - self._jitter) / 16
        self._transit = transit


class Latencies:
    """Percentiles of any number of durations, each kept to within 2 %."""

    def __init__(self) -> None:
        self.count = 0
        self.max_ns = 0
        self._buckets: Counter[int] = Counter()

    def add(self, nanoseconds: int) -> None:
        """Count one duration; negative ones (clocks that differ) are kept as such."""
        self.max_ns = max(self.max_ns, nanoseconds) if self.count else nanoseconds
        self.count += 1
        shift = max(0, abs(nanoseconds).bit_length() - 7)
        self._buckets[nanoseconds >> shift << shift] += 1

    def percentile_ms(self, percent: float) -> float | None:
        """The smallest kept value that `percent` of the durations do not exceed; None if none."""
        left = percent / 100 * self.count
        for value in sorted(self._buckets):
            left -= self._buckets[value]
            if left <= 0:
                return value / 1e6
        return None

    @property
    def max_ms(self) -> float | None:
        return self.max_ns / 1e6 if self.count else None

    def summary_ms(self) -> dict[str, float | None]:
        """What is told of them, in milliseconds; None without any."""
        return {"p50": self.percentile_ms(50), "p99": self.percentile_ms(99), "max": self.max_ms}


class Reception:
    """All there is to tell about one SSRC at this receiver."""

    def __init__(self, clock_rate: int) -> None:
        self.packets = 0
        self.bytes = 0
        self.senders: dict[SockAddr, None] = {}
        self.payload_types: dict[int, None] = {}
        self.sequence = SequenceTracker()
        self.jitter = Jitter(clock_rate)
        self.latency = Latencies()
        self._sender = NOBODY

    @property
    def sender(self) -> str:
        """Who sent the latest packet."""
        return str(from_sockaddr(self._sender))

    def add(self, packet: RtpPacket, size: int, arrival_ns: int, sender: SockAddr = NOBODY) -> None:
        """Count one packet of `size` bytes of UDP payload."""
        self.packets += 1
        self.bytes += size
        self._sender = sender
        if len(self.senders) < MOST_SENDERS:
            self.senders[sender] = None
        self.payload_types[packet.payload_type] = None
        digest = zlib.crc32(packet.payload)
        self.sequence.add(packet.sequence, Seen(arrival_ns, packet.timestamp, digest))
        self.jitter.add(packet.timestamp, arrival_ns)
        stamp = read_stamp(packet.payload)
        if stamp is not None:
            self.latency.add(arrival_ns - stamp.sent_ns)
