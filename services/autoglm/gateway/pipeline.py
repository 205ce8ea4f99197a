"""The pipeline of a request: every layer, outermost first.

| layer          | what it does                                           | where                  |
|----------------|--------------------------------------------------------|------------------------|
| start throttle | starts few requests in one round of the event loop     | `edges.rest`           |
| take over      | resumes what Envoy sends back behind the other layers  | `envoy.exchange`       |
| map errors     | maps every exception to an AutoGLMError                | `map_errors`           |
| observe        | span, outcome, access log, metrics                     | `observed`             |
| authenticate   | identifies the caller and checks its role              | `authenticated`        |
| receive        | reads the body and reserves its memory; over gRPC      | `received`,            |
|                | ends slow messages under memory pressure               | `edges.inbound_memory` |
| follow         | binds requests for a stored response to its pod        | `followed`             |
| validate       | rejects invalid fields and unknown models              | `validated`            |
| rate-limit     | takes from the tenant's token buckets                  | `limited`              |
| admit          | waits in the queue, acquires a slot                    | `admitted`             |
| route debug    | returns the decision trace                             | `proxy.route_debug`    |
| proxy          | routes, sends, retries and recovers                    | `proxy.proxy`          |

`request_layers` builds those from `map errors` to `route debug`. The two before
them depend on the wire: an edge and the composition root (`gateway`) add them.

A layer wraps a handler. What it acquires (a span, a slot) it holds in its context, which stays open
as long as the response's stream; no layer does anything per chunk. An edge whose client has
disconnected raises `Cancelled` inside the context, or is cancelled itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
)
from typing import Any, cast

from msgspec.structs import replace

from autoglm.common import errors
from autoglm.common.rpc import API_KEY, AUTHORIZATION
from autoglm.gateway.admission import Admission
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.snapshot import check_reached, visible
from autoglm.gateway.endpoints.stored_responses import ResponseIds, follow
from autoglm.gateway.limits.metering import Limits
from autoglm.gateway.limits.token_buckets import Account
from autoglm.gateway.request.memory_budget import REQUEST_BYTES, Memory
from autoglm.gateway.request.principal import Principal, Role
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response
from autoglm.gateway.request_telemetry import Observer, child_span, note_wait
from autoglm.validation import validate

Layer = Callable[[Handler], Handler]
# Returns the caller. Raises Unauthenticated and the like.
Identify = Callable[[GatewayRequest], Awaitable[Principal]]
INFERENCE_ROLES = frozenset((Role.USER, Role.ADMIN))
READ_ROLES = frozenset(Role)
_log = logging.getLogger("autoglm.gateway")


def request_layers(
    pool: Pool,
    admission: Admission,
    observer: Observer,
    memory: Memory,
    identify: Identify | None = None,
    limits: Limits | None = None,
    response_ids: ResponseIds | None = None,
    route_debug: Layer | None = None,
) -> Sequence[Layer]:
    """Return the layers of a request for a pod. Without `identify` every caller is admitted."""
    return (
        # Outermost: every failure inside leaves as an AutoGLMError.
        map_errors,
        # Outside of every decision, so that rejections have a span, an outcome and a log line too.
        observed(observer),
        # Before any other check: an unauthenticated caller learns nothing else.
        *([authenticated(identify, INFERENCE_ROLES)] if identify else ()),
        # Reads the body, whose memory is reserved until the stream has ended; an unauthenticated
        # caller's body is never read.
        received(memory),
        # Before validation, which needs the model: a stored response belongs to its pod.
        *([followed(pool, response_ids)] if response_ids else ()),
        # Before the queue: an invalid request takes neither a slot nor a pod's time.
        validated(pool),
        # Before the queue: requests over the tenant's limit must not delay those of others.
        *([limited(limits)] if limits else ()),
        # The slot is released when the stream has ended.
        admitted(admission),
        # Around the proxy, whose decisions it shows.
        *([route_debug] if route_debug else ()),
    )


def local_layers(
    observer: Observer, memory: Memory, identify: Identify | None = None
) -> Sequence[Layer]:
    """Return the layers of a request that the gateway responds to itself: it takes no slot."""
    return (
        map_errors,
        observed(observer),
        *([authenticated(identify, READ_ROLES)] if identify else ()),
        received(memory),
    )


def stack(layers: Sequence[Layer], innermost: Handler) -> Handler:
    """Return the handler with all layers around it, the first one outermost."""
    handler = innermost
    for layer in reversed(layers):
        handler = layer(handler)
    return handler


def map_errors(inner: Handler) -> Handler:
    """Map every exception to an AutoGLMError."""

    @asynccontextmanager
    async def handle(request: GatewayRequest, record: RequestRecord) -> AsyncIterator[Response]:
        try:
            async with inner(request, record) as response:
                yield response
        except errors.AutoGLMError:
            raise
        except TimeoutError as error:
            raise errors.DeadlineExceeded("the deadline passed") from error
        except Exception as error:
            fields = {"request_id": request.request_id, "route": request.route}
            _log.error("unexpected error", exc_info=error, extra={"fields": fields})
            raise errors.Internal(str(error)) from error

    return handle


def observed(observer: Observer) -> Layer:
    """Record the request from its begin to its end."""

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(request: GatewayRequest, record: RequestRecord) -> AsyncIterator[Response]:
            observer.begin(request, record)
            status = 0
            try:
                async with inner(request, record) as response:
                    status = response.status
                    yield response
            except (Exception, asyncio.CancelledError, GeneratorExit) as error:
                observer.end(request, record, status, error)
                raise
            observer.end(request, record, status, None)

        return handle

    return layer


def authenticated(identify: Identify, roles: frozenset[Role]) -> Layer:
    """Require one of the roles, and remove the credentials before the request is forwarded."""

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(request: GatewayRequest, record: RequestRecord) -> AsyncIterator[Response]:
            principal = record.principal = await identify(request)
            if not roles & principal.roles:
                needed = " or ".join(sorted(roles))
                raise errors.PermissionDenied(
                    f"this needs the role {needed}; use a credential that has it"
                )
            headers = {
                k: v for k, v in request.headers.items() if k not in (AUTHORIZATION, API_KEY)
            }
            async with inner(
                replace(request, principal=principal, headers=headers), record
            ) as response:
                yield response

        return handle

    return layer


def received(memory: Memory) -> Layer:
    """Read the body, where there is one to read, and reserve its memory."""

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(request: GatewayRequest, record: RequestRecord) -> AsyncIterator[Response]:
            if request.problem is not None:
                raise request.problem
            with memory.open(request.principal.tenant) as reservation:
                reservation.take(REQUEST_BYTES)
                if request.receive is not None:
                    request = await request.receive(request, reservation)
                record.request = request = replace(request, receive=None, hold=reservation)
                async with inner(request, record) as response:
                    yield response

        return handle

    return layer


def followed(pool: Pool, ids: ResponseIds) -> Layer:
    """Bind requests for a stored response to the pod that has it."""

    def layer(inner: Handler) -> Handler:
        def handle(
            request: GatewayRequest, record: RequestRecord
        ) -> AbstractAsyncContextManager[Response]:
            record.request = request = follow(request, pool.snapshot, ids)
            return inner(request, record)

        return handle

    return layer


def validated(pool: Pool) -> Layer:
    """Reject invalid requests and those for models that are unknown or not allowed."""

    def layer(inner: Handler) -> Handler:
        def handle(
            request: GatewayRequest, record: RequestRecord
        ) -> AbstractAsyncContextManager[Response]:
            record.request = request = with_model(request, pool)
            check(request, pool)
            return inner(request, record)

        return handle

    return layer


def with_model(request: GatewayRequest, pool: Pool) -> GatewayRequest:
    """Return an HTTP request that names no model with the only served one.

    As in vLLM, adapters do not count. Where there are several models the request is invalid.
    """
    if request.wire != "http" or request.info is None or request.model:
        return request
    models = visible(pool.snapshot, request.principal).models.values()
    bases = {view.model.name for view in models if not view.model.parent}
    if len(bases) != 1 or not request.principal.may_use(name := bases.pop()):
        return request
    return replace(request, info=dataclasses.replace(request.info, model=name))


def check(request: GatewayRequest, pool: Pool) -> None:
    """Validate the request. Raises an AutoGLMError."""
    assert request.info is not None, "an edge decodes a request or sets its problem"
    if request.model and not request.principal.may_use(request.model):
        # The same error whether the model is served or not, so that callers cannot probe for names.
        field = request.info.field_name("model")
        raise errors.PermissionDenied(
            f"{field} {request.model[:60]!r} is not among the models that you may use; "
            "list the models, or use a credential that allows it",
            field=field,
        )
    models = pool.snapshot.models
    found = models.get(request.model)
    if request.model and found is None:
        field = request.info.field_name("model")
        check_reached(pool.snapshot, f"{field} {request.model[:60]!r}", field)
    known = () if found else tuple(visible(pool.snapshot, request.principal).models)
    validate(request.info, found.model if found else None, known)


def limited(limits: Limits) -> Layer:
    """Apply the tenant's rate limits and meter the response's tokens."""

    def layer(inner: Handler) -> Handler:
        def handle(
            request: GatewayRequest, record: RequestRecord
        ) -> AbstractAsyncContextManager[Response]:
            account = limits.account_of(request)
            if account is None:
                return inner(request, record)
            request.exchange.require_usage()
            return metered_response(account, request, record)

        @asynccontextmanager
        async def metered_response(
            account: Account, request: GatewayRequest, record: RequestRecord
        ) -> AsyncIterator[Response]:
            with limits.reserved(account, request, record) as metered:
                async with inner(request, record) as response:
                    response = metered(response)
                    # The metering ends with the stream, however the stream ends.
                    async with aclosing(cast(Any, response.chunks)):
                        yield response

        return handle

    return layer


def admitted(admission: Admission) -> Layer:
    """Acquire a slot, after a wait in the queue where none is free."""

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(request: GatewayRequest, record: RequestRecord) -> AsyncIterator[Response]:
            async with AsyncExitStack() as slot:
                with child_span(record, "admission") as span:
                    await slot.enter_async_context(admission.slot(request, record))
                    note_wait(span, record)
                async with inner(request, record) as response:
                    yield response

        return handle

    return layer
