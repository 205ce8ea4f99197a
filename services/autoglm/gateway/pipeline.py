"""The way of a request through the gateway, as one list. Called by the edges, which know the wire.

A layer wraps a handler. What a layer holds (a span, a slot) it holds in its context, which stays
open exactly as long as the answer's stream; per chunk no layer does anything. An edge whose client
has gone raises `Cancelled` inside the context, or is cancelled itself.
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
from autoglm.gateway.limits.limiter import Account
from autoglm.gateway.limits.limits import Limits
from autoglm.gateway.request.memory_budget import REQUEST_BYTES, Memory
from autoglm.gateway.request.principal import Principal, Role
from autoglm.gateway.request.request import GatewayRequest, Handler, RequestRecord, Response
from autoglm.gateway.request_telemetry import Observer, child_span, note_wait
from autoglm.validation import validate

Layer = Callable[[Handler], Handler]
# Who asks. Raises Unauthenticated and the like.
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
) -> Sequence[Layer]:
    """What a request for a pod passes, outermost first. Without `identify` everyone may ask."""
    return (
        # Outermost: whatever goes wrong inside leaves as one of our errors, and nothing else does.
        map_errors,
        # Outside of every decision, so that refusals have a span, an outcome and a line as well.
        observed(observer),
        # Before anything is judged or told: a stranger learns nothing but that they are one.
        *([authenticated(identify, INFERENCE_ROLES)] if identify else ()),
        # The body is read from here on, and counts until the stream has ended: strangers' never.
        received(memory),
        # Before validation, which wants the model: a stored response is its pod's.
        *([followed(pool, response_ids)] if response_ids else ()),
        # Before anything is held: a wrong request costs neither a slot nor a pod's time.
        validated(pool),
        # Before the queue: what a tenant may not have must not wait in others' way.
        *([limited(limits)] if limits else ()),
        # Last: a place is held from here until the stream has ended.
        admitted(admission),
    )


def local_layers(
    observer: Observer, memory: Memory, identify: Identify | None = None
) -> Sequence[Layer]:
    """What a request passes that the gateway answers itself: they take no place."""
    return (
        map_errors,
        observed(observer),
        *([authenticated(identify, READ_ROLES)] if identify else ()),
        received(memory),
    )


def stack(layers: Sequence[Layer], innermost: Handler) -> Handler:
    handler = innermost
    for layer in reversed(layers):
        handler = layer(handler)
    return handler


def map_errors(inner: Handler) -> Handler:
    @asynccontextmanager
    async def handle(call: GatewayRequest, notes: RequestRecord) -> AsyncIterator[Response]:
        try:
            async with inner(call, notes) as reply:
                yield reply
        except errors.AutoGLMError:
            raise
        except TimeoutError as error:
            raise errors.DeadlineExceeded("the deadline passed") from error
        except Exception as error:
            fields = {"request_id": call.request_id, "route": call.route}
            _log.error("unexpected error", exc_info=error, extra={"fields": fields})
            raise errors.Internal(str(error)) from error

    return handle


def observed(observer: Observer) -> Layer:
    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(call: GatewayRequest, notes: RequestRecord) -> AsyncIterator[Response]:
            observer.begin(call, notes)
            status = 0
            try:
                async with inner(call, notes) as reply:
                    status = reply.status
                    yield reply
            except (Exception, asyncio.CancelledError, GeneratorExit) as error:
                observer.end(call, notes, status, error)
                raise
            observer.end(call, notes, status, None)

        return handle

    return layer


def authenticated(identify: Identify, roles: frozenset[Role]) -> Layer:
    """Lets those pass who have one of the roles. Pods get no credential that was meant for us."""

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(call: GatewayRequest, notes: RequestRecord) -> AsyncIterator[Response]:
            principal = notes.principal = await identify(call)
            if not roles & principal.roles:
                needed = " or ".join(sorted(roles))
                raise errors.PermissionDenied(
                    f"this needs the role {needed}; ask for a credential that has it"
                )
            headers = {k: v for k, v in call.headers.items() if k not in (AUTHORIZATION, API_KEY)}
            async with inner(replace(call, principal=principal, headers=headers), notes) as reply:
                yield reply

        return handle

    return layer


def received(memory: Memory) -> Layer:
    """Reads the body, where there is one to read, and holds what it takes of the memory."""

    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(call: GatewayRequest, notes: RequestRecord) -> AsyncIterator[Response]:
            if call.problem is not None:
                raise call.problem
            with memory.open(call.principal.tenant) as hold:
                hold.take(REQUEST_BYTES)
                if call.receive is not None:
                    call = await call.receive(call, hold)
                notes.call = call = replace(call, receive=None, hold=hold)
                async with inner(call, notes) as reply:
                    yield reply

        return handle

    return layer


def followed(pool: Pool, ids: ResponseIds) -> Layer:
    """Binds requests about a stored response to the pod that has it."""

    def layer(inner: Handler) -> Handler:
        def handle(
            call: GatewayRequest, notes: RequestRecord
        ) -> AbstractAsyncContextManager[Response]:
            notes.call = call = follow(call, pool.snapshot, ids)
            return inner(call, notes)

        return handle

    return layer


def validated(pool: Pool) -> Layer:
    def layer(inner: Handler) -> Handler:
        def handle(
            call: GatewayRequest, notes: RequestRecord
        ) -> AbstractAsyncContextManager[Response]:
            notes.call = call = with_model(call, pool)
            check(call, pool)
            return inner(call, notes)

        return handle

    return layer


def with_model(call: GatewayRequest, pool: Pool) -> GatewayRequest:
    """The call for the one model that there is, where a request over HTTP names none.

    As pods of vLLM have it: adapters do not count. With several the request is invalid.
    """
    if call.wire != "http" or call.info is None or call.model:
        return call
    models = visible(pool.snapshot, call.principal).models.values()
    bases = {view.model.name for view in models if not view.model.parent}
    if len(bases) != 1 or not call.principal.may_use(name := bases.pop()):
        return call
    return replace(call, info=dataclasses.replace(call.info, model=name))


def check(call: GatewayRequest, pool: Pool) -> None:
    """Raises what is wrong with the call."""
    assert call.info is not None, "an edge decodes a request or says what is wrong with it"
    if call.model and not call.principal.may_use(call.model):
        # The same whether it is served or not, so that nobody learns by asking.
        field = call.info.field_name("model")
        raise errors.PermissionDenied(
            f"{field} {call.model[:60]!r} is not one of those that you may use; "
            "list them, or ask for a credential that allows it",
            field=field,
        )
    models = pool.snapshot.models
    found = models.get(call.model)
    if call.model and found is None:
        field = call.info.field_name("model")
        check_reached(pool.snapshot, f"{field} {call.model[:60]!r}", field)
    known = () if found else tuple(visible(pool.snapshot, call.principal).models)
    validate(call.info, found.model if found else None, known)


def limited(limits: Limits) -> Layer:
    def layer(inner: Handler) -> Handler:
        def handle(
            call: GatewayRequest, notes: RequestRecord
        ) -> AbstractAsyncContextManager[Response]:
            account = limits.account_of(call)
            if account is not None and call.exchange is not None and call.wire == "http":
                # Of an answer over HTTP nobody but its reader knows what it took.
                call.exchange.is_read = True
            return inner(call, notes) if account is None else held(account, call, notes)

        @asynccontextmanager
        async def held(
            account: Account, call: GatewayRequest, notes: RequestRecord
        ) -> AsyncIterator[Response]:
            with limits.reserved(account, call, notes) as metered:
                async with inner(call, notes) as reply:
                    reply = metered(reply)
                    # What counts them ends with the stream, however the stream ends.
                    async with aclosing(cast(Any, reply.chunks)):
                        yield reply

        return handle

    return layer


def admitted(admission: Admission) -> Layer:
    def layer(inner: Handler) -> Handler:
        @asynccontextmanager
        async def handle(call: GatewayRequest, notes: RequestRecord) -> AsyncIterator[Response]:
            async with AsyncExitStack() as held:
                with child_span(notes, "admission") as span:
                    await held.enter_async_context(admission.place(call, notes))
                    note_wait(span, notes)
                async with inner(call, notes) as reply:
                    yield reply

        return handle

    return layer
