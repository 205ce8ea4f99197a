"""What the picker says to Envoy, as its messages. Pure; called by the picker's edge."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from autoglm.common import status
from autoglm.common.errors import AutoGLMError
from autoglm.gateway.envoy import ext_proc_pb2 as ext_proc
from autoglm.gateway.envoy.config.names import (
    DESTINATION_HEADER,
    DESTINATION_NAMESPACE,
    PROCESS_KEY,
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
# Some Envoys take no more than 64 KiB in a message.
PIECE_BYTES = 60 * 1024
_OVERWRITE = ext_proc.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_MODE = ext_proc.ProcessingMode


def request_body() -> Any:
    """The headers say too little."""
    return ext_proc.ProcessingResponse(
        request_headers=ext_proc.HeadersResponse(),
        mode_override=_MODE(
            # Of one that is too long only the beginning comes, and is refused by us.
            request_body_mode=_MODE.BUFFERED_PARTIAL,
            response_header_mode=_MODE.SKIP,
        ),
    )


def sent(directions: Directions, *, after_body: bool, process: int | None = None) -> Any:
    """The request goes on as directed. `process` is who says so, where that matters."""
    mutation = ext_proc.HeaderMutation(
        set_headers=_options(directions.set_headers.items()),
        remove_headers=directions.removed_headers,
    )
    common = ext_proc.CommonResponse(header_mutation=mutation)
    if after_body:
        response = ext_proc.ProcessingResponse(request_body=ext_proc.BodyResponse(response=common))
    else:
        headers = ext_proc.HeadersResponse(response=common)
        response = ext_proc.ProcessingResponse(request_headers=headers)
    if process is not None:
        response.dynamic_metadata.update({DESTINATION_NAMESPACE: {PROCESS_KEY: str(process)}})
    return response


def picked(directions: Directions, *, after_body: bool) -> Any:
    """As `sent`, for another gateway's Envoy: the pod is in the metadata as well."""
    response = sent(directions, after_body=after_body)
    destination = {DESTINATION_HEADER: directions.set_headers[DESTINATION_HEADER]}
    response.dynamic_metadata.update({DESTINATION_NAMESPACE: destination})
    return response


def go_on(phase: Phase) -> Any:
    """Nothing is to be changed."""
    kinds: dict[str, Any] = {
        "headers": ext_proc.HeadersResponse,
        "body": ext_proc.BodyResponse,
        "trailers": ext_proc.TrailersResponse,
    }
    return _about(phase, kinds[phase.partition("_")[2]]())


def streamed(phase: Phase, body: bytes, *, is_last: bool) -> Iterator[Any]:
    """A body goes back as it came, in pieces that every proxy takes."""
    for start in range(0, max(len(body), 1), PIECE_BYTES):
        piece = ext_proc.StreamedBodyResponse(
            body=body[start : start + PIECE_BYTES],
            end_of_stream=is_last and start + PIECE_BYTES >= len(body),
        )
        common = ext_proc.CommonResponse(
            body_mutation=ext_proc.BodyMutation(streamed_response=piece)
        )
        yield _about(phase, ext_proc.BodyResponse(response=common))


def _about(phase: Phase, answer: Any) -> Any:
    fields: dict[str, Any] = {phase: answer}
    return ext_proc.ProcessingResponse(**fields)


def refused(call: GatewayRequest, error: AutoGLMError) -> Any:
    """The client gets the error, as the gateway's own servers would send it."""
    make = _grpc_error if call.wire == "grpc" else _http_error
    return ext_proc.ProcessingResponse(immediate_response=make(call, error))


def _grpc_error(call: GatewayRequest, error: AutoGLMError) -> Any:
    answer = status.to_grpc(error, call.request_id)
    trailers = ((k, v if isinstance(v, str) else _binary(v)) for k, v in answer.trailers)
    return ext_proc.ImmediateResponse(
        status=ext_proc.HttpStatus(code=200),
        headers=ext_proc.HeaderMutation(set_headers=_options(trailers)),
        body=answer.message.encode(),
        grpc_status=ext_proc.GrpcStatus(status=answer.code.value[0]),
        details=error.reason,
    )


def _http_error(call: GatewayRequest, error: AutoGLMError) -> Any:
    answer = to_http(error, call.request_id, call.target)
    return ext_proc.ImmediateResponse(
        status=ext_proc.HttpStatus(code=answer.status),
        headers=ext_proc.HeaderMutation(set_headers=_options(answer.headers.items())),
        body=answer.body,
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


def _binary(value: bytes) -> str:
    # gRPC's form of binary metadata.
    return base64.b64encode(value).decode().rstrip("=")
