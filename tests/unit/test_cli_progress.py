"""What `send` and `recv` say on the way where there is no terminal to draw on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rtpfanout.cli import recv, send
from rtpfanout.model import Address
from rtpfanout.traffic import rtp
from rtpfanout.traffic.counting import Receptions
from rtpfanout.traffic.sending import Sent
from rtpfanout.traffic.stopping import StopFlag
from rtpfanout.traffic.udp import Datagram

HERE = Address.parse("127.0.0.1:6001")
REPORT = bytes([0x80, 201, 0, 1, 0, 0, 0, 9])


class Wire:
    """In place of a socket: it gives these datagrams, one after the other."""

    address = HERE
    kernel_drops = 0

    def __init__(self, *datagrams: Datagram) -> None:
        self._left = list(datagrams)

    def receive(self, *, wait: bool = True) -> Datagram | None:  # noqa: ARG002
        return self._left.pop(0) if self._left else None


def of(sequence: int, port: int, payload_type: int = 96) -> Datagram:
    data = rtp.build(b"x", ssrc=9, sequence=sequence, timestamp=0, payload_type=payload_type)
    return Datagram(data, 0, ("::ffff:192.0.2.7", port, 0, 0))


def counted(*datagrams: Datagram) -> Receptions:
    receptions = Receptions(Wire(*datagrams), rtp.CLOCK_RATE)  # type: ignore[arg-type]
    stop = StopFlag()
    stop.stop()  # what is there is counted all the same
    receptions.run(stop, None, None, lambda: None)
    return receptions


def test_a_line_says_how_much_comes_and_from_whom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    receptions = counted(of(1, 5000), of(3, 5002, 97))
    monkeypatch.setattr(recv, "_LINE_SECONDS", 1e9)
    with recv.Progress(receptions, HERE) as progress:
        progress.look()
        assert capsys.readouterr().err == ""
    monkeypatch.setattr(recv, "_LINE_SECONDS", 1e-9)
    with recv.Progress(receptions, HERE) as progress:
        progress.look()
    line = capsys.readouterr().err
    assert line.startswith("2 packets, ")
    assert line.endswith(
        "/s, 1 lost; now ssrc 0x00000009 of payload type 96,97 from 192.0.2.7:5002\n"
    )


def test_nothing_that_came_is_a_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recv, "_LINE_SECONDS", 1e-9)
    with recv.Progress(counted(), HERE) as progress:
        progress.look()
    assert capsys.readouterr().err == "0 packets, 0/s, 0 lost\n"


@pytest.mark.parametrize(("columns", "headers"), [(80, recv.NARROW), (200, recv.COLUMNS)])
def test_the_table_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int, headers: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = Console(width=columns, color_system=None, file=io.StringIO())
    with shown.capture() as capture:
        shown.print(recv._table(counted(of(1, 50000), of(2, 50000)), HERE))
    lines = capture.get().splitlines()
    assert " ".join(headers) in [" ".join(line.split()) for line in lines]
    assert any("0x00000009   96   192.0.2.7:50000" in line for line in lines)


def test_what_the_table_has_no_column_for_is_told() -> None:
    packets = [of(n, 5000) for n in range(100)]
    receptions = counted(*packets, of(100, 5002), Datagram(REPORT, 0), Datagram(b"?", 0))
    (source,) = receptions.summary()["sources"]
    assert (source["from"], source["senders"]) == ("192.0.2.7:5002", 2)
    assert source["payload_types"] == [96]
    assert (receptions.reports, receptions.not_rtp) == (1, 2)


def test_a_sender_says_how_much_it_sent_and_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = Sent(packets=1000, bytes=2000, seconds=2.0)
    with send.Progress() as progress:
        progress.tell(sent)
        assert capsys.readouterr().err == ""
    monkeypatch.setattr(send, "LINE_SECONDS", 0)
    with send.Progress() as progress:
        progress.tell(sent)
        sent.failed, sent.last_failure = 3, "Network is unreachable"
        progress.tell(sent)
    assert capsys.readouterr().err == (
        "sent 1,000 packets, 500/s, 2,000 bytes\n"
        "sent 1,000 packets, 500/s, 2,000 bytes, 3 failed: Network is unreachable\n"
    )
