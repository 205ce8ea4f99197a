"""The life of a request: one function, from the edge to the end of its response.

| step         | what it does                                        | where                       |
|--------------|-----------------------------------------------------|-----------------------------|
| observe      | span, outcome, access log, metrics                  | `request_telemetry`         |
| authenticate | identifies the caller and checks its role           | `identity`                  |
| receive      | reads the body and reserves its memory; over gRPC   | the edge, `memory_budget`,  |
|              | ends slow messages under memory pressure            | `edges.inbound_memory`      |
| follow       | binds requests for a stored response to its pod     | `endpoints.stored_responses`|
| validate     | rejects invalid fields and unknown models           | `check`, `validation`       |
| rate-limit   | takes from the tenant's token buckets               | `limits.metering`           |
| admit        | waits in the queue, acquires a slot                 | `admission`                 |
| proxy        | routes, sends, retries and recovers; with the debug | `proxy.proxy`,              |
|              | header, shows the decision                          | `proxy.route_debug`         |
| deliver      | sends the response to the client                    | the edge, `envoy.exchange`  |

The REST edge starts few requests in one round of the event loop (`edges.start_throttle`). Requests
that Envoy returns to the gateway's own servers have been through the pipeline, where their
response is delivered from (`envoy.exchange.TakeOver`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec.structs import replace

from autoglm.common import errors
from autoglm.common.rpc import API_KEY, AUTHORIZATION
from autoglm.gateway.admission import Admission, Slot
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.snapshot import check_reached, visible
from autoglm.gateway.endpoints.stored_responses import ResponseIds, follow
from autoglm.gateway.limits.metering import Limits, Meter
from autoglm.gateway.request.memory_budget import REQUEST_BYTES, Memory, MemoryReservation
from autoglm.gateway.request.principal import Principal, Role
from autoglm.gateway.request.request import (
    Deliver,
    GatewayRequest,
    Handler,
    RequestRecord,
    Response,
)
from autoglm.gateway.request_telemetry import Observer, child_span, note_wait
from autoglm.validation import validate

# Returns the caller. Raises Unauthenticated and the like.
Identify = Callable[[GatewayRequest], Awaitable[Principal]]
# Returns a response that the gateway makes itself. Raises AutoGLMError.
Respond = Callable[[GatewayRequest], Response]
INFERENCE_ROLES = frozenset((Role.USER, Role.ADMIN))
READ_ROLES = frozenset(Role)
_log = logging.getLogger("autoglm.gateway")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A `Handler` for requests to pods. Without `identify` every caller is admitted.

    `explain` handles requests with the debug header in place of `proxy`.
    """

    pool: Pool
    admission: Admission
    observer: Observer
    memory: Memory
    proxy: Handler
    identify: Identify | None = None
    limits: Limits | None = None
    response_ids: ResponseIds | None = None
    explain: Handler | None = None

    async def __call__(
        self, request: GatewayRequest, record: RequestRecord, deliver: Deliver
    ) -> None:
        """Respond to a request. Raises AutoGLMError, once it has been recorded."""
        memory: MemoryReservation | None = None
        meter: Meter | None = None
        slot: Slot | None = None
        failure: BaseException | None = None

        async def send(response: Response) -> None:
            record.status = response.status
            await deliver(response if meter is None else meter.read(response))

        self.observer.begin(request, record)
        try:
            # Before any other check: an unauthenticated caller learns nothing else, and its body
            # is never read.
            request = await authenticated(self.identify, INFERENCE_ROLES, request, record)
            memory = self.memory.open(request.principal.tenant)
            request = await received(memory, request, record)
            # Before validation, which needs the model: a stored response belongs to its pod.
            if self.response_ids is not None:
                request = follow(request, self.pool.snapshot, self.response_ids)
            # Before the queue: an invalid request takes neither a slot nor a pod's time.
            record.request = request = with_model(request, self.pool)
            check(request, self.pool)
            # Before the queue: requests over the tenant's limit must not delay those of others.
            account = self.limits.account_of(request) if self.limits is not None else None
            if self.limits is not None and account is not None:
                request.exchange.require_usage()
                meter = self.limits.reserve(account, request, record)
            with child_span(record, "admission") as span:
                slot = await self.admission.enter(request, record)
                note_wait(span, record)
            proxy = self.explain if request.debug and self.explain else self.proxy
            await proxy(request, record, send)
        except BaseException as error:
            failure = api_error(error, request)
            if failure is error:
                raise
            raise failure from error
        finally:
            # Released in the reverse order, once the stream has ended.
            if slot is not None:
                self.admission.leave(slot, record)
            if meter is not None:
                meter.settle(failure)
            if memory is not None:
                memory.close()
            self.observer.end(request, record, failure)
            # Its traceback holds this frame: a cycle, which would wait for a garbage collection.
            failure = None


@dataclass(frozen=True, slots=True)
class LocalPage:
    """A `Handler` for what the gateway responds to itself: any role may read it."""

    respond: Respond
    observer: Observer
    memory: Memory
    identify: Identify | None = None

    async def __call__(
        self, request: GatewayRequest, record: RequestRecord, deliver: Deliver
    ) -> None:
        """Respond with the page. Raises AutoGLMError, once it has been recorded."""
        memory: MemoryReservation | None = None
        failure: BaseException | None = None
        self.observer.begin(request, record)
        try:
            request = await authenticated(self.identify, READ_ROLES, request, record)
            memory = self.memory.open(request.principal.tenant)
            request = await received(memory, request, record)
            response = self.respond(request)
            record.status = response.status
            await deliver(response)
        except BaseException as error:
            failure = api_error(error, request)
            if failure is error:
                raise
            raise failure from error
        finally:
            if memory is not None:
                memory.close()
            self.observer.end(request, record, failure)
            # Its traceback holds this frame: a cycle, which would wait for a garbage collection.
            failure = None


def api_error(error: BaseException, request: GatewayRequest) -> BaseException:
    """Return the AutoGLMError of an exception; a cancellation is returned as it is."""
    if isinstance(error, errors.AutoGLMError) or not isinstance(error, Exception):
        return error
    if isinstance(error, TimeoutError):
        return errors.DeadlineExceeded("the deadline passed")
    fields = {"request_id": request.request_id, "route": request.route}
    _log.error("unexpected error", exc_info=error, extra={"fields": fields})
    return errors.Internal(str(error))


async def authenticated(
    identify: Identify | None,
    roles: frozenset[Role],
    request: GatewayRequest,
    record: RequestRecord,
) -> GatewayRequest:
    """Return the request with its caller, without the credentials, which pods do not get.

    Raises PermissionDenied without one of the roles, and what `identify` raises.
    """
    if identify is None:
        return request
    principal = record.principal = await identify(request)
    if not roles & principal.roles:
        needed = " or ".join(sorted(roles))
        raise errors.PermissionDenied(f"this needs the role {needed}; use a credential that has it")
    headers = {k: v for k, v in request.headers.items() if k not in (AUTHORIZATION, API_KEY)}
    return replace(request, principal=principal, headers=headers)


async def received(
    memory: MemoryReservation, request: GatewayRequest, record: RequestRecord
) -> GatewayRequest:
    """Return the request with its body, where there is one to read, in reserved memory."""
    if request.problem is not None:
        raise request.problem
    memory.take(REQUEST_BYTES)
    if request.receive is not None:
        request = await request.receive(request, memory)
    record.request = request = replace(request, receive=None, hold=memory)
    return request


def with_model(request: GatewayRequest, pool: Pool) -> GatewayRequest:
    """Return an HTTP request that names no model with the only served one.

    As in vLLM, adapters do not count. Where there are several models the request is invalid.
    """
    info = request.info
    if request.wire != "http" or info is None or info.model:
        return request
    models = visible(pool.snapshot, request.principal).models.values()
    bases = {view.model.name for view in models if not view.model.parent}
    if len(bases) != 1 or not request.principal.may_use(name := bases.pop()):
        return request
    return replace(request, info=replace(info, model=name))


def check(request: GatewayRequest, pool: Pool) -> None:
    """Validate the request. Raises an AutoGLMError."""
    info = request.info
    assert info is not None, "an edge decodes a request or sets its problem"
    name = info.model
    if name and not request.principal.may_use(name):
        # The same error whether the model is served or not, so that callers cannot probe for names.
        field = info.field_name("model")
        raise errors.PermissionDenied(
            f"{field} {name[:60]!r} is not among the models that you may use; "
            "list the models, or use a credential that allows it",
            field=field,
        )
    snapshot = pool.snapshot
    found = snapshot.models.get(name)
    if found is not None:
        validate(info, found.model, ())
        return
    if name:
        field = info.field_name("model")
        check_reached(snapshot, f"{field} {name[:60]!r}", field)
    validate(info, None, tuple(visible(snapshot, request.principal).models))
