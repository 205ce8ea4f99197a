"""The response of one request as a stream of chunks, recovered on other endpoints when it breaks.

Forwards chunks. When the endpoint is lost, another endpoint resumes the stream behind what was
delivered, as `recovery` decides; otherwise the stream ends with an error that names the reason.
Used by the proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import msgspec
from msgspec import structs

from autoglm.api.spec.traffic import StreamRecovery
from autoglm.common import errors
from autoglm.common.errors import AutoGLMError, NoReadyEndpoint, StreamBroken
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.proxy.attempt import Attempt, Attempts, is_replayed
from autoglm.gateway.proxy.grpc_transcript import KINDS, GrpcTranscript
from autoglm.gateway.proxy.recovery import (
    NotResumable,
    Transcript,
    is_resumable,
    successors,
)
from autoglm.gateway.proxy.sse_transcript import SseTranscript
from autoglm.gateway.proxy.timeouts import Limits
from autoglm.gateway.proxy.upstream import RetryElsewhere, Stalled
from autoglm.gateway.request.event_stream import is_event_stream
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, Trailers
from autoglm.gateway.request_telemetry import note_recovery

RECOVERED_TRAILER = "autoglm-recovered"
# How long a broken stream waits for a pod that could take it over.
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.1
_MAX_ERROR_BYTES = 64 * 1024
# The transcript's memory is reserved in steps; the first is part of each request's reservation.
_KEPT_BYTES = 16 * 1024
_Broken = StreamBroken | Stalled | RetryElsewhere


@dataclass(frozen=True, slots=True)
class Terms:
    """Limits and policies of one request. `is_over` withdraws a retry from the budget."""

    limits: Limits
    recovery: StreamRecovery
    is_over: Callable[[], bool]


class Stream:
    """A response over one or more attempts. `response` may be called once; `close` ends it."""

    def __init__(
        self,
        request: GatewayRequest,
        record: RequestRecord,
        attempt: Attempt,
        terms: Terms,
        attempts: Attempts,
        pool: Pool,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._request, self._record, self._terms = request, record, terms
        self._attempts, self._pool, self._metrics = attempts, pool, metrics
        self._clock = clock
        self._attempt: Attempt | None = attempt
        self._left = terms.recovery.max_attempts
        self._kept = _KEPT_BYTES
        self._resumed = 0
        self._transcript = transcript_of(attempt, terms.recovery)
        attempt.is_recoverable = self._transcript is not None

    def response(self) -> Response:
        # Not an attribute: it would form a reference cycle that keeps the request in memory until
        # garbage is collected.
        assert self._attempt is not None and self._attempt.response is not None
        response = self._attempt.response
        if self._transcript is None and self._terms.limits.chunk_seconds is None:
            return response
        return replace(response, chunks=self._chunks(), trailers=self._trailers)

    async def close(self, error: BaseException | None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            await attempt.close(error)

    async def _chunks(self) -> AsyncIterator[bytes]:
        transcript = self._transcript
        while (attempt := self._attempt) is not None and attempt.response is not None:
            next_chunk = attempt.response.chunks.__anext__
            try:
                chunk = await attempt.timer.wait(next_chunk)
            except StopAsyncIteration:
                break
            except (StreamBroken, Stalled, RetryElsewhere) as failure:
                if transcript is None:
                    if isinstance(failure, StreamBroken):
                        raise
                    raise failure.error from failure
                if transcript.is_complete():
                    break
                await self._recover(attempt, failure, transcript)
                continue
            if transcript is None:
                yield chunk
                continue
            chunk = transcript.feed(chunk)
            if transcript.size > self._kept:
                self._keep(transcript)
            if chunk:
                yield chunk
            if transcript.failure:
                await self._recover(attempt, StreamBroken(transcript.failure), transcript)
        if transcript is not None and (rest := transcript.rest()):
            yield rest

    async def _trailers(self) -> Trailers:
        attempt = self._attempt
        trailers = await attempt.response.trailers() if attempt and attempt.response else ()
        if not self._record.recoveries:
            return trailers
        return (*trailers, (RECOVERED_TRAILER, str(self._record.recoveries)))

    async def _recover(self, attempt: Attempt, failure: _Broken, transcript: Transcript) -> None:
        """Resumes the stream on another endpoint. Raises the client's error where none can."""
        await self.close(failure)
        try:
            payload = self._payload(transcript)
            request = structs.replace(self._request, payload=payload)
            self._attempt = await self._successor(request, attempt)
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

    def _keep(self, transcript: Transcript) -> None:
        """Reserves memory for the transcript, and gives the transcript up where there is none."""
        more = max(_KEPT_BYTES, transcript.size - self._kept)
        if self._request.hold.try_take(more):
            self._kept += more
        else:
            transcript.give_up("the gateway had no memory left to keep what it sent")

    def _payload(self, transcript: Transcript) -> bytes:
        """Returns the request that resumes the stream, with memory reserved for it.

        Raises NotResumable.
        """
        reservation = self._request.hold
        payload = transcript.resumption(self._request.payload)
        reservation.give(self._resumed)
        self._resumed = len(payload) if reservation.try_take(len(payload)) else 0
        if not self._resumed:
            raise NotResumable("the gateway has no memory left for another request of its size")
        return payload

    async def _successor(self, request: GatewayRequest, broken: Attempt) -> Attempt:
        tried, end = {broken.view.url}, self._clock() + _PATIENCE_SECONDS
        why = ""
        while self._left > 0:
            snapshot = successors(self._pool.snapshot, request.model, broken.view)
            model = snapshot.models.get(request.model)
            if (model is None or not model.endpoints(request.wire)) and self._clock() < end:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            if self._terms.is_over():
                raise _Exhausted("the retry budget is spent")
            self._left -= 1
            try:
                attempt = await self._attempts.begin(
                    request, self._record, self._terms.limits, tried, snapshot
                )
                await _check(attempt)
                return attempt
            except RetryElsewhere as error:
                why = error.error.message
            except (errors.ResumeImpossible, errors.Unimplemented) as error:
                raise NotResumable(error.message) from error
        raise NoReadyEndpoint(f"no attempts are left{why and f' ({why})'}")

    def _give_up(self, outcome: str, failure: _Broken, why: str) -> NoReturn:
        self._metrics.recoveries.labels(outcome).inc()
        error = _error_of(failure)
        raise StreamBroken(f"{error.message}; recovery on another pod failed: {why}") from failure


class _Exhausted(Exception):
    """The retry budget allows no further attempt."""


def transcript_of(attempt: Attempt, policy: StreamRecovery) -> Transcript | None:
    """Returns the transcript of a response; None for one that cannot be resumed elsewhere."""
    request, response = attempt.request, attempt.response
    if policy.mode == "Off" or response is None or response.status != 200:
        return None
    if not request.exchange.has_chunks or not is_resumable(attempt.view, request.model):
        return None
    if kind := KINDS.get(request.target):
        return GrpcTranscript(kind, policy.max_replay_tokens)
    if is_replayed(request, attempt.view) and is_event_stream(response.headers):
        return SseTranscript(policy.max_replay_tokens)
    return None


async def _check(attempt: Attempt) -> None:
    """Closes an attempt whose response is an HTTP error, and raises ResumeImpossible."""
    response = attempt.response
    assert response is not None
    if response.status == 200:
        return
    body = b""
    async for chunk in response.chunks:
        if len(body) < _MAX_ERROR_BYTES:
            body += chunk
    await attempt.close()
    raise errors.ResumeImpossible(_message(body) or f"the pod returned {response.status}")


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return ""


def _error_of(failure: _Broken) -> AutoGLMError:
    return failure if isinstance(failure, StreamBroken) else failure.error
