"""RTP packets of the tools: what is built is what is parsed, and nothing else is RTP."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.traffic import rtp


def test_fixed_header_is_laid_out_as_in_rfc_3550():
    packet = rtp.build(
        b"pay", ssrc=0x01020304, sequence=0x0506, timestamp=0x0708090A, payload_type=97, marker=True
    )
    assert packet == bytes.fromhex("80e105060708090a01020304") + b"pay"


def test_csrcs_extension_and_padding_are_laid_out_as_in_rfc_3550():
    packet = rtp.build(
        b"pay!",
        ssrc=1,
        sequence=2,
        timestamp=3,
        csrcs=(0xA, 0xB),
        extension=(0xBEDE, b"\x10\x20\x30\x40"),
        padding=4,
    )
    assert packet == bytes.fromhex(
        "b2600002" "00000003" "00000001"  # V=2 P X CC=2
        "0000000a" "0000000b"
        "bede0001" "10203040"
    ) + b"pay!" + b"\x00\x00\x00\x04"  # fmt: skip


@given(
    payload=st.binary(max_size=64),
    ssrc=st.integers(0, 2**32 - 1),
    sequence=st.integers(0, 2**16 - 1),
    timestamp=st.integers(0, 2**32 - 1),
    payload_type=st.integers(0, 63) | st.integers(96, 127),
    marker=st.booleans(),
    csrcs=st.lists(st.integers(0, 2**32 - 1), max_size=15).map(tuple),
    extension=st.none()
    | st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 5).map(lambda n: bytes(range(4 * n)))),
    padding=st.integers(0, 255),
)
def test_parse_gives_back_what_was_built(payload, padding, **fields):
    packet = rtp.parse(rtp.build(payload, padding=padding, **fields))
    assert packet == rtp.RtpPacket(payload=payload, padding=padding, **fields)


def test_sequence_and_timestamp_wrap():
    packet = rtp.parse(rtp.build(b"", ssrc=1, sequence=0x1_0002, timestamp=0x1_0000_0003))
    assert (packet.sequence, packet.timestamp) == (2, 3)


GOOD = rtp.build(b"x" * 20, ssrc=1, sequence=2, timestamp=3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "less than"),
        (GOOD[:11], "less than"),
        (b"\x40" + GOOD[1:], "version 1"),
        (GOOD[:1] + b"\xc8" + GOOD[2:], "RTCP packet of type 200"),
        (b"\x8f" + GOOD[1:], "CSRC"),
        (b"\x90" + GOOD[1:12], "extension"),
        (b"\x90" + GOOD[1:12] + b"\xbe\xde\x00\x02\x00\x00\x00\x00", "extension"),
        (b"\xa0" + GOOD[1:12], "padding count"),
        (b"\xa0" + GOOD[1:-1] + b"\x00", "padding count 0"),
        (b"\xa0" + GOOD[1:-1] + b"\x15", "padding count 21"),
    ],
)
def test_what_is_not_rtp_is_refused_with_the_reason(data, reason):
    with pytest.raises(ValueError, match=reason):
        rtp.parse(data)


@pytest.mark.parametrize("payload_type", range(64, 96))
def test_payload_types_in_the_range_of_rtcp_are_rtp_where_one_is_not_strict(payload_type):
    """With the marker their second byte is that of an RTCP packet (RFC 5761 section 4)."""
    for sequence in range(3000):
        data = rtp.build(
            b"x" * 100, ssrc=1, sequence=sequence, timestamp=0, payload_type=payload_type,
            marker=True,
        )  # fmt: skip
        packet = rtp.parse(data, strict=False)
        assert (packet.payload_type, packet.marker) == (payload_type, True)
        with pytest.raises(ValueError, match=f"RTCP packet of type {payload_type + 128}"):
            rtp.parse(data)


SENDER = b"\x00\x00\x00\x09"
RTCP = {
    "sender report": b"\x80\xc8\x00\x06" + SENDER + bytes(20),
    "receiver report": b"\x81\xc9\x00\x07" + SENDER + bytes(24),
    "compound": b"\x80\xc9\x00\x01" + SENDER + b"\x81\xca\x00\x02" + SENDER + b"\1\0\0\0",
    "description": b"\x81\xca\x00\x02" + SENDER + b"\1\0\0\0",
    "goodbye": b"\x81\xcb\x00\x01" + SENDER,
    "application": b"\x80\xcc\x00\x03" + SENDER + b"test" + bytes(4),
    "picture loss": b"\x81\xce\x00\x02" + SENDER + bytes(4),
    "lost packets": b"\x81\xcd\x00\x03" + SENDER + bytes(8),
    "extended report": b"\x80\xcf\x00\x04" + SENDER + b"\4\0\0\2" + bytes(8),
    "encrypted": b"\x80\xc8\x00\x06" + SENDER + bytes(20) + b"\x81\0\0\0\x01" + bytes(9),
}


@pytest.mark.parametrize("data", RTCP.values(), ids=RTCP.keys())
def test_rtcp_is_told_from_rtp_all_the_same(data):
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"RTCP packet|less than"):
            rtp.parse(data, strict=strict)


@pytest.mark.parametrize("count", [0, 21, 255])
def test_an_encrypted_padding_count_is_no_reason_to_refuse(count):
    data = b"\xa0" + GOOD[1:-1] + bytes([count])
    packet = rtp.parse(data, strict=False)
    assert (packet.padding, packet.payload) == (0, data[12:])


@given(st.binary(max_size=100))
def test_who_is_not_strict_takes_more(data):
    try:
        packet = rtp.parse(data)
    except ValueError:
        return
    assert rtp.parse(data, strict=False) == packet


@given(st.binary(max_size=100))
def test_any_bytes_parse_or_raise_value_error(data):
    try:
        packet = rtp.parse(data)
    except ValueError:
        return
    assert len(packet.payload) <= len(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"payload_type": 128},
        {"csrcs": (0,) * 16},
        {"padding": 256},
        {"extension": (1, b"abc")},
    ],
)
def test_what_rtp_has_no_room_for_is_not_built(fields):
    with pytest.raises(ValueError, match=r"\w"):
        rtp.build(b"", ssrc=1, sequence=1, timestamp=1, **fields)


def test_stamp_is_read_back_and_foreign_payloads_have_none():
    stamp = rtp.Stamp(sent_ns=1_700_000_000_123_456_789, index=7)
    assert rtp.read_stamp(rtp.pack_stamp(stamp) + b"rest") == stamp
    assert rtp.read_stamp(rtp.pack_stamp(stamp)[:-1]) is None
    assert rtp.read_stamp(bytes(100)) is None
