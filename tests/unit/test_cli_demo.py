"""The demo's subscribers notice whatever happens to a packet."""

import socket
import time

import pytest

from rtpfanout.cli.demo import faults
from rtpfanout.model import Address
from rtpfanout.traffic.scene import Camera, Viewer
from rtpfanout.traffic.source import TestSource


def replayed(change):
    """A viewer's report after `change` has turned each (index, packet) into what arrives."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as path,
        Camera(TestSource(ssrc=7, frame_rate=200, burst=5, size=400)) as camera,
        Viewer("recording", camera) as viewer,
    ):
        path.bind(("127.0.0.1", 0))
        path.settimeout(30)
        to = ("127.0.0.1", viewer.address.port)
        camera.start(Address.parse(f"127.0.0.1:{path.getsockname()[1]}"))
        packets = [path.recv(2000) for _ in range(50)]
        camera.stop()
        path.setblocking(False)
        while camera.packets > len(packets):
            packets.append(path.recv(2000))
        arriving = [data for index, packet in enumerate(packets) for data in change(index, packet)]
        for data in arriving:
            path.sendto(data, to)
        deadline = time.monotonic() + 30
        while viewer.packets < len(arriving) and time.monotonic() < deadline:
            time.sleep(0.01)
        return viewer.report()


def test_a_clean_path_has_no_fault():
    report = replayed(lambda _index, packet: [packet])
    assert report["packets"] >= 50
    assert (report["lost"], report["altered"], report["duplicates"]) == (0, 0, 0)
    assert report["added_latency_ms"]["p50"] > 0
    assert faults([report], {}, {}) == []


def test_nobody_has_more_packets_than_the_camera_says():
    """At any look, also between a packet's sending and the next line of the camera's thread."""
    counted = []

    class Wire:
        def sendto(self, _data, _to):
            counted.append(camera.packets)

        def close(self):
            wire.close()

    with Camera(TestSource(ssrc=7, frame_rate=200, burst=5, size=400)) as camera:
        wire, camera._socket = camera._socket, Wire()
        camera.start(Address.parse("127.0.0.1:9"))
        deadline = time.monotonic() + 30
        while len(counted) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert counted[:10] == list(range(1, 11))


def test_a_lost_packet_is_lost_even_if_it_was_the_last_or_first():
    report = replayed(lambda index, packet: [packet] if index not in (0, 49) else [])
    assert (report["lost"], report["altered"]) == (2, 0)
    assert faults([report], {}, {}) == ["recording: 2 packets lost"]


@pytest.mark.parametrize("place", [0, 1, 2, 4, 8, 12, 20, 28, 36, 399])
def test_an_altered_byte_anywhere_is_noticed(place):
    def change(index, packet):
        return [packet if index != 3 else bytes_with(packet, place, packet[place] ^ 1)]

    report = replayed(change)
    assert (report["lost"], report["altered"]) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda index, packet: [packet if index != 3 else packet[:-1]],
        lambda index, packet: [packet if index != 3 else packet + b"\0"],
        lambda index, packet: [packet if index != 3 else b""],
    ],
)
def test_a_changed_length_is_noticed(change):
    report = replayed(change)
    assert (report["lost"], report["altered"]) == (1, 1)


def test_a_doubled_packet_is_noticed():
    report = replayed(lambda index, packet: [packet] * (2 if index == 3 else 1))
    assert (report["lost"], report["altered"], report["duplicates"]) == (0, 0, 1)
    assert faults([report], {}, {}) == ["recording: 1 packets doubled"]


def test_counters_that_are_off_are_faults():
    assert faults([], {"packets_sent": 29, "x": 1}, {"packets_sent": 30}) == [
        "the server counts packets_sent 29, the truth is 30"
    ]


def bytes_with(data, place, value):
    return data[:place] + bytes([value]) + data[place + 1 :]
