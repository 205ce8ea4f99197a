"""Values by key: only changes are reported, and an unreadable object keeps its previous value."""

from __future__ import annotations

import logging

import pytest

from autoglm.kube.kinds import Key
from autoglm.kube.typed_store import Decoded, TypedStore, typed

A, B = Key("ns", "a"), Key("ns", "b")
Change = tuple[Key, int | None, int | None]


class Recorder:
    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.events = 0
        self.store = TypedStore[int](lambda *change: self.changes.append(change), self._note)

    def _note(self) -> None:
        self.events += 1

    def taken(self) -> list[Change]:
        taken, self.changes = self.changes, []
        return sorted(taken)


def test_only_changed_values_are_reported_and_every_event_is() -> None:
    seen = Recorder()
    seen.store.replace([Decoded(A, 1), Decoded(B, 2)])
    assert seen.taken() == [(A, None, 1), (B, None, 2)]
    seen.store.put(Decoded(A, 1))
    seen.store.put(Decoded(A, 3))
    seen.store.remove(Decoded(B, 2))
    seen.store.remove(Decoded(B, 2))
    assert seen.taken() == [(A, 1, 3), (B, 2, None)]
    assert seen.events == 5


def test_a_list_drops_what_it_lacks_and_keeps_what_cannot_be_read() -> None:
    seen = Recorder()
    assert not seen.store.is_listed
    seen.store.replace([Decoded(A, 1), Decoded(B, 2)])
    seen.taken()
    seen.store.replace([Decoded(A, None)])
    assert (seen.taken(), seen.store.is_listed) == ([(B, 2, None)], True)


def test_an_unreadable_object_is_named_and_has_no_value(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    collection = typed("things", "/things", lambda item: int(item[-3:-1]))
    good = b'{"metadata":{"namespace":"ns","name":"a"},"n":12}'
    assert collection.decode(good) == Decoded(A, 12)
    assert caplog.text == ""
    assert collection.decode(good.replace(b"12", b'"x"')) == Decoded(A, None)
    assert "ignoring invalid things ns/a, keeping the previous version" in caplog.text
