"""Families show what `prometheus_client` shows for the same updates."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from autoglm.common.metrics import CounterFamily, HistogramFamily

BOUNDS = (0.001, 0.3, 1, 7.5, 1234567.0)
LABELS = ("method", "model")
LABEL_VALUES = st.tuples(st.sampled_from(["POST /a", 'quo"ted', ""]), st.sampled_from(["m", "é\n"]))
AMOUNTS = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 1e9))
UPDATES = st.lists(st.tuples(LABEL_VALUES, AMOUNTS), max_size=30)


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.5)


@pytest.fixture
def without_created() -> Iterator[None]:
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    yield
    prometheus_client.enable_created_metrics()  # type: ignore[no-untyped-call]


def ours(updates: list[tuple[tuple[str, str], float]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    counter = CounterFamily("c", "Count.", LABELS, registry=registry)
    histogram = HistogramFamily("h_seconds", "Time.", LABELS, buckets=BOUNDS, registry=registry)
    for values, amount in updates:
        counter.labels(*values).inc()
        histogram.labels(*values).observe(amount)
    return registry


def theirs(updates: list[tuple[tuple[str, str], float]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    counter = Counter("c", "Count.", LABELS, registry=registry)
    histogram = Histogram("h_seconds", "Time.", LABELS, buckets=BOUNDS, registry=registry)
    for values, amount in updates:
        counter.labels(*values).inc()
        histogram.labels(*values).observe(amount)
    return registry


@given(UPDATES)
def test_both_formats_equal_those_of_the_librarys_metrics(
    updates: list[tuple[tuple[str, str], float]],
) -> None:
    for form in (generate_latest, openmetrics.generate_latest):
        assert form(ours(updates)) == form(theirs(updates))


@pytest.mark.usefixtures("without_created")
def test_created_samples_can_be_disabled_as_in_the_library() -> None:
    updates = [(("POST /a", "m"), 0.5)]
    page = generate_latest(ours(updates))
    assert page == generate_latest(theirs(updates)) and b"_created" not in page


def test_a_counter_without_labels_shows_zero_from_the_start() -> None:
    own, other = CollectorRegistry(), CollectorRegistry()
    child = CounterFamily("c", "Count.", (), registry=own).labels()
    counter = Counter("c", "Count.", registry=other)
    assert generate_latest(own) == generate_latest(other)
    child.inc()
    counter.inc()
    assert generate_latest(own) == generate_latest(other)


def test_a_name_can_be_registered_only_once() -> None:
    registry = CollectorRegistry()
    CounterFamily("c", "", LABELS, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Counter("c", "", registry=registry)


def test_labels_must_have_a_value_each() -> None:
    family = CounterFamily("c", "", LABELS, registry=CollectorRegistry())
    with pytest.raises(ValueError, match=r"c needs values of \('method', 'model'\)"):
        family.labels("only one")


def test_the_last_bucket_has_all_observations() -> None:
    registry = ours([(("a", "m"), math.inf), (("a", "m"), 2.0)])
    labels = {"method": "a", "model": "m", "le": "+Inf"}
    assert registry.get_sample_value("h_seconds_bucket", labels) == 2


def test_a_scrape_in_another_thread_sees_children_that_are_being_added() -> None:
    registry = CollectorRegistry()
    family = CounterFamily("c", "", ("n",), registry=registry)
    done, pages = threading.Event(), []

    def scrape() -> None:
        while not done.is_set():
            pages.append(generate_latest(registry))

    thread = threading.Thread(target=scrape)
    thread.start()
    for number in range(2000):
        family.labels(str(number)).inc()
    done.set()
    thread.join()
    assert len(generate_latest(registry)) > len(pages[0])
