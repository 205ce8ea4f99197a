"""Builds ext_proc responses for another gateway's Envoy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from autoglm.common import status
from autoglm.common.errors import AutoGLMError
from autoglm.gateway.envoy import ext_proc_pb2 as ext_proc
from autoglm.gateway.envoy.access_log import encoded
from autoglm.gateway.envoy.config import (
    DESTINATION_HEADER,
    DESTINATION_NAMESPACE,
)
from autoglm.gateway.envoy.exchange import Directions
from autoglm.gateway.request.request import GatewayRequest
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
