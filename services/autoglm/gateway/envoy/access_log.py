"""Receives Envoy's access log: how each request that it moved has ended."""

from __future__ import annotations

import base64
import binascii
import time
from typing import Any
from urllib.parse import unquote

import grpc

from autoglm.common import errors, rpc, status
from autoglm.common.errors import AutoGLMError
from autoglm.gateway.envoy import access_log_pb2, access_log_pb2_grpc
from autoglm.gateway.envoy.exchange import End, Exchanges
from autoglm.gateway.request.http_usage import reported_usage
from autoglm.gateway.request.request import Wire

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


class AccessLogService(access_log_pb2_grpc.AccessLogServiceServicer):
    """Receives Envoy's access log and ends the exchanges of its entries."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    async def StreamAccessLogs(self, requests: Any, _: Any) -> Any:
        async for message in requests:
            for entry in message.http_logs.log_entry:
                key = entry.request.request_headers.get(rpc.CALL_HEADER, "")
                if (exchange := self._exchanges.get(key)) is not None:
                    exchange.end(ending_of(entry, exchange.wire, time.monotonic()))
        return access_log_pb2.StreamAccessLogsResponse()


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


def encoded(value: bytes) -> str:
    """Return gRPC's form of binary metadata."""
    return base64.b64encode(value).decode().rstrip("=")


def decoded(text: str) -> bytes:
    """Return the value of binary metadata; empty if it is malformed."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def _seconds(duration: Any) -> float:
    return float(duration.seconds) + float(duration.nanos) * 1e-9
