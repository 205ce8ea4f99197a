import json

import grpc
import pytest

from autoglm.common import errors, status


def rpc_error(answer: status.GrpcError) -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata(*answer.trailers)
    return grpc.aio.AioRpcError(answer.code, grpc.aio.Metadata(), trailers, answer.message)


@pytest.mark.parametrize("cls", [c for c in errors.ERRORS if c is not errors.Internal])
def test_an_error_survives_the_way_over_grpc(cls: type[errors.AutoGLMError]) -> None:
    sent = cls("what and what to do", field="a.b", retry_after=1.5)
    received = status.from_grpc(rpc_error(status.to_grpc(sent, "id-1")))
    assert type(received) is cls
    assert (received.message, received.field, received.retry_after) == (
        "what and what to do",
        "a.b",
        1.5,
    )


def test_internal_errors_do_not_show_their_text() -> None:
    assert "secret" not in status.to_grpc(errors.Internal("secret"), "id-1").message
    assert b"secret" not in status.to_http(errors.Internal("secret"), "id-1").body


def test_http_errors_have_the_shape_of_openai_with_the_request_id() -> None:
    answer = status.to_http(errors.InvalidRequest("top_p is 3", field="top_p"), "id-1")
    assert (answer.status, answer.headers["x-request-id"]) == (400, "id-1")
    assert json.loads(answer.body)["error"] == {
        "message": "top_p is 3",
        "type": "invalid_request_error",
        "param": "top_p",
        "code": "invalid_request",
        "request_id": "id-1",
    }


@pytest.mark.parametrize(("seconds", "header"), [(0.01, "1"), (1.2, "2"), (30.0, "30")])
def test_retry_after_is_rounded_up_to_whole_seconds(seconds: float, header: str) -> None:
    assert (
        status.to_http(errors.QueueFull("full", retry_after=seconds), "").headers["retry-after"]
        == header
    )


def test_a_foreign_error_without_details_is_told_by_its_status() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "connection refused"
    )
    assert type(status.from_grpc(error)) is errors.NoReadyEndpoint
