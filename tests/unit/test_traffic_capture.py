"""RTP out of capture files: every link type, byte for byte, nothing else."""

import captures
import dpkt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtpfanout.errors import ConfigError
from rtpfanout.traffic import rtp
from rtpfanout.traffic.capture import Capture


def packet(sequence, ssrc=1):
    return rtp.build(b"video" * 40, ssrc=ssrc, sequence=sequence, timestamp=0, padding=4)


def ip4(data, port=5004, **fields):
    udp = dpkt.udp.UDP(sport=4000, dport=port, data=data, ulen=8 + len(data))
    ip = dpkt.ip.IP(src=b"\x0a\0\0\1", dst=b"\x0a\0\0\2", p=17, data=udp, **fields)
    ip.len = len(ip)
    return ip


def ip6(data):
    udp = dpkt.udp.UDP(sport=4000, dport=5004, data=data, ulen=8 + len(data))
    return dpkt.ip6.IP6(
        src=bytes(15) + b"\1", dst=bytes(15) + b"\2", nxt=17, plen=len(udp), data=udp
    )


def ethernet(ip, trailer=b""):
    kind = 0x0800 if isinstance(ip, dpkt.ip.IP) else 0x86DD
    return bytes(12) + kind.to_bytes(2, "big") + bytes(ip) + trailer


def vlan(ip):
    return bytes(12) + b"\x81\x00\x00\x07\x08\x00" + bytes(ip)


def write(path, frames, link_type=dpkt.pcap.DLT_EN10MB, writer=dpkt.pcap.Writer):
    with path.open("wb") as file:
        out = writer(file, linktype=link_type)
        for number, frame in enumerate(frames):
            out.writepkt(frame, ts=1_700_000_000 + number * 0.25)
    return path


def contents(path, ssrc=None, rate=None):
    capture = Capture(path, ssrc)
    return [(due, make()) for due, make in capture.packets(rate)], capture.skipped


@pytest.mark.parametrize("writer", [dpkt.pcap.Writer, dpkt.pcapng.Writer])
def test_packets_come_out_as_they_went_in_at_their_pace(tmp_path, writer):
    frames = [ethernet(ip4(packet(n))) for n in range(3)]
    found, skipped = contents(write(tmp_path / "a.cap", frames, writer=writer))
    assert [data for _, data in found] == [packet(n) for n in range(3)]
    assert [due for due, _ in found] == pytest.approx([0, 0.25, 0.5], abs=1e-5)
    assert skipped == 0


def test_rate_replaces_the_pace(tmp_path):
    path = write(tmp_path / "a.pcap", [ethernet(ip4(packet(n))) for n in range(3)])
    found, _ = contents(path, rate=100)
    assert [due for due, _ in found] == pytest.approx([0, 0.01, 0.02])


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (dpkt.pcap.DLT_EN10MB, ethernet(ip6(packet(9)))),
        (dpkt.pcap.DLT_EN10MB, vlan(ip4(packet(9)))),
        (dpkt.pcap.DLT_EN10MB, ethernet(ip4(packet(9)), trailer=b"\xee" * 6)),
        (dpkt.pcap.DLT_LINUX_SLL, bytes(14) + b"\x08\x00" + bytes(ip4(packet(9)))),
        (276, b"\x08\x00" + bytes(18) + bytes(ip4(packet(9)))),
        (101, bytes(ip4(packet(9)))),
        (101, bytes(ip6(packet(9)))),
        (dpkt.pcap.DLT_NULL, b"\x02\0\0\0" + bytes(ip4(packet(9)))),
    ],
)
def test_link_types(tmp_path, link_type, frame):
    found, _ = contents(write(tmp_path / "a.pcap", [frame], link_type))
    assert found == [(0.0, packet(9))]


def test_what_is_not_whole_rtp_of_that_ssrc_is_passed_over(tmp_path):
    frames = [
        ethernet(ip4(packet(1))),
        ethernet(ip4(packet(1, ssrc=2))),
        ethernet(ip4(b"not rtp at all")),
        ethernet(ip4(b"\x80\xc8\x00\x06" + bytes(24))),  # RTCP
        ethernet(ip4(packet(2), mf=1)),
        ethernet(ip4(packet(2), offset=185)),
        ethernet(ip4(packet(2)))[:-20],  # cut off by the snap length
        b"\x00" * 5,
    ]
    found, skipped = contents(write(tmp_path / "a.pcap", frames), ssrc=1)
    assert [data for _, data in found] == [packet(1)]
    assert skipped == len(frames) - 1


def test_files_that_cannot_be_sent_say_why(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("not a capture, but long enough to have a header of one")
    serial = write(tmp_path / "b.pcap", [b"abc"], link_type=9)
    empty = write(tmp_path / "c.pcap", [ethernet(ip4(b"dns"))])
    truncated = tmp_path / "d.pcap"
    truncated.write_bytes(b"\xd4\xc3")
    for path, reason in [
        (tmp_path / "missing", "No such file"),
        (tmp_path, "Is a directory"),
        (text, "not a pcap or pcapng file"),
        (serial, "link type 9"),
        (empty, "no RTP packet"),
        (truncated, "not a pcap or pcapng file"),
    ]:
        with pytest.raises(ConfigError, match=reason) as caught:
            contents(path)
        assert str(path) in caught.value.message
        assert caught.value.field == "--pcap"


def opened(path, frames, ssrc=None):
    """The packets of a file of these frames, and its Capture."""
    path.write_bytes(captures.pcap([(n * 1000, frame) for n, frame in enumerate(frames)]))
    capture = Capture(path, ssrc)
    return [make() for _, make in capture.packets(None)], capture


def merged(*packets):
    """One frame, as a host captures it that merges them or has yet to cut them."""
    return captures.ethernet(captures.ip4(captures.udp(b"".join(packets))))


def flow(ssrc, first, sizes):
    return [
        rtp.build(bytes([n % 251]) * (size - 12), ssrc=ssrc, sequence=first + n, timestamp=n)
        for n, size in enumerate(sizes)
    ]


@given(
    size=st.integers(13, 1300),
    count=st.integers(2, 45),
    last=st.floats(0, 1),
    first=st.integers(0, 65_535),
    ssrc=st.integers(0, 2**32 - 1),
)
@example(size=16, count=2, last=0.0, first=0, ssrc=1)  # the SSRC is a time stamp as well
def test_merged_frames_go_out_as_the_packets_that_they_were(
    tmp_path_factory, size, count, last, first, ssrc
):
    packets = flow(ssrc, first, [size] * (count - 1) + [13 + int(last * (size - 13))])
    path = tmp_path_factory.mktemp("merged") / "a.pcap"
    sent, capture = opened(path, [merged(*packets), merged(packets[0])])
    assert sent == [*packets, packets[0]]
    assert (capture.merged, capture.skipped) == (1, 0)
    assert "merged (GSO, GRO)" in capture.told()[0]


def test_two_sources_that_take_turns_in_one_frame(tmp_path):
    video, audio = flow(1, 10, [200] * 6), flow(2, 65_534, [200] * 6)
    turns = [packet for pair in zip(video[1:], audio[1:], strict=True) for packet in pair]
    sent, _ = opened(tmp_path / "a.pcap", [merged(video[0]), merged(audio[0]), merged(*turns)])
    assert sent == [video[0], audio[0], *turns]
    sent, capture = opened(
        tmp_path / "b.pcap", [merged(video[0]), merged(audio[0]), merged(*turns)], ssrc=2
    )
    assert sent == audio
    assert capture.skipped == 6


def test_a_long_packet_is_one_packet(tmp_path):
    """As over an interface with a large MTU, though its SSRC comes again in it."""
    header = rtp.build(b"", ssrc=7, sequence=99, timestamp=0)
    long = rtp.build(b"x" * 3000 + header + b"y" * 3000, ssrc=7, sequence=5, timestamp=0)
    sent, capture = opened(tmp_path / "a.pcap", [merged(long)])
    assert sent == [long]
    assert capture.merged == 0


@given(st.binary(min_size=12, max_size=300), st.integers(1, 20))
def test_what_comes_out_is_what_went_in_wherever_it_is_cut(tmp_path_factory, payload, times):
    path = tmp_path_factory.mktemp("any") / "a.pcap"
    whole = b"\x80" + payload[1:] * times
    path.write_bytes(captures.pcap([(0, merged(whole)), (1000, merged(flow(3, 1, [50])[0]))]))
    capture = Capture(path, None)
    sent = b"".join(make() for _, make in capture.packets(None))
    assert sent.endswith(flow(3, 1, [50])[0])
    assert capture.skipped or sent.startswith(whole)


def test_fragments_are_put_together_and_those_without_the_others_are_told(tmp_path):
    (long,) = flow(1, 1, [3000])
    data = captures.udp(long)
    parts = [
        captures.ethernet(captures.ip4(data[at : at + 1480], offset=at, more=at + 1480 < len(data)))
        for at in range(0, len(data), 1480)
    ]
    stray = captures.ethernet(captures.ip4(bytes(80), number=2, offset=80))
    sent, capture = opened(tmp_path / "a.pcap", [*parts, stray])
    assert sent == [long]
    assert (capture.skipped, capture.fragments) == (1, 1)
    assert "1 of them are IP fragments" in capture.told()[1]


def test_srtp_and_payload_types_in_the_range_of_rtcp_are_sent(tmp_path):
    """What a server with check_padding = false forwards, and what another one counts as rtcp."""
    packets = [b"\xa0" + packet[1:-1] + b"\xff" for packet in flow(1, 1, [100] * 10)] + [
        packet[:1] + bytes([0x80 | 64 + n]) + packet[2:]
        for n, packet in enumerate(flow(1, 11, [100] * 32))
    ]
    sent, capture = opened(tmp_path / "a.pcap", [merged(packet) for packet in packets])
    assert sent == packets
    assert capture.skipped == 0


def test_two_interfaces_of_one_file(tmp_path):
    packets = flow(1, 1, [100] * 4)
    nanoseconds = captures.option(9, b"\x09")
    data = captures.section() + captures.interface(1) + captures.interface(101, nanoseconds)
    for n, packet_ in enumerate(packets):
        ip = captures.ip4(captures.udp(packet_))
        frame, at = (
            (ip, 10**9 * (1000 + n)) if n % 2 else (captures.ethernet(ip), 10**6 * (1000 + n))
        )
        data += captures.packet(n % 2, at, frame)
    path = tmp_path / "a.pcapng"
    path.write_bytes(data)
    assert contents(path) == ([(n, data) for n, data in enumerate(packets)], 0)


def test_a_file_that_is_cut_short_gives_what_is_whole(tmp_path):
    path = tmp_path / "a.pcap"
    packets = flow(1, 1, [100] * 5)
    path.write_bytes(captures.pcap([(0, merged(packet)) for packet in packets])[:-20])
    capture = Capture(path, None)
    assert [make() for _, make in capture.packets(None)] == packets[:4]
    assert capture.cut_short
    assert "cut short" in capture.told()[-1]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ConfigError, match=r"no RTP packet to send: it is cut short"):
        list(Capture(path, None).packets(None))
