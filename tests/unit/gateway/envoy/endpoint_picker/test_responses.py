"""How a call has ended, from what another gateway's Envoy shows of its response."""

from __future__ import annotations

import json

from autoglm.common import status
from autoglm.common.errors import Cancelled, DeadlineExceeded, ShuttingDown, StreamBroken
from autoglm.common.status import TokenUsage, write_usage
from autoglm.gateway.envoy import ext_proc_pb2 as ext_proc
from autoglm.gateway.envoy.access_log import encoded
from autoglm.gateway.envoy.endpoint_picker.responses import PodResponse


def pairs(**values: str) -> ext_proc.HeaderMap:
    made = (
        ext_proc.HeaderValue(key=k.replace("_", "-"), raw_value=v.encode())
        for k, v in values.items()
    )
    return ext_proc.HeaderMap(headers=made)


def head(status: int = 200, *, is_last: bool = False, **values: str) -> ext_proc.HttpHeaders:
    return ext_proc.HttpHeaders(
        headers=pairs(**{":status": str(status)}, **values), end_of_stream=is_last
    )


def trailers(**values: str) -> ext_proc.HttpTrailers:
    return ext_proc.HttpTrailers(trailers=pairs(**values))


def test_a_grpc_response_ends_with_its_trailers_and_their_usage() -> None:
    answer = PodResponse("grpc")
    answer.head(head(), now=5.0)
    answer.piece(b"12345", is_last=False)
    assert (answer.has_begun, answer.has_ended) == (True, False)
    answer.trailers(trailers(grpc_status="0", autoglm_usage=write_usage(3, 4, ("stop",))))
    end = answer.end()
    assert answer.has_ended and end.error is None
    assert (end.status, end.usage, end.first_chunk) == (200, TokenUsage(3, 4, ("stop",)), 5.0)
    assert end.body_bytes == 5


def test_a_pods_own_refusal_is_known_by_its_details() -> None:
    told = status.to_grpc(ShuttingDown("going away"), "r1")
    details = next(v for k, v in told.trailers if k == status.DETAILS_TRAILER)
    assert isinstance(details, bytes)
    answer = PodResponse("grpc")
    told_details = encoded(details)
    answer.head(head(is_last=True, grpc_status="14", grpc_status_details_bin=told_details), 1.0)
    assert answer.has_ended
    assert isinstance(answer.end().error, ShuttingDown)


def test_a_refusal_after_the_response_has_begun_is_a_broken_stream() -> None:
    answer = PodResponse("grpc")
    answer.head(head(), now=1.0)
    answer.piece(b"12345", is_last=False)
    answer.trailers(trailers(grpc_status="14"))
    assert isinstance(answer.end().error, StreamBroken)


def test_what_the_proxy_says_of_a_pod_that_it_cannot_reach_is_a_broken_stream() -> None:
    answer = PodResponse("grpc")
    answer.head(head(is_last=True, grpc_status="14", grpc_message="upstream connect error"), 1.0)
    assert isinstance(answer.end().error, StreamBroken)


def test_a_rest_response_is_read_only_where_usage_is_charged() -> None:
    said = json.dumps({"usage": {"prompt_tokens": 2, "completion_tokens": 3}}).encode()
    for is_read, usage in ((True, TokenUsage(2, 3)), (False, None)):
        answer = PodResponse("http")
        answer.is_read = is_read
        answer.head(head(content_type="application/json"), now=1.0)
        answer.piece(said[:9], is_last=False)
        answer.piece(said[9:], is_last=True)
        assert answer.end().usage == usage


def test_of_an_event_stream_its_end_says_the_usage() -> None:
    answer = PodResponse("http")
    answer.is_read = True
    answer.head(head(content_type="text/event-stream"), now=1.0)
    answer.piece(b"data: {}\n\n" * 10_000, is_last=False)
    answer.piece(b'data: {"usage": {"prompt_tokens": 2, "completion_tokens": 3}}\n\n', is_last=True)
    assert answer.end().usage == TokenUsage(2, 3)


def test_a_rest_error_is_its_status() -> None:
    answer = PodResponse("http")
    answer.head(head(503, is_last=True), now=1.0)
    assert (answer.end().status, answer.end().error) == (503, None)


def test_a_stream_that_closes_amid_the_response_is_taken_for_a_client_that_left() -> None:
    answer = PodResponse("grpc")
    answer.head(head(), now=1.0)
    assert (answer.so_far().status, type(answer.so_far().error)) == (200, Cancelled)
    answer.trailers(trailers(grpc_status="0"))
    assert (answer.so_far().status, answer.so_far().error) == (200, None)


def test_the_pod_that_served_is_reported() -> None:
    answer = PodResponse("http")
    answer.served = "10.0.0.2:8000"
    assert answer.end().served == "10.0.0.2:8000"


def test_a_late_response_has_the_deadlines_status() -> None:
    answer = PodResponse("http")
    end = answer.late(DeadlineExceeded("late"))
    assert (end.status, type(end.error)) == (504, DeadlineExceeded)
    answer.head(head(), now=1.0)
    assert answer.late(DeadlineExceeded("late")).status == 200
