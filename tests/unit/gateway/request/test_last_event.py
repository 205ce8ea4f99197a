"""Which event streams are whole where the connection's end says nothing."""

from __future__ import annotations

import pytest

from autoglm.gateway.request.last_event import LastEvent

WHOLE = [
    ("/v1/chat/completions", b'data: {"choices":[]}\n\ndata: [DONE]\n\n'),
    ("/v1/completions?a=b", b"data:[DONE]\n\n"),
    ("/v1/responses", b'event: response.completed\ndata: {"type":"response.completed"}\n\n'),
    ("/v1/responses/resp_1?stream=true", b"event: response.failed\ndata: {}\n\n"),
    ("/v1/messages", b"event: ping\r\ndata: {}\r\n\r\nevent: message_stop\r\ndata: {}\r\n\r\n"),
    ("/v1/messages", b'event: error\ndata: {"type":"error"}\n\n'),
]


@pytest.mark.parametrize(("target", "stream"), WHOLE)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_last_event_is_found_however_the_stream_is_cut(
    target: str, stream: bytes, size: int
) -> None:
    last = LastEvent(target)
    found = [last.is_missing]
    for start in range(0, len(stream), size):
        last.feed(stream[start : start + size])
        found.append(last.is_missing)
    assert (found[0], found[-1]) == (True, False)


@pytest.mark.parametrize(("target", "stream"), WHOLE)
def test_half_a_stream_has_none(target: str, stream: bytes) -> None:
    last = LastEvent(target)
    last.feed(stream[:10])
    assert last.is_missing


def test_what_a_model_says_is_no_last_event() -> None:
    last = LastEvent("/v1/chat/completions")
    last.feed(b'data: {"choices":[{"delta":{"content":"\\ndata: [DONE]"}}]}\n\n')
    assert last.is_missing


def test_an_api_without_a_last_event_is_never_missing_one() -> None:
    assert not LastEvent("/v2/models/m/generate_stream").is_missing
