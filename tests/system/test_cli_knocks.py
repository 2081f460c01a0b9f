"""`session create any`, `knocks`, and the commands that it prints, as a user types them."""

import itertools
import json
import shlex
import signal
import threading
from contextlib import closing, contextmanager

import pytest
from cli_support import background, run, run_json
from support import address_of, eventually, queued, receive, rtp_packet

from rtpfanout.client import SessionClient

FREE_PORTS = (
    "--bind-address", "127.0.0.1:0",
    "--grpc-bind-address", "127.0.0.1:0",
    "--metrics-bind-address", "127.0.0.1:0",
    "--log-format", "json",
)  # fmt: skip


@pytest.fixture(scope="module")
def served():
    """The ready entry of a running `rtpfanout serve`."""
    with background("serve", "--set", "store.path=:memory:", *FREE_PORTS) as command:
        yield json.loads(command.wait_for('.*"event": "ready".*')[0])
        assert command.finish(signal.SIGTERM)[0] == 0


@pytest.fixture
def server(served):
    """What commands need in their environment."""
    return {"RTP_FANOUT_SERVER": served["grpc_bind_address"]}


@pytest.fixture
def ingest(served):
    """Where RTP goes."""
    host, _, port = served["bind_address"].rpartition(":")
    return host, int(port)


def test_a_camera_of_which_nothing_is_known(server, ingest, udp):
    made = run_json("session", "create", "any", "--name", "rover-7/front", **server)
    assert (made["source_policy"], made["latch_scope"]) == ("latch", "ip")
    assert (made["ssrc_policy"], made["ssrcs"]) == ("follow", [])
    camera, viewer = udp(), udp()
    run("subscriber", "add", "rover-7/front", address_of(viewer), **server)

    def pinned():
        camera.sendto(rtp_packet(0xABCD, 1), ingest)
        return run_json("session", "get", "rover-7/front", **server)

    found = eventually(pinned, lambda s: s["pinned_source"], "the pin")
    assert found["pinned_source"] == address_of(camera)
    camera.sendto(rtp_packet(0xABCD, 2), ingest)
    while receive(viewer, 1) != [rtp_packet(0xABCD, 2)]:  # one of the first may have come, too
        pass
    shown = run("session", "get", "rover-7/front", **server).stdout
    assert "0x0000abcd (payload type 96, since " in shown
    listed = run("session", "list", **server).stdout
    assert "0x0000abcd" in listed
    assert address_of(camera) in listed
    run("session", "rm", "rover-7/front", **server)


def test_what_knocks_prints_admits_them(server, ingest, udp):
    camera, moved, stranger = udp("127.0.0.2"), udp("127.0.0.2"), udp("127.0.0.3")
    for source, ssrc in ((camera, 5), (moved, 9), (stranger, 8)):
        source.sendto(rtp_packet(ssrc, 1), ingest)
    run(
        "session", "create", address_of(camera), "--name", "yard", "--ssrc", "7",
        "--ssrc-policy", "exact", **server,
    )  # fmt: skip
    ours = {address_of(each): each for each in (camera, moved, stranger)}

    def knocks():
        found = run_json("knocks", **server)
        return {k["source_address"]: k for k in found if k["source_address"] in ours}

    found = eventually(knocks, lambda k: len(k) == 3, "all three")
    at, there = address_of(moved), address_of(stranger)
    assert found[address_of(camera)]["admit_by"] == (
        "rtpfanout session update yard --ssrc-policy follow"
    )
    assert found[at]["admit_by"] == (
        f"rtpfanout session update yard --source {at} --ssrc-policy follow"
    )
    assert found[there]["admit_by"] == f"rtpfanout session create {there}"
    assert found[at]["session_name"] == "yard"
    shown = run("knocks", **server).stdout
    assert f"{there}  SSRC 0x00000008  payload type 96  1 packets, the last" in shown
    assert "(like yard)" in shown
    for address in (there, at):
        _, *command = shlex.split(found[address]["admit_by"])
        assert run(*command, **server).returncode == 0
    assert not knocks().keys() & {there, at}, "who is admitted is no stranger any more"
    viewer = udp()
    run("subscriber", "add", "yard", address_of(viewer), **server)
    moved.sendto(rtp_packet(9, 2), ingest)
    assert receive(viewer, 1) == [rtp_packet(9, 2)]
    run("session", "rm", "yard", **server)


def test_who_is_fed_is_not_moved_to_another_camera(server, served, ingest, udp):
    rear = udp("127.0.0.4")
    with closing(udp("127.0.0.4")) as free:
        front = address_of(free)
    run("session", "create", front, "--name", "van/front", **server)
    run("session", "create", "127.0.0.4:9", "--name", "van/rear", **server)

    def knocks():
        rear.sendto(rtp_packet(6, 1), ingest)
        found = run_json("session", "get", "van/front", **server)
        return found["condition"] == "flowing" and [
            knock for knock in run_json("knocks", **server) if knock["ssrc"] == 6
        ]

    with background("send", served["bind_address"], "--bind", front) as camera:
        (knock,) = eventually(knocks, bool, "a knock")
        camera.finish(signal.SIGINT)
    assert knock["session_name"] == "van/rear"
    assert knock["admit_by"] == f"rtpfanout session update van/rear --source {address_of(rear)}"
    run("session", "rm", "van/front", "van/rear", **server)


@contextmanager
def repeated(act):
    """Every 20 ms meanwhile."""
    done = threading.Event()

    def go_on():
        while not done.wait(0.02):
            act()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_second_camera_behind_the_address_of_another(server, ingest, udp):
    """It gets nowhere, not even when the first one ends; and `knocks` has what it needs."""
    front, rear, viewer, second = udp("127.0.0.6"), udp("127.0.0.6"), udp(), udp()
    run("session", "create", "any", "--name", "yard/front", **server)
    numbers = itertools.count()

    def play(*sources):
        for source, ssrc in sources:
            source.sendto(rtp_packet(ssrc, next(numbers) % 65536), ingest)

    def told_of(source):
        found = run_json("knocks", **server)
        return next(k for k in found if k["source_address"] == address_of(source))

    with SessionClient(server["RTP_FANOUT_SERVER"]) as client:
        client.add_subscriber("yard/front", address_of(viewer))

        def pinned():
            play((front, 1))
            return client.get_session("yard/front").pinned_source

        def knock():
            return [k for k in client.list_knocks() if k.source_address == address_of(rear)]

        def condition():
            play((rear, 2))
            return client.get_session("yard/front").condition

        eventually(pinned, address_of(front).__eq__, "the pin")
        with repeated(lambda: play((front, 1), (rear, 2))):
            eventually(knock, bool, "a knock")
            found = told_of(rear)
        assert (found["reason"], found["session_name"]) == ("probation", "yard/front")
        assert found["admit_by"] == f"rtpfanout session create {address_of(rear)}"
        assert "need a port each (--ingest-port auto), or --latch-scope address" in found["note"]
        eventually(condition, "silent".__eq__, "the silence")
        shown = run("knocks", **server).stdout
        assert "probation  (like yard/front)" in shown
        told = "# if it is the camera of yard/front, which is silent: rtpfanout session update"
        assert f"{told} yard/front --ssrc 0x00000002" in shown
        _, *command = shlex.split(found["admit_by"])
        run(*command, "--name", "yard/rear", **server)
        assert address_of(rear) not in {k.source_address for k in client.list_knocks()}
        client.add_subscriber("yard/rear", address_of(second))
    rear.sendto(rtp_packet(2, 20000), ingest)
    assert receive(second, 1) == [rtp_packet(2, 20000)]
    assert {packet[11] for packet in queued(viewer)} == {1}, "one camera's viewers got another's"
    run("session", "rm", "yard/front", "yard/rear", **server)


def test_two_streams_of_one_source(server, ingest, udp):
    camera = udp("127.0.0.7")
    run("session", "create", address_of(camera), "--name", "both", **server)

    def knocks():
        camera.sendto(rtp_packet(1, 1), ingest)
        camera.sendto(rtp_packet(2, 1, payload_type=97), ingest)
        found = run_json("knocks", **server)
        return [k for k in found if k["source_address"] == address_of(camera)]

    (found,) = eventually(knocks, bool, "a knock")
    assert found["admit_by"] == "rtpfanout session update both --ssrc-policy any"
    _, *command = shlex.split(found["admit_by"])
    run(*command, **server)
    assert knocks() == []
    run("session", "rm", "both", **server)


def test_two_that_wait_for_anybody(server):
    run("session", "create", "any", "--name", "van/front", **server)
    assert " any " in run("session", "list", **server).stdout
    done = run("session", "create", "any", "--name", "van/rear", **server)
    assert done.returncode == 1
    assert "(van/front) takes other SSRCs from anybody, and waits" in done.stderr
    assert "rtpfanout knocks" in done.stderr
    again = run("session", "create", "any", "--name", "van/front", **server)
    assert "has the name 'van/front'" in again.stderr
    assert "(--if-exists return)" in again.stderr
    run("session", "rm", "van/front", **server)


def test_a_camera_that_came_too_late_for_its_latch(server, ingest, udp):
    run("session", "create", "any", "--name", "late", "--latch-window", "0.001", **server)
    camera = udp("127.0.0.5")

    def described():
        camera.sendto(rtp_packet(5, 1), ingest)
        return run("sdp", "late", "--for", "127.0.0.1:5000", "--wait", "0", **server)

    told = eventually(described, lambda done: "latching" in done.stderr, "a drop").stderr
    assert "late: none of its packets was let in, and " in told
    assert "`rtpfanout knocks`" in told
    assert "start its source" not in told
    run("session", "rm", "late", **server)


def test_mistakes(server):
    done = run("session", "create", "any", "--name", "a", "--sdp", "/dev/null", **server)
    assert done.returncode == 2
    assert "is empty" in done.stderr

    for options, text in (
        (("any", "--ssrc-policy", "exact"), "give --ssrc"),
        (("any", "--source-policy", "ip"), "--source-policy latch"),
        (("192.0.2.1:5", "--latch-scope", "ip"), "latch_scope"),
    ):
        done = run("session", "create", *options, **server)
        assert done.returncode == 2
        assert text in done.stderr
