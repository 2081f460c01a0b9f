"""Interleaved packets: whole frames or none, in bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.rtsp.outlet import MOST_QUEUES, Dropped, Outlet, is_rtcp_packet, split
from rtpfanout.traffic import rtp

RTCP = bytes.fromhex("80c80006") + bytes(24)
PACKET = 1000
QUEUE_BYTES = 8 * PACKET
MOST_QUEUE_BYTES = MOST_QUEUES * QUEUE_BYTES


def packet(frame: int, number: int, size: int = PACKET) -> bytes:
    payload = bytes(size - 12)
    return rtp.build(payload, ssrc=7, sequence=number & 0xFFFF, timestamp=frame * 3000)


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        assert data[0] == 0x24
        length = int.from_bytes(data[2:4])
        found.append((data[1], data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def test_who_reads_gets_all_on_its_channels() -> None:
    outlet, packets = Outlet((2, 3), Dropped()), [packet(1, n) for n in range(5)]
    assert frames_of(outlet.write([*packets, RTCP], 0)) == [*[(2, p) for p in packets], (3, RTCP)]


def test_who_does_not_read_misses_whole_frames_which_are_counted() -> None:
    dropped = Dropped()
    outlet = Outlet((0, 1), dropped, QUEUE_BYTES)
    assert len(frames_of(outlet.write([packet(1, 0), packet(1, 1)], QUEUE_BYTES - 1))) == 2
    assert outlet.write([packet(2, 2), packet(2, 3)], QUEUE_BYTES) == b""
    # It reads again, but in the middle of a frame of which it missed the beginning.
    assert outlet.write([packet(2, 4)], 0) == b""
    assert (dropped.frames, dropped.packets) == (1, 3)
    assert len(frames_of(outlet.write([packet(3, 5)], 0))) == 1
    # A frame that was begun is ended.
    assert len(frames_of(outlet.write([packet(3, 6)], QUEUE_BYTES))) == 1
    assert (dropped.frames, dropped.packets) == (1, 3)
    # Reports go on, for as long as there is room at all.
    assert frames_of(outlet.write([RTCP], QUEUE_BYTES)) == [(1, RTCP)]
    assert outlet.write([RTCP], MOST_QUEUE_BYTES) == b""


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(12, 1400), st.integers(0, 12_000)),
        max_size=20,
    )
)
def test_what_is_queued_has_a_bound_and_no_frame_has_a_hole(
    turns: list[tuple[int, int, int]],
) -> None:
    """Each turn a frame of so many packets of that size, and so much read by the client."""
    dropped = Dropped()
    outlet = Outlet((0, 1), dropped, QUEUE_BYTES)
    queued = sent = number = 0
    for frame, (count, size, read) in enumerate(turns):
        packets = [packet(frame, number + n, size) for n in range(count)]
        number += count
        out = frames_of(outlet.write(packets, queued))
        queued += sum(4 + len(p) for _, p in out)
        assert queued <= MOST_QUEUE_BYTES + 1400 + 4
        # A frame goes whole or, where it alone fills the queue, up to there.
        assert [p for _, p in out] == packets[: len(out)]
        sent += len(out)
        queued = max(0, queued - read)
    assert sent + dropped.packets == number


def test_a_frame_without_end_is_cut_off_where_the_room_ends() -> None:
    dropped = Dropped()
    outlet, queued = Outlet((0, 1), dropped, QUEUE_BYTES), 0
    for number in range(3 * MOST_QUEUE_BYTES // PACKET):
        queued += len(outlet.write([packet(1, number)], queued))
    assert queued <= MOST_QUEUE_BYTES + PACKET + 4
    assert dropped.frames == 1


def test_what_is_no_packet_goes_nowhere() -> None:
    dropped = Dropped()
    assert Outlet((0, 1), dropped).write([b"", b"x", b"short"], 0) == b""
    assert dropped.packets == 3


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=9), st.integers(1, 50))
def test_what_was_put_together_is_cut_again(pieces: list[bytes], size: int) -> None:
    equal = [piece.ljust(size, b"-")[:size] for piece in pieces[:-1]]
    last = pieces[-1][:size]
    assert split(b"".join([*equal, last]), size) == [*equal, last]
    assert split(last, 0) == [last]


def test_rtcp_is_told_by_its_second_byte() -> None:
    assert is_rtcp_packet(RTCP)
    assert not is_rtcp_packet(packet(1, 1))
    assert not is_rtcp_packet(b"\x80")
    assert not is_rtcp_packet(b"\x00\xc8")
