"""Token replay over REST: the events of both pods together are those of one undisturbed pod."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from autoglm.inference.engine import Engine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.asyncio(loop_scope="session"),
]

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
COMMENT = ": autoglm-tokens "
TOOL = {
    "type": "function",
    "function": {
        "name": "get_replicas",
        "description": "How many replicas a model runs with.",
        "parameters": {"type": "object", "properties": {"model": {"type": "string"}}},
    },
}


def chat(question: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": question}], "stream": True}
    options = {"temperature": 0, "max_tokens": 32, "stream_options": {"include_usage": True}}
    return body | options | fields


def text(prompt: str = "What is the license?", **fields: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": prompt, "stream": True, "temperature": 0}
    return body | {"max_tokens": 24, "stream_options": {"include_usage": True}} | fields


@dataclass(frozen=True)
class Event:
    tokens: dict[str, Any] | None
    data: dict[str, Any]


@pytest_asyncio.fixture(loop_scope="session")
async def http(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=engine.http_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        yield client


async def stream(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[Event]:
    headers = {"x-autoglm-replay": "1", "x-request-id": "rest-replay"}
    answer = await http.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    *blocks, done, nothing = answer.text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [event(block) for block in blocks]


def event(block: str) -> Event:
    comment, _, data = block.rpartition("\n")
    tokens = json.loads(comment.removeprefix(COMMENT)) if comment else None
    return Event(tokens, json.loads(data.removeprefix("data: ")))


def state(delivered: Sequence[Event]) -> dict[str, Any]:
    choices: dict[int, dict[str, Any]] = {}
    for one in delivered:
        for choice in one.data["choices"]:
            index = choice["index"]
            known = choices.setdefault(index, {"index": index, "token_ids": [], "finished": False})
            assert one.tokens is not None
            known["token_ids"] += one.tokens["ids"]
            known["finished"] |= choice["finish_reason"] is not None
    return {"choices": list(choices.values())}


def said(events: Sequence[Event]) -> dict[Any, Any]:
    """What a client makes of a stream."""
    found: dict[Any, Any] = {"usage": [], "ids": {e.data["id"] for e in events}}
    for choice in (c for e in events for c in e.data["choices"]):
        one = found.setdefault(choice["index"], {"role": "", "text": "", "calls": "", "end": []})
        delta = choice.get("delta", {})
        one["role"] += delta.get("role") or ""
        one["text"] += choice.get("text") or delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            function = call.get("function", {})
            one["calls"] += (function.get("name") or "") + (function.get("arguments") or "")
        if choice["finish_reason"]:
            one["end"].append((choice["finish_reason"], choice.get("stop_reason")))
        if isinstance(logprobs := choice.get("logprobs"), dict) and "text_offset" in logprobs:
            one.setdefault("offsets", []).extend(logprobs["text_offset"])
            one.setdefault("tokens", []).extend(logprobs["tokens"])
    for one in events:
        if usage := one.data.get("usage"):
            found["usage"].append((usage["prompt_tokens"], usage["completion_tokens"]))
    return found


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(TEXT, text(), id="text"),
        pytest.param(TEXT, text("How do you say hello in Chinese?"), id="characters"),
        pytest.param(TEXT, text(stop=["the Apache"], logprobs=2), id="stop and logprobs"),
        pytest.param(TEXT, text(temperature=1.3, seed=6, n=2), id="seed and n"),
        pytest.param(CHAT, chat("What is the license?"), id="chat"),
        pytest.param(CHAT, chat("What is vLLM?", temperature=1.1, seed=2, n=2), id="chat n"),
        pytest.param(CHAT, chat("How many replicas does tiny-glm have?", tools=[TOOL]), id="tools"),
        pytest.param(
            CHAT,
            chat("Hello!", response_format={"type": "json_object"}, temperature=1.2, seed=8),
            id="json",
        ),
    ],
)
async def test_the_events_are_resumed(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    whole = await stream(http, path, body)
    expected = said(whole)

    for cut in range(1, len(whole), 1 if body.get("n", 1) == 1 else 4):
        resumed = body | {"autoglm_resume": state(whole[:cut])}
        rest = await stream(http, path, resumed)
        assert said([*whole[:cut], *rest]) == expected, f"broken behind event {cut}"


async def test_a_refusal_has_a_status_of_its_own(http: httpx.AsyncClient) -> None:
    for resumed in (
        {"choices": [{"index": 3, "token_ids": [5]}]},
        {"choices": [{"index": 0, "token_ids": [10**6]}]},
        {"choices": [{"index": 0, "token_ids": [7] * 24}]},
    ):
        answer = await http.post(TEXT, json=text() | {"autoglm_resume": resumed})
        assert answer.status_code == 412
        assert answer.json()["error"]["code"] == "resume_impossible"

    answer = await http.post(TEXT, json=text(echo=True) | {"autoglm_resume": {"choices": []}})
    assert answer.status_code == 412


async def test_nothing_is_added_for_those_who_do_not_request_it(http: httpx.AsyncClient) -> None:
    answer = await http.post(CHAT, json=chat("What is the license?"))

    assert answer.status_code == 200
    assert COMMENT not in answer.text
