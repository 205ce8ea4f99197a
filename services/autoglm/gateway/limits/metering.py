"""Applies rate limits to requests for the pipeline and reloads the tenants file.

`token_buckets` decides. The tokens that a request used are counted from its response, only for
tenants with a rate limit: gRPC chunks are parsed for their token ids, and the last one for the
pod's usage; `http_usage` reads responses over HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial

from msgspec.structs import replace

from autoglm import v1
from autoglm.common import errors
from autoglm.common.metrics import CounterFamily
from autoglm.common.status import TokenUsage
from autoglm.gateway.limits import token_buckets
from autoglm.gateway.limits.tenants import tenants_of
from autoglm.gateway.limits.token_buckets import Account, RateLimits, Reservation
from autoglm.gateway.request.event_stream import is_event_stream
from autoglm.gateway.request.grpc_methods import BY_PATH
from autoglm.gateway.request.http_usage import UsageReader, reported_usage
from autoglm.gateway.request.request import (
    GatewayRequest,
    RequestRecord,
    Response,
    Trailers,
    Write,
)
from autoglm.gateway.watched_file import WatchedFile
from autoglm.validation import Billing

# Failures that the client pays for: the pod has computed its prompt.
_LEFT = (
    asyncio.CancelledError,
    GeneratorExit,
    errors.Cancelled,
    errors.DeadlineExceeded,
    TimeoutError,
)
_GENERATED: Mapping[str, Callable[[bytes], int]] = {
    "/autoglm.v1.Inference/GenerateStream": lambda c: len(v1.GenerateChunk.FromString(c).token_ids),
    "/autoglm.v1.Inference/ChatStream": lambda c: len(v1.ChatChunk.FromString(c).token_ids),
}


class Limits:
    """The rate limits of all tenants; none if `file` is empty.

    `rejected` counts by the limit exceeded, `unmetered` requests charged by an estimate, by reason.
    """

    def __init__(
        self,
        file: str,
        gateways: int,
        rejected: CounterFamily,
        unmetered: CounterFamily,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._rejected = rejected
        self._unmetered = unmetered
        self._clock = clock
        self.rates = RateLimits(gateways=gateways)

    async def start(self, closing: AsyncExitStack) -> None:
        """Read the file and watch it. Raises OSError or ValueError if it is unreadable."""
        if not self._file:
            return
        file = WatchedFile(self._file, tenants_of)
        self.rates.know(file.value)
        task = asyncio.create_task(file.watch(self.rates.know), name="tenants")
        closing.callback(task.cancel)

    def account_of(self, request: GatewayRequest) -> Account | None:
        return self.rates.account_of(request.principal.tenant, self._clock())

    def reserve(self, account: Account, request: GatewayRequest, record: RequestRecord) -> Meter:
        """Reserve the request's estimated tokens. Raises RateLimited."""
        now, tokens = self._clock(), request.info.estimated_tokens if request.info else 0
        what, wait = token_buckets.shortage(account, tokens, now)
        if wait > 0:
            self._rejected.labels(what).inc()
            raise token_buckets.rejection(request.principal.tenant, account, what, wait, now)
        reservation = token_buckets.reserve(account, tokens, now)
        headers = token_buckets.headers_of(account, now)
        return Meter(request, record, self._unmetered, reservation, headers, self._clock)


class Meter:
    """Meters one request, whose estimate is reserved.

    Counts in `unmetered` a served request that is charged by its estimate alone; streams are
    charged by their events instead. `headers` show the client what is left of its limits.
    """

    def __init__(
        self,
        request: GatewayRequest,
        record: RequestRecord,
        unmetered: CounterFamily,
        reservation: Reservation,
        headers: Mapping[str, str],
        clock: Callable[[], float],
    ) -> None:
        self._request = request
        self._record = record
        self._unmetered = unmetered
        self._reservation = reservation
        self._headers = headers
        self._clock = clock
        self._reader: UsageReader | None = None
        self._last = b""
        self._tokens = 0
        self._status = 0

    def read(self, reply: Response) -> Response:
        """Return the response with its chunks counted and headers added; trailers over gRPC."""
        self._status = reply.status
        self._record.is_metered = True
        headers = self._headers
        if self._request.wire == "http":
            is_stream = is_event_stream(reply.headers)
            self._reader = UsageReader(is_stream=is_stream, headers=reply.headers)
            forward = partial(self._forward, reply, self._reader.add)
            return replace(reply, forward=forward, headers={**reply.headers, **headers})

        async def trailers() -> Trailers:
            return (*await reply.trailers(), *headers.items())

        forward = partial(self._forward, reply, self._note_message)
        return replace(reply, forward=forward, trailers=trailers)

    def settle(self, failure: BaseException | None) -> None:
        """Charge what the request used, at its end, or nothing where it reached no pod."""
        now, reservation = self._clock(), self._reservation
        if failure is not None and self._record.attempts == 0:
            token_buckets.cancel(reservation, now)
        else:
            token_buckets.settle(reservation, self._used(reservation.tokens, failure), now)

    def _used(self, reserved: float, failure: BaseException | None) -> float:
        """Return the tokens to charge, after the request has ended."""
        info, record = self._request.info, self._record
        if info is None or info.billing is Billing.FREE or self._status >= 400:
            return 0.0
        record.usage = record.usage or self._usage()
        if record.usage is not None and record.usage.total:
            return float(record.usage.total)
        counted = self._reader.events if self._reader else self._tokens
        so_far = float(info.prompt_tokens + self._request.exchange.generated(counted, reserved))
        if failure is None:
            if info.billing is Billing.BODY:
                self._unmetered.labels("unknown_path").inc()
            elif not self._tokens and (self._reader is None or not self._reader.events):
                self._unmetered.labels("no_usage").inc()
            return max(reserved, so_far)
        return so_far if record.first_chunk or isinstance(failure, _LEFT) else 0.0

    async def _forward(self, reply: Response, note: Callable[[bytes], None], write: Write) -> None:
        def noted(chunk: bytes) -> Awaitable[None] | None:
            note(chunk)
            return write(chunk)

        await reply.forward(noted)
        usage = self._usage()
        if usage is None and self._request.wire == "grpc":
            # Messages of the Open Inference Protocol have no field for usage.
            usage = reported_usage(await reply.trailers())
        # Before the proxy ends its span, which reports the usage.
        self._record.usage = usage or self._record.usage

    def _note_message(self, chunk: bytes) -> None:
        self._last = chunk
        if generated := _GENERATED.get(self._request.target):
            self._tokens += generated(chunk)

    def _usage(self) -> TokenUsage | None:
        if self._reader is not None:
            return self._reader.usage()
        return BY_PATH[self._request.target].usage(self._last) if self._last else None
