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


def test_a_foreign_error_without_details_is_reported_by_its_status() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "connection refused"
    )
    assert type(status.from_grpc(error)) is errors.NoReadyEndpoint
