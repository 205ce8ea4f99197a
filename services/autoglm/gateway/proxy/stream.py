"""One answer on its way to the client, over as many endpoints as it takes.

Passes chunks on; when the endpoint is lost it has another go on behind what was delivered, as
`recovery` says, or ends the stream with an error that says why it was not done. Used by the relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import msgspec
from msgspec import structs

from autoglm.common import errors
from autoglm.common.errors import AutoGLMError, NoReadyEndpoint, StreamBroken
from autoglm.gateway.endpoints.pool import Pool
from autoglm.gateway.endpoints.safeguards import RecoveryPolicy
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
from autoglm.gateway.request.metrics import Metrics
from autoglm.gateway.request.request import GatewayRequest, RequestRecord, Response, Trailers
from autoglm.gateway.request.whole_events import is_event_stream
from autoglm.gateway.request_telemetry import note_recovery

RECOVERED_TRAILER = "autoglm-recovered"
# How long a broken stream waits for a pod that could take it over.
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_MAX_ERROR_BYTES = 64 * 1024
# What is kept of an answer counts in steps; the first is a part of what each request takes.
_KEPT_BYTES = 16 * 1024
_Broken = StreamBroken | Stalled | RetryElsewhere


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one call. `is_over` is asked before each attempt, which it pays for."""

    limits: Limits
    recovery: RecoveryPolicy
    is_over: Callable[[], bool]


class Stream:
    """`reply` is for the edge, to be asked once; `close` ends what is under way."""

    def __init__(
        self,
        call: GatewayRequest,
        notes: RequestRecord,
        attempt: Attempt,
        terms: Terms,
        attempts: Attempts,
        pool: Pool,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._call, self._notes, self._terms = call, notes, terms
        self._attempts, self._pool, self._metrics = attempts, pool, metrics
        self._clock = clock
        self._attempt: Attempt | None = attempt
        self._left = terms.recovery.attempts
        self._kept = _KEPT_BYTES
        self._resumed = 0
        self._transcript = transcript_of(attempt, terms.recovery)
        attempt.is_recoverable = self._transcript is not None

    def reply(self) -> Response:
        # Not kept: each would hold the other, and both all of the call, until garbage is collected.
        assert self._attempt is not None and self._attempt.reply is not None
        reply = self._attempt.reply
        if self._transcript is None and self._terms.limits.chunk_seconds is None:
            return reply
        return replace(reply, chunks=self._chunks(), trailers=self._trailers)

    async def close(self, error: BaseException | None) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            await attempt.close(error)

    async def _chunks(self) -> AsyncIterator[bytes]:
        transcript = self._transcript
        while (attempt := self._attempt) is not None and attempt.reply is not None:
            next_chunk = attempt.reply.chunks.__anext__
            try:
                chunk = await attempt.leash.wait(next_chunk)
            except StopAsyncIteration:
                break
            except (StreamBroken, Stalled, RetryElsewhere) as failure:
                if transcript is None:
                    if isinstance(failure, StreamBroken):
                        raise
                    raise failure.error from failure
                if transcript.is_complete():
                    break
                await self._go_on(attempt, failure, transcript)
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
                await self._go_on(attempt, StreamBroken(transcript.failure), transcript)
        if transcript is not None and (rest := transcript.rest()):
            yield rest

    async def _trailers(self) -> Trailers:
        attempt = self._attempt
        trailers = await attempt.reply.trailers() if attempt and attempt.reply else ()
        if not self._notes.recoveries:
            return trailers
        return (*trailers, (RECOVERED_TRAILER, str(self._notes.recoveries)))

    async def _go_on(self, attempt: Attempt, failure: _Broken, transcript: Transcript) -> None:
        """From now on another endpoint answers. Raises the client's error where none can."""
        await self.close(failure)
        try:
            payload = self._payload(transcript)
            call = structs.replace(self._call, payload=payload)
            self._attempt = await self._successor(call, attempt)
        except NotResumable as why:
            self._give_up("impossible", failure, str(why))
        except _Exhausted as why:
            self._give_up("exhausted", failure, str(why))
        except AutoGLMError as error:
            self._give_up("unavailable", failure, error.message)
        self._attempt.is_recoverable = True
        self._notes.recoveries += 1
        self._metrics.recoveries.labels("recovered").inc()
        note_recovery(self._notes, attempt.view.url)

    def _keep(self, transcript: Transcript) -> None:
        """More is kept of the answer; where there is no room for it, nothing is from now on."""
        more = max(_KEPT_BYTES, transcript.size - self._kept)
        if self._call.hold.try_take(more):
            self._kept += more
        else:
            transcript.give_up("the gateway had no memory left to keep what it sent")

    def _payload(self, transcript: Transcript) -> bytes:
        """The request that goes on; it is kept beside the client's own. Raises NotResumable."""
        hold = self._call.hold
        payload = transcript.resumption(self._call.payload)
        hold.give(self._resumed)
        self._resumed = len(payload) if hold.try_take(len(payload)) else 0
        if not self._resumed:
            raise NotResumable("the gateway has no memory left for another request of its size")
        return payload

    async def _successor(self, call: GatewayRequest, broken: Attempt) -> Attempt:
        tried, end = {broken.view.url}, self._clock() + _PATIENCE_SECONDS
        why = ""
        while self._left > 0:
            snapshot = successors(self._pool.snapshot, call.model, broken.view)
            model = snapshot.models.get(call.model)
            if (model is None or not model.endpoints(call.wire)) and self._clock() < end:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            if self._terms.is_over():
                raise _Exhausted("the retry budget is spent")
            self._left -= 1
            try:
                attempt = await self._attempts.begin(
                    call, self._notes, self._terms.limits, tried, snapshot
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
        raise StreamBroken(
            f"{error.message}; it could not go on on another pod: {why}"
        ) from failure


class _Exhausted(Exception):
    """Nothing may be tried any more."""


def transcript_of(attempt: Attempt, policy: RecoveryPolicy) -> Transcript | None:
    """None for an answer that cannot go on elsewhere."""
    call, reply = attempt.call, attempt.reply
    if policy.attempts == 0 or reply is None or call.exchange is not None:
        return None
    if not is_resumable(attempt.view, call.model):
        return None
    if call.wire == "grpc":
        kind = KINDS.get(call.target)
        return GrpcTranscript(kind, policy.max_tokens) if kind else None
    if not is_replayed(call, attempt.view) or reply.status != 200:
        return None
    if not is_event_stream(reply.headers):
        return None
    return SseTranscript(policy.max_tokens)


async def _check(attempt: Attempt) -> None:
    """An HTTP answer may be an error with a body; that is a failed attempt. Closes it then."""
    reply = attempt.reply
    assert reply is not None
    if reply.status == 200:
        return
    body = b""
    async for chunk in reply.chunks:
        if len(body) < _MAX_ERROR_BYTES:
            body += chunk
    await attempt.close()
    raise errors.ResumeImpossible(_message(body) or f"the pod answers {reply.status}")


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return ""


def _error_of(failure: _Broken) -> AutoGLMError:
    return failure if isinstance(failure, StreamBroken) else failure.error
