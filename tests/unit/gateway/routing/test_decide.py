from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoglm.common.errors import NoReadyEndpoint, Unimplemented
from autoglm.gateway.endpoints.endpoint import (
    Endpoint,
    EndpointView,
    Live,
    Phase,
    State,
)
from autoglm.gateway.endpoints.snapshot import Snapshot, take_snapshot
from autoglm.gateway.endpoints.static_discovery import parse_target
from autoglm.gateway.routing import pick


def chosen(call: Any, *views: Any, exclude: frozenset[str] = frozenset(), seed: int = 0) -> str:
    return pick(call, take_snapshot(views), 0, Random(seed), "LeastLoaded", exclude).endpoint.url


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"running": 1}, {"running": 2}),
        ({"running": 8}, {"running": 1, "waiting": 1}),
        ({"running": 3, "max_num_seqs": 64}, {"running": 1, "max_num_seqs": 8}),
        ({"kv_cache_usage": 0.1}, {"kv_cache_usage": 0.2}),
        ({"running": 1, "kv_cache_usage": 0.9}, {"running": 2, "kv_cache_usage": 0.1}),
    ],
)
def test_less_loaded_one_is_picked(make: Any, one: Any, two: Any) -> None:
    less, more = make.view(1, **one), make.view(2, **two)
    assert chosen(make.call(), more, less) == less.url


def test_own_requests_in_flight_count(make: Any) -> None:
    busy, idle = make.view(1, running=0), make.view(2, running=1)
    busy.live.in_flight = 2
    assert chosen(make.call(), busy, idle) == idle.url


def test_equals_are_picked_by_chance(make: Any) -> None:
    views = [make.view(n) for n in range(1, 5)]
    picks = {chosen(make.call(), *views, seed=seed) for seed in range(50)}
    assert picks == {view.url for view in views}


def test_tried_endpoints_come_last(make: Any) -> None:
    one, two = make.view(1), make.view(2, running=7)
    assert chosen(make.call(), one, two, exclude=frozenset({one.url})) == two.url
    assert chosen(make.call(), one, exclude=frozenset({one.url})) == one.url


@pytest.mark.parametrize("phase", [Phase.CONNECTING, Phase.DRAINING, Phase.EJECTED])
def test_nothing_is_sent_to_an_endpoint_that_is_not_ready(make: Any, phase: Phase) -> None:
    with pytest.raises(NoReadyEndpoint, match=phase.value):
        chosen(make.call(), make.view(1, phase))


def test_only_addresses_that_the_proxy_in_front_allows_are_picked(make: Any) -> None:
    busy, idle = make.view(1, running=7), make.view(2)
    call = make.call(allows="10.0.0.1:50051".__eq__)
    assert chosen(call, busy, idle) == busy.url
    with pytest.raises(NoReadyEndpoint, match="none of the 1 ready"):
        chosen(call, idle)


def test_a_proxy_in_front_goes_to_no_endpoint_behind_tls_or_a_name(make: Any) -> None:
    plain, state = make.view(1, running=7), make.view(2).state
    targets = (parse_target("grpcs://10.0.0.2:50051"), parse_target("grpc://pod:50051"))
    others = [EndpointView(t, state, Live()) for t in targets if isinstance(t, Endpoint)]
    assert len(others) == 2
    assert chosen(make.call(allows=bool), plain, *others) == plain.url


def test_model_of_foreign_servers_is_served_over_rest_only(make: Any) -> None:
    foreign = parse_target("http://10.0.0.9:8000")
    assert isinstance(foreign, Endpoint)
    state = State(phase=Phase.READY, models=(make.model(),))
    view = EndpointView(foreign, state, Live(), "http://10.0.0.9:8000")
    assert chosen(make.call(wire="http"), view) == foreign.url
    with pytest.raises(Unimplemented, match="REST"):
        chosen(make.call(), view)


def test_unknown_model_has_no_endpoint(make: Any) -> None:
    with pytest.raises(NoReadyEndpoint):
        pick(make.call("gpt"), Snapshot(), 0, Random(0), "LeastLoaded")


LOADS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=9)


@given(LOADS, st.integers())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_waits_while_another_has_room(
    make: Any, loads: list[tuple[int, int]], seed: int
) -> None:
    views = [make.view(n, running=r, waiting=w) for n, (r, w) in enumerate(loads)]
    decision = pick(make.call(), take_snapshot(views), 0, Random(seed), "LeastLoaded")
    picked = decision.endpoint.live.load
    has_room = any(running < 8 and not waiting for running, waiting in loads)
    assert not has_room or (picked.running < 8 and not picked.waiting)
