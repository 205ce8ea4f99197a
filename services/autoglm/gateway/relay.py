"""The innermost handler: route a call, send it, try elsewhere before the first chunk, relay.

Decides when another endpoint is tried: nothing has reached the client, the endpoint was not
available, attempts, budget and deadline allow it, as the model's resource has them or else the
gateway. Never after the first chunk. What happens on the wire is the upstreams' business
(`grpc_relay`, `http_relay`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from autoglm.common.errors import DeadlineExceeded, StreamBroken
from autoglm.common.status import REQUEST_ID
from autoglm.gateway.call import Call, Notes, Reply, RetryElsewhere, Upstream, Wire
from autoglm.gateway.endpoints import Draining, EndpointView, Lost
from autoglm.gateway.metrics import Metrics
from autoglm.gateway.observation import child_span, client_span, note_decision, trace_headers
from autoglm.gateway.pacing import bounded, paced
from autoglm.gateway.pool import Pool
from autoglm.gateway.retries import Retries, RetriesByResource, RetryBudget, RetryPolicy
from autoglm.gateway.routing import Decision, Router

# The second attempt starts at once; these space out the ones after it.
_WAIT = wait_random_exponential(multiplier=0.01, max=0.25)


class Relay:
    """A `Handler`."""

    def __init__(
        self,
        pool: Pool,
        upstreams: Mapping[Wire, Upstream],
        policy: RetryPolicy,
        metrics: Metrics,
        rng: Random,
        clock: Callable[[], float] = time.monotonic,
        router: Router | None = None,
    ) -> None:
        self._router = router or Router(metrics, rng)
        self._pool = pool
        self._upstreams = upstreams
        self._retries = RetriesByResource(policy, clock())
        self._metrics = metrics
        self._clock = clock

    @asynccontextmanager
    async def __call__(self, call: Call, notes: Notes) -> AsyncIterator[Reply]:
        now, pool = self._clock(), self._pool
        model = pool.snapshot.models.get(call.model)
        resource = model.resource if model else None
        retries = self._retries.of(resource, pool.directory.resources, now)
        retries.budget.deposit()
        async with AsyncExitStack() as stack:
            if resource is None:
                yield await self._reply(call, notes, stack, retries)
            else:
                call = bounded(call, resource.rules)
                reply = self._reply(call, notes, stack, retries)
                yield await paced(reply, call, resource.rules, now)

    async def _reply(
        self, call: Call, notes: Notes, stack: AsyncExitStack, retries: Retries
    ) -> Reply:
        """The reply of the first endpoint that answers; what it needs is left on the stack."""
        tried: set[str] = set()

        async def attempt() -> Reply:
            return await stack.enter_async_context(self._attempt(call, notes, tried))

        try:
            try:
                return await attempt()
            except RetryElsewhere:
                if retries.policy.attempts < 2 or self.is_over(retries.budget):
                    raise
            # The first attempt is made without these 40 microseconds of machinery.
            return await AsyncRetrying(
                retry=retry_if_exception_type(RetryElsewhere),
                stop=stop_after_attempt(retries.policy.attempts - 1)
                | _OverBudget(self, retries.budget),
                wait=_WAIT,
                reraise=True,
            )(attempt)
        except RetryElsewhere as error:
            raise error.error from error

    def is_over(self, budget: RetryBudget) -> bool:
        """Asked once before each retry, which it pays for."""
        allowed = budget.withdraw(self._clock())
        self._metrics.retries.labels("made" if allowed else "exhausted").inc()
        return not allowed

    @asynccontextmanager
    async def _attempt(self, call: Call, notes: Notes, tried: set[str]) -> AsyncIterator[Reply]:
        decision = self._route(call, notes, tried)
        view = decision.endpoint
        timeout = call.deadline - self._clock()
        if timeout <= 0:
            raise DeadlineExceeded("the deadline passed before a pod answered")
        tokens = call.ask.prompt_tokens if call.ask else 0
        with (
            self._pool.lease(view, tokens),
            self._router.sending(call, decision, self._clock) as answered,
            client_span(call, notes, view.endpoint) as span,
        ):
            headers = {REQUEST_ID: call.request_id, **trace_headers(span)}
            try:
                upstream = self._upstreams[call.wire]
                async with upstream(call, view, headers, timeout) as reply:
                    notes.first_chunk = self._clock()
                    answered()
                    yield reply
            except RetryElsewhere as error:
                self._report(view, error)
                raise
            except StreamBroken as error:
                self._pool.apply(view.url, Lost(error.message), self._clock())
                raise

    def _route(self, call: Call, notes: Notes, tried: set[str]) -> Decision:
        with child_span(notes, "route") as span:
            now = self._clock()
            decision = self._router.route(call, self._pool.snapshot, now, tried)
            notes.attempts += 1
            notes.endpoint, notes.why = decision.endpoint.url, decision.why
            notes.decision = decision
            note_decision(span, notes)
        tried.add(decision.endpoint.url)
        return decision

    def _report(self, view: EndpointView, error: RetryElsewhere) -> None:
        """Tell the pool what a failed request has shown, before the load stream does."""
        if error.draining:
            self._pool.apply(view.url, Draining(), self._clock())
        elif error.gone:
            self._pool.apply(view.url, Lost(error.error.message), self._clock())


class _OverBudget(stop_base):
    def __init__(self, relay: Relay, budget: RetryBudget) -> None:
        self._relay = relay
        self._budget = budget

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._relay.is_over(self._budget)
