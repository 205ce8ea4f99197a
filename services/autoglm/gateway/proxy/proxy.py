"""The innermost handler: proxies a request to an endpoint, with retries and hedging.

Retries on another endpoint before the first chunk, where the first one was not available or took
too long and attempts, retry budget and deadline allow it; the limits are those of the model's
resource, or else the gateway's. After the first chunk `stream` recovers a broken response. The
wire is the upstreams' part (`grpc_upstream`, `http_upstream`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

from autoglm.api.spec.traffic import Hedging, OutlierDetection, StreamRecovery
from autoglm.common.errors import AutoGLMError
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.stored_responses import ResponseIds
from autoglm.gateway.proxy.attempt import Attempt, Attempts
from autoglm.gateway.proxy.retry_budget import (
    Hedges,
    Retries,
    RetriesByModel,
    RetryBudget,
    RetryPolicy,
)
from autoglm.gateway.proxy.stream import Stream
from autoglm.gateway.proxy.timeouts import UNLIMITED, StreamTimeouts, bounded, stream_timeouts
from autoglm.gateway.proxy.transcripts import transcript_of
from autoglm.gateway.proxy.upstream import RetryElsewhere, Upstream
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.prefix_cache import CacheSalts
from autoglm.gateway.request.request import (
    Deliver,
    GatewayRequest,
    RequestRecord,
    Response,
    Wire,
)
from autoglm.gateway.routing import Router

# The second attempt starts at once; random waits, doubled each time, space out the ones after it.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.01, 0.25
Begin = Callable[[], Coroutine[None, None, Attempt]]


@dataclass(frozen=True, slots=True)
class Defaults:
    """The gateway's own policies, for what a resource does not set."""

    timeouts: StreamTimeouts = UNLIMITED
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
        router: Router,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
        defaults: Defaults = Defaults(),
    ) -> None:
        self._pool = pool
        self._attempts = Attempts(
            pool,
            upstreams,
            router,
            clock,
            defaults.outliers,
            defaults.cache_salts,
            defaults.response_ids,
        )
        self._retries = RetriesByModel(policy, clock())
        self._metrics = metrics
        self._rng = rng
        self._clock = clock
        self._defaults = defaults

    def abandon(self, url: str, why: str) -> None:
        """Cut attempts on an endpoint that has become silent."""
        self._attempts.abandon(url, why)

    async def __call__(
        self, request: GatewayRequest, record: RequestRecord, deliver: Deliver
    ) -> None:
        snapshot, name = self._pool.snapshot, request.model
        routing, models = snapshot.rules_of(name).routing, snapshot.models
        retries = self._retries.of(name, models.get(name), models, self._clock())
        retries.budget.deposit()
        request = bounded(request, routing.timeouts)
        timeouts = stream_timeouts(request, routing.timeouts, self._defaults.timeouts)
        hedging = routing.hedging or self._defaults.hedging
        attempt = await self._first_response(request, record, timeouts, retries, hedging)
        response = attempt.response
        assert response is not None, "an attempt has begun with its response"
        recovery = routing.stream_recovery or self._defaults.recovery
        transcript = transcript_of(request, attempt.view, response, recovery)
        if transcript is None and timeouts.chunk_seconds is None:
            # Nothing is to be done with its chunks.
            await _delivered(attempt, response, deliver)
            return
        stream = Stream(
            record,
            attempt,
            transcript,
            timeouts,
            recovery.max_attempts,
            partial(self._may_retry, retries.budget),
            self._attempts,
            self._pool,
            self._metrics,
            self._clock,
        )
        try:
            await deliver(stream.response())
        except BaseException as error:
            stream.close(error)
            raise
        stream.close(None)

    async def _first_response(
        self,
        request: GatewayRequest,
        record: RequestRecord,
        timeouts: StreamTimeouts,
        retries: Retries,
        hedging: Hedging,
    ) -> Attempt:
        """Return the attempt on the first endpoint that responds. Raises the last one's error."""
        tried: set[str] = set()
        begin = partial(self._attempts.begin, request, record, timeouts, tried)
        failures: _Failures | None = None
        number = 0
        while True:
            number += 1
            try:
                if number == 1 and _is_hedged(request, hedging):
                    return await self._hedged(
                        request, record, begin, tried, retries.hedges, hedging
                    )
                return await begin()
            except RetryElsewhere as error:
                failures = failures or _Failures()
                failures.add(error)
                if (
                    number >= retries.policy.attempts
                    or (failures.needs_another and not self._attempts.has_fresh(request, tried))
                    or not self._may_retry(retries.budget)
                ):
                    raise failures.with_retry_after(error.error) from error
            if number > 1:
                longest = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2.0 ** (number - 2))
                await asyncio.sleep(self._rng.uniform(0.0, longest))

    async def _hedged(
        self,
        request: GatewayRequest,
        record: RequestRecord,
        begin: Begin,
        tried: set[str],
        hedges: Hedges,
        policy: Hedging,
    ) -> Attempt:
        """Begin an attempt, and a second one on another endpoint where the first is slow."""
        delay, begun = hedges.delay(policy), self._clock()
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

        attempt = await (begin() if delay is None else _race(begin, delay, may_hedge))
        hedges.note(policy, self._clock() - begun)
        if hedged:
            record.endpoint = attempt.view.url
            self._metrics.hedges.labels("lost" if attempt.view.url == hedged else "won").inc()
        return attempt

    def _may_retry(self, budget: RetryBudget) -> bool:
        """Return whether the retry budget allows a retry. Call it once a retry: it withdraws it."""
        allowed = budget.withdraw(self._clock())
        self._metrics.retries.labels("made" if allowed else "exhausted").inc()
        return allowed


async def _delivered(attempt: Attempt, response: Response, deliver: Deliver) -> None:
    try:
        await deliver(response)
    except BaseException as error:
        attempt.close(error)
        raise
    attempt.close()


def _is_hedged(request: GatewayRequest, hedging: Hedging) -> bool:
    if hedging.delay_seconds is None and hedging.percentile is None:
        return False
    return request.info is not None and request.info.streaming and request.exchange.has_chunks


async def _race(begin: Begin, delay: float, may_begin_another: Callable[[], bool]) -> Attempt:
    """Return the attempt that responds first, and cancel the other one.

    The second begins after `delay` seconds. Raises the error of the last one where none responds.
    """
    tasks = [asyncio.create_task(begin())]
    winner: Attempt | None = None
    try:
        done, _ = await asyncio.wait(tasks, timeout=delay)
        if not done and may_begin_another():
            tasks.append(asyncio.create_task(begin()))
        pending = set(tasks)
        while winner is None:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            responded = [task for task in done if task.exception() is None]
            if responded or not pending:
                winner = (responded or [*done])[0].result()
        return winner
    finally:
        for task in tasks:
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, Attempt) and found is not winner:
                found.close(asyncio.CancelledError())


@dataclass(slots=True)
class _Failures:
    """The state that the failed attempts of one request share."""

    elsewhere_only: bool = False
    rejections: int = 0
    retry_after: float | None = None
    """The shortest Retry-After of the endpoints, in seconds."""

    @property
    def needs_another(self) -> bool:
        """Return whether only an endpoint that has not been tried is worth an attempt."""
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
