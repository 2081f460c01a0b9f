"""The store beside a dictionary, through groups of changes, closing and opening."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings, stateful
from hypothesis import strategies as st
from store_support import contents, record, records, session, split

from rtpfanout.store import (
    Store,
    StoredConsent,
)
from rtpfanout.store.writes import (
    drop_session,
    drop_subscribers,
    put_consents,
    put_session,
    put_subscribers,
)

if TYPE_CHECKING:
    from store_support import Terms

    from rtpfanout.store import Change, StoredSession


class AsADictionary(stateful.RuleBasedStateMachine):
    """The store beside a dict, with groups of submissions, closing and opening."""

    numbers = st.lists(st.integers(0, 12), max_size=8)
    sequences = st.integers(1, 4)

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.path = f"{self.directory.name}/s.db"
        self.store = Store(self.path)
        self.model: dict[int, tuple[StoredSession, dict[bytes, Terms]]] = {}
        self.consents: dict[tuple[int, bytes], int] = {}
        self.futures: list[object] = []
        self.revision = 0

    def _submit(self, change: Change) -> None:
        self.revision += 1
        self.futures.append(self.store.submit([change], self.revision))

    def _forget_consents(self, sequence: int, of: list[bytes] | None = None) -> None:
        for key in [key for key in self.consents if key[0] == sequence]:
            if of is None or key[1] in of:
                del self.consents[key]

    @stateful.rule(
        sequence=sequences,
        labels=st.sampled_from(["", "a=b"]),
        consent=st.sampled_from(["echo", "none"]),
    )
    def put_session(self, sequence: int, labels: str, consent: str) -> None:
        made = session(sequence, labels=labels, consent=consent)
        self._submit(put_session(made))
        if consent == "none":
            self._forget_consents(sequence)
        self.model[sequence] = made, self.model.get(sequence, (made, {}))[1]

    @stateful.rule(sequence=sequences)
    def drop_session(self, sequence: int) -> None:
        self._submit(drop_session(sequence))
        self.model.pop(sequence, None)
        self._forget_consents(sequence)

    @stateful.rule(
        sequence=sequences, numbers=numbers, lease=st.integers(0, 2), number=st.integers(0, 2)
    )
    def put_subscribers(self, sequence: int, numbers: list[int], lease: int, number: int) -> None:
        self._submit(put_subscribers(sequence, records(numbers), 0, lease, number))
        if sequence in self.model:
            added = split(records(numbers))
            self.model[sequence][1].update(dict.fromkeys(added, (lease, number)))

    @stateful.rule(sequence=sequences, numbers=numbers)
    def drop_subscribers(self, sequence: int, numbers: list[int]) -> None:
        self._submit(drop_subscribers(sequence, records(numbers)))
        if sequence in self.model:
            for one in split(records(numbers)):
                self.model[sequence][1].pop(one, None)
        self._forget_consents(sequence, split(records(numbers)))

    @stateful.rule(sequence=sequences, numbers=numbers, until=st.integers(1, 3))
    def put_consents(self, sequence: int, numbers: list[int], until: int) -> None:
        given = [StoredConsent(sequence, record(number), until) for number in numbers]
        self._submit(put_consents(b"b", given))
        if sequence in self.model and self.model[sequence][0].consent == "echo":
            there = self.model[sequence][1]
            for each in given:
                if each.record in there:
                    self.consents[sequence, each.record] = until

    @stateful.rule()
    def open_again(self) -> None:
        self.store.close()
        assert all(future.done() for future in self.futures)  # type: ignore[attr-defined]
        self.store = Store(self.path)
        assert self.store.revision == self.revision
        assert contents(self.store) == dict(self.model.values())
        found = {(s, record): until for s, record, until in self.store.consents(b"b", 0)}
        assert found == self.consents

    def teardown(self) -> None:
        self.open_again()
        self.store.close()
        self.directory.cleanup()


AsADictionary.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestAsADictionary = AsADictionary.TestCase
