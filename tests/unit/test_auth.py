"""What a caller may do: roles, scopes, its own, and how what is refused is told and audited."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pki import write_keys
from structlog.testing import capture_logs

from rtpfanout.api import session_pb2 as pb
from rtpfanout.auth import (
    ANYBODY,
    LOCAL,
    OPERATING,
    READING,
    SUBSCRIBING,
    Access,
    Identity,
    Keys,
    Role,
    confine,
)
from rtpfanout.errors import PermissionDeniedError, UnauthenticatedError
from rtpfanout.service.audit import STRANGERS_PER_SECOND, AuditLog


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access(keys=Keys(Path(write_keys(tmp_path / "keys"))))


def test_every_call_has_a_rule() -> None:
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["SessionService"].methods}
    assert methods == READING | SUBSCRIBING | OPERATING
    viewer, subscriber, operator, admin = (Identity("x", role) for role in Role)
    assert all(map(admin.may, [*methods, "Unheard"]))
    for identity, may in (
        (viewer, READING),
        (subscriber, READING | SUBSCRIBING),
        (operator, methods),
    ):
        assert {method for method in [*methods, "Unheard"] if identity.may(method)} == may


MINE = Identity("bob", Role.OPERATOR, (("vehicle", "a"),))


def test_lists_are_confined() -> None:
    for given_, becomes in (("", "vehicle=a"), ("vehicle=b", "vehicle=b,vehicle=a")):
        for request in (
            pb.ListSessionsRequest(),
            pb.WatchSessionsRequest(),
            pb.WatchEventsRequest(),
        ):
            request.label_selector = given_
            confine(MINE, type(request).__name__.removesuffix("Request"), request)
            assert request.label_selector == becomes


@pytest.mark.parametrize("labels", [{"vehicle": ""}, {"vehicle": "b"}, {"x": "y", "vehicle": "A"}])
def test_labels_of_the_scope_stay(labels: dict[str, str]) -> None:
    for request, method in (
        (pb.CreateSessionRequest(labels=labels), "CreateSession"),
        (pb.UpdateSessionRequest(labels=labels), "UpdateSession"),
    ):
        with pytest.raises(PermissionDeniedError):
            confine(MINE, method, request)


def test_strangers_are_nobodys_to_see_who_is_confined() -> None:
    for role in (Role.OPERATOR, Role.ADMIN):
        confine(Identity("ann", role), "ListKnocks", pb.ListKnocksRequest())
        with pytest.raises(PermissionDeniedError, match="nobody's yet"):
            confine(Identity("bob", role, MINE.scope), "ListKnocks", pb.ListKnocksRequest())


def test_what_is_created_is_ones_own() -> None:
    request = pb.CreateSessionRequest(labels={"x": "y"})
    confine(MINE, "CreateSession", request)
    assert dict(request.labels) == {"x": "y", "vehicle": "a"}


def test_request_ids_are_ones_own() -> None:
    def becomes(identity: Identity, given_: str) -> str:
        request = pb.DeleteSessionRequest(request_id=given_)
        confine(identity, "DeleteSession", request)
        return request.request_id

    other = Identity("bob", Role.OPERATOR, (("vehicle", "b"),))
    eve = Identity("eve", Role.OPERATOR, MINE.scope)
    assert len({becomes(who, "7") for who in (MINE, other, eve, ANYBODY)}) == 4
    assert becomes(MINE, "7") == becomes(MINE, "7") != becomes(MINE, "8")
    assert becomes(ANYBODY, "7") == becomes(LOCAL, "7") == "7"
    assert becomes(MINE, "") == "", "no id is none for everybody"
    assert becomes(MINE, "a b") == "a b", "and a bad one stays bad"
    assert len(becomes(MINE, "x" * 64)) <= 64


def test_a_token_expires_during_a_call(access: Access) -> None:
    access.recheck(ANYBODY)
    access.recheck(Identity("x", Role.VIEWER, (), time.time() + 5))
    with pytest.raises(UnauthenticatedError):
        access.recheck(Identity("x", Role.VIEWER, (), time.time() - 11))


def test_who_only_looks_is_not_audited() -> None:
    """Whatever role it takes."""
    with capture_logs() as lines:
        for method in ("ListKnocks", "GetSession", "RequestKeyframe"):
            AuditLog().begin(method, "ipv4:1.2.3.4:5", pb.ListKnocksRequest()).write("OK")
    assert [line["call"] for line in lines] == ["RequestKeyframe"]


def test_the_audit_of_strangers_is_bounded_and_told() -> None:
    now = 0.0
    log = AuditLog(lambda: now)
    evil = "x\n\x1b[2J" + "y" * 9999

    def call(identity: Identity | None) -> None:
        request = pb.UpdateSessionRequest(session_id=evil, move_key=b"s" * 16)
        audit = log.begin("UpdateSession", "ipv4:1.2.3.4:5", request)
        audit.identity = identity
        audit.write("UNAUTHENTICATED")

    with capture_logs() as lines:
        for _ in range(1000):
            call(None)
        assert len(lines) == STRANGERS_PER_SECOND
        call(Identity(evil, Role.OPERATOR))
        now = 0.2
        for _ in range(1000):
            call(None)
    assert len(lines) == STRANGERS_PER_SECOND + 3
    assert lines[STRANGERS_PER_SECOND]["strangers_left_out"] == 1000 - STRANGERS_PER_SECOND
    for line in lines:
        assert "ssssss" not in str(line)
        assert all(len(str(value)) <= 128 and str(value).isprintable() for value in line.values())
