"""Events: each is written once, repeated with a count, never in a flood."""

from autoglm.kube.kinds import Key
from autoglm.operator.types import Event
from autoglm.operator.writes.events import EventCorrelator, EventUpdate

KEY = Key("ns", "glm")
OOM = Event("Warning", "OutOfMemory", "pod a was killed")


def count(correlator: EventCorrelator, event: Event, now: float, uid: str = "u") -> int | None:
    update = correlator.correlate(KEY, uid, event, now)
    return update.count if update else None


def test_a_repeated_event_is_one_event_with_a_count() -> None:
    a = EventCorrelator(repeat_seconds=60)
    first = a.correlate(KEY, "u", OOM, 0)
    assert isinstance(first, EventUpdate) and first.count == 1
    assert [count(a, OOM, now) for now in (1, 30, 59)] == [None, None, None]
    again = a.correlate(KEY, "u", OOM, 60)
    assert again == EventUpdate(first.name, OOM, 5)


def test_different_sentences_for_one_reason_are_bounded() -> None:
    a = EventCorrelator(burst=3, burst_seconds=60)
    events = [Event("Warning", "OutOfMemory", f"pod {i}") for i in range(10)]
    assert sum(count(a, e, 1) == 1 for e in events) == 3
    assert count(a, events[9], 62) == 1
    assert count(a, Event("Normal", "Other", "x"), 2) == 1


def test_names_never_repeat() -> None:
    a = EventCorrelator(burst=100)
    updates = [a.correlate(KEY, "u", Event("Normal", "R", str(i)), 5) for i in range(50)]
    assert len({update.name for update in updates if update}) == 50


def test_a_later_resource_of_the_same_name_gets_new_events() -> None:
    a = EventCorrelator()
    assert (count(a, OOM, 0, "old"), count(a, OOM, 1, "new")) == (1, 1)
    a.forget(KEY)
    assert count(a, OOM, 2, "new") == 1


def test_an_event_is_forgotten_after_an_hour() -> None:
    a = EventCorrelator()
    count(a, OOM, 0)
    assert count(a, OOM, 3601) == 1
