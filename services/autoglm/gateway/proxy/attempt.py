"""One attempt of a request on one endpoint, from the routing decision to the end of the response.

Counts an attempt as in flight, holds its span and its response, and reports its outcome to the pool
and to outlier detection. Cuts attempts on endpoints that have become silent where another
endpoint can take over. Never retries: the proxy does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import msgspec
from opentelemetry.trace import Span

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
from autoglm.gateway.proxy.recovery import successors
from autoglm.gateway.proxy.timeouts import StallTimer, StreamTimeouts, no_chunk, no_first_token
from autoglm.gateway.proxy.transcripts import is_replayed
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled, Upstream
from autoglm.gateway.request.prefix_cache import CacheSalts
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, Wire
from autoglm.gateway.request_telemetry import (
    begin_client_span,
    child_span,
    end_client_span,
    note_decision,
)
from autoglm.gateway.routing import Decision, Router
from autoglm.gateway.routing.latency import Sending
from autoglm.gateway.routing.prefix_index import salt_of
from autoglm.validation.http_apis import RESPONSES
from autoglm.validation.openai_stream import REPLAY_HEADER

_OUTLIERS = OutlierDetection()


class Attempt(msgspec.Struct, eq=False):
    """A request on one endpoint. `response` is set once the first chunk has arrived."""

    request: GatewayRequest
    view: EndpointView
    timer: StallTimer
    span: Span
    begun: float
    sending: Sending | None
    """The measurement of its latency, where a policy needs it."""
    end: Callable[[Attempt, BaseException | None], None]
    response: Response | None = None
    is_recoverable: bool = False
    """Whether another endpoint may resume the stream."""
    waited: float = 0.0
    """Seconds until the first chunk."""

    def close(self, error: BaseException | None = None) -> None:
        """End the attempt with its error, or None after success."""
        if self.response is not None:
            self.response.close()
        self.end(self, error)


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
        timeouts: StreamTimeouts,
        tried: set[str],
        snapshot: Snapshot | None = None,
    ) -> Attempt:
        """Begin an attempt and return it with the first chunk. Adds its endpoint to `tried`.

        Raises RetryElsewhere, or an AutoGLMError that another endpoint would return as well.
        """
        with child_span(record, "route") as span:
            decision = self._router.route(
                request,
                snapshot or self._pool.snapshot,
                self._clock(),
                tried | self._pool.probed(),
            )
            view = decision.endpoint
            record.attempts += 1
            record.endpoint, record.why, record.decision = view.url, decision.why, decision
            note_decision(span, record)
        tried.add(view.url)
        attempt = self._started(request, record, decision)
        if (first := timeouts.first_token_seconds) is not None:
            attempt.timer.limit(first, partial(no_first_token, request, first))
        try:
            headers = self._headers(request, decision, attempt.span)
            send = partial(
                self._upstreams[request.wire],
                request,
                view,
                headers,
                request.deadline - attempt.begun,
                decision.runners_up,
            )
            response = attempt.response = await attempt.timer.wait(send)
        except BaseException as error:
            attempt.close(error)
            raise
        now = response.first_chunk or self._clock()
        record.first_chunk = record.first_chunk or now
        attempt.waited = now - attempt.begun
        if attempt.sending is not None:
            is_stream = request.info is not None and request.info.streaming
            latency = self._router.memory.latency
            latency.first_chunk(attempt.sending, now, is_first_token=is_stream)
        if (chunk := timeouts.chunk_seconds) is not None:
            attempt.timer.limit(chunk, partial(no_chunk, request, chunk))
        else:
            attempt.timer.release()
        return attempt

    def _started(
        self, request: GatewayRequest, record: RequestRecord, decision: Decision
    ) -> Attempt:
        """Return an attempt that counts as in flight until it is closed."""
        view, begun = decision.endpoint, self._clock()
        if request.deadline <= begun:
            raise DeadlineExceeded("the deadline passed before a pod responded")
        view.live.begin(_tokens(request))
        attempt = Attempt(
            request,
            view,
            StallTimer(),
            begin_client_span(request, record, view.endpoint),
            begun,
            self._router.begin(decision, begun),
            partial(self._end, record),
        )
        self._open.setdefault(view.url, set()).add(attempt)
        return attempt

    def abandon(self, url: str, why: str) -> None:
        """Cut attempts on a silent endpoint where another endpoint can take over."""
        for attempt in tuple(self._open.get(url, ())):
            request, snapshot = attempt.request, self._pool.snapshot
            if not request.exchange.has_chunks:
                # Envoy waits for the response, and retries by itself when the connection breaks.
                continue
            silence: RetryElsewhere | Stalled
            if attempt.response is None:
                error = NoReadyEndpoint(f"{url} became silent ({why}); try again")
                silence = RetryElsewhere(error)
            elif attempt.is_recoverable:
                snapshot = successors(snapshot, request.model, attempt.view)
                silence = Stalled(
                    StreamBroken(
                        f"{url} became silent during the response ({why}); send the request again"
                    )
                )
            else:
                continue
            if _has_other(snapshot, request, {url}):
                attempt.timer.cut(silence)

    def has_fresh(self, request: GatewayRequest, tried: set[str]) -> bool:
        """Return whether there is an endpoint that has not been tried."""
        return _has_other(self._pool.snapshot, request, tried)

    def _headers(self, request: GatewayRequest, decision: Decision, span: Span) -> dict[str, str]:
        """Return the headers that the gateway adds to the request for this endpoint."""
        view, tenant = decision.endpoint, request.principal.tenant
        headers = {REQUEST_ID: request.request_id, **trace_headers(span)}
        if is_replayed(request, view):
            headers[REPLAY_HEADER] = "1"
        if decision.known is not None and view.live.load.kv_events:
            # The pod mixes it into prefix hashes, so that its KV events match the gateway's.
            headers[PREFIX_SALT] = f"{salt_of(tenant, request.model):016x}"
        if view.endpoint.kind != "pod":
            # Other servers get the body as the client sent it, and choose their own ids.
            return headers
        if self._cache_salts is not None:
            mode = self._pool.snapshot.rules_of(request.model).tenancy.prefix_cache
            if salt := self._cache_salts.of(tenant, mode):
                headers[CACHE_SALT] = salt
        if self._response_ids is not None and request.target.partition("?")[0] == RESPONSES:
            headers[RESPONSE_ID] = self._response_ids.new(tenant, view.url)
        return headers

    def _lost(self, view: EndpointView, why: str) -> None:
        self._health.forget(view.url)
        # A pod's load stream shows at once whether it is gone. Of another server one broken
        # connection is all that is known until the next poll, so it becomes a last resort.
        is_unsure = view.endpoint.kind == "openai"
        self._pool.apply(view.url, Disconnected(why, silent=is_unsure), self._clock())

    def _end(self, record: RequestRecord, attempt: Attempt, error: BaseException | None) -> None:
        """Take back what an attempt counted, and report its outcome."""
        attempt.timer.release()
        self._judge(attempt, error)
        now, view = self._clock(), attempt.view
        # The pool learns it here before the load stream shows it.
        if isinstance(error, StreamBroken):
            self._lost(view, error.message)
        elif isinstance(error, RetryElsewhere) and error.draining:
            self._pool.apply(view.url, Draining(), now)
        elif isinstance(error, RetryElsewhere) and error.gone:
            self._lost(view, error.error.message)
        end_client_span(attempt.span, record, attempt.begun, error)
        if attempt.sending is not None:
            self._router.memory.latency.ended(attempt.sending, now)
        view.live.end(_tokens(attempt.request))

    def _judge(self, attempt: Attempt, error: BaseException | None) -> None:
        """Remove an attempt that has ended, and use its outcome for outlier detection."""
        request, url = attempt.request, attempt.view.url
        same_endpoint = self._open.get(url)
        if same_endpoint is not None:
            same_endpoint.discard(attempt)
            if not same_endpoint:
                del self._open[url]
        failed = is_failure(error, attempt.response)
        if failed is None:
            return
        now, snapshot = self._clock(), self._pool.snapshot
        is_stream = request.info is not None and request.info.streaming
        waited = attempt.waited if is_stream and attempt.response is not None else None
        self._health.note(url, now, failed=failed, waited=waited)
        model = snapshot.models.get(request.model)
        own = model.rules.routing.outlier_detection if model is not None else None
        policy, view, why = own or self._outliers, self._pool.view(url), ""
        if view is not None and view.state.probing:
            if not failed:
                self._pool.apply(url, ProbeSucceeded(), now)
            else:
                why = "the probe request failed"
        elif model is not None and self._health.is_due(url, policy, now):
            ready = {v.url for v in model.endpoints(request.wire)}
            why = self._health.judge(url, policy, ready, max(model.listed, len(ready)), now)
        if why:
            self._pool.apply(url, Ejected(why, policy.ejection_seconds, policy.ramp_seconds), now)


def _tokens(request: GatewayRequest) -> int:
    return request.info.prompt_tokens if request.info else 0


def _has_other(snapshot: Snapshot, request: GatewayRequest, but: set[str]) -> bool:
    """Return whether a routable endpoint outside of `but` exists; a last resort is none."""
    model = snapshot.models.get(request.model)
    return model is not None and any(
        view.is_routable and view.url not in but for view in model.endpoints(request.wire)
    )
