"""One attempt: a call on one endpoint, from choosing it to the end of what it sends.

Holds what an attempt needs (lease, span, exchange) and tells the pool what its end has shown. Ends
attempts on endpoints that have fallen silent, where another can take over. Never tries twice: the
relay does.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from autoglm.common.errors import DeadlineExceeded, NoReadyEndpoint, StreamBroken
from autoglm.common.rpc import CACHE_SALT, PREFIX_SALT, RESPONSE_ID
from autoglm.common.status import REQUEST_ID
from autoglm.gateway.endpoints.endpoint import (
    Disconnected,
    Draining,
    Ejected,
    EndpointView,
    ProbeSucceeded,
)
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.safeguards import OutlierPolicy
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.endpoints.stored_responses import ResponseIds
from autoglm.gateway.proxy.outlier_detection import Health, is_failure
from autoglm.gateway.proxy.recovery import is_resumable, successors
from autoglm.gateway.proxy.sse_transcript import PATHS, REPLAY
from autoglm.gateway.proxy.stall_timer import StallTimer
from autoglm.gateway.proxy.timeouts import Limits, no_chunk, no_first_token
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled, Upstream
from autoglm.gateway.request.prefix_cache import CacheSalts
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, Wire
from autoglm.gateway.request_telemetry import child_span, client_span, note_decision, trace_headers
from autoglm.gateway.routing import Decision, Router
from autoglm.gateway.routing.prefix import salt_of
from autoglm.validation.http_apis import RESPONSES

_OUTLIERS = OutlierPolicy()


@dataclass(slots=True, eq=False)
class Attempt:
    """An endpoint at work on a call. Its reply is there once it has begun."""

    call: GatewayRequest
    view: EndpointView
    leash: StallTimer
    context: AbstractAsyncContextManager[Response]
    forget: Callable[[Attempt, BaseException | None], None]
    reply: Response | None = None
    is_recoverable: bool = False
    """Whether another endpoint may go on with what has begun."""
    begun: float = 0.0
    waited: float = 0.0
    """For the first chunk, in seconds."""

    async def close(self, error: BaseException | None = None) -> None:
        """With the error that ended it, or None when all is well. Raises nothing of it."""
        self.leash.release()
        self.forget(self, error)
        await self.context.__aexit__(
            type(error) if error else None, error, error.__traceback__ if error else None
        )


class Attempts:
    """Makes attempts, and keeps those that are under way by endpoint."""

    def __init__(
        self,
        pool: Pool,
        upstreams: Mapping[Wire, Upstream],
        router: Router,
        clock: Callable[[], float] = time.monotonic,
        outliers: OutlierPolicy = _OUTLIERS,
        cache_salts: CacheSalts | None = None,
        response_ids: ResponseIds | None = None,
    ) -> None:
        self._cache_salts = cache_salts
        self._response_ids = response_ids
        self._health = Health()
        self._outliers = outliers
        self._pool = pool
        self._upstreams = upstreams
        self._router = router
        self._clock = clock
        self._open: dict[str, set[Attempt]] = {}

    async def begin(
        self,
        call: GatewayRequest,
        notes: RequestRecord,
        limits: Limits,
        tried: set[str],
        snapshot: Snapshot | None = None,
    ) -> Attempt:
        """An attempt whose first chunk has come, on an endpoint that is added to `tried`.

        Raises RetryElsewhere, or an AutoGLMError that no other endpoint would do better about.
        """
        decision = self._route(call, notes, tried, snapshot or self._pool.snapshot)
        view = decision.endpoint
        if call.deadline <= self._clock():
            raise DeadlineExceeded("the deadline passed before a pod answered")
        attempt = Attempt(
            call, view, StallTimer(), self._exchange(call, notes, decision), self._forget
        )
        attempt.begun = self._clock()
        self._open.setdefault(view.url, set()).add(attempt)
        if (first := limits.first_token_seconds) is not None:
            attempt.leash.limit(first, partial(no_first_token, call, first))
        try:
            attempt.reply = await attempt.leash.wait(attempt.context.__aenter__)
        except BaseException as error:
            attempt.leash.release()
            self._forget(attempt, error)
            raise
        attempt.waited = (attempt.reply.first_chunk or self._clock()) - attempt.begun
        chunk = limits.chunk_seconds
        attempt.leash.limit(chunk, partial(no_chunk, call, chunk or 0.0))
        return attempt

    def abandon(self, url: str, why: str) -> None:
        """The endpoint is silent: what waits for it goes elsewhere, if it can."""
        for attempt in tuple(self._open.get(url, ())):
            if self._has_other(attempt):
                attempt.leash.cut(_silent(attempt, why))

    def has_fresh(self, call: GatewayRequest, tried: set[str]) -> bool:
        """Whether there is an endpoint that has not been tried."""
        return _others(self._pool.snapshot, call, tried)

    def _has_other(self, attempt: Attempt) -> bool:
        snapshot, call = self._pool.snapshot, attempt.call
        if call.exchange is not None:
            # Envoy waits for it, and moves on by itself when the connection breaks.
            return False
        if attempt.reply is not None:
            if not attempt.is_recoverable:
                return False
            snapshot = successors(snapshot, call.model, attempt.view)
        return _others(snapshot, call, {attempt.view.url})

    def _forget(self, attempt: Attempt, error: BaseException | None) -> None:
        there = self._open.get(attempt.view.url)
        if there is not None:
            there.discard(attempt)
            if not there:
                del self._open[attempt.view.url]
        self._learn(attempt, error)

    def _learn(self, attempt: Attempt, error: BaseException | None) -> None:
        """What the attempt's end shows of its endpoint's health."""
        failed = is_failure(error, attempt.reply)
        if failed is None:
            return
        call, url, now = attempt.call, attempt.view.url, self._clock()
        is_stream = call.info is not None and call.info.streaming and attempt.reply is not None
        self._health.note(url, now, failed=failed, waited=attempt.waited if is_stream else None)
        view = self._pool.view(url)
        if view is not None and view.state.probing:
            if not failed:
                self._pool.apply(url, ProbeSucceeded(), now)
            else:
                self._strike(url, "the request that tried it failed", self._policy(call), now)
            return
        model, policy = self._pool.snapshot.models.get(call.model), self._policy(call)
        if model is not None and self._health.is_due(url, policy, now):
            ready = {v.url for v in model.endpoints(call.wire)}
            total = max(model.listed, len(ready))
            if why := self._health.judge(url, policy, ready, total, now):
                self._strike(url, why, policy, now)

    def _strike(self, url: str, why: str, policy: OutlierPolicy, now: float) -> None:
        self._pool.apply(url, Ejected(why, policy.ejection_seconds, policy.ramp_seconds), now)

    def _policy(self, call: GatewayRequest) -> OutlierPolicy:
        model = self._pool.snapshot.models.get(call.model)
        rules = model.rules if model else None
        return rules.outliers if rules is not None and rules.outliers else self._outliers

    @asynccontextmanager
    async def _exchange(
        self, call: GatewayRequest, notes: RequestRecord, decision: Decision
    ) -> AsyncIterator[Response]:
        view, timeout = decision.endpoint, call.deadline - self._clock()
        tokens = call.info.prompt_tokens if call.info else 0
        with (
            self._pool.lease(view, tokens),
            self._router.sending(call, decision, self._clock) as answered,
            client_span(call, notes, view.endpoint) as span,
        ):
            headers = {REQUEST_ID: call.request_id, **trace_headers(span), **_replay(call, view)}
            if decision.known is not None and view.live.load.kv_events:
                headers[PREFIX_SALT] = _salt(call)
            if salt := self._cache_salt(call, view):
                headers[CACHE_SALT] = salt
            if self._response_ids is not None and _makes_response(call, view):
                headers[RESPONSE_ID] = self._response_ids.new(call.principal.tenant, view.url)
            try:
                upstream = self._upstreams[call.wire]
                async with upstream(call, view, headers, timeout, decision.runners_up) as reply:
                    first = reply.first_chunk or self._clock()
                    notes.first_chunk = notes.first_chunk or first
                    answered(first)
                    yield reply
            except RetryElsewhere as error:
                self._report(view, error)
                raise
            except StreamBroken as error:
                self._lost(view, error.message)
                raise

    def _cache_salt(self, call: GatewayRequest, view: EndpointView) -> str:
        """For our own pods only: other servers take the body as the client wrote it."""
        if self._cache_salts is None or view.endpoint.kind != "pod":
            return ""
        model = self._pool.snapshot.models.get(call.model)
        mode = model.rules.prefix_cache if model and model.rules else None
        return self._cache_salts.of(call.principal.tenant, mode)

    def _route(
        self, call: GatewayRequest, notes: RequestRecord, tried: set[str], snapshot: Snapshot
    ) -> Decision:
        with child_span(notes, "route") as span:
            decision = self._router.route(
                call, snapshot, self._clock(), tried | self._pool.probed()
            )
            notes.attempts += 1
            notes.endpoint, notes.why = decision.endpoint.url, decision.why
            notes.decision = decision
            note_decision(span, notes)
        tried.add(decision.endpoint.url)
        return decision

    def _lost(self, view: EndpointView, why: str) -> None:
        self._health.forget(view.url)
        # A pod's load stream shows at once whether it is gone. Of other servers one broken
        # connection is all that is known until the next poll: such a one is a last resort.
        is_unsure = view.endpoint.kind == "openai"
        self._pool.apply(view.url, Disconnected(why, silent=is_unsure), self._clock())

    def _report(self, view: EndpointView, error: RetryElsewhere) -> None:
        """Tell the pool what a failed request has shown, before the load stream does."""
        if error.draining:
            self._pool.apply(view.url, Draining(), self._clock())
        elif error.gone:
            self._lost(view, error.error.message)


def _others(snapshot: Snapshot, call: GatewayRequest, but: set[str]) -> bool:
    """Whether there is one to leave another for; a last resort is none."""
    model = snapshot.models.get(call.model)
    return model is not None and any(
        view.is_routable and view.url not in but for view in model.endpoints(call.wire)
    )


def _silent(attempt: Attempt, why: str) -> Exception:
    url = attempt.view.url
    if attempt.reply is None:
        return RetryElsewhere(NoReadyEndpoint(f"{url} fell silent ({why}); try again"))
    return Stalled(
        StreamBroken(f"{url} fell silent in the middle of the answer ({why}); ask again")
    )


def is_replayed(call: GatewayRequest, view: EndpointView) -> bool:
    """Whether the pod writes token ids into the call's event stream."""
    return (
        call.wire == "http"
        and call.exchange is None
        and call.info is not None
        and call.info.streaming
        and call.target.partition("?")[0] in PATHS
        and is_resumable(view, call.model)
    )


def _makes_response(call: GatewayRequest, view: EndpointView) -> bool:
    """For our own pods only; other servers have ids of their own."""
    path = call.target.partition("?")[0]
    return view.endpoint.kind == "pod" and call.wire == "http" and path == RESPONSES


def _salt(call: GatewayRequest) -> str:
    """What the pod mixes with the names of the prompt, to tell of them as we know them."""
    return f"{salt_of(call.principal.tenant, call.model):016x}"


def _replay(call: GatewayRequest, view: EndpointView) -> Mapping[str, str]:
    return {REPLAY: "1"} if is_replayed(call, view) else {}
