"""The one mapper between our errors and what gRPC clients read; `http_errors` is HTTP's.

Edges call `to_grpc` on the way out; clients and the gateway call `from_grpc` on the way in. Errors
carry google.rpc.Status details (ErrorInfo, BadRequest, RetryInfo; AIP-193) in the standard trailer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from autoglm.common import errors
from autoglm.common.usage import USAGE_TRAILER

DOMAIN = "autoglm.io"
REQUEST_ID = "x-request-id"
DETAILS_TRAILER = "grpc-status-details-bin"
# Headers and trailers of a response that report how its call ended.
RESULT_HEADERS = ("grpc-status", "grpc-message", DETAILS_TRAILER, USAGE_TRAILER)
_HIDDEN = "internal error; the server's log has the details under this request id"
_BY_REASON = {cls.reason: cls for cls in errors.ERRORS}
# What a status means when a server that is not ours sent it without details.
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
    status.details.extend(_packed(d) for d in _details(error, request_id))
    trailers: list[tuple[str, str | bytes]] = [
        (REQUEST_ID, request_id),
        *error.headers.items(),
        (DETAILS_TRAILER, status.SerializeToString()),
    ]
    return GrpcError(code, message, tuple(trailers))


def from_grpc(error: grpc.RpcError) -> errors.AutoGLMError:
    """Our error for a failed call: by the details' reason, else by the status alone."""
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    name = code.name if code is not None else "UNKNOWN"
    message = (error.details() or name) if code is not None else str(error)
    raw = next((v for k, v in _trailers(error) if k == DETAILS_TRAILER), None)
    return from_details(name, message, raw if isinstance(raw, bytes) else b"")


def from_details(name: str, message: str, details: bytes) -> errors.AutoGLMError:
    """The same of a status's name and text, and of the bytes of the standard trailer."""
    cls = _BY_STATUS.get(name, errors.Internal)
    field, retry_after = "", None
    for detail in _unpacked(details):
        if isinstance(detail, error_details_pb2.ErrorInfo):
            cls = _BY_REASON.get(detail.reason, cls)
        elif isinstance(detail, error_details_pb2.BadRequest) and detail.field_violations:
            field = detail.field_violations[0].field
        elif isinstance(detail, error_details_pb2.RetryInfo):
            retry_after = detail.retry_delay.ToTimedelta().total_seconds()
    return cls(message, field=field, retry_after=retry_after)


def visible_message(error: errors.AutoGLMError) -> str:
    return _HIDDEN if type(error) is errors.Internal else error.message


def _details(error: errors.AutoGLMError, request_id: str) -> list[Message]:
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id}
    )
    details: list[Message] = [info]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = duration_pb2.Duration(nanos=int((error.retry_after % 1) * 1e9))
        delay.seconds = int(error.retry_after)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _trailers(error: grpc.RpcError) -> Metadata:
    if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return tuple(error.trailing_metadata() or ())
    return ()


def _unpacked(raw: bytes) -> list[Message]:
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
    )
    found: list[Message] = []
    for packed in status_pb2.Status.FromString(raw).details:
        for kind in kinds:
            message = kind()
            if packed.Unpack(message):
                found.append(message)
    return found
