"""How a call has ended, from Envoy's log entry of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from autoglm.common import errors, status
from autoglm.common.status import TokenUsage
from autoglm.gateway.envoy import access_log_pb2
from autoglm.gateway.envoy.access_log import ending_of


def entry(code: int = 200, flags: str = "", **trailers: str) -> Any:
    made = access_log_pb2.HTTPAccessLogEntry()
    made.response.response_code.value = code
    made.response.response_body_bytes = 42
    for name, value in trailers.items():
        made.response.response_trailers[name.replace("_", "-")] = value
    if flags:
        setattr(made.common_properties.response_flags, flags, True)
    return made


def test_a_good_end_has_its_usage_and_the_time_of_the_first_chunk() -> None:
    good = entry(grpc_status="0", autoglm_usage="prompt=3 completion=5 finish=stop")
    good.common_properties.time_to_first_upstream_rx_byte.FromMilliseconds(200)
    good.common_properties.duration.FromMilliseconds(1200)
    end = ending_of(good, "grpc", now=10.0)
    assert (end.error, end.usage, end.body_bytes) == (None, TokenUsage(3, 5, ("stop",)), 42)
    assert end.first_chunk == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ("downstream_connection_termination", errors.Cancelled),
        ("downstream_remote_reset", errors.Cancelled),
        ("upstream_request_timeout", errors.DeadlineExceeded),
        ("stream_idle_timeout", errors.DeadlineExceeded),
        ("upstream_connection_termination", errors.StreamBroken),
        ("upstream_remote_reset", errors.StreamBroken),
    ],
)
@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_what_went_wrong_on_the_way_is_named(flags: str, error: type[Exception], wire: Any) -> None:
    assert type(ending_of(entry(flags=flags), wire, 0.0).error) is error


def test_a_pods_error_keeps_its_reason() -> None:
    sent = status.to_grpc(errors.QueueFull("42 wait"), "r1")
    raw = dict(sent.trailers)[status.DETAILS_TRAILER]
    assert isinstance(raw, bytes)
    details = base64.b64encode(raw).decode()
    bad = entry(
        grpc_status="8", grpc_message="42 wait", grpc_status_details_bin=details.rstrip("=")
    )
    error = ending_of(bad, "grpc", 0.0).error
    assert type(error) is errors.QueueFull and error.message == "42 wait"


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"grpc_status": "14"}, errors.StreamBroken),
        ({"grpc_status": "3", "grpc_status_details_bin": "!"}, errors.InvalidRequest),
        ({}, errors.Internal),
    ],
)
def test_errors_without_details_go_by_their_status(told: Any, error: type[Exception]) -> None:
    assert type(ending_of(entry(**told), "grpc", 0.0).error) is error


def test_a_status_of_http_is_the_pods_own_response() -> None:
    end = ending_of(entry(code=400), "http", 0.0)
    assert (end.status, end.error, end.usage) == (400, None, None)


def test_a_stream_that_is_cut_at_its_deadline_has_expired() -> None:
    cut = entry()
    cut.response.response_code_details = "max_duration_timeout"
    assert type(ending_of(cut, "grpc", 0.0).error) is errors.DeadlineExceeded
