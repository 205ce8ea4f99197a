"""What a pod reads of a request's body before its app does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autoglm.inference.http.asgi import whole
from autoglm.inference.http.bounded_http import BoundedHttp, abridged
from autoglm.validation.bounds import Bounds
from autoglm.validation.scan.abridged import Abridged

pytestmark = pytest.mark.asyncio
MANY = b'{"messages":[' + b",".join([b"{}"] * 5000) + b"]}"
LARGE = b'{"prompt":"' + b"x" * 3_000_000 + b'"}'


async def responses_to(body: bytes, *, limit: int = 2**23, **headers: str) -> Any:
    """What the app got: the body and the abridged one; or the response's status and body."""
    seen: list[Any] = []
    sent: list[Any] = []
    chunks = [body[i : i + 100_000] for i in range(0, len(body), 100_000)] or [b""]
    messages = [
        {"type": "http.request", "body": chunk, "more_body": i < len(chunks) - 1}
        for i, chunk in enumerate(chunks)
    ]

    async def receive() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got = await whole(receive)
        seen.extend((got, abridged(scope, got)))

    fields = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": fields}
    await BoundedHttp(app, Bounds(), limit)(scope, receive, send)
    return seen or (sent[0]["status"], sent[1]["body"])


async def test_a_body_over_a_bound_never_reaches_the_app() -> None:
    code, text = await responses_to(MANY)
    assert code == 400
    assert b"messages has more than 2048 entries" in text


async def test_a_body_over_the_limit_is_not_kept() -> None:
    code, text = await responses_to(LARGE, limit=1_000_000)
    assert code == 413
    assert b"1000000" in text


async def test_a_large_body_reaches_the_app_whole_and_abridged() -> None:
    got, short = await responses_to(LARGE)
    assert got == LARGE
    assert isinstance(short, Abridged)
    assert 1_500_000 < short.cut.text["prompt"] <= 3_000_000 - 2**20


async def test_a_small_body_reaches_the_app_as_it_is() -> None:
    assert await responses_to(b'{"prompt":"x"}') == [b'{"prompt":"x"}'] * 2
    assert await responses_to(b"") == [b"", b""]


async def test_uploads_pass_unread() -> None:
    got, _ = await responses_to(MANY, content_type="multipart/form-data; boundary=x")
    assert got == MANY


async def test_tensors_behind_the_json_are_not_read_as_json() -> None:
    body = b'{"inputs":[]}' + b"[,{" * 50_000
    got, short = await responses_to(body, inference_header_content_length="13")
    assert (got, short) == (body, b'{"inputs":[]}')


async def test_white_space_of_a_large_body_does_not_reach_the_app() -> None:
    got, short = await responses_to(b'{"prompt":' + b" " * 300_000 + b'"x y"}')
    assert json.loads(got) == json.loads(short) == {"prompt": "x y"}
    assert len(got) < 1000


async def test_a_body_of_which_a_value_was_cut_keeps_its_white_space() -> None:
    body = LARGE[:-1] + b" " * 300_000 + b"}"
    got, _ = await responses_to(body)
    assert got == body


async def test_a_large_body_reaches_the_app_without_a_copy() -> None:
    messages = [{"type": "http.request", "body": LARGE}]
    seen: list[bytes] = []

    async def receive() -> Any:
        return messages.pop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await whole(receive))

    async def send(message: Any) -> None: ...

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    await BoundedHttp(app, Bounds(), 2**23)(scope, receive, send)
    assert seen[0] is LARGE
