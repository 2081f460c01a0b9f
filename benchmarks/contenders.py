"""What is measured: each contender receives on its own ingress port and copies to the subscribers.

To add one: subclass Contender, start its process in `start`, answer `counters`, list it in
CONTENDERS.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lab import LabError, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab import Lab, Place

HERE = Path(__file__).resolve().parent
BIN = HERE / "bin"
SKB_BYTES = 2304  # what one queued packet of up to 1,500 bytes costs of SO_RCVBUF


def read_line(pipe: IO[str], timeout: float) -> str:
    """The next line, or TimeoutError. Reads unbuffered, so select() tells the truth."""
    line = b""
    deadline = time.monotonic() + timeout
    while not line.endswith(b"\n"):
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError(f"no answer within {timeout} s")
        byte = os.read(pipe.fileno(), 1)
        if not byte:
            raise EOFError("the process ended")
        line += byte
    return line.decode()


class Tool:
    """A process of the lab that is always ended, and answers SIGUSR1 with a JSON line."""

    def __init__(
        self,
        lab: Lab,
        place: Place,
        argv: Sequence[str],
        cpus: str | None,
        *,
        log: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """With a `log`, the output goes there and cannot be read by `line`."""
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(log.open("wb")) if log else None
            self.process = subprocess.Popen(
                lab.command(place, argv, cpus),
                stdin=subprocess.PIPE,
                stdout=output or subprocess.PIPE,
                stderr=output,
                text=True,
                env={**os.environ, **(environment or {})},
            )

    def line(self, timeout: float = 30) -> str:
        assert self.process.stdout is not None
        return read_line(self.process.stdout, timeout)

    def ask(self, order: dict[str, Any], timeout: float = 120) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.line(timeout))
        return answer

    def report(self) -> dict[str, Any]:
        """The counters, by SIGUSR1; repeated when the signal came just before a blocking call.

        A bare loop first sends all it has received: seconds, with 1,000 subscribers.
        """
        for _ in range(120):
            self.process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(TimeoutError):
                answer: dict[str, Any] = json.loads(self.line(0.25))
                return answer
        raise TimeoutError(f"process {self.process.pid} does not report")

    def stop(self) -> str:
        """End the process and return what it still had to say."""
        output = ""
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                output, _ = self.process.communicate(timeout=5)
                break
        return output


class Contender:
    name: str
    takes_workers = False  # whether it can be told how many threads are to move packets
    most_copies_per_s = math.inf  # never offered more
    takes_gso = True  # whether its bursts may arrive merged, as by a NIC with GRO
    packet_size: int  # bytes of an RTP packet; set before `start`
    tool: Tool

    def __init__(self, lab: Lab, cpus: str, control_cpus: str, workers: int = 1) -> None:
        self.lab = lab
        self.cpus = cpus
        self.control_cpus = control_cpus
        self.workers = workers
        self.ingress = f"{lab.addresses.ingress}:{free_port()}"

    @classmethod
    def missing(cls) -> str | None:
        """What this host lacks for it, or None."""
        return None

    def start(self, *, first_ssrc: int, sessions: int, subscribers: int, queue: int) -> None:
        """Start and be ready for packets. `queue`: packets the ingress socket can hold."""
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        """Running totals: received (packets), sent (copies), failed (copies) and, where it is
        known, sends (calls or entries of sendmmsg that took one or several copies)."""
        raise NotImplementedError

    def stop(self) -> None:
        if hasattr(self, "tool"):
            self.tool.stop()

    def cpu_seconds(self) -> float:
        """CPU time of all threads; on Linux without IRQ_TIME_ACCOUNTING this includes the softirq
        work (veth, nft) done within the contender's own system calls."""
        nanoseconds = 0
        for task in Path(f"/proc/{self.tool.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9


class PlainLoop(Contender):
    """Bare recvmmsg and sendmmsg in C, without any lookup: the baseline."""

    name = "plainloop"
    program = "plainloop"
    options: tuple[str, ...] = ()

    def start(self, *, first_ssrc: int, sessions: int, subscribers: int, queue: int) -> None:  # noqa: ARG002
        addresses = self.lab.addresses
        argv = [str(BIN / self.program), *self.options, "--bind", self.ingress]
        argv += ["--to", addresses.first_subscriber]
        argv += ["--count", str(subscribers), "--receive-buffer", str(queue * SKB_BYTES)]
        argv += ["--by-address"] if addresses.by_address else []
        self.tool = Tool(self.lab, "server", argv, self.cpus)
        assert self.tool.line().strip() == "ready"

    def counters(self) -> dict[str, int]:
        return {name: int(value) for name, value in self.tool.report().items()}


class GsoLoop(PlainLoop):
    """The same with UDP_GRO in and UDP_SEGMENT out: the most there is to be had."""

    name = program = "gsoloop"


class GsoLoopBySsrc(GsoLoop):
    """The same, but no group has packets of two sessions: the most there is for many of them."""

    name = "gsoloop-ssrc"
    options = ("--by-ssrc",)


class KernelCounted(Contender):
    """A program without counters of its own: the kernel's, of the contenders' namespace.

    Contenders take turns and nobody else there speaks UDP, so differences are this one's.
    """

    program: str

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which(cls.program) else f"{cls.program} is not installed"

    def counters(self) -> dict[str, int]:
        text = Path(f"/proc/{self.tool.process.pid}/net/snmp").read_text()
        names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Udp:"))
        udp = dict(zip(names, map(int, values), strict=True))
        return {
            "received": udp["InDatagrams"],
            "sent": udp["OutDatagrams"],
            "failed": udp["SndbufErrors"],
            "kernel_drops": udp["RcvbufErrors"],
        }


class GStreamer(KernelCounted):
    """gst-launch-1.0 udpsrc ! multiudpsink: GStreamer's own way to send to many."""

    name = "gstreamer"
    program = "gst-launch-1.0"

    def start(self, *, first_ssrc: int, sessions: int, subscribers: int, queue: int) -> None:  # noqa: ARG002
        address, port = self.ingress.rsplit(":", 1)
        clients = ",".join(self.lab.addresses.subscribers(subscribers))
        source = ["udpsrc", f"address={address}", f"port={port}", "auto-multicast=false"]
        source += [f"buffer-size={queue * SKB_BYTES}"]
        sink = ["multiudpsink", f"clients={clients}", f"buffer-size={4 << 20}"]
        sink += ["sync=false", "async=false"]
        argv = [self.program, *source, "!", *sink]
        self.tool = Tool(self.lab, "server", argv, self.cpus)
        while "PLAYING" not in self.tool.line(30):
            pass


class RtpEngine(KernelCounted):
    """rtpengine without its kernel module: one publisher, every subscriber a subscription."""

    name = "rtpengine"
    program = "rtpengine"
    # When it five times finds more than 50 packets queued, it never reads that socket again.
    most_copies_per_s = 30_000
    PORTS = (10000, 19999)  # two for each subscription

    def start(self, *, first_ssrc: int, sessions: int, subscribers: int, queue: int) -> None:  # noqa: ARG002
        if sessions != 1:
            raise LabError("rtpengine gives each session an ingress of its own: one session only")
        control = f"127.0.0.1:{free_port()}"
        address = self.lab.addresses.ingress
        argv = [self.program, "--foreground", "--log-stderr", "--log-level=3", "--table=-1"]
        argv += [f"--interface={address}", f"--listen-ng={control}", "--num-threads=1"]
        argv += [f"--port-min={self.PORTS[0]}", f"--port-max={self.PORTS[1]}", "--timeout=3600"]
        argv += [f"--pidfile={BIN / f'rtpengine-{os.getpid()}.pid'}"]
        self.tool = Tool(self.lab, "server", argv, self.cpus, log=Path(os.devnull))
        client = [sys.executable, str(HERE / "rtpengine_control.py"), "--ng", control]
        self.control = Tool(self.lab, "server", client, self.control_cpus)
        try:
            self.control.line(20)
            order = create_order(self.lab, first_ssrc, sessions, subscribers)
            port = self.control.ask(order)["port"]
        except (EOFError, TimeoutError):
            raise LabError("rtpengine does not do as it is told") from None
        finally:
            self.control.stop()
        self.ingress = f"{address}:{port}"

    def stop(self) -> None:
        super().stop()
        (BIN / f"rtpengine-{os.getpid()}.pid").unlink(missing_ok=True)


def create_order(lab: Lab, first_ssrc: int, sessions: int, subscribers: int) -> dict[str, Any]:
    return {
        "create": {
            "source": lab.addresses.source,
            "first_ssrc": first_ssrc,
            "sessions": sessions,
            "subscribers": lab.addresses.subscribers(subscribers),
        }
    }


class EngineAlone(Contender):
    """The packet path in a bare Python process: no gRPC, no metrics."""

    name = "engine"
    takes_workers = True

    def start(self, *, first_ssrc: int, sessions: int, subscribers: int, queue: int) -> None:
        argv = [sys.executable, str(HERE / "engine_host.py"), "--bind", self.ingress]
        options = ["--queue", str(queue), "--workers", str(self.workers)]
        self.tool = Tool(self.lab, "server", [*argv, *options], self.cpus)
        self.tool.line()
        self.tool.ask(create_order(self.lab, first_ssrc, sessions, subscribers))

    def counters(self) -> dict[str, int]:
        totals = self.tool.ask({"counters": True})
        failed = sum(value for name, value in totals.items() if name.startswith("failed_"))
        dropped = sum(value for name, value in totals.items() if name.startswith("dropped_"))
        return {
            **totals,
            "received": totals["packets_received"],
            "sent": totals["packets_sent"],
            "failed": failed,
            "forwarded": totals["packets_forwarded"],
            "dropped": dropped,
        }


@functools.cache
def serve_takes_workers() -> bool:
    command = [sys.executable, "-m", "rtpfanout", "serve", "--help"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
    )
    return "--workers" in done.stdout


class Rtpfanout(Contender):
    """The real server, driven over gRPC with the generated stub."""

    name = "rtpfanout"
    takes_workers = True

    def start(self, *, first_ssrc: int, sessions: int, subscribers: int, queue: int) -> None:
        control = f"127.0.0.1:{free_port()}"
        metrics = f"127.0.0.1:{free_port()}"
        settings = {
            "BIND_ADDRESS": self.ingress,
            "GRPC_BIND_ADDRESS": control,
            "METRICS_BIND_ADDRESS": metrics,
            "BUFFER_SIZE": str(queue),
            "MAX_FANOUT_PER_SESSION": str(max(1000, subscribers)),
            "MAX_SESSIONS": str(max(10_000, sessions)),
            # One process, whose CPU time is counted, and no disk.
            "ENABLE_SUPERVISOR": "false",
            "STORE__PATH": ":memory:",
            # Saturated cells are to send to everybody, not to shed.
            "OVERLOAD__SHED": "false",
        }
        if self.workers > 1:  # as many CPUs as workers: each has its own, as by default
            settings["WORKER_CPUS"] = self.cpus
        serve = [sys.executable, "-m", "rtpfanout", "serve"]
        if serve_takes_workers():
            serve += ["--workers", str(self.workers)]
        elif self.workers != 1:
            raise LabError("this rtpfanout has no `serve --workers`")
        environment = {f"RTP_FANOUT__{key}": value for key, value in settings.items()}
        self.log = HERE / "results" / f"rtpfanout-{os.getpid()}.log"
        self.tool = Tool(
            *(self.lab, "server", serve, self.cpus),
            log=self.log,
            environment=environment,
        )
        argv = [sys.executable, str(HERE / "control.py"), "--grpc", control, "--metrics", metrics]
        self.control = Tool(self.lab, "server", argv, self.control_cpus)
        try:
            self.control.line(30)
        except (EOFError, TimeoutError):
            raise LabError(f"the server did not start: {self.log.read_text()[-2000:]}") from None
        self.control.ask(create_order(self.lab, first_ssrc, sessions, subscribers))

    def counters(self) -> dict[str, int]:
        samples = self.control.ask({"counters": True})
        names = {
            "received": "rtp_packets_received_total",
            "sent": "rtp_packets_sent_total",
            "failed": "rtpfanout_send_failures_total",
            "forwarded": "rtpfanout_packets_forwarded_total",
            "dropped": "rtpfanout_packets_dropped_total",
            "attempted": "rtpfanout_copies_attempted_total",
            "kernel_drops": "rtpfanout_kernel_receive_drops_total",
            "sends": "rtpfanout_sends_total",
        }
        return {ours: int(samples.get(theirs, 0)) for ours, theirs in names.items()}

    def last_copy(self) -> dict[str, float]:
        """Microseconds until a packet of the first session is with its last subscriber."""
        return self.control.ask({"last_copy": True})

    def stop(self) -> None:
        if hasattr(self, "control"):
            self.control.stop()
        super().stop()
        self.log.unlink(missing_ok=True)


CONTENDERS: dict[str, type[Contender]] = {
    kind.name: kind
    for kind in (
        *(PlainLoop, GsoLoop, GsoLoopBySsrc, EngineAlone),
        *(Rtpfanout, GStreamer, RtpEngine),
    )
}
