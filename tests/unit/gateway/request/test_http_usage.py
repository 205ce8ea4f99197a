"""The usage of every dialect is found in whole responses and wherever it stands in a stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autoglm.common.status import TokenUsage
from autoglm.gateway.request.http_usage import WHOLE_BYTES, UsageReader


def test_what_a_pod_writes_into_its_headers_comes_first() -> None:
    headers = {"autoglm-usage": "prompt=7 completion=2 finish=stop"}
    reader = UsageReader(is_stream=False, headers=headers)
    reader.add(WHOLE)
    assert reader.usage() == TokenUsage(7, 2, ("stop",))


def test_a_header_that_no_pod_writes_is_ignored() -> None:
    reader = UsageReader(is_stream=False, headers={"autoglm-usage": "prompt=-7"})
    reader.add(WHOLE)
    assert reader.usage() == TokenUsage(3, 5, ("stop",))


def usage_in(body: bytes, *, is_stream: bool = False) -> TokenUsage | None:
    reader = UsageReader(is_stream=is_stream)
    reader.add(body)
    return reader.usage()


def event(name: str = "", **data: Any) -> bytes:
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {json.dumps(data)}\n\n".encode()


WHOLE = (
    b'{"choices": [{"finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 3, "completion_tokens": 5}}'
)
CHAT = (
    b'cut off"}]}\n\ndata: {"choices": [{"finish_reason": "length"}], "usage": null}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n'
    b"data: [DONE]\n\n"
)
MESSAGES = (
    event(
        "message_start",
        type="message_start",
        message={"id": "m", "usage": {"input_tokens": 10, "cache_read_input_tokens": 32}},
    )
    + event("content_block_delta", delta={"type": "text_delta", "text": '"usage": {'}) * 400
    + event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 7})
    + event("message_stop")
)
RESPONSES = (
    event("response.created", response={"status": "in_progress", "usage": None})
    + event("response.output_text.delta", delta="x") * 400
    + event(
        "response.incomplete",
        response={
            "tools": [{"parameters": {"properties": {"usage": {"type": "object"}}}}],
            "usage": {
                "input_tokens": 30,
                "input_tokens_details": {"cached_tokens": 16},
                "output_tokens": 4,
                "total_tokens": 34,
            },
            "user": "u" * 9000,
        },
    )
)


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (WHOLE, TokenUsage(3, 5, ("stop",))),
        (b'{"data": []}', None),
        (b'{"usage": 5}', None),
        (b"\xff", None),
        (b"", None),
        (
            b'{"type": "message", "stop_reason": "max_tokens", "usage": {"input_tokens": 4,'
            b' "output_tokens": 6, "cache_creation_input_tokens": 2, '
            b'"cache_read_input_tokens": 3}}',
            TokenUsage(9, 6, ("max_tokens",)),
        ),
        (
            b'{"object": "response", "status": "completed", "incomplete_details": null,'
            b' "usage": {"input_tokens": 5000, "output_tokens": 5000, "total_tokens": 10000}}',
            TokenUsage(5000, 5000, ("completed",)),
        ),
        (
            b'{"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"},'
            b' "usage": {"input_tokens": 5, "output_tokens": 1}}',
            TokenUsage(5, 1, ("max_output_tokens",)),
        ),
        (b'{"results": [], "usage": {"total_tokens": 12}}', TokenUsage(12, 0)),
        (b'{"usage": {"prompt_tokens": 8, "total_tokens": 8}}', TokenUsage(8, 0)),
        (b'{"meta": {"billed_units": {"input_tokens": 11.0}}}', TokenUsage(11, 0)),
        (b'{"text": "a", "usage": {"type": "duration", "seconds": 3}}', None),
        (b'{"status": 200, "usage": {"prompt_tokens": 2}}', TokenUsage(2, 0)),
    ],
)
def test_usage_is_what_a_whole_response_reports(body: bytes, usage: TokenUsage | None) -> None:
    assert usage_in(body) == usage


STREAMS = [
    (CHAT, TokenUsage(3, 5, ("length",))),
    (MESSAGES, TokenUsage(42, 7, ("end_turn",))),
    (RESPONSES, TokenUsage(30, 4, ("incomplete",))),
    (b"data: {}\n\n" * 1000, None),
]


@pytest.mark.parametrize(("body", "usage"), STREAMS)
@pytest.mark.parametrize("size", [1, 7, 100, 1400, 10**6])
def test_usage_of_a_stream_is_found_however_it_is_cut(
    body: bytes, usage: TokenUsage | None, size: int
) -> None:
    reader = UsageReader(is_stream=True)
    for start in range(0, len(body), size):
        reader.add(body[start : start + size])
    assert reader.usage() == usage


def test_text_of_a_model_is_no_usage() -> None:
    text = json.dumps({"usage": {"prompt_tokens": 0, "completion_tokens": 1}})
    stream = event(choices=[{"delta": {"content": text}}])
    assert usage_in(stream * 3, is_stream=True) is None


def test_usage_behind_a_body_too_long_to_decode_is_found() -> None:
    numbers = b"[" + b"0.25, " * (WHOLE_BYTES // 6 + 1) + b"0]"
    body = b'{"data": ' + numbers + b', "usage": {"prompt_tokens": 77, "total_tokens": 77}}'
    reader = UsageReader(is_stream=False)
    for start in range(0, len(body), 65536):
        reader.add(body[start : start + 65536])
    assert reader.usage() == TokenUsage(77, 0)


def test_events_of_a_stream_are_counted() -> None:
    reader = UsageReader(is_stream=True)
    reader.add(b"data: {}\n\ndata: {}\n\n")
    reader.add(b"data: [DONE]\n\n")
    assert reader.events == 3
