"""Statuses and trailers of calls."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import v1
from autoglm.common import errors, status
from autoglm.common.status import TokenUsage, read_usage, usage_of, write_usage


def rpc_error(response: status.GrpcError) -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata(*response.trailers)
    return grpc.aio.AioRpcError(response.code, grpc.aio.Metadata(), trailers, response.message)


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


COUNTS = st.integers(0, 10**12 - 1)
REASONS = st.lists(st.sampled_from(["stop", "length", "tool_calls"]), max_size=8)


@given(prompt=COUNTS, completion=COUNTS, reasons=REASONS)
def test_what_is_written_is_read(prompt: int, completion: int, reasons: list[str]) -> None:
    assert read_usage(write_usage(prompt, completion, reasons)) == TokenUsage(
        prompt, completion, tuple(reasons)
    )


def test_the_usage_of_several_requests_adds_up() -> None:
    first, last = TokenUsage(1, 2, ("stop",)), TokenUsage(30, 40, ("length",))
    assert first.after(None) == first
    assert last.after(first) == TokenUsage(31, 42, ("length",))


@pytest.mark.parametrize(
    "text", ["", "prompt=1", "prompt=-1 completion=2", "prompt=1 completion=2 x"]
)
def test_other_texts_are_no_usage(text: str) -> None:
    assert read_usage(text) is None


COUNTED = v1.Usage(prompt_tokens=3, completion_tokens=5)
LENGTH = v1.FINISH_REASON_LENGTH


@pytest.mark.parametrize(
    ("message", "usage"),
    [
        (
            v1.ChatResponse(usage=COUNTED, choices=[v1.ChatChoice(finish_reason=LENGTH)] * 2),
            TokenUsage(3, 5, ("length", "length")),
        ),
        (v1.ChatChunk(usage=COUNTED, finish_reason=LENGTH), TokenUsage(3, 5, ("length",))),
        (v1.EmbedResponse(usage=COUNTED), TokenUsage(3, 5)),
        (v1.GenerateResponse(), TokenUsage(0, 0)),
        (v1.TokenizeResponse(), None),
    ],
)
def test_a_message_has_its_usage_and_the_reasons_of_its_parts(
    message: object, usage: TokenUsage | None
) -> None:
    assert usage_of(message) == usage
