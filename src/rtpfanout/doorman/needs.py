"""What the doorman needs of the engine and of the SessionManager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.model import Address, Consent


class Mailbox(Protocol):
    """What is needed of the Engine."""

    @property
    def notice_fd(self) -> int: ...
    def notices(self) -> list[Any]: ...
    def send(self, address: Address, data: bytes) -> bool: ...


class MoveTarget(Protocol):
    """A session that can be moved by a signature."""

    @property
    def session_id(self) -> str: ...
    @property
    def move_key(self) -> bytes: ...
    @property
    def counter(self) -> int: ...


class View(Protocol):
    """A session."""

    @property
    def consent(self) -> Consent: ...


class Rules(Protocol):
    """What is needed of the SessionManager."""

    def get(self, session_id: str) -> View: ...
    def session_for_move(self, ssrc: int) -> Sequence[MoveTarget]: ...
    def move_source(
        self, session_id: str, source: Address, counter: int, move_key: bytes
    ) -> None: ...
    def join(
        self,
        session_id: str,
        address: Address,
        *,
        lease_secs: float,
        subscriber_class: str,
        previous: Address | None,
    ) -> None: ...
    def remove_subscriber(self, session_id: str, address_text: str) -> None: ...
    def consent_targets(self, address: Address) -> Sequence[str]: ...
    def consent_given(self, session_id: str, address: Address, until_monotonic: float) -> None: ...
    def on_source_notice(self, handle: int, source: Address) -> object: ...
    def secret(self, name: str) -> bytes: ...
