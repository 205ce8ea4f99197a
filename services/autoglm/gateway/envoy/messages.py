"""The messages between Envoy and the picker: builds ext_proc responses, reads access log entries.

Pure.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from typing import Any, Literal
from urllib.parse import unquote

import grpc

from autoglm.common import errors, status
from autoglm.common.errors import AutoGLMError
from autoglm.gateway.envoy import ext_proc_pb2 as ext_proc
from autoglm.gateway.envoy.config import (
    DESTINATION_HEADER,
    DESTINATION_NAMESPACE,
)
from autoglm.gateway.envoy.exchange import Directions, End
from autoglm.gateway.request.http_usage import reported_usage
from autoglm.gateway.request.request import GatewayRequest, Wire
from autoglm.validation.http_errors import to_http

Phase = Literal[
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
]
# Some Envoys accept at most 64 KiB in a message.
PIECE_BYTES = 60 * 1024
_OVERWRITE = ext_proc.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_MODE = ext_proc.ProcessingMode
_BY_NUMBER = {str(code.value[0]): code.name for code in grpc.StatusCode}
_DEADLINES = (
    "upstream_request_timeout",
    "upstream_max_stream_duration_reached",
    "duration_timeout",
    "stream_idle_timeout",
)
_LEFT = ("downstream_connection_termination", "downstream_remote_reset")
_BROKEN = (
    "upstream_connection_termination",
    "upstream_remote_reset",
    "upstream_protocol_error",
    "upstream_connection_failure",
    "local_reset",
)
# The errors of pods that no proxy reports.
_POD_ERRORS = (errors.ShuttingDown, errors.EngineDead)


def request_body() -> Any:
    """Request the body, because the headers are not enough."""
    return ext_proc.ProcessingResponse(
        request_headers=ext_proc.HeadersResponse(),
        mode_override=_MODE(
            # Of a body that is too long only the start arrives; the gateway rejects it.
            request_body_mode=_MODE.BUFFERED_PARTIAL,
            response_header_mode=_MODE.SKIP,
        ),
    )


def sent(directions: Directions, *, after_body: bool) -> Any:
    """Forward the request as directed."""
    mutation = ext_proc.HeaderMutation(
        set_headers=_options(directions.set_headers.items()),
        remove_headers=directions.removed_headers,
    )
    common = ext_proc.CommonResponse(header_mutation=mutation)
    if after_body:
        return ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse(response=common))
    headers = ext_proc.HeadersResponse(response=common)
    return ext_proc.ProcessingResponse(request_headers=headers)


def picked(directions: Directions, *, after_body: bool) -> Any:
    """Forward the request by another gateway's Envoy: the metadata has the pod as well."""
    response = sent(directions, after_body=after_body)
    destination = {DESTINATION_HEADER: directions.set_headers[DESTINATION_HEADER]}
    response.dynamic_metadata.update({DESTINATION_NAMESPACE: destination})
    return response


def unchanged(phase: Phase) -> Any:
    """Continue without changes."""
    kinds: dict[str, Any] = {
        "headers": ext_proc.HeadersResponse,
        "body": ext_proc.BodyResponse,
        "trailers": ext_proc.TrailersResponse,
    }
    return _response(phase, kinds[phase.partition("_")[2]]())


def streamed(phase: Phase, body: bytes, *, is_last: bool) -> Iterator[Any]:
    """Return a body unchanged, in pieces that every proxy accepts."""
    for start in range(0, max(len(body), 1), PIECE_BYTES):
        piece = ext_proc.StreamedBodyResponse(
            body=body[start : start + PIECE_BYTES],
            end_of_stream=is_last and start + PIECE_BYTES >= len(body),
        )
        common = ext_proc.CommonResponse(
            body_mutation=ext_proc.BodyMutation(streamed_response=piece)
        )
        yield _response(phase, ext_proc.BodyResponse(response=common))


def _response(phase: Phase, message: Any) -> Any:
    fields: dict[str, Any] = {phase: message}
    return ext_proc.ProcessingResponse(**fields)


def rejected(request: GatewayRequest, error: AutoGLMError) -> Any:
    """Send the error to the client, as the gateway's own servers would."""
    make = _grpc_error if request.wire == "grpc" else _http_error
    return ext_proc.ProcessingResponse(immediate_response=make(request, error))


def _grpc_error(request: GatewayRequest, error: AutoGLMError) -> Any:
    rendered = status.to_grpc(error, request.request_id)
    trailers = ((k, v if isinstance(v, str) else encoded(v)) for k, v in rendered.trailers)
    return ext_proc.ImmediateResponse(
        status=ext_proc.HttpStatus(code=200),
        headers=ext_proc.HeaderMutation(set_headers=_options(trailers)),
        body=rendered.message.encode(),
        grpc_status=ext_proc.GrpcStatus(status=rendered.code.value[0]),
        details=error.reason,
    )


def _http_error(request: GatewayRequest, error: AutoGLMError) -> Any:
    rendered = to_http(error, request.request_id, request.target)
    return ext_proc.ImmediateResponse(
        status=ext_proc.HttpStatus(code=rendered.status),
        headers=ext_proc.HeaderMutation(set_headers=_options(rendered.headers.items())),
        body=rendered.body,
        details=error.reason,
    )


def _options(pairs: Iterable[tuple[str, str]]) -> list[Any]:
    return [
        ext_proc.HeaderValueOption(
            header=ext_proc.HeaderValue(key=name, raw_value=value.encode()),
            append_action=_OVERWRITE,
        )
        for name, value in pairs
    ]


def encoded(value: bytes) -> str:
    """Return gRPC's form of binary metadata."""
    return base64.b64encode(value).decode().rstrip("=")


def decoded(text: str) -> bytes:
    """Return the value of binary metadata; empty if it is malformed."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def ending_of(entry: Any, wire: Wire, now: float) -> End:
    """Return how the request of an `HTTPAccessLogEntry` ended at `now`."""
    response = entry.response
    fields = {**response.response_headers, **response.response_trailers}
    code = response.response_code.value
    common, first = entry.common_properties, 0.0
    error = _failure(common, response.response_code_details)
    if error is None and wire == "grpc":
        error = grpc_error(fields)
    if common.HasField("time_to_first_upstream_rx_byte"):
        after_first = _seconds(common.duration) - _seconds(common.time_to_first_upstream_rx_byte)
        first = now - max(0.0, after_first)
    return End(code, error, reported_usage(fields.items()), first, response.response_body_bytes)


def _failure(common: Any, details: str) -> AutoGLMError | None:
    """Return the error of the response flags and the response code details."""
    flags = {field.name for field, value in common.response_flags.ListFields() if value is True}
    if flags.intersection(_LEFT):
        return errors.Cancelled("the client disconnected")
    is_broken = not flags.isdisjoint(_BROKEN)
    # A stream cut at its deadline may have no flag, only details.
    if flags.intersection(_DEADLINES) or ("duration_timeout" in details and not is_broken):
        return errors.DeadlineExceeded("the deadline passed before the response ended")
    return errors.StreamBroken("the pod disconnected during the response") if is_broken else None


def grpc_error(fields: dict[str, str], *, is_rejection: bool = False) -> AutoGLMError | None:
    """Return the error in the trailers of a gRPC response; None for OK.

    `is_rejection`: the response had no message, and no other pod is tried.
    """
    number = fields.get("grpc-status", "")
    if number == "0":
        return None
    name = _BY_NUMBER.get(number, "UNKNOWN")
    message = unquote(fields.get("grpc-message", "")) or name
    error = status.from_details(name, message, decoded(fields.get(status.DETAILS_TRAILER, "")))
    if is_rejection and type(error) in _POD_ERRORS:
        return error
    if name == "UNAVAILABLE":
        # Before the first chunk Envoy would have retried it on the gateway's own server.
        return errors.StreamBroken(f"the pod ended the response: {message}")
    return error


def _seconds(duration: Any) -> float:
    return float(duration.seconds) + float(duration.nanos) * 1e-9
