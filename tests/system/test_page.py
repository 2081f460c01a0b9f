"""The page in a browser, with packets that flow: what it says, how it is used, how it looks."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import Browser
from cameras import PCMU, Camera, Cameras
from pki import token, write_keys
from support import ServerProcess, address_of, eventually, rtp_packet, udp_socket

from rtpfanout.client import SessionClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StartServer = Callable[..., ServerProcess]

AXE = Path(__file__).parent / "data/axe-core-4.14.1.min.js.gz"
PICTURES = Path(__file__).resolve().parents[2] / "docs/pictures"
"""Made anew where RTPFANOUT_PICTURES says after how many seconds of traffic."""
MOST_BYTES_OF_PICTURES = 600_000
PICTURES_AFTER = float(os.environ.get("RTPFANOUT_PICTURES", "0"))
ROWS = "document.querySelectorAll('.sessions tbody tr')"
FRONT = "rover-7/front"
SILENT = "gate/south"
FROZEN = "yard/ptz"
FRAMES = 8
"""So many make a rhythm, which may break off."""


class Scene:
    """A server with cameras of all kinds; `url` is the page's."""

    def __init__(self, server: ServerProcess, cameras: Cameras, recorder: str) -> None:
        self.server = server
        self.recorder = recorder
        self.cameras = {name: camera for (name, *_), camera in zip(SCENE, cameras.all, strict=True)}
        self.url = f"http://{server.metrics_address}/"

    def page_of(self, session: str) -> str:
        return f"{self.url}?session={session.replace('/', '%2F')}"


SCENE: list[tuple[str, dict[str, str], dict[str, Any]]] = [
    (FRONT, {"vehicle": "rover-7", "site": "north"}, {"packets": 8, "swing": 0.4}),
    (
        "rover-7/rear",
        {"vehicle": "rover-7", "site": "north"},
        {"rate": 25, "packets": 6, "swing": 0.3},
    ),
    (
        "rover-7/audio",
        {"vehicle": "rover-7", "site": "north"},
        {"rate": 50, "packets": 1, "size": 160, "payload_type": PCMU, "clock": 8000},
    ),
    (
        "rover-8/front",
        {"vehicle": "rover-8", "site": "north"},
        {"loses": 40, "packets": 8, "swing": 0.3},
    ),
    ("gate/north", {"site": "north"}, {"rate": 10, "packets": 9, "swing": 0.5}),
    (SILENT, {"site": "south"}, {"rate": 12, "packets": 6, "swing": 0.3}),
    ("crane-2/boom", {"site": "harbour"}, {"packets": 7, "swing": 0.2}),
    (FROZEN, {"site": "harbour"}, {"rate": 15, "packets": 6, "swing": 0.4}),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


pytestmark = pytest.mark.timeout(120 + PICTURES_AFTER)


@pytest.fixture(autouse=True)
def nothing_to_complain_of(browser: Browser) -> Iterator[None]:
    """No error of a script, no file that is missing, nothing that the policy refused."""
    browser.complaints.clear()
    browser.prefer(prefers_color_scheme="light")
    yield
    assert browser.complaints == []
    browser.goto("about:blank")


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    server = ServerProcess()
    sockets = [udp_socket(receive_buffer=1 << 16) for _ in range(4)]
    try:
        with (
            Cameras([Camera(n, **kind) for n, (_, _, kind) in enumerate(SCENE, 1)]) as cameras,
            SessionClient(str(server.grpc)) as client,
        ):
            for (name, labels, _), camera in zip(SCENE, cameras.all, strict=True):
                client.create_session(
                    camera.address,
                    ssrc=camera.ssrc,
                    media_type="audio" if name.endswith("audio") else "video",
                    name=name,
                    labels=labels,
                )
                for socket in sockets[1 : 2 + camera.ssrc % 3]:
                    client.add_subscriber(name, address_of(socket))
            client.create_session("127.0.0.1:9", ssrc=99, media_type="video", name="dock/drone")
            client.add_subscriber(
                FRONT,
                address_of(sockets[0]),
                ttl_secs=3600,
                subscriber_class="recorder",
                rtcp="mux",
            )
            cameras.start(server.ingest_target)
            found = Scene(server, cameras, address_of(sockets[0]))
            for name in (FRONT, SILENT, FROZEN):
                eventually(
                    lambda name=name: client.get_session_stats(name).reception.frames,
                    lambda frames: frames > FRAMES,
                    f"frames of {name}",
                )
            time.sleep(PICTURES_AFTER)
            found.cameras[SILENT].silent = True
            found.cameras[FROZEN].frozen = True
            yield found
    finally:
        for socket in sockets:
            socket.close()
        server.stop()


def serious(browser: Browser) -> list[str]:
    """What axe-core finds."""
    browser.run(gzip.decompress(AXE.read_bytes()).decode() + "; 0")
    found = browser.run("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['impact']} {each['id']}: {node['html']} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
    ]


def test_the_table_has_all_sessions_and_trouble_first(browser: Browser, scene: Scene) -> None:
    browser.goto(scene.url)
    browser.wait(f"{ROWS}.length === {len(SCENE) + 1}")
    browser.wait(f"{ROWS}[0].innerText.includes('Frozen')")
    browser.wait(f"{ROWS}[1].innerText.includes('Silent')")
    assert browser.text("tbody tr:first-child th a") == FROZEN
    browser.wait("document.querySelector('.figures').innerText.includes('Need attention\\n2')")
    browser.wait("document.getElementById('live').innerText === 'Live'")
    browser.wait("[...document.querySelectorAll('.spark .line')].every((l) => l.getAttribute('d'))")


def test_its_numbers_are_those_of_the_session(browser: Browser, scene: Scene) -> None:
    """Of a camera that does not send any more they stand still; of one that does they are near."""
    with SessionClient(str(scene.server.grpc)) as client:
        silent = client.get_session(SILENT).session_id
        front = client.get_session(FRONT).session_id
    browser.goto(scene.page_of(SILENT))
    stats = scene.server.stats(silent)
    for name, value in (
        ("Packets received", f"{stats.packets_received:,}"),
        ("Copies sent", f"{stats.packets_sent:,}"),
        ("Packets lost", f"0 of {stats.reception.expected:,} (0.00 %)"),
        ("Copies failed", "0"),
        ("Id", silent),
    ):
        browser.wait(f"document.querySelector('[data-name=\"{name}\"]')?.innerText === '{value}'")
    browser.wait("document.querySelector('.headline').innerText.includes('Silent')")
    browser.wait("document.querySelector('.advice').innerText.includes('camera')")

    browser.goto(scene.page_of(FRONT))
    said = "Number(document.querySelector('.figures dd span').innerText)"
    browser.wait(f"{said} > 0")
    shown, told = browser.run(said), scene.server.stats(front).reception.bitrate_bps / 1e6
    assert shown == pytest.approx(told, rel=0.5)


def test_a_session_has_plots_and_subscribers(browser: Browser, scene: Scene) -> None:
    browser.goto(scene.page_of(FRONT))
    browser.wait("document.querySelectorAll('.plot canvas').length === 4")
    browser.wait("document.querySelectorAll('.bars i').length > 2")
    table = "document.querySelector('.session table')"
    browser.wait(f"{table}.innerText.includes('{scene.recorder}')")
    assert "recorder" in browser.text(".session tbody")
    assert "rtpfanout subscriber add rover-7/front 127.0.0.1:6000 --sdp" in browser.text(".players")
    assert browser.run("document.title") == f"{FRONT} · rtpfanout"


def test_events_and_knocks_have_views_of_their_own(browser: Browser, scene: Scene) -> None:
    browser.goto(scene.url)
    browser.wait("document.querySelectorAll('#views a').length === 3")
    browser.wait("!document.querySelector('#views a:last-child').hidden")
    browser.click("#views a:nth-child(2)")
    browser.wait("document.querySelectorAll('.event').length >= 10")
    browser.wait("document.querySelector('.list').innerText.includes('Frozen')")
    assert browser.run("document.querySelector('[aria-current]').innerText") == "Events"
    assert serious(browser) == []
    with SessionClient(str(scene.server.grpc)) as client:
        client.update_session("dock/drone", paused=True)
    browser.wait("document.querySelector('.list').innerText.includes('Paused')")
    with SessionClient(str(scene.server.grpc)) as client:
        client.update_session("dock/drone", paused=False)
    browser.click("#views a:last-child")
    browser.wait("document.querySelector('.empty')?.innerText.includes('Nobody knocks')")
    with udp_socket() as stranger:
        stranger.sendto(rtp_packet(0x1234, 1), scene.server.ingest_target)
        # It may be the silent one, at the same address.
        told = f"rtpfanout session update {SILENT} --source {address_of(stranger)}"
        browser.wait(f"document.querySelector('.knock code').innerText.startsWith('{told}')")
    browser.wait("document.querySelector('.badge').innerText === '1'")
    assert serious(browser) == []


@pytest.mark.lent_servers(False)
def test_beyond_this_host_a_token_is_asked_for(
    browser: Browser, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(
        auth__jwt_keys=write_keys(tmp_path / "keys.json"), metrics_bind_address="0.0.0.0:0"
    )
    assert server.metrics_address
    browser.goto(f"http://127.0.0.1:{server.metrics_address.port}/")
    browser.wait("document.activeElement.id === 'token'")
    assert "a bearer token is needed" in browser.text(".login")
    assert serious(browser) == []
    browser.type("wrong")
    browser.press("Enter")
    browser.wait("document.querySelector('.login')?.innerText.includes('JWT')")
    browser.wait("document.querySelector('.login .bad').innerText.includes('not a JWT')")
    browser.type(token(role="viewer"))
    browser.press("Enter")
    browser.wait("document.querySelector('.empty h2')?.innerText === 'No session yet'")
    assert browser.run("document.querySelector('#views a:last-child').hidden"), "no operator"
    browser.goto(f"http://127.0.0.1:{server.metrics_address.port}/?view=events")
    browser.wait("document.querySelector('.list').innerText.includes('Started')")
    browser.goto("about:blank")
    assert all("401" in each for each in browser.complaints)
    browser.complaints.clear()
    server.stop()


@pytest.mark.lent_servers(False)
def test_where_there_is_an_rtsp_door_players_get_its_url(
    browser: Browser, start_server: StartServer
) -> None:
    server = start_server(rtsp_bind_address="127.0.0.1:0")
    with SessionClient(str(server.grpc)) as client:
        client.create_session("127.0.0.1:9", ssrc=9, media_type="video", name="a/b-c")
    door = server.logged("ready")["rtsp_bind_address"]
    browser.goto(f"http://{server.metrics_address}/?session=a%2Fb-c")
    browser.wait(
        f"document.querySelector('.players')?.innerText.includes('ffplay rtsp://{door}/a/b-c')"
    )
    browser.wait(
        f"document.querySelector('.players').innerText.includes('vlc rtsp://{door}/a/b-c')"
    )


def test_a_session_that_has_gone_is_told(browser: Browser, scene: Scene) -> None:
    browser.goto(scene.page_of("no/such"))
    browser.wait("document.querySelector('.advice').innerText.includes('no/such')")
    browser.goto("about:blank")
    assert all(each.startswith("Failed to load resource") for each in browser.complaints)
    browser.complaints.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("session", ["", FRONT])
def test_it_can_be_used_by_everybody(
    browser: Browser, scene: Scene, session: str, scheme: str
) -> None:
    browser.prefer(prefers_color_scheme=scheme)
    browser.goto(scene.page_of(session) if session else scene.url)
    browser.wait("document.querySelectorAll('tbody tr').length > 1")
    assert serious(browser) == []


def focus(browser: Browser) -> str:
    return str(browser.run("document.activeElement.innerText || document.activeElement.id"))


def test_it_can_be_walked_by_keyboard(browser: Browser, scene: Scene) -> None:
    browser.goto(scene.url)
    browser.wait(f"{ROWS}.length > 1")
    seen = []
    for _ in range(40):
        browser.press("Tab")
        seen.append(focus(browser))
        if seen[-1] == FRONT:
            break
    assert seen[:4] == ["Skip to content", "rtpfanout", "Sessions", "Events"]
    assert "q" in seen
    assert any(word.startswith("Attention") for word in seen)
    assert any(word.startswith("Bitrate") for word in seen)
    assert seen[-1] == FRONT
    visible = browser.run("getComputedStyle(document.activeElement).outlineStyle")
    assert visible == "solid"
    browser.press("Enter")
    browser.wait("document.querySelector('.session')")
    assert focus(browser) == FRONT, "who opens it begins at its title"
    browser.run("history.back()")
    browser.wait(f"{ROWS}.length > 1")


def test_what_is_chosen_is_found_sorted_and_linked(browser: Browser, scene: Scene) -> None:
    browser.goto(scene.url)
    browser.wait(f"{ROWS}.length > 1")
    browser.run("document.getElementById('q').focus()")
    browser.type("vehicle=rover-7")
    browser.wait(f"{ROWS}.length === 3")
    browser.wait("document.getElementById('said').innerText.startsWith('3 sessions')")
    browser.click("thead th:nth-child(8) button")
    browser.wait("document.querySelector('th[aria-sort=descending]').innerText === 'Subscribers'")
    browser.wait(f"{ROWS}[0].innerText.includes('{FRONT}')")
    link = browser.run("location.search")
    assert link == "?q=vehicle%3Drover-7&sort=subscribers&descending=1"
    browser.goto(scene.url + link)
    browser.wait(f"{ROWS}.length === 3")
    browser.click(".choice button:nth-child(4)")
    browser.wait("document.querySelector('.empty').innerText.includes('No session matches')")
    browser.click(".empty button")
    browser.wait(f"{ROWS}.length === {len(SCENE) + 1}")


@pytest.mark.lent_servers(False)
def test_who_has_no_session_is_told_the_next_command_and_who_has_no_server_that(
    browser: Browser, start_server: StartServer
) -> None:
    server = start_server()
    browser.goto(f"http://{server.metrics_address}/")
    browser.wait("document.querySelector('.empty h2')")
    assert "rtpfanout session create any" in browser.text(".empty")
    assert str(server.ingest) in browser.text(".empty")
    assert serious(browser) == []
    picture(browser, "empty", height=520)
    server.stop()
    browser.wait("!document.getElementById('gone').hidden")
    assert "has not answered since" in browser.text("#gone")
    browser.goto("about:blank")
    browser.complaints.clear()


def picture(browser: Browser, name: str, height: int) -> None:
    """For the docs, where they are to be made anew."""
    if PICTURES_AFTER:
        browser.resize(1360, height)
        browser.screenshot(PICTURES / f"page-{name}.png")
        browser.resize(1360, 900)


def test_pictures_of_the_docs_are_there_and_small() -> None:
    pictures = list(PICTURES.glob("page-*.png"))
    assert {path.stem for path in pictures} == {
        "page-light", "page-dark", "page-session", "page-empty",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in pictures) <= MOST_BYTES_OF_PICTURES


def test_pictures_are_made(browser: Browser, scene: Scene) -> None:
    for scheme in ("light", "dark"):
        browser.prefer(prefers_color_scheme=scheme)
        browser.goto(scene.url)
        browser.wait("document.querySelector('.sessions').innerText.match(/Frozen.*Silent/s)")
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert json.loads(f"[{ground[4:-1]}]")[0] == {"light": 247, "dark": 18}[scheme]
        picture(browser, scheme, height=800)
    browser.prefer(prefers_color_scheme="light")
    browser.goto(scene.page_of(FRONT))
    browser.wait("document.querySelectorAll('.plot canvas').length === 4")
    browser.wait("document.querySelectorAll('.session tbody tr').length > 1")
    picture(browser, "session", height=1480)
