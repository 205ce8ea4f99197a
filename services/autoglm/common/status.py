"""Maps the end of a call to its status and trailers, and back: its error or its usage.

`validation.http_errors` is the mapper of errors to HTTP.

Edges call `to_grpc` on the way out; clients and the gateway call `from_grpc` on the way in. Errors
carry google.rpc.Status details (ErrorInfo, BadRequest, RetryInfo; AIP-193) in the standard trailer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2

from autoglm import v1
from autoglm.common import errors

DOMAIN = "autoglm.io"
REQUEST_ID = "x-request-id"
DETAILS_TRAILER = "grpc-status-details-bin"
# The usage of a request, written by pods: a trailer over gRPC, a header over HTTP. Gateways read it
# where their data plane does not see the response's messages, and where the API has no place for
# usage (the Open Inference Protocol).
USAGE_TRAILER = "autoglm-usage"
_USAGE = re.compile(r"prompt=(\d{1,12}) completion=(\d{1,12})(?: finish=([a-z_,]{1,200}))?")
# Headers and trailers of a response that report how its call ended.
RESULT_HEADERS = ("grpc-status", "grpc-message", DETAILS_TRAILER, USAGE_TRAILER)
_HIDDEN = "internal error; the server's log has the details under this request id"
_BY_REASON = {cls.reason: cls for cls in errors.ERRORS}
# The meaning of a status without details, from a server that is not ours.
_BY_STATUS: dict[str, type[errors.AutoGLMError]] = {
    "INVALID_ARGUMENT": errors.InvalidRequest,
    "OUT_OF_RANGE": errors.InvalidRequest,
    "FAILED_PRECONDITION": errors.InvalidRequest,
    "UNAUTHENTICATED": errors.Unauthenticated,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "NOT_FOUND": errors.ModelNotFound,
    "UNIMPLEMENTED": errors.Unimplemented,
    "RESOURCE_EXHAUSTED": errors.RateLimited,
    "UNAVAILABLE": errors.NoReadyEndpoint,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "CANCELLED": errors.Cancelled,
}
Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class GrpcError:
    """Arguments of `context.abort`."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def to_grpc(error: errors.AutoGLMError, request_id: str) -> GrpcError:
    code = grpc.StatusCode[error.grpc_status]
    message = visible_message(error)
    status = status_pb2.Status(code=code.value[0], message=message)
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id}
    )
    status.details.add().Pack(info)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = duration_pb2.Duration(
            seconds=int(error.retry_after), nanos=int((error.retry_after % 1) * 1e9)
        )
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    trailers: list[tuple[str, str | bytes]] = [
        (REQUEST_ID, request_id),
        *error.headers.items(),
        (DETAILS_TRAILER, status.SerializeToString()),
    ]
    return GrpcError(code, message, tuple(trailers))


def from_grpc(error: grpc.RpcError) -> errors.AutoGLMError:
    """Return our error for a failed call: by the details' reason, else by the status alone."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return from_details("UNKNOWN", str(error), b"")
    code: grpc.StatusCode | None = error.code()
    name = code.name if code is not None else "UNKNOWN"
    message = (error.details() or name) if code is not None else str(error)
    trailers: Metadata = tuple(error.trailing_metadata() or ())
    raw = next((v for k, v in trailers if k == DETAILS_TRAILER), None)
    return from_details(name, message, raw if isinstance(raw, bytes) else b"")


def from_details(name: str, message: str, details: bytes) -> errors.AutoGLMError:
    """Return our error for a status's name and text, and the bytes of the standard trailer."""
    cls = _BY_STATUS.get(name, errors.Internal)
    field, retry_after = "", None
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status_pb2.Status.FromString(details).details:
        if detail.Unpack(info):
            cls = _BY_REASON.get(info.reason, cls)
        elif detail.Unpack(bad_request) and bad_request.field_violations:
            field = bad_request.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta().total_seconds()
    return cls(message, field=field, retry_after=retry_after)


def visible_message(error: errors.AutoGLMError) -> str:
    """Return the message for the caller; that of Internal is in the log only."""
    return _HIDDEN if type(error) is errors.Internal else error.message


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Numbers of tokens, and the finish reason of each choice, in lower case."""

    prompt_tokens: int
    completion_tokens: int
    finish_reasons: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Return the tokens of prompt and completion."""
        return self.prompt_tokens + self.completion_tokens

    def after(self, before: TokenUsage | None) -> TokenUsage:
        """Return the tokens of both, with the finish reasons of the later one."""
        if before is None:
            return self
        prompt = before.prompt_tokens + self.prompt_tokens
        completion = before.completion_tokens + self.completion_tokens
        return TokenUsage(prompt, completion, self.finish_reasons)


def write_usage(prompt: int, completion: int, finish_reasons: Sequence[str] = ()) -> str:
    finish = f" finish={','.join(finish_reasons)}" if finish_reasons else ""
    return f"prompt={prompt} completion={completion}{finish}"


def usage_field(usage: TokenUsage) -> tuple[str, str]:
    """Return name and value of the header or trailer."""
    reasons = usage.finish_reasons
    return USAGE_TRAILER, write_usage(usage.prompt_tokens, usage.completion_tokens, reasons)


def read_usage(text: str) -> TokenUsage | None:
    """Parse the output of `write_usage`; None for any other text."""
    found = _USAGE.fullmatch(text)
    if found is None:
        return None
    prompt, completion, finish = found.groups()
    return TokenUsage(int(prompt), int(completion), tuple(finish.split(",")) if finish else ())


def usage_of(message: Any) -> TokenUsage | None:
    """Return the usage in a response message or a stream's last one; None if it has no such field.

    The finish reasons are those of its completions or choices, or its own.
    """
    usage = getattr(message, "usage", None)
    if usage is None:
        return None
    parts = getattr(message, "completions", None) or getattr(message, "choices", None) or (message,)
    given = (getattr(part, "finish_reason", 0) for part in parts)
    names = (v1.FinishReason.Name(reason) for reason in given if reason)
    reasons = tuple(name.removeprefix("FINISH_REASON_").lower() for name in names)
    return TokenUsage(usage.prompt_tokens, usage.completion_tokens, reasons)
