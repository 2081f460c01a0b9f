"""TEMPORARY until the store is there."""

from __future__ import annotations

import secrets
from typing import Any


class Written:
    def wait(self) -> None: ...


class Journal:
    revision = 0

    def __init__(self) -> None:
        self._secrets: dict[str, bytes] = {}

    def save_session(self, session: Any, answer: Any) -> Written:
        return Written()

    def delete_session(self, session: Any, revision: int, answer: Any) -> Written:
        return Written()

    def save_subscribers(
        self,
        session: Any,
        records: bytes,
        since: int,
        expires_ns: int,
        class_number: int,
        answer: Any,
    ) -> Written:
        return Written()

    def delete_subscribers(self, session: Any, records: bytes, answer: Any) -> Written:
        return Written()

    def secret(self, name: str) -> bytes:
        return self._secrets.setdefault(name, secrets.token_bytes(32))
