"""Frames out of pcap and pcapng: every variant, several interfaces, files that end or fail."""

import io
import struct

import pytest
from captures import MICROSECONDS, NANOSECONDS, block, interface, option, packet, pcap, section
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.traffic.capture_file import CaptureFile, Frame, NoCaptureError

SECOND = 10**9
TICKS, OFFSET = 9, 14


def read(data):
    file = CaptureFile(io.BytesIO(data))
    return list(file), file


def frames_of(data):
    frames, file = read(data)
    assert (file.cut_short, file.damage) == (False, "")
    return frames


records = st.lists(
    st.tuples(st.integers(0, 2**31).map(lambda n: n * 1000), st.binary(max_size=40)), max_size=8
)


@given(
    records=records,
    magic=st.sampled_from([MICROSECONDS, NANOSECONDS]),
    order=st.sampled_from("<>"),
    link=st.integers(0, 300),
)
def test_pcap_gives_back_what_was_written(records, magic, order, link):
    data = pcap(records, magic=magic, order=order, link=link)
    assert frames_of(data) == [Frame(at, link, frame) for at, frame in records]


@given(records=records, order=st.sampled_from("<>"))
def test_pcapng_gives_back_what_was_written(records, order):
    data = section(order) + interface(1, order=order)
    data += b"".join(packet(0, at // 1000, frame, order) for at, frame in records)
    assert frames_of(data) == [Frame(at, 1, frame) for at, frame in records]


def test_the_kind_of_pcap_with_longer_headers():
    data = struct.pack("<IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1)
    data += struct.pack("<IIIIIHBB", 5, 7, 3, 3, 2, 0x800, 0, 0) + b"abc"
    assert frames_of(data) == [Frame(5 * SECOND + 7000, 1, b"abc")]


def test_each_interface_has_its_link_type_and_its_clock():
    data = section() + interface(1) + interface(101, option(TICKS, b"\x09"))
    data += interface(113, option(TICKS, b"\x8a"), option(OFFSET, struct.pack("<q", 1000)))
    data += packet(0, 2 * 10**6 + 5, b"micro") + packet(1, 2 * SECOND + 5, b"nano")
    data += packet(2, 2 * 1024 + 512, b"binary")
    assert frames_of(data) == [
        Frame(2 * SECOND + 5000, 1, b"micro"),
        Frame(2 * SECOND + 5, 101, b"nano"),
        Frame(1002 * SECOND + SECOND // 2, 113, b"binary"),
    ]


def test_a_section_forgets_the_interfaces_before_it_and_may_turn_the_bytes():
    data = section() + interface(1) + packet(0, 1, b"a")
    data += section(">") + interface(101, order=">") + packet(0, 2, b"b", ">")
    assert frames_of(data) == [Frame(1000, 1, b"a"), Frame(2000, 101, b"b")]
    _, file = read(section() + interface(1) + section() + packet(0, 1, b"a"))
    assert "interface 0" in file.damage


def test_old_and_simple_packets_and_blocks_that_are_nothing_to_us():
    old = struct.pack("<HHIIII", 0, 0, 0, 3 * 10**6, 3, 3) + b"old"
    data = section() + block(4, b"names") + interface(1) + block(5, b"statistics")
    data += block(2, old) + block(3, struct.pack("<I", 6) + b"simple")
    assert frames_of(data) == [Frame(3 * SECOND, 1, b"old"), Frame(3 * SECOND, 1, b"simple")]


def ng(frames):
    return section() + interface(1) + b"".join(packet(0, at // 1000, f) for at, f in frames)


@pytest.mark.parametrize(("build", "others"), [(pcap, []), (ng, [len(section())])])
def test_what_is_whole_comes_out_wherever_the_file_ends(build, others):
    records = [(n * 1000, bytes([n]) * (n + 5)) for n in range(4)]
    ends = [len(build(records[:n])) for n in range(5)]
    for end in range(4, ends[-1] + 1):
        found, file = read(build(records)[:end])
        assert len(found) == sum(record_end <= end for record_end in ends[1:])
        assert [frame.data for frame in found] == [data for _, data in records[: len(found)]]
        assert file.cut_short == (end not in ends + others)
        assert file.damage == ""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (pcap([]) + struct.pack("<IIII", 0, 0, 1 << 30, 0), "a record of 1073741824 bytes"),
        (section() + interface(1) + b"\6\0\0\0\x0d\0\0\0", "a block of 13 bytes"),
        (section() + interface(1) + b"\6\0\0\0\x08\0\0\0", "a block of 8 bytes"),
        (section() + interface(1)[:-4] + b"\1\0\0\0", "two lengths differ"),
        (section() + packet(0, 1, b"a"), "interface 0"),
        (section() + block(1, b""), "without a description"),
        (section() + interface(1) + block(6, b"abcd"), "without a header"),
        (b"\x0a\x0d\x0d\x0a" + bytes(28), "byte order"),
    ],
)
def test_damage_is_told_with_its_place(data, said):
    _, file = read(data)
    assert said in file.damage
    assert " at byte " in file.damage


def test_what_comes_before_the_damage_comes_out():
    data = section() + interface(1) + packet(0, 1, b"good") + block(6, b"bad")
    frames, file = read(data)
    assert [frame.data for frame in frames] == [b"good"]
    assert file.damage


@pytest.mark.parametrize("data", [b"", b"\xd4\xc3", b"RIFF and so on", bytes(64)])
def test_what_is_no_capture(data):
    with pytest.raises(NoCaptureError, match="not a pcap or pcapng file"):
        read(data)


@given(
    st.sampled_from([pcap([])[:4], section()[:12], pcap([]), section() + interface(1)]),
    st.binary(max_size=200),
)
def test_any_bytes_come_to_an_end(start, rest):
    frames, _ = read(start + rest)
    assert sum(len(frame.data) for frame in frames) <= len(rest)
