"""How far sound and picture are apart at a player, through the server and without it.

    python benchmarks/av_offset.py --seconds 60

One GStreamer source sends H.264 and PCMA, with sender reports, to a receiver and to a server that
has them as two sessions; another receiver subscribes to both with RTCP. Both receivers are rtpbin,
which lines the two up by what the sender reports say, and write down when each packet is to be
played (`buffer-mode=none`: how late single packets are on a busy machine changes nothing). On the
way to the server the sound is late (`--delay-ms`), so that only sender reports can tell what
belongs together: `--no-rtcp` shows what it is without them. Of each frame of the picture and the
sound next to it, the offset at the one is compared with that at the other. Needs gst-launch-1.0 and
ffprobe.
"""

from __future__ import annotations

import argparse
import bisect
import json
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import ServerProcess

from rtpfanout.api import session_pb2 as pb

VIDEO, AUDIO = 0x11110000, 0x22220000
SOURCE = """rtpbin name=rb
 videotestsrc is-live=true pattern=snow ! video/x-raw,width=320,height=240,framerate=30/1
 ! x264enc tune=zerolatency key-int-max=30 bitrate=500 ! rtph264pay ssrc={video} config-interval=-1
 ! rb.send_rtp_sink_0 rb.send_rtp_src_0 ! multiudpsink clients={video_to}
 rb.send_rtcp_src_0 ! multiudpsink sync=false async=false clients={video_rtcp}
 audiotestsrc is-live=true wave=white-noise samplesperbuffer=160
 ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay ssrc={audio} max-ptime=20000000
 ! rb.send_rtp_sink_1 rb.send_rtp_src_1 ! tee name=t ! queue ! multiudpsink clients={audio_to}
 t. ! queue max-size-time=0 max-size-bytes=0 max-size-buffers=0 min-threshold-time={delay}
 ! multiudpsink sync=false clients={audio_late}
 rb.send_rtcp_src_1 ! multiudpsink sync=false async=false clients={audio_rtcp}"""
RECEIVER = """rtpbin name=rb latency=200 buffer-mode=none min-ts-offset=0
 matroskamux name=m streamable=true ! filesink location={file}
 udpsrc address=127.0.0.1 port={video}
 caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96
 ! rb.recv_rtp_sink_0 udpsrc address=127.0.0.1 port={video_rtcp} ! rb.recv_rtcp_sink_0
 udpsrc address=127.0.0.1 port={audio}
 caps=application/x-rtp,media=audio,clock-rate=8000,encoding-name=PCMA,payload=8
 ! rb.recv_rtp_sink_1 udpsrc address=127.0.0.1 port={audio_rtcp} ! rb.recv_rtcp_sink_1
 rb. ! rtph264depay ! h264parse ! m. rb. ! rtppcmadepay ! m."""


def free_pair() -> int:
    """A port; the next one is free, too."""
    while True:
        with (
            socket.socket(type=socket.SOCK_DGRAM) as one,
            socket.socket(type=socket.SOCK_DGRAM) as two,
        ):
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def launch(pipeline: str, **values: object) -> subprocess.Popen[bytes]:
    """gst-launch-1.0 with that."""
    gst = shutil.which("gst-launch-1.0")
    assert gst, "needs gst-launch-1.0"
    return subprocess.Popen([gst, "-q", "-e", *pipeline.format(**values).split()])


def played(file: Path) -> dict[str, dict[str, float]]:
    """When each packet is to be played, by what it is of and its hash."""
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-show_packets", "-show_data_hash", "md5", "-of", "json", file],
        capture_output=True,
        check=True,
    )
    found: dict[str, dict[str, float]] = {"video": {}, "audio": {}}
    for packet in json.loads(told.stdout)["packets"]:
        if "pts_time" in packet:
            found[packet["codec_type"]][packet["data_hash"]] = float(packet["pts_time"])
    return found


def differences(
    direct: dict[str, dict[str, float]], through: dict[str, dict[str, float]], skip: float
) -> list[float]:
    """Seconds that the picture is later against its sound through the server, frame by frame, from
    `skip` seconds on: rtpbin knows nothing before the first sender reports."""
    sound = sorted((at, name) for name, at in direct["audio"].items() if name in through["audio"])
    picture = sorted((at, name) for name, at in direct["video"].items() if name in through["video"])
    found = []
    for at, name in picture:
        if at < picture[0][0] + skip:
            continue
        near = min(bisect.bisect(sound, (at, "")), len(sound) - 1)
        sound_at, sound_name = sound[near]
        offset = at - sound_at
        found.append(through["video"][name] - through["audio"][sound_name] - offset)
    return found


def steadiness(of: dict[str, dict[str, float]], skip: float) -> float:
    """How much the offset of picture against sound changes at one receiver: largest less least."""
    found = []
    picture, sound = (sorted(of[kind].values()) for kind in ("video", "audio"))
    for number, at in enumerate(picture):
        if at >= picture[0] + skip:
            near = min(bisect.bisect(sound, at), len(sound) - 1)
            found.append((at - number / 30) - (sound[near] - near * 0.02))
    return max(found) - min(found)


def measure(seconds: float, skip: float, delay_ms: int, rtcp: str) -> list[float]:
    """Of one run."""
    direct, through = (free_pair(), free_pair()), (free_pair(), free_pair())
    with tempfile.TemporaryDirectory() as place:
        files = [Path(place, f"{name}.mkv") for name in ("direct", "through")]
        server = ServerProcess()
        running: list[subprocess.Popen[bytes]] = []
        try:
            for ssrc, kind, port in ((VIDEO, "video", through[0]), (AUDIO, "audio", through[1])):
                session = server.stub.CreateSession(
                    pb.CreateSessionRequest(
                        source_address="127.0.0.1", source_policy="ip", ssrc=ssrc, media_type=kind
                    )
                ).session_id
                server.stub.AddSubscriber(
                    pb.AddSubscriberRequest(
                        session_id=session, subscriber_address=f"127.0.0.1:{port}", rtcp=rtcp
                    )
                )
            for file, (video, audio) in zip(files, (direct, through), strict=True):
                ports = {"video_rtcp": video + 1, "audio_rtcp": audio + 1}
                running.append(launch(RECEIVER, file=file, video=video, audio=audio, **ports))
            time.sleep(2)
            host, port = server.ingest_target
            to = {
                f"{kind}{what}": f"127.0.0.1:{own + more},{host}:{port + more}"
                for kind, own in zip(("video", "audio"), direct, strict=True)
                for what, more in (("_to", 0), ("_rtcp", 1))
            }
            to["audio_to"], to["audio_late"] = to["audio_to"].split(",")
            delay = delay_ms * 10**6
            running.append(launch(SOURCE, video=VIDEO, audio=AUDIO, delay=delay, **to))
            time.sleep(seconds)
        finally:
            for process in reversed(running):
                process.send_signal(signal.SIGINT)
                process.wait(30)
            server.stop()
        direct_to, through_it = played(files[0]), played(files[1])
        for name, at in (("direct", direct_to), ("through", through_it)):
            print(f"{name}: changes by {steadiness(at, skip) * 1e3:.1f} ms")
        return differences(direct_to, through_it, skip)


def main() -> None:
    """Prints the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--skip", type=float, default=12, help="seconds at first, for the reports")
    parser.add_argument(
        "--delay-ms", type=int, default=80, help="of sound on its way to the server"
    )
    parser.add_argument("--no-rtcp", action="store_true")
    options = parser.parse_args()
    rtcp = "off" if options.no_rtcp else "next_port"
    found = measure(options.seconds + options.skip, options.skip, options.delay_ms, rtcp)
    size = sorted(abs(difference) * 1e3 for difference in found)
    beyond = [number for number, each in enumerate(found) if abs(each) > 0.005]
    print(
        f"{len(found)} frames: offset of picture against sound through the server less direct:"
        f" median {statistics.median(found) * 1e3:+.1f} ms, largest {size[-1]:.1f} ms,"
        f" {len(beyond)} beyond 5 ms"
    )
    if beyond:
        print(f"beyond 5 ms: frames {beyond[0]} to {beyond[-1]}")


if __name__ == "__main__":
    main()
