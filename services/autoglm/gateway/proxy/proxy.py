"""The innermost handler: proxies a request to an endpoint, with retries and hedging.

Retries on another endpoint before the first chunk, where the first one was not available or took
too long and attempts, retry budget and deadline allow it; the limits are those of the model's
resource, or else the gateway's. After the first chunk `stream` recovers a broken response. The
wire is the upstreams' part (`grpc_upstream`, `http_upstream`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from autoglm.api.spec.traffic import Hedging, OutlierDetection, StreamRecovery
from autoglm.common.errors import AutoGLMError
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.stored_responses import ResponseIds
from autoglm.gateway.proxy.attempt import Attempt, Attempts
from autoglm.gateway.proxy.hedging import Begin, Hedges, race
from autoglm.gateway.proxy.retry_budget import Retries, RetriesByModel, RetryBudget, RetryPolicy
from autoglm.gateway.proxy.stream import Stream, Terms
from autoglm.gateway.proxy.timeouts import Limits, bounded, limits_of
from autoglm.gateway.proxy.upstream import RetryElsewhere, Upstream
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.prefix_cache import CacheSalts
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, Wire
from autoglm.gateway.routing import Router

# The second attempt starts at once; these space out the ones after it.
_WAIT = wait_random_exponential(multiplier=0.01, max=0.25)


@dataclass(frozen=True, slots=True)
class Defaults:
    """The gateway's own policies, for what a resource does not set."""

    limits: Limits = Limits()
    recovery: StreamRecovery = StreamRecovery()
    hedging: Hedging = Hedging()
    outliers: OutlierDetection = OutlierDetection()
    cache_salts: CacheSalts | None = None
    response_ids: ResponseIds | None = None
    """None where there are no tenants to keep apart."""


class Proxy:
    """A `Handler` that routes a request and sends it to an upstream."""

    def __init__(
        self,
        pool: Pool,
        upstreams: Mapping[Wire, Upstream],
        policy: RetryPolicy,
        metrics: Metrics,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
        router: Router | None = None,
        defaults: Defaults = Defaults(),
    ) -> None:
        self._pool = pool
        routing = router or Router(metrics, rng)
        self._attempts = Attempts(
            pool,
            upstreams,
            routing,
            clock,
            defaults.outliers,
            defaults.cache_salts,
            defaults.response_ids,
        )
        self._retries = RetriesByModel(policy, clock())
        self._metrics = metrics
        self._clock = clock
        self._defaults = defaults

    def abandon(self, url: str, why: str) -> None:
        """Cuts attempts on an endpoint that has become silent."""
        self._attempts.abandon(url, why)

    @asynccontextmanager
    async def __call__(
        self, request: GatewayRequest, record: RequestRecord
    ) -> AsyncIterator[Response]:
        model = self._pool.snapshot.models.get(request.model)
        routing = self._pool.snapshot.rules_of(request.model).routing
        retries = self._retries.of(request.model, model, self._pool.snapshot.models, self._clock())
        retries.budget.deposit()
        request = bounded(request, routing.timeouts)
        terms = Terms(
            limits_of(request, routing.timeouts, self._defaults.limits),
            routing.stream_recovery or self._defaults.recovery,
            partial(self.is_over, retries.budget),
        )
        hedging = routing.hedging or self._defaults.hedging
        attempt = await self._first(request, record, terms.limits, retries, hedging)
        stream = Stream(
            request, record, attempt, terms, self._attempts, self._pool, self._metrics, self._clock
        )
        try:
            yield stream.response()
        except BaseException as error:
            await stream.close(error)
            raise
        await stream.close(None)

    async def _first(
        self,
        request: GatewayRequest,
        record: RequestRecord,
        limits: Limits,
        retries: Retries,
        hedging: Hedging,
    ) -> Attempt:
        """Returns the attempt on the first endpoint that responds."""
        tried: set[str] = set()
        failures = _Failures()

        async def attempt() -> Attempt:
            return await self._attempts.begin(request, record, limits, tried)

        async def first_attempt() -> Attempt:
            is_stream = request.info is not None and request.info.streaming
            is_off = hedging.delay_seconds is None and hedging.percentile is None
            if is_off or not is_stream or not request.exchange.has_chunks:
                return await attempt()
            return await self._hedged(request, record, attempt, tried, retries.hedges, hedging)

        def is_retryable(error: BaseException) -> bool:
            if not isinstance(error, RetryElsewhere):
                return False
            failures.add(error)
            return not failures.needs_another or self._attempts.has_fresh(request, tried)

        try:
            try:
                return await first_attempt()
            except RetryElsewhere as error:
                if retries.policy.attempts < 2 or not is_retryable(error):
                    raise
                if self.is_over(retries.budget):
                    raise
            # The first attempt avoids the 40 microseconds that this takes.
            return await AsyncRetrying(
                retry=retry_if_exception(is_retryable),
                stop=stop_after_attempt(retries.policy.attempts - 1)
                | _OverBudget(self, retries.budget),
                wait=_WAIT,
                reraise=True,
            )(attempt)
        except RetryElsewhere as error:
            failures.add(error)
            raise failures.with_retry_after(error.error) from error

    async def _hedged(
        self,
        request: GatewayRequest,
        record: RequestRecord,
        attempt: Begin,
        tried: set[str],
        hedges: Hedges,
        policy: Hedging,
    ) -> Attempt:
        """Begins an attempt, and a second one on another endpoint where the first is slow."""
        hedged = ""

        def may_hedge() -> bool:
            nonlocal hedged
            if not self._attempts.has_fresh(request, tried):
                return False
            if not hedges.withdraw():
                self._metrics.hedges.labels("exhausted").inc()
                return False
            (hedged,) = tried
            return True

        delay, begun = hedges.delay(policy), self._clock()
        found = await (attempt() if delay is None else race(attempt, delay, may_hedge))
        hedges.note(policy, self._clock() - begun)
        if hedged:
            record.endpoint = found.view.url
            self._metrics.hedges.labels("lost" if found.view.url == hedged else "won").inc()
        return found

    def is_over(self, budget: RetryBudget) -> bool:
        """Returns whether the retry budget is spent. Call it once a retry: it withdraws one."""
        allowed = budget.withdraw(self._clock())
        self._metrics.retries.labels("made" if allowed else "exhausted").inc()
        return not allowed


@dataclass(slots=True)
class _Failures:
    """Collects what the failed attempts of one request have in common."""

    elsewhere_only: bool = False
    rejections: int = 0
    retry_after: float | None = None
    """The shortest Retry-After of the endpoints, in seconds."""

    @property
    def needs_another(self) -> bool:
        """Returns whether only an endpoint that has not been tried is worth an attempt."""
        return self.elsewhere_only or self.rejections > 1

    def add(self, failure: RetryElsewhere) -> None:
        self.elsewhere_only = self.elsewhere_only or failure.elsewhere_only
        self.rejections += failure.refused
        times = (self.retry_after, failure.error.retry_after)
        self.retry_after = min((t for t in times if t is not None), default=None)

    def with_retry_after(self, error: AutoGLMError) -> AutoGLMError:
        if error.retry_after is None:
            error.retry_after = self.retry_after
        return error


class _OverBudget(stop_base):
    def __init__(self, proxy: Proxy, budget: RetryBudget) -> None:
        self._proxy = proxy
        self._budget = budget

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._proxy.is_over(self._budget)
