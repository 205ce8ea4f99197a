from random import Random
from typing import Any

import pytest
from benchmarks.counts.tracer import Counting
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.snapshots import take_snapshot

from autoglm.common.errors import NoReadyEndpoint, Unimplemented
from autoglm.gateway.endpoints.endpoint import (
    Endpoint,
    EndpointView,
    Live,
    Phase,
    State,
)
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.endpoints.static_discovery import parse_target
from autoglm.gateway.routing import POLICIES, Decision, Memory, Reason, pick
from autoglm.gateway.routing.decide import _AROUND as AROUND
from autoglm.gateway.routing.decide import MOST
from autoglm.gateway.routing.prefix_index import salt_of
from autoglm.validation import Operation, RequestInfo
from autoglm.validation.prefix_hash import Prefix

PLACED = (Reason.PLACED, Reason.SESSION)


def chosen(request: Any, *views: Any, exclude: frozenset[str] = frozenset(), seed: int = 0) -> str:
    return pick(request, take_snapshot(views), 0, Random(seed), "LeastLoaded", exclude).endpoint.url


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
    assert chosen(make.request(), more, less) == less.url


def test_own_requests_in_flight_count(make: Any) -> None:
    busy, idle = make.view(1, running=0), make.view(2, running=1)
    busy.live.in_flight = 2
    assert chosen(make.request(), busy, idle) == idle.url


def test_equals_are_picked_by_chance(make: Any) -> None:
    views = [make.view(n) for n in range(1, 5)]
    picks = {chosen(make.request(), *views, seed=seed) for seed in range(50)}
    assert picks == {view.url for view in views}


def test_tried_endpoints_come_last(make: Any) -> None:
    one, two = make.view(1), make.view(2, running=7)
    assert chosen(make.request(), one, two, exclude=frozenset({one.url})) == two.url
    assert chosen(make.request(), one, exclude=frozenset({one.url})) == one.url


@pytest.mark.parametrize("phase", [Phase.CONNECTING, Phase.DRAINING, Phase.EJECTED])
def test_nothing_is_sent_to_an_endpoint_that_is_not_ready(make: Any, phase: Phase) -> None:
    with pytest.raises(NoReadyEndpoint, match=phase.value):
        chosen(make.request(), make.view(1, phase))


def test_only_addresses_that_the_proxy_in_front_allows_are_picked(make: Any) -> None:
    busy, idle = make.view(1, running=7), make.view(2)
    request = make.request(allows="10.0.0.1:50051".__eq__)
    assert chosen(request, busy, idle) == busy.url
    with pytest.raises(NoReadyEndpoint, match="none of the 1 ready"):
        chosen(request, idle)


def test_a_proxy_in_front_goes_to_no_endpoint_behind_tls_or_a_name(make: Any) -> None:
    plain, state = make.view(1, running=7), make.view(2).state
    targets = (parse_target("grpcs://10.0.0.2:50051"), parse_target("grpc://pod:50051"))
    others = [EndpointView(t, state, Live()) for t in targets if isinstance(t, Endpoint)]
    assert len(others) == 2
    assert chosen(make.request(allows=bool), plain, *others) == plain.url


def test_model_of_foreign_servers_is_served_over_rest_only(make: Any) -> None:
    foreign = parse_target("http://10.0.0.9:8000")
    assert isinstance(foreign, Endpoint)
    state = State(phase=Phase.READY, models=(make.model(),))
    view = EndpointView(foreign, state, Live(), "http://10.0.0.9:8000")
    assert chosen(make.request(wire="http"), view) == foreign.url
    with pytest.raises(Unimplemented, match="REST"):
        chosen(make.request(), view)


def test_unknown_model_has_no_endpoint(make: Any) -> None:
    with pytest.raises(NoReadyEndpoint):
        pick(make.request("gpt"), Snapshot(), 0, Random(0), "LeastLoaded")


LOADS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), min_size=1, max_size=9)


@given(LOADS, st.integers())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_waits_while_another_has_room(
    make: Any, loads: list[tuple[int, int]], seed: int
) -> None:
    views = [make.view(n, running=r, waiting=w) for n, (r, w) in enumerate(loads)]
    decision = pick(make.request(), take_snapshot(views), 0, Random(seed), "LeastLoaded")
    picked = decision.endpoint.live.load
    has_room = any(running < 8 and not waiting for running, waiting in loads)
    assert not has_room or (picked.running < 8 and not picked.waiting)


class LargeFleet:
    def __init__(self, make: Any, size: int = 1000) -> None:
        self.make, self.memory = make, Memory()
        self.views = [make.view(n, running=n % 5) for n in range(size)]
        self.snapshot = take_snapshot(self.views)

    def decide(self, policy: Any, prefix: Prefix, seed: int = 0, **rest: Any) -> Decision:
        request = self.make.request(info=RequestInfo(Operation.CHAT, "glm", prefix=prefix))
        return pick(
            request, self.snapshot, 0, Random(seed), memory=self.memory, default=policy, **rest
        )


def test_the_holder_of_the_prompt_is_among_those_scored(make: Any) -> None:
    fleet, names = LargeFleet(make), (1, 2, 3)
    request = make.request(info=RequestInfo(Operation.CHAT, "glm", prefix=Prefix(names, 9)))
    for seed in range(20):
        holder = Random(seed).choice(fleet.views[::5])
        fleet.memory = Memory()
        fleet.memory.picked(request, holder, 0)
        decision = fleet.decide("PrefixAffinity", Prefix(names, 9), seed)
        assert decision.endpoint == holder and decision.reason is Reason.PREFIX


@pytest.mark.parametrize("policy", POLICIES)
def test_a_bounded_number_is_scored_and_tried_ones_come_last(make: Any, policy: Any) -> None:
    fleet, tried = LargeFleet(make), frozenset[str]()
    for seed in range(5):
        decision = fleet.decide(policy, Prefix((seed,), seed + 1), seed, exclude=tried)
        assert decision.endpoint.url not in tried
        assert not decision.trail.scores or len(decision.trail.candidates) <= MOST
        tried |= {decision.endpoint.url}


def test_gateways_place_alike_whatever_their_samples(make: Any) -> None:
    fleet = LargeFleet(make, 500)
    for view in fleet.views:
        view.live.others = 0
    prompts = [Prefix((n,), n * 0x9E3779B97F4A7C15 % 2**64, True) for n in range(1, 40)]
    one, two = (
        [fleet.decide("PrefixAffinity", p, seed).endpoint.url for p in prompts] for seed in (1, 2)
    )
    same = sum(a == b for a, b in zip(one, two, strict=True))
    assert same == len(prompts) and len(set(one)) > 20


def test_an_endpoint_that_a_sample_has_by_chance_is_never_the_place(make: Any) -> None:
    fleet, prompts = LargeFleet(make, 500), [Prefix((n,), 1 << n, True) for n in range(1, 8)]
    for view in fleet.views:
        view.live.others = 0
    for prompt in prompts:
        tried = frozenset[str]()
        # All endpoints next to its position and more: only those drawn at random are left.
        while (decision := fleet.decide("PrefixAffinity", prompt, exclude=tried)).reason in PLACED:
            tried |= {decision.endpoint.url}
        assert len(tried) == AROUND


def test_a_beginning_that_all_hold_costs_no_visit_of_all_of_them(make: Any) -> None:
    costs = []
    for size in (500, 1500):
        fleet, prefix = LargeFleet(make, size), Prefix((1, 2, 3), 9)
        for view in fleet.views:
            fleet.memory.prefixes.add(
                view.url, (1, 2), salt_of(make.request().principal.tenant, "glm")
            )
        fleet.decide("PrefixAffinity", prefix)
        with Counting() as counting:
            fleet.decide("PrefixAffinity", prefix)
        costs.append(counting.found.own)
    assert costs[1] < 1.2 * costs[0]
