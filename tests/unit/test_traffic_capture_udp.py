"""UDP payloads out of frames: fragments in any order, and bytes that are anything."""

import random

import pytest
from captures import ethernet, ip4, ip6, udp
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.traffic.capture_udp import UdpPayloads

ETHERNET = 1
PAYLOAD = random.Random(1).randbytes(4000)


def fragments(build, payload=PAYLOAD, size=1480, number=1):
    """The frames of a datagram in pieces of `size` bytes."""
    data = udp(payload)
    return [
        ethernet(build(data[at : at + size], number=number, offset=at, more=at + size < len(data)))
        for at in range(0, len(data), size)
    ]


def taken(frames):
    payloads = UdpPayloads()
    answers = [payloads.take(ETHERNET, frame) for frame in frames]
    return [payload for payload, _ in answers if payload is not None], payloads.fragments_left


@pytest.mark.parametrize("build", [ip4, ip6])
@given(size=st.integers(1, 200).map(lambda n: 8 * n), seed=st.integers(0, 2**32))
def test_fragments_become_what_they_were_in_any_order(build, size, seed):
    frames = fragments(build, size=size)
    random.Random(seed).shuffle(frames)
    assert taken(frames) == ([PAYLOAD], 0)


@pytest.mark.parametrize("build", [ip4, ip6])
def test_one_that_is_missing_leaves_the_others(build):
    frames = fragments(build)
    assert len(frames) == 3
    for missing in range(3):
        assert taken(frames[:missing] + frames[missing + 1 :]) == ([], 2)


def test_one_that_comes_twice_changes_nothing():
    frames = fragments(ip4)
    assert taken([frames[0], frames[0], *frames[1:]]) == ([PAYLOAD], 0)


def test_datagrams_in_turns_are_kept_apart():
    other = bytes(reversed(PAYLOAD))
    pairs = zip(fragments(ip4), fragments(ip4, other, number=2), strict=True)
    assert taken([frame for pair in pairs for frame in pair]) == ([PAYLOAD, other], 0)


def test_an_identification_that_is_used_anew_is_another_datagram():
    lost_its_end = fragments(ip4, bytes(reversed(PAYLOAD)))[:2]
    assert taken([*lost_its_end, *fragments(ip4)]) == ([PAYLOAD], 2)


def test_no_more_than_so_many_wait():
    firsts = [fragments(ip4, number=number)[0] for number in range(1000)]
    assert taken(firsts) == ([], 1000)
    assert taken([*firsts, *fragments(ip4, number=999)[1:]]) == ([PAYLOAD], 999)


def test_fragments_that_the_capture_has_cut_off_make_nothing_whole():
    frames = fragments(ip4)
    assert taken([frames[0], frames[1][:-1], frames[2]]) == ([], 2)


def test_link_types_that_nobody_knows_are_told():
    payloads = UdpPayloads()
    assert payloads.take(9, b"abc") == (None, False)
    assert payloads.unknown_link_types == {9}


@given(st.sampled_from([0, 1, 101, 113, 276]), st.binary(max_size=120))
def test_any_bytes_are_a_payload_or_none(link_type, frame):
    payload, _ = UdpPayloads().take(link_type, frame)
    assert payload is None or payload in frame


@given(st.data())
def test_a_frame_with_other_bytes_in_it_is_a_payload_or_none(data):
    frames = fragments(data.draw(st.sampled_from([ip4, ip6])))
    payloads = UdpPayloads()
    for frame in frames:
        changed = bytearray(frame)
        for _ in range(data.draw(st.integers(0, 3))):
            changed[data.draw(st.integers(0, 80))] = data.draw(st.integers(0, 255))
        payloads.take(ETHERNET, bytes(changed))
    assert payloads.fragments_left <= len(frames)
