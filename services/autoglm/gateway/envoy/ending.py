"""What an entry of Envoy's access log says of a call's end. Pure; called by the picker's edge."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import unquote

import grpc

from autoglm.common import errors, status
from autoglm.common.errors import AutoGLMError
from autoglm.gateway.envoy.exchange import End
from autoglm.gateway.request.openai_usage import reported_usage
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
# What pods say of themselves, and proxies of no pod.
_REFUSALS = (errors.ShuttingDown, errors.EngineDead)


def ending_of(entry: Any, wire: Wire, now: float) -> End:
    """Of an `HTTPAccessLogEntry` that came just now."""
    response = entry.response
    told = {**response.response_headers, **response.response_trailers}
    code = response.response_code.value
    error = _failure(entry.common_properties) or _overdue(response)
    if error is None and wire == "grpc":
        error = grpc_error(told)
    first = _first_chunk(entry.common_properties, now)
    return End(code, error, reported_usage(told.items()), first, response.response_body_bytes)


def _failure(common: Any) -> AutoGLMError | None:
    """What went wrong on the way, as Envoy has it."""
    if not common.HasField("response_flags"):
        return None
    flags = {field.name for field, value in common.response_flags.ListFields() if value is True}
    if flags.intersection(_LEFT):
        return errors.Cancelled("the caller went away")
    if flags.intersection(_DEADLINES):
        return errors.DeadlineExceeded("the deadline passed before the answer had ended")
    if flags.intersection(_BROKEN):
        return errors.StreamBroken("the pod went away during the answer")
    return None


def _overdue(response: Any) -> AutoGLMError | None:
    """A stream at its deadline has no flag, but words."""
    if "duration_timeout" not in response.response_code_details:
        return None
    return errors.DeadlineExceeded("the deadline passed before the answer had ended")


def grpc_error(told: dict[str, str], *, is_refusal: bool = False) -> AutoGLMError | None:
    """`is_refusal`: nothing of an answer has come, and nobody else is asked."""
    number = told.get("grpc-status", "")
    if number == "0":
        return None
    name = _BY_NUMBER.get(number, "UNKNOWN")
    message = unquote(told.get("grpc-message", "")) or name
    error = status.from_details(name, message, _decoded(told.get(status.DETAILS_TRAILER, "")))
    if is_refusal and type(error) in _REFUSALS:
        return error
    if name == "UNAVAILABLE":
        # Before the first chunk Envoy would have sent it on to us.
        return errors.StreamBroken(f"the pod ended the answer: {message}")
    return error


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def _first_chunk(common: Any, now: float) -> float:
    if not common.HasField("time_to_first_upstream_rx_byte"):
        return 0.0
    first = _seconds(common.time_to_first_upstream_rx_byte)
    return now - max(0.0, _seconds(common.duration) - first)


def _seconds(duration: Any) -> float:
    return float(duration.seconds) + float(duration.nanos) * 1e-9
