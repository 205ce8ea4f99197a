from dataclasses import replace
from typing import Any

from autoglm import v1
from autoglm.api.spec.traffic import Retries, Routing
from autoglm.gateway.endpoints.deployments import Key, Resource, Rules
from autoglm.gateway.endpoints.snapshot import ModelView
from autoglm.gateway.proxy.retry_budget import RetriesByModel, RetryBudget, RetryPolicy

POLICY = RetryPolicy(attempts=3, ratio=0.2, per_second=1.0, reserve=10.0)


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
