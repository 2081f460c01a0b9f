"""RemoveSubscriber and BatchRemoveSubscribers, of sessions that are served and that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout.policy import SUBSCRIBER_FIELD
from rtpfanout.sessions.admission import read_address, read_batch
from rtpfanout.sessions.fields import session_of
from rtpfanout.sessions.subscribers import not_a_subscriber

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.sessions.kept import RefusedSessions
    from rtpfanout.sessions.requests import Once, Requests
    from rtpfanout.sessions.state import State
    from rtpfanout.sessions.subscribers import Subscribers


@dataclass(eq=False, slots=True)
class Removal:
    """As SessionManager has it."""

    state: State
    requests: Requests
    refused: RefusedSessions
    subscribers: Subscribers

    def one(self, session_id: str, address_text: str, request_id: str) -> None:
        """See SessionManager.remove_subscriber."""
        named = session_of(session_id)
        said = {"session_id": named, "subscriber_address": address_text}
        with self.requests.once("RemoveSubscriber", request_id, **said) as once:
            if once.earlier is not None:
                return
            canonical = self.state.id_of(named)
            address = read_address(address_text, SUBSCRIBER_FIELD)
            if not all(self.of_records(canonical, [address.record], once)):
                raise not_a_subscriber(named, address)

    def batch(self, session_id: str, address_texts: Sequence[str], request_id: str) -> list[str]:
        """See SessionManager.remove_subscribers."""
        named = session_of(session_id)
        said = {"session_id": named, "subscriber_addresses": list(address_texts)}
        with self.requests.once("BatchRemoveSubscribers", request_id, **said) as once:
            if once.earlier is not None:
                return [address_texts[int(i)] for i in once.earlier.split(",") if i]
            canonical = self.state.id_of(named)
            addresses = read_batch(address_texts, lambda text: read_address(text, SUBSCRIBER_FIELD))
            records = [address.record for address in addresses]
            found = self.of_records(canonical, records, once, is_batch=True)
        pairs = zip(address_texts, found, strict=True)
        return [text for text, was_there in pairs if not was_there]

    def of_records(
        self, canonical_id: str, records: Sequence[bytes], once: Once, *, is_batch: bool = False
    ) -> list[bool]:
        """Which of them were subscribers."""
        found = self.refused.remove_subscribers(canonical_id, records, once)
        if found is not None:
            return found
        return self.subscribers.remove(canonical_id, records, once, is_batch=is_batch)
