"""The response of one request as a stream of chunks, recovered on other endpoints when it breaks.

Forwards chunks. When the endpoint is lost, another endpoint resumes the stream behind what was
delivered, as `recovery` decides; otherwise the stream ends with an error that names the reason.
Used by the proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

import msgspec
from msgspec.structs import replace

from autoglm.common import errors
from autoglm.common.errors import AutoGLMError, NoReadyEndpoint, StreamBroken
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.proxy.attempt import Attempt, Attempts
from autoglm.gateway.proxy.recovery import NotResumable, Transcript, successors
from autoglm.gateway.proxy.timeouts import StreamTimeouts
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import (
    GatewayRequest,
    RequestRecord,
    Response,
    Trailers,
    Write,
)
from autoglm.gateway.request_telemetry import note_recovery

RECOVERED_TRAILER = "autoglm-recovered"
# How long a broken stream waits for a pod that could take it over.
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.1
_MAX_ERROR_BYTES, _MAX_ERROR_CHUNKS = 64 * 1024, 64
# The transcript's memory is reserved in steps; the first is part of each request's reservation.
_KEPT_BYTES = 16 * 1024
_Broken = StreamBroken | Stalled | RetryElsewhere


class Stream:
    """A response over one or more attempts. `response` may be called once; `close` ends it."""

    def __init__(
        self,
        record: RequestRecord,
        attempt: Attempt,
        transcript: Transcript | None,
        timeouts: StreamTimeouts,
        max_attempts: int,
        may_retry: Callable[[], bool],
        attempts: Attempts,
        pool: Pool,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._request, self._record = attempt.request, record
        self._timeouts, self._may_retry = timeouts, may_retry
        self._attempts, self._pool, self._metrics = attempts, pool, metrics
        self._clock = clock
        self._attempt: Attempt | None = attempt
        self._left = max_attempts
        self._kept = _KEPT_BYTES
        self._resumed = 0
        self._transcript = transcript
        attempt.is_recoverable = transcript is not None

    def response(self) -> Response:
        """Return the first attempt's response, with the chunks of all attempts."""
        # Not an attribute: it would form a reference cycle that keeps the request in memory until
        # garbage is collected.
        assert self._attempt is not None and self._attempt.response is not None
        response = self._attempt.response
        return replace(response, forward=self._forward, trailers=self._trailers)

    def close(self, error: BaseException | None) -> None:
        """End the open attempt, if there is one, with an error or None after success."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.close(error)

    async def _forward(self, write: Write) -> None:
        transcript = self._transcript
        while (attempt := self._attempt) is not None and attempt.response is not None:
            write_on = self._writer(attempt, write)
            try:
                await attempt.timer.wait(partial(attempt.response.forward, write_on))
                break
            except (StreamBroken, Stalled, RetryElsewhere) as failure:
                if transcript is None:
                    if isinstance(failure, StreamBroken):
                        raise
                    raise failure.error from failure
                if transcript.is_complete():
                    break
                await self._recover(attempt, failure, transcript)
        if transcript is not None and (rest := transcript.rest()):
            waiting = write(rest)
            if waiting is not None:
                await waiting

    def _writer(self, attempt: Attempt, write: Write) -> Write:
        """Return what passes an attempt's chunks on. Runs for every chunk: it only keeps bytes.

        What it returns raises StreamBroken where a chunk says that the pod is lost.
        """
        transcript, timer = self._transcript, attempt.timer
        is_timed = timer.has_limit

        def write_on(chunk: bytes) -> Awaitable[None] | None:
            if transcript is not None:
                chunk = transcript.feed(chunk)
                if transcript.size > self._kept:
                    self._keep(transcript)
                if transcript.failure:
                    return _broken(write(chunk) if chunk else None, transcript.failure)
            waiting = write(chunk) if chunk else None
            if is_timed:
                if waiting is not None:
                    return timer.paused(waiting)
                timer.restart()
            return waiting

        return write_on

    async def _trailers(self) -> Trailers:
        attempt = self._attempt
        trailers = await attempt.response.trailers() if attempt and attempt.response else ()
        if not self._record.recoveries:
            return trailers
        return (*trailers, (RECOVERED_TRAILER, str(self._record.recoveries)))

    async def _recover(self, attempt: Attempt, failure: _Broken, transcript: Transcript) -> None:
        """Resume the stream on another endpoint. Raises the client's error where none can."""
        self.close(failure)
        reservation = self._request.hold
        try:
            payload = transcript.resumption(self._request.payload)
            reservation.give(self._resumed)
            self._resumed = len(payload) if reservation.try_take(len(payload)) else 0
            if not self._resumed:
                raise NotResumable("the gateway has no memory left for another request of its size")
            self._attempt = await self._successor(replace(self._request, payload=payload), attempt)
        except NotResumable as why:
            self._give_up("impossible", failure, str(why))
        except _Exhausted as why:
            self._give_up("exhausted", failure, str(why))
        except AutoGLMError as error:
            self._give_up("unavailable", failure, error.message)
        self._attempt.is_recoverable = True
        self._record.recoveries += 1
        self._metrics.recoveries.labels("recovered").inc()
        note_recovery(self._record, attempt.view.url)

    async def _successor(self, request: GatewayRequest, broken: Attempt) -> Attempt:
        """Return an attempt that resumes the stream, after a wait where no endpoint is ready."""
        tried, end = {broken.view.url}, self._clock() + _PATIENCE_SECONDS
        why = ""
        while self._left > 0:
            snapshot = successors(self._pool.snapshot, request.model, broken.view)
            model = snapshot.models.get(request.model)
            if (model is None or not model.endpoints(request.wire)) and self._clock() < end:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            if not self._may_retry():
                raise _Exhausted("the retry budget is spent")
            self._left -= 1
            try:
                attempt = await self._attempts.begin(
                    request, self._record, self._timeouts, tried, snapshot
                )
                await _check(attempt)
                return attempt
            except RetryElsewhere as error:
                why = error.error.message
            except (errors.ResumeImpossible, errors.Unimplemented) as error:
                raise NotResumable(error.message) from error
        raise NoReadyEndpoint(f"no attempts are left{why and f' ({why})'}")

    def _keep(self, transcript: Transcript) -> None:
        """Reserve memory for the transcript. Fold it where it is scarce; give it up without any."""
        if not self._request.hold.is_scarce and self._reserve(transcript.size):
            return
        transcript.fold()
        if not self._reserve(transcript.size):
            transcript.give_up("the gateway had no memory left to keep what it sent")

    def _reserve(self, size: int) -> bool:
        """Reserve memory for so many bytes in all, in steps. Returns False where there is none."""
        if size <= self._kept:
            return True
        more = max(_KEPT_BYTES, size - self._kept)
        if not self._request.hold.try_take(more):
            return False
        self._kept += more
        return True

    def _give_up(self, outcome: str, failure: _Broken, why: str) -> NoReturn:
        self._metrics.recoveries.labels(outcome).inc()
        error = failure if isinstance(failure, StreamBroken) else failure.error
        raise StreamBroken(f"{error.message}; recovery on another pod failed: {why}") from failure


async def _broken(waiting: Awaitable[None] | None, why: str) -> None:
    if waiting is not None:
        await waiting
    raise StreamBroken(why)


class _Exhausted(Exception):
    """The retry budget allows no further attempt."""


async def _check(attempt: Attempt) -> None:
    """Close an attempt whose response is an HTTP error, and raise ResumeImpossible."""
    response = attempt.response
    assert response is not None
    if response.status == 200:
        return
    parts: list[bytes] = []

    def keep(chunk: bytes) -> None:
        if len(parts) < _MAX_ERROR_CHUNKS:
            parts.append(chunk)

    await response.forward(keep)
    body = b"".join(parts)[:_MAX_ERROR_BYTES]
    attempt.close()
    message = f"the pod returned {response.status}"
    with suppress(msgspec.DecodeError, LookupError, TypeError):
        message = str(msgspec.json.decode(body)["error"]["message"]) or message
    raise errors.ResumeImpossible(message)
