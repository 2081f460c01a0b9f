"""Tokens, keys, certificate names, roles and scopes, as their worst users would have them."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from pki import SECRET, Authority, token, write_keys
from structlog.testing import capture_logs

from rtpfanout.api import session_pb2 as pb
from rtpfanout.auth import (
    ANYBODY,
    LOCAL,
    OPERATING,
    READING,
    SUBSCRIBING,
    Access,
    Caller,
    Identity,
    Keys,
    Role,
    certificate_roles,
    confine,
    keys,
)
from rtpfanout.auth.keys import read_keys
from rtpfanout.errors import ConfigError, PermissionDeniedError, UnauthenticatedError
from rtpfanout.service.audit import STRANGERS_PER_SECOND, AuditLog
from rtpfanout.service.tls import Files

if TYPE_CHECKING:
    from pathlib import Path

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()


def pem_of(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def secret_entry(secret: bytes = SECRET, **more: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": base64url(secret)} | more


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access(keys=Keys(_path(write_keys(tmp_path / "keys"))))


def _path(text: str) -> Path:
    from pathlib import Path

    return Path(text)


def shown(access: Access, text: str) -> Identity:
    return access.identify(Caller("ipv4:127.0.0.1:1", f"Bearer {text}"))


def refused(access: Access, caller: Caller) -> str:
    """The reason that was counted."""
    before = access.failures.copy()
    with pytest.raises(UnauthenticatedError):
        access.identify(caller)
    (reason,) = access.failures - before
    return reason


def test_a_good_token(access: Access) -> None:
    exp = time.time() + 60
    labels = {"vehicle": "rover-7", "site": "north"}
    found = shown(access, token(role="subscriber", labels=labels, sub="bob", exp=exp))
    scope = (("site", "north"), ("vehicle", "rover-7"))
    assert found == Identity("bob", Role.SUBSCRIBER, scope, exp)
    assert not +access.failures


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"role": role}, "claims")
        for role in ("Admin", "ADMIN", "root", "", None, 1, True, ["admin"], {"admin": 1}, " admin")
    ]
    + [
        ({"role": "admin", "labels": labels}, "claims")
        for labels in (
            None,
            [],
            "vehicle=a",
            {"vehicle": ""},
            {"": "a"},
            {"vehicle": 7},
            {"vehicle": None},
            {"vehicle": ["a"]},
            {"vehicle": "a,site=b"},
            {"vehicle=a,site": "b"},
            {"vehicle": "a b"},
            {"vehicle": "a\n"},
            {"vehicle": "ä"},
            {"vehicle": "x" * 64},
        )
    ]
    + [
        ({"role": "admin"} | claims, reason)
        for claims, reason in (
            ({"exp": None}, "claims"),
            ({"exp": "soon"}, "claims"),
            ({"exp": "99999999999"}, "claims"),
            ({"exp": True}, "expired"),
            ({"exp": [9e12]}, "claims"),
            ({"exp": float("inf")}, "claims"),
            ({"exp": float("nan")}, "claims"),
            ({"exp": time.time() - 60}, "expired"),
            ({"nbf": time.time() + 86_400}, "claims"),
            ({"nbf": float("inf")}, "claims"),
            ({"aud": "somebody else"}, "claims"),
            ({"sub": 7}, "claims"),
        )
    ],
)
def test_claims_that_are_no_good(access: Access, claims: Any, reason: str) -> None:
    if "sub" in claims:
        payload = json.dumps({"exp": time.time() + 60} | claims).encode()
        text = jwt.PyJWS().encode(payload, SECRET, "HS256")
    else:
        text = token(**claims)
    assert refused(access, Caller("", f"Bearer {text}")) == reason


def test_issuer_and_audience(tmp_path: Path) -> None:
    found = Keys(_path(write_keys(tmp_path / "keys")))
    access = Access(keys=found, issuer="us", audience="here")
    assert shown(access, token(role="viewer", iss="us", aud="here"))
    assert shown(access, token(role="viewer", iss="us", aud=["there", "here"]))
    for wrong in (
        {},
        {"iss": "us"},
        {"aud": "here"},
        {"iss": "them", "aud": "here"},
        {"iss": "us", "aud": "there"},
        {"iss": "us", "aud": {"here": 1}},
        {"iss": "us", "aud": [["here"]]},
        {"iss": "u", "aud": "here"},
    ):
        text = token(role="viewer", **wrong)
        assert refused(access, Caller("", f"Bearer {text}")) == "claims", wrong


def forged(header: Any, payload: Any, signature: bytes = b"") -> str:
    parts = (
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    )
    return ".".join(map(base64url, (*parts, signature)))


GOOD = {"role": "admin", "exp": 1 << 40}  # the same in each process that runs tests


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (forged({"alg": "none"}, GOOD), "signature"),
        (forged({"alg": "None", "typ": "JWT"}, GOOD), "signature"),
        (forged({"alg": ["HS256"]}, GOOD), "signature"),
        (forged({"alg": "HS256"}, GOOD), "signature"),
        (forged({"alg": "HS256", "kid": "two"}, GOOD), "signature"),
        (forged({"alg": "HS256", "kid": ["one"]}, GOOD), "malformed"),
        (forged({"alg": "HS256", "kid": "../../dev/null"}, GOOD), "signature"),
        (forged({"alg": "HS256", "crit": ["x"], "x": 1}, GOOD), "malformed"),
        (forged({"alg": "HS256", "jwk": secret_entry(b"x" * 32)}, GOOD), "signature"),
        (forged(b"[" * 3000, GOOD), "malformed"),
        (forged(b'{"a":' * 1000, GOOD), "malformed"),
        (forged([], GOOD), "malformed"),
        (jwt.encode(GOOD, "x" * 32, "HS256"), "signature"),
        (jwt.encode(GOOD, SECRET * 2, "HS512"), "signature"),
        (jwt.encode(GOOD, SECRET, "HS256", headers={"kid": "two"}), "signature"),
        ("x" * 8193, "malformed"),
        ("a.b.c", "malformed"),
        ("....", "malformed"),
        ("é.é.é", "malformed"),
    ],
)
def test_tokens_of_others(access: Access, text: str, reason: str) -> None:
    assert refused(access, Caller("", f"Bearer {text}")) == reason


@given(st.text(max_size=200))
def test_no_text_is_an_identity(text: str) -> None:
    access = Access(keys=_KEYS)
    with pytest.raises(UnauthenticatedError):
        access.identify(Caller("ipv4:1.2.3.4:5", text))


class _Fixed(Keys):
    def __init__(self, data: bytes) -> None:
        self._keys = read_keys(data)
        self._looked_at = float("inf")


_KEYS = _Fixed(json.dumps(secret_entry()).encode())


def test_a_public_key_is_no_secret() -> None:
    """The oldest trick: HS256 with the bytes of the public key."""
    pem = pem_of(RSA)
    access = Access(keys=_Fixed(pem))
    signed = forged({"alg": "HS256"}, GOOD).rpartition(".")[0]
    for secret in (pem, pem.strip(), pem.replace(b"\n", b"\r\n")):
        mac = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), secret)
        assert refused(access, Caller("", f"Bearer {signed}.{base64url(mac)}")) == "signature"


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (P256, "ES256"), (ED25519, "EdDSA")]
)
def test_each_kind_of_public_key(key: Any, algorithm: str) -> None:
    together = pem_of(RSA) + b"\n" + pem_of(P256) + pem_of(ED25519)
    entry = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key())
    jwks = json.dumps({"keys": [secret_entry(), json.loads(entry) | {"kid": "mine"}]}).encode()
    for data in (together, pem_of(key), jwks):
        access = Access(keys=_Fixed(data))
        text = jwt.encode(GOOD, key, algorithm)
        assert shown(access, text).role is Role.ADMIN
        head, _, signature = text.rpartition(".")
        other = ("A" if signature[0] != "A" else "B") + signature[1:]
        assert refused(access, Caller("", f"Bearer {head}.{other}")) == "signature"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no key for any"),
        (b'{"keys": []}', "no key for any"),
        (b'{"keys": {}}', "not a list"),
        (b'{"keys": [1]}', "not a list"),
        (b'{"keys": [', "Expecting"),
        (b'{"keys": [{"kty": "LATTICE"}]}', "no key for any"),
        (json.dumps(secret_entry(use="enc")).encode(), "no key for any"),
        (json.dumps(secret_entry(b"short")).encode(), "less than 32 bytes"),
        (pem_of(RSA)[:-10], "whole blocks"),
        (pem_of(P256) + pem_of(RSA)[:100], "whole blocks"),
        (pem_of(rsa.generate_private_key(65537, 1024)), "less than 2048 bits"),  # noqa: S505
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "no RSA, P-256 or Ed25519"),
        (
            P256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "whole blocks",
        ),
        (
            json.dumps({"keys": [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(P256))]}).encode(),
            "private key",
        ),
    ],
)
def test_files_that_are_no_keys(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=message) as caught:
        Keys(path)
    assert caught.value.field == "auth.jwt_keys"


def test_keys_we_have_no_use_for_are_left_out() -> None:
    others = [{"kty": "LATTICE"}, {"kty": "EC", "crv": "P-9"}, secret_entry(kid=7), {}]
    found = read_keys(json.dumps({"keys": [*others, secret_entry(kid="x")]}).encode())
    assert [(key.id, key.algorithm) for key in found] == [("x", "HS256")]


def test_keys_change_half_written_and_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "LOOKED_AT_SECONDS", 0)
    path = tmp_path / "keys"
    access = Access(keys=Keys(_path(write_keys(path))))
    old, new = token(role="viewer"), token(b"n" * 32, role="viewer")
    whole = path.read_bytes()
    with capture_logs() as log:
        path.write_bytes(whole[:30])
        assert shown(access, old)
        assert shown(access, old)
        path.unlink()
        assert shown(access, old)
    assert [entry["event"] for entry in log] == ["token keys not reloaded"] * 2
    write_keys(path, b"n" * 32)
    assert shown(access, new)
    assert refused(access, Caller("", f"Bearer {old}")) == "signature"


@pytest.mark.parametrize(
    "authorization", ["Basic eDp5", "Bearer", "Bearer  ", "token", "Bearer a, Bearer b"]
)
def test_other_authorizations(access: Access, authorization: str) -> None:
    assert refused(access, Caller("ipv4:1.2.3.4:5", authorization)) == "malformed"


def test_nothing_shown(access: Access) -> None:
    assert refused(access, Caller("ipv4:1.2.3.4:5")) == "missing"
    assert refused(access, Caller("ipv4:1.2.3.4:5", "", ("unix:", "*"))) == "missing"
    assert access.identify(Caller("unix:")) is LOCAL
    assert Access().identify(Caller("ipv4:1.2.3.4:5", "Bearer x")) is ANYBODY


def test_a_certificate_in_place_of_a_token_is_not_more_than_it_says(tmp_path: Path) -> None:
    from rtpfanout.config import Settings

    tls = {"certificate": "c", "key": "k", "client_ca": "ca"}
    auth = {"jwt_keys": write_keys(tmp_path / "keys")}
    both = Access.of(Settings(tls=tls, auth=auth))  # type: ignore[arg-type]
    assert refused(both, Caller("ipv4:1.2.3.4:5", "", ("wall-2",))) == "missing"
    only = Access.of(Settings(tls=tls))  # type: ignore[arg-type]
    assert only.identify(Caller("ipv4:1.2.3.4:5", "", ("wall-2",))).role is Role.ADMIN
    assert refused(only, Caller("ipv4:1.2.3.4:5")) == "missing", "no certificate at all"


def test_names_of_certificates() -> None:
    roles = certificate_roles(
        ["Wall Display 2 viewer site=north a=b", "a=b operator", "* subscriber", "b admin"]
    )
    access = Access(certificates=roles)

    def of(*names: str) -> Identity:
        return access.identify(Caller("ipv4:1.2.3.4:5", "", names))

    assert of("Wall Display 2") == Identity(
        "Wall Display 2", Role.VIEWER, (("a", "b"), ("site", "north"))
    )
    assert of("a=b").role is Role.OPERATOR
    assert of().role is of("*").role is of("strange").role is Role.SUBSCRIBER
    assert of("strange", "b") == Identity("strange", Role.ADMIN), "listed goes before *"
    assert of("Wall Display 2", "b").role is Role.VIEWER, "the first that is listed counts"
    assert of("wall display 2").role is Role.SUBSCRIBER


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "viewer",
        "a",
        "a Viewer",
        "a viewer site=",
        "a viewer =x",
        "a viewer site=n,vehicle=x",
        "a viewer site=n site=m",
        "a site=n viewer x",
        "site=n",
    ],
)
def test_entries_that_are_none(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        certificate_roles([entry])
    assert caught.value.field == "auth.certificate_roles"


def test_a_name_is_there_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        certificate_roles(["a viewer", "a admin"])


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
        for request in (pb.ListSessionsRequest(), pb.WatchSessionsRequest()):
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


def test_certificates_change_half_written_and_vanish(tmp_path: Path) -> None:
    authority = Authority()
    paths = [tmp_path / name for name in ("cert", "key", "ca")]
    new = [*authority.issue("new"), authority.pem]
    for path, data in zip(paths, [*authority.issue("old"), authority.pem], strict=True):
        path.write_bytes(data)
    files = Files(*map(str, paths))
    files.read()
    assert files.read_if_changed() is None
    with capture_logs() as log:
        for index, data in ((0, new[0]), (1, new[1][:60])):
            paths[index].write_bytes(data)
            assert files.read_if_changed() is None
            assert files.read_if_changed() is None, "told once"
        paths[1].unlink()
        assert files.read_if_changed() is None
        paths[1].write_bytes(new[1])
        assert files.read_if_changed() is not None
    events = [entry["event"] for entry in log]
    assert events == ["certificates not reloaded"] * 3 + ["certificates reloaded"]
    assert files.read_if_changed() is None


@pytest.mark.parametrize("field", ["certificate", "key", "client_ca"])
def test_files_of_tls_that_are_none(tmp_path: Path, field: str) -> None:
    authority = Authority()
    certificate, key = authority.issue("x")
    contents = {"certificate": certificate, "key": key, "client_ca": authority.pem}
    for bad in (b"", b"nonsense", authority.issue("other")[1]):
        for name, data in (contents | {field: bad}).items():
            (tmp_path / name).write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            Files(*(str(tmp_path / name) for name in contents)).read()
        assert caught.value.field == f"tls.{field}"
    (tmp_path / field).unlink()
    with pytest.raises(ConfigError, match="No such file"):
        Files(*(str(tmp_path / name) for name in contents)).read()
