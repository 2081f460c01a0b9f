"""Sources and labels as they are spelled: which are the same, which are plain, which are none."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managers import SOURCE

from rtpfanout.errors import AlreadyExistsError, InvalidArgumentError, RtpFanoutError
from rtpfanout.model import Address, IPAddress, SourcePolicy
from rtpfanout.policy import AddressPolicy
from rtpfanout.sessions.source import EXACT_PREFIX, plain_source, read_source
from rtpfanout.store import StoredSource

if TYPE_CHECKING:
    from rtpfanout.sessions import SessionManager


@pytest.mark.parametrize(
    ("policy", "text", "canonical"),
    [
        ("", "[::ffff:192.0.2.1]:5000", "192.0.2.1:5000"),
        ("exact", SOURCE, SOURCE),
        ("ip", "192.0.2.1", "192.0.2.1"),
        ("ip", "::ffff:192.0.2.1", "192.0.2.1"),
        ("ip", "2001:DB8::1", "2001:db8::1"),
        ("ip", "fe80::1%2", "fe80::1%2"),
        ("cidr", "192.0.2.0/24", "192.0.2.0/24"),
        ("cidr", "::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("cidr", "0.0.0.0/0", "0.0.0.0/0"),
        ("latch", "", ""),
        ("latch", "192.0.2.0/24", "192.0.2.0/24"),
        ("latch", "2001:db8::7", "2001:db8::7"),
    ],
)
def test_sources_in_their_canonical_spelling(
    manager: SessionManager, policy: str, text: str, canonical: str
) -> None:
    view = manager.create(text, 1, "video", source_policy=policy)
    assert view.source_address == canonical
    assert view.terms.source.policy == (policy or "exact")
    assert view.terms.source.latch_window_secs == (60 if policy == "latch" else 0)
    with pytest.raises(AlreadyExistsError):
        manager.create(canonical, 1, "audio", source_policy=policy)
    manager.delete(view.session_id)
    manager.create(canonical, 1, "audio", source_policy=policy)


POLICY = AddressPolicy(
    ingress=Address.parse("192.0.2.1:5004"),
    sends_ipv4=True,
    sends_ipv6=True,
    allow=(),
    deny=(),
    loopback_allowed=True,
    is_local=lambda _ip: False,
)


def stored(policy: str, text: str, pinned: str = "", relatch: float = 0.0) -> StoredSource:
    return StoredSource(1, 7, policy, text, pinned, relatch, 0, 0, "")


@given(st.ip_addresses(), st.integers(1, 65535), st.integers(0, 128), st.sampled_from(SourcePolicy))
def test_a_plain_source_is_what_a_look_at_all_of_it_finds(
    ip: IPAddress, port: int, prefix: int, kind: SourcePolicy
) -> None:
    network = ipaddress.ip_network((ip, min(prefix, ip.max_prefixlen)), strict=False)
    text = {
        SourcePolicy.EXACT: str(Address(ip, port)),
        SourcePolicy.IP: str(ip),
        SourcePolicy.CIDR: str(network),
        SourcePolicy.LATCH: str(network),
    }[kind]
    pinned = Address(ip, port) if kind is SourcePolicy.LATCH else None
    try:
        source = read_source(kind, text, 0.0, 0.0, POLICY)
    except RtpFanoutError:  # then what is found does not stay
        return
    found = plain_source(stored(kind, source.text, str(pinned) if pinned else ""))
    feeder = source.address or pinned
    if feeder is not None:
        assert found == (feeder.record, EXACT_PREFIX)
    else:
        assert source.prefix is not None
        assert source.base is not None
        assert source.network is not None
        offset = 96 if source.network.version == 4 else 0
        assert found == (source.base.record, offset + source.prefix)


@pytest.mark.parametrize(
    "row",
    [
        stored("exact", text)
        for text in (
            "",
            "x",
            "1.2.3.4",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "1.2.3.4:" + "9" * 5000,
            "1.2.3:7",
            "[fe80::1%2]:7",
        )
    ]
    + [stored("exact", "1.2.3.4:\u0665"), stored("exact", "1.2.3.4\0:5")]
    + [stored("ip", text) for text in ("", "1.2.3.4:5", "fe80::1%2")]
    + [stored("cidr", text) for text in ("1.2.3.4", "1.2.3.0/33", "::/129", "1.2.3.0/x", "/8")]
    + [stored("latch", ""), stored("latch", "10.0.0.0/8"), stored("other", "1.2.3.4:5")]
    + [stored("latch", "", "1.2.3.4:5", 1.0), stored("exact", "1.2.3.4:5", "1.2.3.4:5")],
)
def test_what_needs_a_closer_look_is_not_plain(row: StoredSource) -> None:
    assert plain_source(row) is None


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ("exact", "192.0.2.1"),
        ("exact", ""),
        ("ip", SOURCE),
        ("ip", ""),
        ("ip", "192.0.2.0/24"),
        ("ip", "224.0.0.1"),
        ("ip", "0.0.0.0"),
        ("ip", "::ffff:255.255.255.255"),
        ("cidr", "192.0.2.1"),
        ("cidr", "192.0.2.1/24"),
        ("cidr", "224.0.0.0/8"),
        ("cidr", "fe80::%2/64"),
        ("cidr", "ff02::/16"),
        ("latch", SOURCE),
        ("latch", "x"),
    ],
)
def test_sources_that_are_none(manager: SessionManager, policy: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        manager.create(text, 1, "video", source_policy=policy)
    assert error.value.field == "source_address"
    assert manager.active_sessions == 0


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("source_policy", {"source_policy": "any"}),
        ("latch_window_secs", {"latch_window_secs": 5.0}),
        ("relatch_after_secs", {"relatch_after_secs": 5.0}),
        ("ingest_limit_bps", {"ingest_limit_bps": 2**63}),
        ("max_subscribers", {"max_subscribers": -1}),
        ("consent", {"consent": "yes"}),
        ("move_key", {"move_key": b"short"}),
        ("labels", {"labels": {"a b": "c"}}),
        ("labels", {"labels": {"a": "ü"}}),
        ("labels", {"labels": {"a": ""}}),
        ("labels", {"labels": {str(n): "x" for n in range(17)}}),
        ("request_id", {"request_id": "x" * 65}),
        ("request_id", {"request_id": "with space"}),
    ],
)
def test_a_bad_field_is_named(
    manager: SessionManager, field: str, values: dict[str, object]
) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        manager.create(SOURCE, 1, "video", **values)  # type: ignore[arg-type]
    assert error.value.field == field
    assert manager.active_sessions == 0


def test_labels_select(manager: SessionManager) -> None:
    ids = [
        manager.create(
            SOURCE, n, "video", labels={"vehicle": f"rover-{n % 2}", "n": str(n)}
        ).session_id
        for n in range(5)
    ]
    assert manager.get(ids[1]).labels == {"vehicle": "rover-1", "n": "1"}

    def selected(selector: str, limit: int = 0) -> list[str]:
        found, cursor = manager.list_page(limit, "", selector)
        while cursor:
            more, cursor = manager.list_page(limit, cursor, selector)
            found += more
        return [view.session_id for view in found]

    assert selected("") == ids
    assert selected("vehicle=rover-0") == ids[::2]
    assert selected("vehicle=rover-0", 1) == ids[::2]
    assert selected("vehicle=rover-1,n=3") == [ids[3]]
    assert selected("vehicle=rover-1,vehicle=rover-0") == []
    for wrong in ("x", "a=b,", "=b", "a=", "a=b c"):
        with pytest.raises(InvalidArgumentError) as error:
            manager.list_page(0, "", wrong)
        assert error.value.field == "label_selector"
