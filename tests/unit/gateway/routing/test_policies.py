from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.support.snapshots import take_snapshot
from tests.support.soak import examples

from autoglm.gateway.endpoints.endpoint import Load, Phase, Signal
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.routing import POLICIES, Memory, Reason, Router, pick
from autoglm.validation import Operation, RequestInfo

LOADS: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.fixed_dictionaries(
        {
            "running": st.integers(0, 8),
            "waiting": st.integers(0, 3),
            "kv_cache_usage": st.floats(0, 1),
            "tokens_in_flight": st.integers(0, 10**6),
        }
    ),
    min_size=1,
    max_size=9,
)
IN_MAKE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(50)
)


def chosen(make: Any, policy: Any, views: Any, seed: int = 0, **rest: Any) -> Any:
    return pick(make.request(), take_snapshot(views), 0, Random(seed), default=policy, **rest)


@pytest.mark.parametrize("policy", POLICIES)
@given(loads=LOADS, seed=st.integers(), away=st.sets(st.integers(0, 8)))
@IN_MAKE
def test_every_policy_takes_a_ready_endpoint_and_tried_ones_only_at_last(
    make: Any, policy: Any, loads: list[Any], seed: int, away: set[int]
) -> None:
    views = [make.view(n, **load) for n, load in enumerate(loads)]
    lost = make.view(99, Phase.EJECTED)
    tried = frozenset(views[n].url for n in away if n < len(views))
    decision = chosen(make, policy, [lost, *views], seed, exclude=tried)
    assert decision.endpoint in views
    assert decision.endpoint.url not in tried or len(tried) == len(views)
    assert decision.why and decision.policy == policy


@pytest.mark.parametrize("policy", POLICIES)
@given(loads=LOADS, seed=st.integers())
@IN_MAKE
def test_same_inputs_and_seed_give_the_same_decision(
    make: Any, policy: Any, loads: list[Any], seed: int
) -> None:
    views = [make.view(n, **load) for n, load in enumerate(loads)]
    one, two = (chosen(make, policy, views, seed) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("policy", "better", "worse"),
    [
        ("LeastLoaded", {"running": 3, "max_num_seqs": 64}, {"running": 2}),
        ("LeastRequests", {"running": 2}, {"running": 3, "max_num_seqs": 64}),
        ("LeastTokens", {"running": 3, "tokens_in_flight": 9}, {"tokens_in_flight": 10}),
        ("PowerOfTwoChoices", {"running": 1}, {"running": 2}),
    ],
)
def test_policy_takes_the_better_by_its_measure(
    make: Any, policy: Any, better: Any, worse: Any
) -> None:
    good, bad = make.view(1, **better), make.view(2, **worse)
    assert all(chosen(make, policy, [bad, good], s).endpoint == good for s in range(9))


def test_round_robin_visits_all_in_turn(make: Any) -> None:
    views, memory, seen = [make.view(n) for n in range(3)], Memory(), Counter[str]()
    for _ in range(9):
        view = chosen(make, "RoundRobin", views, memory=memory).endpoint
        seen[view.url] += 1
        memory.picked(make.request(), view)
    assert set(seen.values()) == {3}


def test_turns_are_bounded(make: Any) -> None:
    memory, view = Memory(), make.view()
    for n in range(10_000):
        memory.picked(make.request(f"m{n}"), view)
    assert sum(memory.turn(f"m{n}") > 0 for n in range(10_000)) <= 4096


def test_dynamic_weight_is_idle_share_plus_free_memory(make: Any) -> None:
    idle = make.view(1, running=0, kv_cache_usage=0.0)  # 100 + 100
    busy = make.view(2, running=6, kv_cache_usage=0.75)  # 25 + 25
    picks = Counter(
        chosen(make, "DynamicWeighted", [idle, busy], seed).endpoint.url for seed in range(4000)
    )
    assert picks[idle.url] / picks[busy.url] == pytest.approx(4, rel=0.15)


def test_own_tokens_count_until_they_are_reported(make: Any) -> None:
    ours, theirs = make.view(1), make.view(2, tokens_in_flight=50)
    ours.live.tokens = 100
    assert chosen(make, "LeastTokens", [ours, theirs]).endpoint == theirs
    ours.live.take(Load(tokens_in_flight=100))
    assert ours.live.other_tokens == 0


@pytest.mark.parametrize(
    ("policy", "is_told"), [("LeastTokens", True), ("LeastLoaded", True), ("RoundRobin", False)]
)
def test_missing_signal_is_reported(make: Any, policy: Any, is_told: bool) -> None:
    silent = (Signal.REQUESTS, Signal.TOKENS_IN_FLIGHT)
    views = [make.view(n, missing=silent) for n in range(2)]
    decision = chosen(make, policy, views)
    assert (decision.reason is Reason.SIGNAL_MISSING) is is_told
    assert ("reports no" in decision.why) is is_told


def test_router_counts_decisions_and_remembers_turns(make: Any) -> None:
    metrics = Metrics(CollectorRegistry())
    router = Router(metrics, Random(0), "RoundRobin")
    snapshot = take_snapshot([make.view(n) for n in range(2)])
    urls = [router.route(make.request(), snapshot, 0).endpoint.url for _ in range(4)]
    assert urls[:2] == urls[2:] and len(set(urls)) == 2
    counted = metrics.routing_decisions.labels("RoundRobin", Reason.CRITERION)
    assert counted.value == 4


def test_router_measures_the_first_chunk_where_the_policy_wants_it(make: Any) -> None:
    router = Router(Metrics(CollectorRegistry()), Random(0), "LatencyAware")
    snapshot = take_snapshot([make.view(n) for n in range(2)])
    request = make.request(info=RequestInfo(Operation.GENERATE, "glm", streaming=True))
    decision = router.route(request, snapshot, 0)
    sending = router.begin(decision, 0.0)
    assert sending is not None
    router.memory.latency.first_chunk(sending, 0.5, is_first_token=True)
    router.memory.latency.ended(sending, 2.0)
    assert router.memory.latency.fastest(2.0) == 0.5 / 256
    router.gone(decision.endpoint.url)
    assert router.memory.latency.fastest(2.0) is None
