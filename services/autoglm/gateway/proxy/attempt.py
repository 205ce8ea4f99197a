"""One attempt of a request on one endpoint, from the routing decision to the end of the response.

Holds the lease, the span and the upstream's context of an attempt, and reports its outcome to the
pool and to outlier detection. Cuts attempts on endpoints that have become silent where another
endpoint can take over. Never retries: the proxy does.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from autoglm.api.spec.traffic import OutlierDetection
from autoglm.common.errors import DeadlineExceeded, NoReadyEndpoint, StreamBroken
from autoglm.common.request_telemetry import trace_headers
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
from autoglm.gateway.endpoints.snapshot import Snapshot
from autoglm.gateway.endpoints.stored_responses import ResponseIds
from autoglm.gateway.proxy.outlier_detection import Health, is_failure
from autoglm.gateway.proxy.recovery import is_resumable, successors
from autoglm.gateway.proxy.stall_timer import StallTimer
from autoglm.gateway.proxy.timeouts import Limits, no_chunk, no_first_token
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled, Upstream
from autoglm.gateway.request.prefix_cache import CacheSalts
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, Wire
from autoglm.gateway.request_telemetry import child_span, client_span, note_decision
from autoglm.gateway.routing import Decision, Router
from autoglm.gateway.routing.prefix import salt_of
from autoglm.validation.http_apis import RESPONSES
from autoglm.validation.openai_stream import REPLAY_HEADER, REPLAY_PATHS

_OUTLIERS = OutlierDetection()


@dataclass(slots=True, eq=False)
class Attempt:
    """A request on one endpoint. `response` is set once the first chunk has arrived."""

    request: GatewayRequest
    view: EndpointView
    timer: StallTimer
    context: AbstractAsyncContextManager[Response]
    forget: Callable[[Attempt, BaseException | None], None]
    response: Response | None = None
    is_recoverable: bool = False
    """Whether another endpoint may resume the stream."""
    begun: float = 0.0
    waited: float = 0.0
    """Seconds until the first chunk."""

    async def close(self, error: BaseException | None = None) -> None:
        """Ends the attempt with its error, or None after success. Does not raise that error."""
        self.timer.release()
        self.forget(self, error)
        await self.context.__aexit__(
            type(error) if error else None, error, error.__traceback__ if error else None
        )


class Attempts:
    """Begins attempts, and keeps the open ones by endpoint."""

    def __init__(
        self,
        pool: Pool,
        upstreams: Mapping[Wire, Upstream],
        router: Router,
        clock: Callable[[], float] = time.monotonic,
        outliers: OutlierDetection = _OUTLIERS,
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
        request: GatewayRequest,
        record: RequestRecord,
        limits: Limits,
        tried: set[str],
        snapshot: Snapshot | None = None,
    ) -> Attempt:
        """Begins an attempt and returns it with the first chunk. Adds its endpoint to `tried`.

        Raises RetryElsewhere, or an AutoGLMError that another endpoint would return as well.
        """
        decision = self._route(request, record, tried, snapshot or self._pool.snapshot)
        view = decision.endpoint
        if request.deadline <= self._clock():
            raise DeadlineExceeded("the deadline passed before a pod responded")
        attempt = Attempt(
            request, view, StallTimer(), self._exchange(request, record, decision), self._forget
        )
        attempt.begun = self._clock()
        self._open.setdefault(view.url, set()).add(attempt)
        if (first := limits.first_token_seconds) is not None:
            attempt.timer.limit(first, partial(no_first_token, request, first))
        try:
            attempt.response = await attempt.timer.wait(attempt.context.__aenter__)
        except BaseException as error:
            attempt.timer.release()
            self._forget(attempt, error)
            raise
        attempt.waited = (attempt.response.first_chunk or self._clock()) - attempt.begun
        chunk = limits.chunk_seconds
        attempt.timer.limit(chunk, partial(no_chunk, request, chunk or 0.0))
        return attempt

    def abandon(self, url: str, why: str) -> None:
        """Cuts attempts on a silent endpoint where another endpoint can take over."""
        for attempt in tuple(self._open.get(url, ())):
            if self._has_other(attempt):
                attempt.timer.cut(_silent(attempt, why))

    def has_fresh(self, request: GatewayRequest, tried: set[str]) -> bool:
        """Returns whether there is an endpoint that has not been tried."""
        return _others(self._pool.snapshot, request, tried)

    def _has_other(self, attempt: Attempt) -> bool:
        snapshot, request = self._pool.snapshot, attempt.request
        if not request.exchange.has_chunks:
            # Envoy waits for the response, and retries by itself when the connection breaks.
            return False
        if attempt.response is not None:
            if not attempt.is_recoverable:
                return False
            snapshot = successors(snapshot, request.model, attempt.view)
        return _others(snapshot, request, {attempt.view.url})

    def _forget(self, attempt: Attempt, error: BaseException | None) -> None:
        there = self._open.get(attempt.view.url)
        if there is not None:
            there.discard(attempt)
            if not there:
                del self._open[attempt.view.url]
        self._detect(attempt, error)

    def _detect(self, attempt: Attempt, error: BaseException | None) -> None:
        """Records the attempt's outcome for outlier detection, and ejects or readmits."""
        failed = is_failure(error, attempt.response)
        if failed is None:
            return
        request, url, now = attempt.request, attempt.view.url, self._clock()
        is_stream = (
            request.info is not None and request.info.streaming and attempt.response is not None
        )
        self._health.note(url, now, failed=failed, waited=attempt.waited if is_stream else None)
        view = self._pool.view(url)
        if view is not None and view.state.probing:
            if not failed:
                self._pool.apply(url, ProbeSucceeded(), now)
            else:
                self._eject(url, "the probe request failed", self._policy(request), now)
            return
        model, policy = self._pool.snapshot.models.get(request.model), self._policy(request)
        if model is not None and self._health.is_due(url, policy, now):
            ready = {v.url for v in model.endpoints(request.wire)}
            total = max(model.listed, len(ready))
            if why := self._health.judge(url, policy, ready, total, now):
                self._eject(url, why, policy, now)

    def _eject(self, url: str, why: str, policy: OutlierDetection, now: float) -> None:
        self._pool.apply(url, Ejected(why, policy.ejection_seconds, policy.ramp_seconds), now)

    def _policy(self, request: GatewayRequest) -> OutlierDetection:
        routing = self._pool.snapshot.rules_of(request.model).routing
        return routing.outlier_detection or self._outliers

    @asynccontextmanager
    async def _exchange(
        self, request: GatewayRequest, record: RequestRecord, decision: Decision
    ) -> AsyncIterator[Response]:
        view, timeout = decision.endpoint, request.deadline - self._clock()
        tokens = request.info.prompt_tokens if request.info else 0
        with (
            self._pool.lease(view, tokens),
            self._router.sending(request, decision, self._clock) as responded,
            client_span(request, record, view.endpoint) as span,
        ):
            headers = {
                REQUEST_ID: request.request_id,
                **trace_headers(span),
                **_replay(request, view),
            }
            if decision.known is not None and view.live.load.kv_events:
                headers[PREFIX_SALT] = _salt(request)
            if salt := self._cache_salt(request, view):
                headers[CACHE_SALT] = salt
            if self._response_ids is not None and _makes_response(request, view):
                headers[RESPONSE_ID] = self._response_ids.new(request.principal.tenant, view.url)
            try:
                upstream = self._upstreams[request.wire]
                async with upstream(
                    request, view, headers, timeout, decision.runners_up
                ) as response:
                    first = response.first_chunk or self._clock()
                    record.first_chunk = record.first_chunk or first
                    responded(first)
                    yield response
            except RetryElsewhere as error:
                self._report(view, error)
                raise
            except StreamBroken as error:
                self._lost(view, error.message)
                raise

    def _cache_salt(self, request: GatewayRequest, view: EndpointView) -> str:
        """Returns the salt for pods; other servers get the body as the client sent it."""
        if self._cache_salts is None or view.endpoint.kind != "pod":
            return ""
        tenancy = self._pool.snapshot.rules_of(request.model).tenancy
        return self._cache_salts.of(request.principal.tenant, tenancy.prefix_cache)

    def _route(
        self, request: GatewayRequest, record: RequestRecord, tried: set[str], snapshot: Snapshot
    ) -> Decision:
        with child_span(record, "route") as span:
            decision = self._router.route(
                request, snapshot, self._clock(), tried | self._pool.probed()
            )
            record.attempts += 1
            record.endpoint, record.why = decision.endpoint.url, decision.why
            record.decision = decision
            note_decision(span, record)
        tried.add(decision.endpoint.url)
        return decision

    def _lost(self, view: EndpointView, why: str) -> None:
        self._health.forget(view.url)
        # A pod's load stream shows at once whether it is gone. Of another server one broken
        # connection is all that is known until the next poll, so it becomes a last resort.
        is_unsure = view.endpoint.kind == "openai"
        self._pool.apply(view.url, Disconnected(why, silent=is_unsure), self._clock())

    def _report(self, view: EndpointView, error: RetryElsewhere) -> None:
        """Reports what a failed attempt shows to the pool, before the load stream does."""
        if error.draining:
            self._pool.apply(view.url, Draining(), self._clock())
        elif error.gone:
            self._lost(view, error.error.message)


def _others(snapshot: Snapshot, request: GatewayRequest, but: set[str]) -> bool:
    """Returns whether a routable endpoint outside of `but` exists; a last resort is none."""
    model = snapshot.models.get(request.model)
    return model is not None and any(
        view.is_routable and view.url not in but for view in model.endpoints(request.wire)
    )


def _silent(attempt: Attempt, why: str) -> Exception:
    url = attempt.view.url
    if attempt.response is None:
        return RetryElsewhere(NoReadyEndpoint(f"{url} became silent ({why}); try again"))
    return Stalled(
        StreamBroken(f"{url} became silent during the response ({why}); send the request again")
    )


def is_replayed(request: GatewayRequest, view: EndpointView) -> bool:
    """Returns whether the pod writes token ids into the request's event stream."""
    return (
        request.exchange.has_chunks
        and request.info is not None
        and request.info.streaming
        and request.target.partition("?")[0] in REPLAY_PATHS
        and is_resumable(view, request.model)
    )


def _makes_response(request: GatewayRequest, view: EndpointView) -> bool:
    """Returns whether a pod creates a stored response; other servers choose their own ids."""
    return view.endpoint.kind == "pod" and request.target.partition("?")[0] == RESPONSES


def _salt(request: GatewayRequest) -> str:
    """Returns the salt that the pod mixes into prefix hashes, so that its KV events match ours."""
    return f"{salt_of(request.principal.tenant, request.model):016x}"


def _replay(request: GatewayRequest, view: EndpointView) -> Mapping[str, str]:
    return {REPLAY_HEADER: "1"} if is_replayed(request, view) else {}
