"""RTP out of capture files: every link type, byte for byte, nothing else."""

import dpkt
import pytest

from rtpfanout import rtp
from rtpfanout.cli.capture import Capture
from rtpfanout.errors import ConfigError


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
