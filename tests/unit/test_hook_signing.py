"""Signatures of deliveries, and the file that their secrets are in."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from rtpfanout.errors import ConfigError
from rtpfanout.hooks import Secrets, signature

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "correct horse battery staple"


def test_the_example_of_the_standard() -> None:
    """Of the specification of Standard Webhooks."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_one_for_each_secret_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    raw = bytes(range(24))
    path.write_text(f"{TEXT}\n\n  whsec_{base64.b64encode(raw).decode()}  \n")
    secrets = Secrets(path)
    headers = secrets.headers("id", 7, b"body")
    expected = [
        "v1," + base64.b64encode(hmac.new(key, b"id.7.body", hashlib.sha256).digest()).decode()
        for key in (TEXT.encode(), raw)
    ]
    assert headers == {
        "webhook-id": "id", "webhook-timestamp": "7", "webhook-signature": " ".join(expected),
    }  # fmt: skip
    path.write_text("another of many bytes")
    (other,) = secrets.headers("id", 7, b"body")["webhook-signature"].split()
    assert other not in expected
    with capture_logs() as lines:
        path.unlink()
        for _ in range(3):
            assert secrets.headers("id", 7, b"body")["webhook-signature"] == other
    assert [line["event"] for line in lines] == ["webhook secret not reloaded"]
    assert Secrets(None).headers("id", 7, b"") == {"webhook-id": "id", "webhook-timestamp": "7"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "can't be read"),
        (b"\n \n", "is empty"),
        (b"short", "less than 16 bytes"),
        (b"whsec_AAAA", "less than 16 bytes"),
        (b"whsec_###", "no base64"),
        ("whsec_é".encode(), "no base64"),
        (b"\xff\xfe" * 20, "no text"),
    ],
)
def test_what_can_be_no_secret(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as error:
        Secrets(path)
    assert error.value.field == "events.webhook_secret"
    assert "short" not in error.value.message, "nothing of it is told"
