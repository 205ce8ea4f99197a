"""A call of the client: its request id, deadline, span and retries. Used by both clients.

A call is retried only before its first message, only after UNAVAILABLE or after RESOURCE_EXHAUSTED
with RetryInfo, and never past its deadline.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from tenacity import RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay

from autoglm.client.requests import CallOptions
from autoglm.common import errors, rpc, semconv, status

API_KEY_VARIABLE = "AUTOGLM_API_KEY"
_tracer = trace.get_tracer("autoglm.client")
_propagator = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off from `first_wait` to `longest_wait` seconds with full jitter.

    The RetryInfo of the server is added to the wait. `attempts` includes the first one; 1 disables
    retries.
    """

    attempts: int = 4
    first_wait: float = 0.1
    longest_wait: float = 2.0


def should_retry(error: BaseException) -> bool:
    """Return whether a call may be retried after the error."""
    if not isinstance(error, errors.AutoGLMError) or not error.retryable:
        return False
    return error.grpc_status == "UNAVAILABLE" or error.retry_after is not None


def wait_seconds(
    error: BaseException | None, attempt: int, policy: RetryPolicy, rng: random.Random
) -> float:
    """Return the seconds to wait after failed attempt number `attempt`, counted from 1."""
    ceiling = min(policy.longest_wait, policy.first_wait * 2 ** (attempt - 1))
    retry_after = error.retry_after if isinstance(error, errors.AutoGLMError) else None
    return (retry_after or 0.0) + rng.uniform(0, ceiling)


def key_or_default(api_key: str | None) -> str:
    """Return the given key, or else $AUTOGLM_API_KEY."""
    return os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key


@dataclass(frozen=True, slots=True)
class Target:
    """The server, and the defaults of its calls."""

    address: str
    model: str
    timeout: float | None
    retries: RetryPolicy
    rng: random.Random
    api_key: str = field(default="", repr=False)


class ClientCall:
    """A call as a context manager, streams included: owns the span, and maps errors."""

    def __init__(
        self,
        method: str,
        model: str,
        target: Target,
        options: CallOptions,
        hints: Mapping[str, bytes] | None = None,
    ) -> None:
        self._hints = hints or {}
        self.request_id = options.get("request_id") or rpc.new_request_id()
        self._method = f"autoglm.v1.Inference/{method}"
        self._model = model
        self._target = target
        self._timeout = options.get("timeout", target.timeout)
        self._deadline: float | None = None
        self._span: trace.Span = trace.INVALID_SPAN

    def __enter__(self) -> Self:
        if self._timeout is not None:
            self._deadline = time.monotonic() + self._timeout
        host, _, port = self._target.address.rpartition(":")
        attributes: dict[str, str | int] = {
            semconv.RPC_SYSTEM_NAME: "grpc",
            semconv.RPC_METHOD: self._method,
            semconv.SERVER_ADDRESS: host,
            semconv.SERVER_PORT: int(port) if port.isdigit() else 0,
            semconv.GEN_AI_REQUEST_MODEL: self._model,
            semconv.REQUEST_ID: self.request_id,
        }
        self._span = _tracer.start_span(
            self._method, kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, GeneratorExit | asyncio.CancelledError | KeyboardInterrupt):
            self._span.set_attribute(semconv.RPC_STATUS_CODE, "CANCELLED")
        elif isinstance(error, errors.AutoGLMError):
            self._span.set_attribute(semconv.RPC_STATUS_CODE, error.grpc_status)
            self._span.set_attribute(semconv.ERROR_TYPE, error.reason)
            self._span.set_status(trace.StatusCode.ERROR, error.reason)
        elif error is None:
            self._span.set_attribute(semconv.RPC_STATUS_CODE, "OK")
        self._span.end()

    @contextmanager
    def mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            mapped = status.from_grpc(error)
            mapped.request_id = self.request_id
            raise mapped from error

    def arguments(self) -> dict[str, Any]:
        """Return the metadata and timeout of an attempt that starts now, for the stub."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(self._span))
        if self._target.api_key:
            carrier[rpc.AUTHORIZATION] = f"Bearer {self._target.api_key}"
        metadata = ((status.REQUEST_ID, self.request_id), *carrier.items(), *self._hints.items())
        if self._deadline is None:
            return {"metadata": metadata}
        return {"metadata": metadata, "timeout": max(0.0, self._deadline - time.monotonic())}

    def retrying(self) -> dict[str, Any]:
        """Return the arguments of tenacity's Retrying and AsyncRetrying."""
        policy = self._target.retries
        stop: Any = stop_after_attempt(policy.attempts)
        if self._timeout is not None:
            stop |= stop_before_delay(self._timeout)
        return {
            "retry": retry_if_exception(should_retry),
            "stop": stop,
            "wait": self._wait,
            "before_sleep": self._record_retry,
            "reraise": True,
        }

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return wait_seconds(error, state.attempt_number, self._target.retries, self._target.rng)

    def _record_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        reason = error.reason if isinstance(error, errors.AutoGLMError) else ""
        self._span.add_event(
            "retry", {semconv.ATTEMPT: state.attempt_number, semconv.ERROR_TYPE: reason}
        )
