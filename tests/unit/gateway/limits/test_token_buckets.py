"""Token buckets of tenants: what passes, what waits, and how long."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.limits.tenants import TenantPolicy, Tenants
from autoglm.gateway.limits.token_buckets import (
    Account,
    RateLimits,
    cancel,
    duration,
    headers_of,
    rejection,
    reserve,
    settle,
    shortage,
)


def account(requests: float | None = None, tokens: float | None = None, now: float = 0) -> Account:
    policy = TenantPolicy(requests_per_minute=requests, tokens_per_minute=tokens)
    found = RateLimits(Tenants(default=policy)).account_of("acme", now)
    assert found is not None
    return found


def test_requests_pass_until_the_minutes_worth_is_used_and_then_at_the_rate() -> None:
    of = account(requests=60)
    for _ in range(60):
        assert shortage(of, 0, 0)[1] == 0
        reserve(of, 0, 0)
    assert shortage(of, 0, 0) == ("requests", 1.0)
    assert shortage(of, 0, 1.0)[1] == 0


def test_tokens_are_reserved_as_estimated_and_settled_to_what_was_used() -> None:
    of = account(tokens=6000)
    held = reserve(of, 5000, 0)
    assert shortage(of, 2000, 0) == ("tokens", 10.0)
    settle(held, 100, 0)
    assert shortage(of, 5900, 0)[1] == 0


def test_what_was_dearer_than_it_looked_is_paid_off_first() -> None:
    of = account(tokens=6000)
    settle(reserve(of, 100, 0), 9000, 0)
    assert shortage(of, 100, 0)[1] == pytest.approx(31.0)


def test_request_larger_than_the_bucket_goes_when_that_is_full() -> None:
    of = account(tokens=600)
    assert shortage(of, 1e6, 0)[1] == 0
    settle(reserve(of, 1e6, 0), 600, 0)
    assert shortage(of, 1e6, 0) == ("tokens", 60.0)


def test_request_that_reached_no_pod_costs_nothing() -> None:
    of = account(requests=60, tokens=600)
    before = headers_of(of, 0)
    cancel(reserve(of, 100, 0), 0)
    assert headers_of(of, 0) == before


def test_who_waits_exactly_the_retry_after_passes() -> None:
    of = account(requests=7, tokens=333)
    now = 0.0
    for _ in range(50):
        wait = shortage(of, 41.7, now)[1]
        now += wait
        assert shortage(of, 41.7, now)[1] == 0
        reserve(of, 41.7, now)


def test_headers_say_what_is_left_as_openais_do() -> None:
    of = account(requests=60, tokens=6000)
    reserve(of, 1500, 0)
    assert headers_of(of, 0) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "4500",
        "x-ratelimit-reset-tokens": "15s",
    }
    settle(reserve(of, 0, 0), 9000, 0)
    assert headers_of(of, 0)["x-ratelimit-remaining-tokens"] == "0"


def test_refusal_names_tenant_limit_and_when_to_come_again() -> None:
    error = rejection("acme", account(tokens=600), "tokens", 90.0, 0)
    assert error.message == (
        "tenant 'acme' has used up its 600 tokens a minute; "
        "try again in 1m30s, or request fewer tokens"
    )
    assert error.retry_after == 90.0
    assert error.headers["x-ratelimit-limit-tokens"] == "600"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0201, "21ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s"), (3723, "1h2m3s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_each_of_several_gateways_allows_its_part() -> None:
    tenants = Tenants(default=TenantPolicy(requests_per_minute=60, tokens_per_minute=600))
    of = RateLimits(tenants, gateways=3).account_of("acme", 0)
    assert of is not None and of.requests and of.tokens
    assert of.requests.capacity == 20.0 and of.requests.rate == pytest.approx(1 / 3)
    assert of.tokens.capacity == 200.0


def test_however_slow_the_rate_one_request_fits() -> None:
    tenants = Tenants(default=TenantPolicy(requests_per_minute=0.1, burst_seconds=1))
    of = RateLimits(tenants, gateways=10).account_of("acme", 0)
    assert of is not None and shortage(of, 0, 0)[1] == 0


def test_changed_rules_hold_at_once_and_leave_others_buckets_alone() -> None:
    def rules(rate: float) -> Tenants:
        named = {name: TenantPolicy(requests_per_minute=60) for name in ("kept", "changed")}
        return Tenants(named | {"changed": TenantPolicy(requests_per_minute=rate)})

    limits = RateLimits(rules(60))
    before = {name: limits.account_of(name, 0) for name in ("kept", "changed")}
    limits.know(rules(6))
    assert limits.account_of("kept", 0) is before["kept"]
    changed = limits.account_of("changed", 0)
    assert changed is not None and changed.requests and changed.requests.capacity == 6
    limits.know(Tenants())
    assert limits.account_of("kept", 0) is None


def test_memory_for_ten_thousand_tenants_is_small_and_bounded() -> None:
    policy = TenantPolicy(requests_per_minute=60, tokens_per_minute=600)
    limits = RateLimits(Tenants(default=policy), most=10_000)
    tracemalloc.start()
    try:
        for number in range(20_000):
            limits.account_of(f"tenant-{number}", 0)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(limits) == 10_000
    assert used < 10 * 2**20


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(0, 300), st.floats(0, 1)), min_size=1, max_size=60
    )
)
def test_no_pattern_of_requests_gets_more_tokens_than_capacity_rate_and_one_debt(
    requests: list[tuple[float, int, float]],
) -> None:
    of, now, used = account(tokens=600), 0.0, 0.0
    for pause, estimate, share in requests:
        now += pause
        if shortage(of, estimate, now)[1] == 0:
            settle(reserve(of, estimate, now), estimate * share, now)
            used += estimate * share
    assert used <= 600 + 10 * now + 1e-6
