from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.snapshots import take_snapshot

from autoglm import v1
from autoglm.gateway.endpoints.endpoint import (
    BACKOFF,
    Disconnected,
    Draining,
    Ejected,
    Event,
    Load,
    Loaded,
    ModelsDiscovered,
    Phase,
    State,
    step,
)
from autoglm.gateway.endpoints.pool import Pool

MODEL = v1.Model(name="glm")
LEARNED = ModelsDiscovered((MODEL,))
LOADED = Loaded(Load())
GOING = Loaded(Load(draining=True))
LOST = Disconnected("connection refused")
SILENT = Disconnected("no load message for 3 s", silent=True)
STRUCK = Ejected("its first chunks are late", 5.0, 10.0)
UP: tuple[tuple[float, Event], ...] = ((0, LEARNED), (0, LOADED))


def after(*events: tuple[float, Event]) -> State:
    state, rng = State(), Random(0)
    for now, event in events:
        state = step(state, event, now, rng)
    return state


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ([], Phase.CONNECTING),
        ([(0, LEARNED)], Phase.CONNECTING),
        ([(0, LOADED)], Phase.CONNECTING),
        ([(0, LEARNED), (0, LOADED)], Phase.READY),
        ([(0, LOADED), (0, LEARNED), (1, LOADED)], Phase.READY),
        ([(0, LEARNED), (0, GOING)], Phase.DRAINING),
        ([(0, LEARNED), (0, LOADED), (1, Draining())], Phase.DRAINING),
        ([(0, LEARNED), (0, GOING), (1, LOADED)], Phase.READY),
        ([(0, LEARNED), (0, LOADED), (1, LOST)], Phase.EJECTED),
        ([(0, LOST)], Phase.EJECTED),
        # Back-off: the load stream may be up again at once, the endpoint is not routable yet.
        ([(0, LEARNED), (0, LOADED), (1, LOST), (1.01, LOADED)], Phase.EJECTED),
        ([(0, LEARNED), (0, LOADED), (1, LOST), (1.2, LOADED)], Phase.READY),
    ],
)
def test_phase_follows_events(events: list[tuple[float, Event]], phase: Phase) -> None:
    assert after(*events).phase is phase


def test_one_death_noticed_by_many_counts_once() -> None:
    up: list[tuple[float, Event]] = [(0, LEARNED), (0, LOADED)]
    assert after(*up, (1, LOST)) == after(*up, *[(1, LOST)] * 50)


def test_an_outlier_is_the_last_resort_until_it_is_lost_or_back() -> None:
    assert after(*UP, (1, STRUCK)).is_last_resort
    assert after(*UP, (1, STRUCK), (2, LOADED)).is_last_resort
    assert not after(*UP, (1, STRUCK), (2, LOST)).is_last_resort
    assert not after(*UP, (1, STRUCK), (7, LOST)).is_last_resort
    back = after(*UP, (1, STRUCK), (7, LOADED))
    assert back.phase is Phase.READY and not back.is_last_resort
    assert not after(*UP, (1, LOST)).is_last_resort


def test_a_silent_endpoint_is_the_last_resort_for_a_while() -> None:
    silent = after(*UP, (1, SILENT))
    assert silent.phase is Phase.EJECTED and silent.is_last_resort
    # Reported twice for one silence, and silent still when checked again.
    assert after(*UP, (1, SILENT), (1, SILENT)).is_last_resort
    assert after(*UP, (1, SILENT), (4, SILENT), (12, SILENT)).is_last_resort
    assert not after(*UP, (1, SILENT), (4, SILENT), (16, SILENT)).is_last_resort
    assert not after(*UP, (1, SILENT), (16, SILENT), (19, SILENT)).is_last_resort
    assert not after(*UP, (1, SILENT), (1, LOST)).is_last_resort
    assert not after(*UP, (1, LOST), (1, SILENT)).is_last_resort
    assert not after(*UP, (1, LOST), (4, SILENT)).is_last_resort
    assert not after((0, LEARNED), (1, SILENT)).is_last_resort
    assert after(*UP, (1, SILENT), (4, LOADED)).phase is Phase.READY
    assert not after(*UP, (1, SILENT), (4, LOADED)).is_last_resort


def test_an_outlier_is_used_while_no_other_is_left(make: Any) -> None:
    first, second = make.endpoint(1), make.endpoint(2)
    pool = Pool(Random(0))
    pool.change_endpoints((), (first, second), 0.0)
    for endpoint in (first, second):
        for event in (LEARNED, LOADED):
            pool.apply(endpoint.url, event, 0.0)
    pool.apply(first.url, STRUCK, 1.0)
    assert [v.url for v in pool.snapshot.models["glm"].grpc] == [second.url]
    pool.apply(second.url, Draining(), 2.0)
    assert [v.url for v in pool.snapshot.models["glm"].grpc] == [first.url]
    assert pool.is_ready and take_snapshot(pool.views).is_ready
    pool.apply(first.url, LOST, 3.0)
    assert pool.snapshot.models["glm"].grpc == () and not pool.is_ready


def test_failures_in_a_row_back_off_longer_and_a_good_while_forgives() -> None:
    round_: tuple[Event, ...] = (LEARNED, LOADED, LOST)
    flapping = [(float(t), e) for t in range(0, 30, 3) for e in round_]
    state = after(*flapping)
    assert state.failures == 10 and 0.5 <= state.retry_at - 27 <= 1.0
    calm = after(*flapping, (40, LOADED), (51, LOST))
    assert calm.failures == 1


@given(st.integers(1, 10_000), st.integers())
def test_backoff_is_bounded_and_never_zero(failures: int, seed: int) -> None:
    assert 0.05 <= BACKOFF.delay(failures, Random(seed)) <= 1.0


def test_models_are_remembered_while_no_pod_serves_them(make: Any) -> None:
    gone = make.view(1, Phase.EJECTED)
    found = take_snapshot([gone]).models["glm"]
    assert (found.grpc, found.http, found.ready_endpoints) == ((), (), 0)


def test_own_requests_count_between_load_messages(make: Any) -> None:
    pool = Pool(Random(0))
    pool.change_endpoints((), [make.endpoint()], 0)
    for event in make.up(running=3):
        pool.apply(make.endpoint().url, event, 0)
    (view,) = pool.snapshot.models["glm"].grpc
    view.live.begin()
    view.live.begin()
    assert (view.live.others, view.live.in_flight) == (3, 2)
    # The pod's next message has ours in it; they are not counted twice.
    pool.apply(view.url, make.up(running=5)[1], 1)
    assert (view.live.others, view.live.in_flight) == (3, 2)
    # It may also have been sent before ours arrived; they are not forgotten.
    pool.apply(view.url, make.up(running=0)[1], 1)
    assert (view.live.others, view.live.in_flight) == (0, 2)
    view.live.end()
    view.live.end()
    assert view.live.in_flight == 0


def test_load_messages_do_not_rebuild_the_snapshot(make: Any) -> None:
    pool = Pool(Random(0))
    pool.change_endpoints((), [make.endpoint(n) for n in range(3)], 0)
    url = make.endpoint(1).url
    for event in make.up():
        pool.apply(url, event, 0)
    snapshot = pool.snapshot
    pool.apply(url, make.up(running=7)[1], 1)
    assert pool.snapshot is snapshot
    pool.apply(url, LOST, 2)
    assert pool.snapshot is not snapshot


def test_known_endpoints_keep_their_state_when_others_come_and_go(make: Any) -> None:
    changes: list[tuple[Any, Any]] = []
    pool = Pool(Random(0), lambda before, after: changes.append((before, after)))
    pool.change_endpoints((), [make.endpoint(1)], 0)
    for event in make.up():
        pool.apply(make.endpoint(1).url, event, 0)
    pool.change_endpoints((), [make.endpoint(2)], 1)
    assert [v.state.phase for v in pool.views] == [Phase.READY, Phase.CONNECTING]
    pool.change_endpoints([make.endpoint(1).url], (), 2)
    assert pool.apply(make.endpoint(1).url, LOST, 3) is None
    assert changes[-1][0].url == make.endpoint(1).url and changes[-1][1] is None


def test_rest_is_where_the_load_message_says(make: Any) -> None:
    pool = Pool(Random(0))
    pool.change_endpoints((), [make.endpoint()], 0)
    for event in make.up(http_port=8000):
        pool.apply(make.endpoint().url, event, 0)
    (view,) = pool.snapshot.models["glm"].http
    assert view.http_base == "http://10.0.0.1:8000"
