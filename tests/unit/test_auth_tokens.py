"""Tokens and the keys they are checked with, as their worst users would have them."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from auth_support import refused
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from pki import SECRET, token, write_keys
from structlog.testing import capture_logs

from rtpfanout.auth import ANYBODY, LOCAL, Access, Caller, Identity, Keys, Role, keys
from rtpfanout.auth.keys import read_keys
from rtpfanout.errors import ConfigError, UnauthenticatedError

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
    return Access(keys=Keys(Path(write_keys(tmp_path / "keys"))))


def shown(access: Access, text: str) -> Identity:
    return access.identify(Caller("ipv4:127.0.0.1:1", f"Bearer {text}"))


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
    found = Keys(Path(write_keys(tmp_path / "keys")))
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
    access = Access(keys=Keys(Path(write_keys(path))))
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
