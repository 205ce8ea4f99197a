"""Event streams are cut between events, and a missing last event is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.gateway.request.event_stream import (
    MAX_HELD_BYTES,
    LastEvent,
    WholeEvents,
    is_event_stream,
)

STREAM = b'event: a\ndata: {"x": 1}\n\n: comment\n\ndata: 2\n\ndata: [DONE]\n\n'
_END = {"\n": b"\n\n", "\r\n": b"\r\n\r\n", "\r": b"\r\r"}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@given(cuts=st.sets(st.integers(0, 80)))
def test_however_a_stream_is_cut_only_whole_events_pass_and_all_of_it(
    newline: str, cuts: set[int]
) -> None:
    stream, events, passed = STREAM.replace(b"\n", newline.encode()), WholeEvents(), b""
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in zip(edges, edges[1:], strict=False):
        chunk = events.feed(stream[start:end])
        assert not chunk or chunk.endswith(_END[newline])
        passed += chunk
    assert passed + events.rest() == stream


def test_what_follows_the_last_event_is_passed_at_the_end_only() -> None:
    events = WholeEvents()
    assert events.feed(b"data: 1\n\ndata: 2") == b"data: 1\n\n"
    assert events.last == b"data: 1\n\n"
    assert events.rest() == b"data: 2"
    assert events.rest() == b""


def test_an_event_without_end_is_not_held_for_ever() -> None:
    events, passed = WholeEvents(), b""
    for _ in range(MAX_HELD_BYTES // 1000 + 2):
        passed += events.feed(b"x" * 1000)
    assert len(passed) > MAX_HELD_BYTES


@pytest.mark.parametrize(
    ("kind", "is_stream"),
    [
        ("text/event-stream; charset=utf-8", True),
        ("TEXT/Event-Stream", True),
        ("text/plain", False),
    ],
)
def test_an_event_stream_is_known_by_its_type(kind: str, is_stream: bool) -> None:
    assert is_event_stream({"content-type": kind}) is is_stream
    assert not is_event_stream({})


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
