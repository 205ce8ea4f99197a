"""Token buckets of requests and tokens for each tenant. Pure; every method takes `now`.

A request reserves what it may take, prompt and completion as estimated, and settles to what it has
taken. So a bucket may fall below empty; the tenant then waits until it is paid off. A request that
wants more than a bucket holds goes when the bucket is full. Rates are this gateway's own: with N
gateways each allows an Nth, as told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autoglm.common.errors import RateLimited
from autoglm.common.lru import Recent
from autoglm.common.token_bucket import Bucket
from autoglm.gateway.limits.tenants import TenantPolicy, Tenants

MOST_TENANTS = 20_000


@dataclass(frozen=True, slots=True)
class Account:
    """One tenant's buckets; None where its policy sets no rate."""

    policy: TenantPolicy
    requests: Bucket | None
    tokens: Bucket | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request has taken in advance."""

    account: Account
    tokens: float


class RateLimits:
    """Accounts of the tenants that were here lately, by the rules that hold now."""

    def __init__(
        self, tenants: Tenants | None = None, gateways: int = 1, most: int = MOST_TENANTS
    ) -> None:
        self._tenants = tenants or Tenants()
        self._gateways = gateways
        self._accounts: Recent[str, Account] = Recent(most)

    def __len__(self) -> int:
        return len(self._accounts)

    def know(self, tenants: Tenants) -> None:
        """From now on these rules hold. A tenant whose own did not change keeps its buckets."""
        self._tenants = tenants

    def policy_of(self, tenant: str) -> TenantPolicy:
        return self._tenants.of(tenant)

    def account_of(self, tenant: str, now: float) -> Account | None:
        """None where nothing limits the tenant."""
        policy = self._tenants.of(tenant)
        if policy.requests_per_minute is None and policy.tokens_per_minute is None:
            return None
        account = self._accounts.get(tenant)
        if account is None or account.policy != policy:
            account = self._open(policy, now)
            self._accounts.put(tenant, account)
        return account

    def _open(self, policy: TenantPolicy, now: float) -> Account:
        def bucket(per_minute: float | None) -> Bucket | None:
            if per_minute is None:
                return None
            rate = per_minute / 60 / self._gateways
            # However slow the rate, one request must fit.
            return Bucket(rate, max(1.0, rate * policy.burst_seconds), now)

        return Account(policy, bucket(policy.requests_per_minute), bucket(policy.tokens_per_minute))


def shortage(account: Account, tokens: float, now: float) -> tuple[str, float]:
    """Of what there is not enough, and for how many seconds; 0 where there is."""
    waits = {
        "requests": account.requests.wait(1.0, now) if account.requests else 0.0,
        "tokens": account.tokens.wait(tokens, now) if account.tokens else 0.0,
    }
    return max(waits.items(), key=lambda item: item[1])


def reserve(account: Account, tokens: float, now: float) -> Reservation:
    if account.requests:
        account.requests.take(1.0, now)
    if account.tokens:
        account.tokens.take(tokens, now)
    return Reservation(account, tokens)


def settle(reservation: Reservation, used: float, now: float) -> None:
    """The request has taken so many tokens."""
    if reservation.account.tokens:
        reservation.account.tokens.take(used - reservation.tokens, now)


def cancel(reservation: Reservation, now: float) -> None:
    """No pod was ever asked, so nothing was taken."""
    settle(reservation, 0.0, now)
    if reservation.account.requests:
        reservation.account.requests.take(-1.0, now)


def headers_of(account: Account, now: float) -> Mapping[str, str]:
    """What is left, under the names that OpenAI's API has for it."""
    headers: dict[str, str] = {}
    for what, bucket in (("requests", account.requests), ("tokens", account.tokens)):
        if bucket is not None:
            level = bucket.level(now)
            headers[f"x-ratelimit-limit-{what}"] = str(math.floor(bucket.capacity))
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(level)))
            headers[f"x-ratelimit-reset-{what}"] = duration((bucket.capacity - level) / bucket.rate)
    return headers


def duration(seconds: float) -> str:
    """As OpenAI writes it, and Go: `1h2m3s`, `6m0s`, `1.5s`, `20ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 1000) / 1000:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def refusal(tenant: str, account: Account, what: str, wait: float, now: float) -> RateLimited:
    policy = account.policy
    rate = policy.requests_per_minute if what == "requests" else policy.tokens_per_minute
    fewer = "" if what == "requests" else ", or ask for fewer tokens"
    error = RateLimited(
        f"tenant {tenant!r} has used up its {rate:g} {what} a minute; "
        f"try again in {duration(wait)}{fewer}",
        retry_after=wait,
    )
    error.headers = headers_of(account, now)
    return error
