from dataclasses import replace

from autoglm.gateway.resources import Key, Resource, Rules
from autoglm.gateway.retries import RetriesByResource, RetryBudget, RetryPolicy

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


def test_a_resource_that_says_nothing_shares_the_gateways_budget() -> None:
    retries = RetriesByResource(POLICY, 0)
    plain = Resource(Key("n", "a"))
    assert retries.of(plain, {}, 0) is retries.of(None, {}, 0)


def test_a_resource_with_a_say_has_a_budget_of_its_own_until_it_says_otherwise() -> None:
    retries = RetriesByResource(POLICY, 0)
    own = Resource(Key("n", "a"), rules=Rules(attempts=1))
    first = retries.of(own, {own.key: own}, 0)
    assert first.policy == replace(POLICY, attempts=1)
    assert retries.of(own, {own.key: own}, 1) is first
    changed = replace(own, rules=Rules(budget_ratio=0.5))
    assert retries.of(changed, {own.key: own}, 1).policy == replace(POLICY, ratio=0.5)
