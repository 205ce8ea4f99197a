"""Errors of an engine's app leave the pod in the dialect of the path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from autoglm.inference.http.observer import AppErrors

OPENAI = b'{"error": {"message": "bad role", "type": "Bad Request", "code": 400}}'
Message = dict[str, Any]


async def sent(path: str, *messages: Message) -> list[Message]:
    seen: list[Message] = []

    async def send(message: Any) -> None:
        seen.append(message)

    errors = AppErrors(send, path, "id-1")
    for message in messages:
        await errors(message)
    return seen


def start(status: int, kind: bytes = b"application/json", length: int = 0) -> Message:
    headers = [(b"content-type", kind), (b"Content-Length", str(length).encode()), (b"x-a", b"1")]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/chat/completions", json.loads(OPENAI)),
        (
            "/v1/messages",
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "bad role"},
                "request_id": "id-1",
            },
        ),
        ("/v2/models/m/infer", {"error": "bad role"}),
    ],
)
@pytest.mark.parametrize("cut", [0, 10, len(OPENAI)])
async def test_an_error_is_rendered_for_its_path_however_it_is_cut(
    path: str, expected: Any, cut: int
) -> None:
    parts = body(OPENAI[:cut], more=True), body(OPENAI[cut:])
    head, content = await sent(path, start(400, length=len(OPENAI)), *parts)
    assert json.loads(content["body"]) == expected and not content["more_body"]
    headers = dict(head["headers"])
    assert headers[b"content-length"] == str(len(content["body"])).encode()
    assert headers[b"x-a"] == b"1" and b"Content-Length" not in headers


@pytest.mark.parametrize("text", [b'{"detail":"Not Found"}', b"Not Found"])
async def test_a_route_that_the_app_lacks_names_what_the_model_needs(text: bytes) -> None:
    _, content = await sent("/v1/embeddings", start(404), body(text))
    message = json.loads(content["body"])["error"]["message"]
    assert "/v1/embeddings" in message
    assert message.endswith("it needs an embedding model")


async def test_a_frameworks_text_becomes_json_of_the_dialect() -> None:
    head, content = await sent("/v1/nothing", start(418, b"text/plain"), body(b"No coffee"))
    assert json.loads(content["body"])["error"]["message"] == "No coffee"
    assert dict(head["headers"])[b"content-type"] == b"application/json"


async def test_what_the_model_cannot_do_says_that_a_retry_is_in_vain() -> None:
    for status, expected in ((501, b"false"), (500, None)):
        head, _ = await sent("/v1/messages", start(status), body(OPENAI))
        assert dict(head["headers"]).get(b"x-should-retry") == expected


@pytest.mark.parametrize("status", [200, 204, 304])
async def test_everything_but_errors_passes_untouched(status: int) -> None:
    messages = [start(status), body(b"a", more=True), body(b"b")]
    assert await sent("/v1/messages", *messages) == messages


async def test_an_error_of_no_end_passes_as_it_comes() -> None:
    chunks = [body(b"x" * 1000, more=True) for _ in range(100)]
    seen = await sent("/v1/messages", start(500), *chunks, body(b"end"))
    assert b"".join(m["body"] for m in seen[1:]) == b"x" * 100_000 + b"end"
    assert seen[0]["status"] == 500 and not seen[-1]["more_body"]
