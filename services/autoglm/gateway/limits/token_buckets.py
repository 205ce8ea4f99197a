"""Token buckets of requests and tokens for each tenant. Pure; every method takes `now`.

A request reserves the estimated tokens of prompt and completion, and settles to those it used. So a
bucket may become negative; the tenant then waits until it is refilled. A request that needs more
than a bucket's size is admitted when the bucket is full. Each of N gateways allows an Nth of a
rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autoglm.common.errors import RateLimited
from autoglm.common.lru import LruCache
from autoglm.common.pacing import TokenBucket
from autoglm.gateway.limits.tenants import TenantPolicy, Tenants

MOST_TENANTS = 20_000


@dataclass(frozen=True, slots=True)
class Account:
    """One tenant's buckets; None if its policy sets no rate."""

    policy: TenantPolicy
    requests: TokenBucket | None
    tokens: TokenBucket | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The tokens that one request has reserved."""

    account: Account
    tokens: float


class RateLimits:
    """The accounts of the most recent tenants, by the policies in force."""

    def __init__(
        self, tenants: Tenants | None = None, gateways: int = 1, most: int = MOST_TENANTS
    ) -> None:
        self._tenants = tenants or Tenants()
        self._gateways = gateways
        self._accounts: LruCache[str, Account] = LruCache(most)

    def __len__(self) -> int:
        return len(self._accounts)

    def know(self, tenants: Tenants) -> None:
        """Use these policies from now on. A tenant with an unchanged policy keeps its buckets."""
        self._tenants = tenants

    def policy_of(self, tenant: str) -> TenantPolicy:
        """Return the tenant's policy."""
        return self._tenants.of(tenant)

    def account_of(self, tenant: str, now: float) -> Account | None:
        """Return the tenant's account; None if it has no rate limit."""
        policy = self._tenants.of(tenant)
        if policy.requests_per_minute is None and policy.tokens_per_minute is None:
            return None
        account = self._accounts.get(tenant)
        if account is None or account.policy != policy:
            requests = self._bucket(policy, policy.requests_per_minute, now)
            tokens = self._bucket(policy, policy.tokens_per_minute, now)
            account = Account(policy, requests, tokens)
            self._accounts.put(tenant, account)
        return account

    def _bucket(
        self, policy: TenantPolicy, per_minute: float | None, now: float
    ) -> TokenBucket | None:
        if per_minute is None:
            return None
        rate = per_minute / 60 / self._gateways
        # However low the rate, the bucket must hold one request.
        return TokenBucket(rate, max(1.0, rate * policy.burst_seconds), now)


def shortage(account: Account, tokens: float, now: float) -> tuple[str, float]:
    """Return the limit with the longest wait and that wait in seconds; 0 if none is exceeded."""
    waits = {
        "requests": account.requests.wait(1.0, now) if account.requests else 0.0,
        "tokens": account.tokens.wait(tokens, now) if account.tokens else 0.0,
    }
    return max(waits.items(), key=lambda item: item[1])


def reserve(account: Account, tokens: float, now: float) -> Reservation:
    """Take one request and so many tokens from the account's buckets."""
    if account.requests:
        account.requests.take(1.0, now)
    if account.tokens:
        account.tokens.take(tokens, now)
    return Reservation(account, tokens)


def settle(reservation: Reservation, used: float, now: float) -> None:
    """Correct the reservation to the tokens that the request used."""
    if reservation.account.tokens:
        reservation.account.tokens.take(used - reservation.tokens, now)


def cancel(reservation: Reservation, now: float) -> None:
    """Return the reservation of a request that was sent to no pod."""
    settle(reservation, 0.0, now)
    if reservation.account.requests:
        reservation.account.requests.take(-1.0, now)


def headers_of(account: Account, now: float) -> Mapping[str, str]:
    """Return OpenAI's `x-ratelimit-*` headers for the account."""
    headers: dict[str, str] = {}
    for what, bucket in (("requests", account.requests), ("tokens", account.tokens)):
        if bucket is not None:
            level = bucket.level(now)
            headers[f"x-ratelimit-limit-{what}"] = str(math.floor(bucket.capacity))
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, math.floor(level)))
            headers[f"x-ratelimit-reset-{what}"] = duration((bucket.capacity - level) / bucket.rate)
    return headers


def duration(seconds: float) -> str:
    """Format seconds as OpenAI and Go do: `1h2m3s`, `6m0s`, `1.5s`, `20ms`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{math.ceil(seconds * 1000) / 1000:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def rejection(tenant: str, account: Account, what: str, wait: float, now: float) -> RateLimited:
    """Return the error for a request that exceeds a limit, with the rate-limit headers."""
    policy = account.policy
    rate = policy.requests_per_minute if what == "requests" else policy.tokens_per_minute
    fewer = "" if what == "requests" else ", or request fewer tokens"
    error = RateLimited(
        f"tenant {tenant!r} has used up its {rate:g} {what} a minute; "
        f"try again in {duration(wait)}{fewer}",
        retry_after=wait,
    )
    error.headers = headers_of(account, now)
    return error
