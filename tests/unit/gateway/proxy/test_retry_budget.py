from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from autoglm import v1
from autoglm.api.spec.traffic import Hedging, Retries, Routing
from autoglm.gateway.endpoints.deployments import Resource, Rules
from autoglm.gateway.endpoints.snapshot import ModelView
from autoglm.gateway.proxy.retry_budget import Hedges, RetriesByModel, RetryBudget, RetryPolicy
from autoglm.kube.kinds import Key

POLICY = RetryPolicy(attempts=3, ratio=0.2, per_second=1.0, reserve=10.0)
P90 = Hedging(percentile=90, max_extra_ratio=0.1)


def spend(budget: RetryBudget, now: float) -> int:
    """How many retries are allowed now."""
    count = 0
    while budget.withdraw(now):
        count += 1
    return count


def test_reserve_covers_a_pod_that_dies_with_many_requests() -> None:
    assert spend(RetryBudget(POLICY, 0), 0) == 10


def test_requests_earn_their_share_of_retries() -> None:
    budget = RetryBudget(POLICY, 0)
    spend(budget, 0)
    for _ in range(25):
        budget.deposit()
    assert spend(budget, 0) == 5


def test_time_earns_retries_up_to_the_reserve() -> None:
    budget = RetryBudget(POLICY, 0)
    spend(budget, 0)
    assert (spend(budget, 3.0), spend(budget, 3.5), spend(budget, 1000.0)) == (3, 0, 10)


def model(name: str, **retries: Any) -> ModelView:
    rules = Rules(routing=Routing(retries=Retries(**retries))) if retries else None
    resource = Resource(Key("n", name), rules=rules) if rules else None
    return ModelView(v1.Model(name=name), resource=resource)


def test_each_model_has_a_budget_of_its_own() -> None:
    retries, known = RetriesByModel(POLICY, 0), {"a": model("a"), "b": model("b")}
    a, b = (retries.of(name, view, known, 0) for name, view in known.items())
    assert spend(a.budget, 0) == 10 and spend(b.budget, 0) == 10
    assert retries.of("a", known["a"], known, 0) is a


def test_all_names_of_a_model_share_its_budget() -> None:
    retries, view = RetriesByModel(POLICY, 0), model("a")
    known = {"a": view, "alias": view}
    assert retries.of("a", view, known, 0) is retries.of("alias", view, known, 0)


def test_a_resources_say_holds_until_it_says_otherwise() -> None:
    retries = RetriesByModel(POLICY, 0)
    first = retries.of("a", own := model("a", attempts=1), {"a": own}, 0)
    assert first.policy == replace(POLICY, attempts=1)
    assert retries.of("a", own, {"a": own}, 1) is first
    changed = model("a", budget_ratio=0.5)
    assert retries.of("a", changed, {"a": changed}, 1).policy == replace(POLICY, ratio=0.5)


def test_models_that_are_gone_are_forgotten() -> None:
    retries, views = RetriesByModel(POLICY, 0), {n: model(n) for n in ("a", "b")}
    first = retries.of("a", views["a"], views, 0)
    retries.of("b", views["b"], {"b": views["b"]}, 0)
    assert retries.of("a", views["a"], views, 0) is not first


def test_the_delay_is_the_percentile_of_what_was_seen() -> None:
    hedges = Hedges()
    for wait in range(19):
        hedges.note(P90, float(wait))
        assert hedges.delay(P90) is None
    hedges.note(P90, 19.0)
    assert hedges.delay(P90) == 18.0


def test_old_first_chunks_are_forgotten() -> None:
    hedges = Hedges()
    for wait in [9.0] * 500 + [1.0] * 256:
        hedges.note(P90, wait)
    assert hedges.delay(P90) == 1.0


def test_a_fixed_delay_needs_no_history() -> None:
    assert Hedges().delay(Hedging(delay_seconds=0.5)) == 0.5


@given(st.lists(st.booleans(), max_size=300))
def test_extra_load_is_a_share_of_the_requests_and_the_first_one(story: list[bool]) -> None:
    hedges, requests, extra = Hedges(), 0, 0
    for is_hedge in story:
        if is_hedge:
            extra += hedges.withdraw()
        else:
            hedges.note(P90, 1.0)
            requests += 1
    assert extra <= 1 + requests * P90.max_extra_ratio + 1e-6
