"""`send` and `recv` as processes, without a server between them."""

import json
import signal
import socket
import time

import captures
import dpkt
import pytest
from cli_support import background, receiver, run, run_json

from rtpfanout.traffic import rtp


@pytest.fixture
def listener():
    """A UDP socket on a free port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(30)
        yield udp


def target_of(udp):
    return f"127.0.0.1:{udp.getsockname()[1]}"


def test_what_is_sent_is_what_is_counted():
    with receiver("--expect", 280) as (recv, address):
        sent = run_json("send", address, "--ssrc", "0xFFFFFFFF", "--count", 280, "--size", 200)
        code, out = recv.finish()
    assert code == 0
    received = json.loads(out)
    (source,) = received["sources"]
    assert source["ssrc"] == sent["ssrc"] == 0xFFFFFFFF
    assert source["packets"] == sent["packets"] == 280
    assert source["bytes"] == sent["bytes"] == 280 * 200
    assert source["latency_ms"]["count"] == 280
    assert source["latency_ms"]["p50"] <= source["latency_ms"]["p99"]
    assert (source["lost"], source["reordered"], source["duplicates"]) == (0, 0, 0)
    assert sent["failed"] == 0


def test_frames_are_bursts_with_one_time_stamp_and_a_marker_on_the_last(listener):
    run_json(
        "send", target_of(listener), "--frame-rate", 50, "--burst", 3, "--count", 9,
        "--ssrc", 0, "--payload-type", 111, "--size", 36,
    )  # fmt: skip
    packets = [rtp.parse(listener.recv(2000)) for _ in range(9)]
    first = packets[0]
    assert {packet.ssrc for packet in packets} == {0}
    assert {packet.payload_type for packet in packets} == {111}
    assert [packet.marker for packet in packets] == [False, False, True] * 3
    assert [(p.sequence - first.sequence) % 2**16 for p in packets] == list(range(9))
    steps = [(p.timestamp - first.timestamp) % 2**32 for p in packets]
    assert steps == [0, 0, 0, 1800, 1800, 1800, 3600, 3600, 3600]
    assert [rtp.read_stamp(packet.payload).index for packet in packets] == list(range(9))


def test_rate_spaces_single_packets_evenly(listener):
    run_json("send", target_of(listener), "--rate", 100, "--count", 5)
    packets = [rtp.parse(listener.recv(2000)) for _ in range(5)]
    steps = [(p.timestamp - packets[0].timestamp) % 2**32 for p in packets]
    assert steps == [0, 900, 1800, 2700, 3600]
    assert all(packet.marker for packet in packets)


def test_the_source_address_is_printed_and_can_be_chosen(listener):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        source = target_of(free)
    done = run("send", target_of(listener), "--count", 1, "--bind", source)
    assert f"sending from {source} to " in done.stderr
    host, port = listener.recvfrom(2000)[1]
    assert f"{host}:{port}" == source


def test_a_capture_is_sent_byte_for_byte(listener, tmp_path):
    packets = [
        rtp.build(
            b"x" * n, ssrc=5, sequence=n, timestamp=n, csrcs=(1, 2),
            extension=(0xBEDE, b"\x10\x01\x00\x00"), padding=n + 1,
        )
        for n in range(5)
    ]  # fmt: skip
    path = tmp_path / "a.pcap"
    with path.open("wb") as file:
        writer = dpkt.pcap.Writer(file, linktype=101)
        for number, data in enumerate([*packets, b"not rtp"]):
            udp = dpkt.udp.UDP(sport=1, dport=2, data=data, ulen=8 + len(data))
            ip = dpkt.ip.IP(src=b"\x7f\0\0\1", dst=b"\x7f\0\0\1", p=17, data=udp)
            ip.len = len(ip)
            writer.writepkt(bytes(ip), ts=number / 100)
    done = run("send", target_of(listener), "--pcap", path, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["packets"] == 5
    assert "passed over 1 packets" in done.stderr
    assert [listener.recv(2000) for _ in range(5)] == packets


def capture_of(packets, path, cut=0):
    """A capture of so many packets, without its last `cut` bytes."""
    frames = [(n * 1000, captures.ethernet(captures.ip4(captures.udp(packet))))
              for n, packet in enumerate(packets)]  # fmt: skip
    data = captures.pcap(frames)
    path.write_bytes(data[: len(data) - cut])
    return path


def test_a_capture_that_is_cut_short_is_sent_as_far_as_it_goes(listener, tmp_path):
    """As when whoever captured was killed: that is told, and no failure."""
    packets = [rtp.build(b"x" * 50, ssrc=5, sequence=n, timestamp=n) for n in range(5)]
    path = capture_of(packets, tmp_path / "a.pcap", cut=7)
    done = run("send", target_of(listener), "--pcap", path, "-o", "json")
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)
    assert (sent["packets"], sent["cut_short"], sent["passed_over"]) == (4, True, 0)
    assert f"{path} is cut short: its last frame is not whole and was left out" in done.stderr
    assert [listener.recv(2000) for _ in range(4)] == packets[:4]


def test_a_damaged_capture_is_sent_up_to_the_damage_and_fails(listener, tmp_path):
    packets = [rtp.build(b"x" * 50, ssrc=5, sequence=n, timestamp=n) for n in range(5)]
    path = capture_of(packets, tmp_path / "a.pcap")
    path.write_bytes(path.read_bytes() + b"\xff" * 40)
    done = run("send", target_of(listener), "--pcap", path, "-o", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["packets"] == 5
    assert f"error: {path} is damaged, what follows was not sent: " in done.stderr
    assert [listener.recv(2000) for _ in range(5)] == packets


def test_recv_tells_a_source_that_begins_anew_from_duplicates():
    """Sent twice, a capture is a source that begins anew, though it sends the very same bytes."""
    with receiver() as (recv, address), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        host, port = address.split(":")
        for _ in range(2):
            for sequence in range(100):
                data = rtp.build(b"pay", ssrc=9, sequence=sequence, timestamp=sequence)
                udp.sendto(data, (host, int(port)))
                time.sleep(0.005)
        code, out = recv.finish(signal.SIGTERM)
    assert code == 0
    (source,) = json.loads(out)["sources"]
    assert (source["packets"], source["lost"]) == (200, 0)
    assert (source["duplicates"], source["restarts"]) == (0, 1)


def test_recv_counts_what_a_server_forwards():
    """SRTP, whose padding count is encrypted, and payload types that RTCP has, too."""
    packets = [
        b"\xa0" + rtp.build(b"x" * 30, ssrc=9, sequence=n, timestamp=n, payload_type=64 + n,
                            marker=True)[1:] for n in range(32)
    ]  # fmt: skip
    with receiver("--expect", len(packets)) as (recv, address):
        host, port = address.split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for packet in packets:
                udp.sendto(packet, (host, int(port)))
        code, out = recv.finish()
    assert code == 0
    assert json.loads(out)["not_rtp"] == 0


def test_recv_shows_who_sends_what():
    """An SSRC that goes on from another port, with another payload type; and a report of RTCP."""
    with background("recv", "127.0.0.1:0", "--count", 3) as recv:
        host, port = recv.wait_for(r"receiving on (\S+)")[1].split(":")
        for sequence, payload_type in ((1, 96), (2, 96), (3, 97)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                if sequence == 3:
                    udp.sendto(bytes([0x80, 201, 0, 1, 0, 0, 0, 9]), (host, int(port)))
                data = rtp.build(
                    b"", ssrc=9, sequence=sequence, timestamp=0, payload_type=payload_type
                )
                udp.sendto(data, (host, int(port)))
                sender = target_of(udp)
        code, out = recv.finish()
    assert code == 0
    header, row = (line.split() for line in out.splitlines())
    assert header[:4] == ["SSRC", "PT", "FROM", "PACKETS"]
    assert row[:4] == ["0x00000009", "96,97", sender.replace("0.0.0.0", host), "3"]
    assert recv.stderr[1:] == [
        "1 datagrams were RTCP\n",
        "0x00000009 came from 3 addresses, FROM is the latest\n",
    ]


def test_recv_tells_loss_reorder_duplicates_and_foreign_datagrams():
    with receiver() as (recv, address), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        host, port = address.split(":")
        for sequence in (65_534, 65_535, 1, 0, 0, 4):
            data = rtp.build(b"pay", ssrc=9, sequence=sequence, timestamp=0)
            udp.sendto(data, (host, int(port)))
        udp.sendto(b"", (host, int(port)))
        udp.sendto(b"hello", (host, int(port)))
        udp.sendto(rtp.build(b"", ssrc=10, sequence=1, timestamp=0), (host, int(port)))
        code, out = recv.finish(signal.SIGTERM)
    assert code == 0
    received = json.loads(out)
    assert (received["packets"], received["lost"], received["not_rtp"]) == (7, 2, 2)
    first, second = received["sources"]
    assert (first["ssrc"], second["ssrc"]) == (9, 10)
    assert (first["lost"], first["reordered"], first["duplicates"]) == (2, 1, 1)
    assert first["latency_ms"] == {"count": 0, "p50": None, "p99": None, "max": None}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["send", "recv"])
def test_signals_end_with_a_summary(command, number, listener):
    target = target_of(listener) if command == "send" else "127.0.0.1:0"
    with background(command, target, "-o", "json") as process:
        process.wait_for("sending|receiving")
        code, out = process.finish(number)
    assert code == 0
    assert json.loads(out)["packets"] >= 0


def test_expect_fails_when_fewer_came():
    with (
        receiver("--expect", 3, "--duration", 3) as (recv, address),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        host, port = address.split(":")
        for sequence in range(2):
            data = rtp.build(b"pay", ssrc=9, sequence=sequence, timestamp=0)
            udp.sendto(data, (host, int(port)))
        code, out = recv.finish()
    assert code == 1
    assert json.loads(out)["packets"] == 2
    assert recv.stderr[-1] == "error: 2 of 3 expected packets came\n"


def test_expect_fails_on_loss():
    with receiver("--expect", 2) as (recv, address):
        host, port = address.split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for sequence in (1, 3):
                udp.sendto(
                    rtp.build(b"", ssrc=9, sequence=sequence, timestamp=0), (host, int(port))
                )
        code, _ = recv.finish()
    assert code == 1
    assert recv.stderr[-1] == "error: 1 packets were lost on the way\n"


def test_recv_ends_by_count_and_by_duration():
    with receiver("--count", 2) as (recv, address):
        run("send", address, "--count", 2)
        assert recv.finish()[0] == 0
    assert run_json("recv", "127.0.0.1:0", "--duration", "0.1")["packets"] == 0


def test_ipv6():
    with background("recv", "[::1]:0", "--expect", 14, "-o", "json") as recv:
        address = recv.wait_for(r"receiving on (\S+)")[1]
        sent = run_json("send", address, "--count", 14)
        assert recv.finish()[0] == 0
    assert sent["source"].startswith("[::1]:")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("send", "localhost:5004"), 2, "'localhost'"),
        (("send", "127.0.0.1:0"), 2, "port 0"),
        (("send", "127.0.0.1:9", "--ssrc", "0x100000000"), 2, "0x100000000"),
        (("send", "127.0.0.1:9", "--size", "35"), 2, "36"),
        (("send", "127.0.0.1:9", "--rate", "9", "--frame-rate", "9"), 2, "not both"),
        (("send", "127.0.0.1:9", "--pcap", "/missing"), 2, "/missing: No such file"),
        (("send", "127.0.0.1:9", "--pcap", "/missing", "--burst", "3"), 2, "--pcap"),
        (("send", "127.0.0.1:9", "--bind", "198.51.100.1:0"), 2, "no such address"),
        (("send", "127.0.0.1:9", "--bind", "[::1]:0"), 2, "both IPv6"),
        (("recv", "127.0.0.1:65536"), 2, "65536"),
        (("recv", "198.51.100.1:0"), 2, "no such address"),
    ],
)
def test_mistakes_get_a_reason_and_an_exit_code(arguments, code, words):
    done = run(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_port_in_use_is_said_so(listener):
    done = run("recv", target_of(listener))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: cannot bind {target_of(listener)}: the port is in use by another process; "
        "stop it or choose another port\n"
    )


def test_packets_that_cannot_be_sent_are_counted_and_fail():
    done = run("send", "255.255.255.255:9", "--count", 3, "--bind", "127.0.0.1:0", "-o", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 3
    assert "3 packets were not sent" in done.stderr
