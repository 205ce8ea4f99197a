"""Every error a request can end with, as one tree, and its outcome in metrics and logs.

    AutoGLMError
      InvalidRequest        a field is wrong; the client must change the request
      Unauthenticated       no or bad credentials
      PermissionDenied      good credentials that do not allow this
      ModelNotFound         no such model; the message lists what there is
      ResponseNotFound      no such stored response, or none of the caller's
      RequestTooLarge       a body or message over a configured bound
      Unimplemented         the model or engine cannot do this at all
      RateLimited           over a rate; retry later
      QuotaExceeded         over a quota; retry later
      QueueFull             too much waits already; retry later
      NoReadyEndpoint       no pod can take the request now
      EngineDead            the engine under a pod has stopped
      ShuttingDown          the process takes no new requests
      ResumeImpossible      a pod cannot resume a broken stream exactly where it ended
      StreamBroken          a stream ended after its first chunk and could not be recovered
      DeadlineExceeded      the client's deadline passed
      Cancelled             the client disconnected
      Internal              a bug; details go to the log, not to the caller

Codes live on the classes; `autoglm.common.status` is the one place that knows gRPC and HTTP.
Names of gRPC statuses are strings, so that decision modules need no gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar


class AutoGLMError(Exception):
    """An error with one meaning in gRPC, HTTP, logs and metrics.

    `field` names the wrong field of the request, in the API's own words (`sampling_params.top_p`).
    `retry_after` is in seconds; None where the class alone decides whether a retry helps.
    `request_id` is set on the client's side, for the user to quote. `headers` are further
    headers of the HTTP response, and trailers of the gRPC call.
    """

    reason: ClassVar[str] = "INTERNAL"
    grpc_status: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.request_id = ""
        self.headers: Mapping[str, str] = {}


class InvalidRequest(AutoGLMError):
    reason = "INVALID_REQUEST"
    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class Unauthenticated(AutoGLMError):
    reason = "UNAUTHENTICATED"
    grpc_status = "UNAUTHENTICATED"
    http_status = 401


class PermissionDenied(AutoGLMError):
    reason = "PERMISSION_DENIED"
    grpc_status = "PERMISSION_DENIED"
    http_status = 403


class ModelNotFound(AutoGLMError):
    reason = "MODEL_NOT_FOUND"
    grpc_status = "NOT_FOUND"
    http_status = 404


class ResponseNotFound(AutoGLMError):
    reason = "RESPONSE_NOT_FOUND"
    grpc_status = "NOT_FOUND"
    http_status = 404


class RequestTooLarge(AutoGLMError):
    reason = "REQUEST_TOO_LARGE"
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 413


class Unimplemented(AutoGLMError):
    reason = "UNIMPLEMENTED"
    grpc_status = "UNIMPLEMENTED"
    http_status = 501


class RateLimited(AutoGLMError):
    reason = "RATE_LIMITED"
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429
    retryable = True


class QuotaExceeded(AutoGLMError):
    reason = "QUOTA_EXCEEDED"
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429
    retryable = True


class QueueFull(AutoGLMError):
    reason = "QUEUE_FULL"
    grpc_status = "RESOURCE_EXHAUSTED"
    http_status = 429
    retryable = True


class NoReadyEndpoint(AutoGLMError):
    reason = "NO_READY_ENDPOINT"
    grpc_status = "UNAVAILABLE"
    http_status = 503
    retryable = True


class EngineDead(AutoGLMError):
    reason = "ENGINE_DEAD"
    grpc_status = "UNAVAILABLE"
    http_status = 503
    retryable = True


class ShuttingDown(AutoGLMError):
    reason = "SHUTTING_DOWN"
    grpc_status = "UNAVAILABLE"
    http_status = 503
    retryable = True


class ResumeImpossible(AutoGLMError):
    """Between pod and gateway only; the client reads StreamBroken."""

    reason = "RESUME_IMPOSSIBLE"
    grpc_status = "FAILED_PRECONDITION"
    http_status = 412


class StreamBroken(AutoGLMError):
    reason = "STREAM_BROKEN"
    grpc_status = "UNAVAILABLE"
    http_status = 502


class DeadlineExceeded(AutoGLMError):
    reason = "DEADLINE_EXCEEDED"
    grpc_status = "DEADLINE_EXCEEDED"
    http_status = 504


class Cancelled(AutoGLMError):
    reason = "CANCELLED"
    grpc_status = "CANCELLED"
    http_status = 499


class Internal(AutoGLMError):
    """A bug or an unknown failure. The caller reads a fixed sentence; the log has the rest."""


ERRORS: tuple[type[AutoGLMError], ...] = (
    InvalidRequest,
    Unauthenticated,
    PermissionDenied,
    ModelNotFound,
    ResponseNotFound,
    RequestTooLarge,
    Unimplemented,
    RateLimited,
    QuotaExceeded,
    QueueFull,
    NoReadyEndpoint,
    EngineDead,
    ShuttingDown,
    ResumeImpossible,
    StreamBroken,
    DeadlineExceeded,
    Cancelled,
    Internal,
)


class Outcome(StrEnum):
    """How a request ended: a label of metrics and logs, the same in gateway and pod."""

    SERVED = "served"
    REJECTED_INVALID = "rejected_invalid"
    REJECTED_FULL = "rejected_full"
    REJECTED_UNAVAILABLE = "rejected_unavailable"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    BROKEN = "broken"
    FAILED = "failed"


_OUTCOMES = {
    429: Outcome.REJECTED_FULL,
    499: Outcome.CANCELLED,
    501: Outcome.REJECTED_INVALID,
    502: Outcome.BROKEN,
    503: Outcome.REJECTED_UNAVAILABLE,
    504: Outcome.EXPIRED,
}


def outcome_of_status(status: int) -> Outcome:
    """Return the outcome for the HTTP status of a response or of an error class."""
    if status < 400:
        return Outcome.SERVED
    default = Outcome.REJECTED_INVALID if status < 500 else Outcome.FAILED
    return _OUTCOMES.get(status, default)


def forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and of its causes, once the error has been sent.

    The frames in a traceback refer to the error, and the error to them: without this, all memory of
    the request is held until the next full garbage collection.
    """
    chained: BaseException | None = error
    # An error that is raised a second time may be its own cause.
    seen: set[int] = set()
    while chained is not None and id(chained) not in seen:
        seen.add(id(chained))
        chained.__traceback__ = None
        chained = chained.__cause__ or chained.__context__
