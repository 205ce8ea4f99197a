"""Requests of every kind that chaos tests send, with the tokens of their responses."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.error import HTTPError

import grpc
from tests.support.fidelity import Said

from autoglm import v1
from autoglm.v1.inference_pb2_grpc import InferenceStub

QUESTIONS = ("Hello!", "What is a pod?", "Who are you?")
TOKENS = 150
SECONDS = 90
MODEL = "tiny-glm"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "maxLength": 40}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


class Way(Protocol):
    """One request; `prompt` is a body of /tokenize that gives the ids of its prompt."""

    @property
    def prompt(self) -> Mapping[str, Any]: ...
    @property
    def params(self) -> v1.SamplingParams: ...
    def say(self, grpc_address: str, http_address: str) -> Said: ...


class Chunk(Protocol):
    @property
    def index(self) -> int: ...
    @property
    def token_ids(self) -> Iterable[int]: ...


def _greedy(**more: Any) -> v1.SamplingParams:
    return v1.SamplingParams(temperature=0, max_tokens=TOKENS, **more)


def _ids(chunks: Sequence[Chunk]) -> tuple[tuple[int, ...], ...]:
    count = 1 + max(chunk.index for chunk in chunks)
    return tuple(
        tuple(t for c in chunks if c.index == i for t in c.token_ids) for i in range(count)
    )


@dataclass(frozen=True)
class GenerateStream:
    """Long streams as gRPC clients read them."""

    text: str
    params: v1.SamplingParams = field(
        # Penalties are counted on from where the broken stream ended.
        default_factory=lambda: _greedy(ignore_eos=True, frequency_penalty=0.5)
    )

    @property
    def prompt(self) -> Mapping[str, Any]:
        return {"prompt": self.text}

    def say(self, grpc_address: str, http_address: str) -> Said:
        request = v1.GenerateRequest(model=MODEL, text=self.text, sampling_params=self.params)
        with grpc.insecure_channel(grpc_address) as channel:
            chunks = list(InferenceStub(channel).GenerateStream(request, timeout=SECONDS))
        assert chunks[-1].usage.completion_tokens == TOKENS * (self.params.n or 1)
        texts = ["".join(c.text for c in chunks if c.index == i) for i in range(self.params.n or 1)]
        return Said("\n".join(texts), _ids(chunks))


def two_seeded_choices() -> GenerateStream:
    """Sampled by seed, whose random numbers continue where they were."""
    params = v1.SamplingParams(
        temperature=0.5, seed=11, n=2, max_tokens=TOKENS, ignore_eos=True, logprobs=1
    )
    return GenerateStream("Hello!", params)


@dataclass(frozen=True)
class ChatStream:
    """A grammar that continues in the middle of JSON text: of the content, or of a tool call."""

    content: str
    calls_tool: bool
    params: v1.SamplingParams = field(default_factory=_greedy)

    @property
    def prompt(self) -> Mapping[str, Any]:
        function = {"name": "look", "parameters": SCHEMA}
        tools = [{"type": "function", "function": function}] if self.calls_tool else None
        return {"messages": [{"role": "user", "content": self.content}], "tools": tools}

    def say(self, grpc_address: str, http_address: str) -> Said:
        messages = [v1.ChatMessage(role="user", content=self.content)]
        request = v1.ChatRequest(model=MODEL, messages=messages, sampling_params=self.params)
        if self.calls_tool:
            request.tools.add(name="look", parameters=json.dumps(SCHEMA))
            request.tool_choice.function = "look"
        else:
            request.response_format.json_schema.name = "s"
            request.response_format.json_schema.schema = json.dumps(SCHEMA)
        with grpc.insecure_channel(grpc_address) as channel:
            chunks = list(InferenceStub(channel).ChatStream(request, timeout=SECONDS))
        calls = [call for chunk in chunks for call in chunk.delta.tool_calls]
        text = "".join(c.name + c.arguments for c in calls) if self.calls_tool else ""
        return Said(text or "".join(c.delta.content for c in chunks), _ids(chunks))


@dataclass(frozen=True)
class Rest:
    content: str
    stream: bool
    params: v1.SamplingParams = field(default_factory=lambda: _greedy(ignore_eos=True))

    @property
    def prompt(self) -> Mapping[str, Any]:
        return {"messages": [{"role": "user", "content": self.content}]}

    def say(self, grpc_address: str, http_address: str) -> Said:
        body = {
            **self.prompt,
            "model": MODEL,
            "temperature": 0,
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "stream": self.stream,
            "return_token_ids": True,
        }
        text = post(http_address, "/v1/chat/completions", body)
        return _said_in_events(text) if self.stream else _said_at_once(text)


def ways() -> list[Way]:
    """Those of gRPC come first."""
    return [
        GenerateStream(QUESTIONS[0]),
        GenerateStream(QUESTIONS[1]),
        ChatStream("Answer in JSON.", calls_tool=False),
        two_seeded_choices(),
        ChatStream("Call it.", calls_tool=True),
        Rest(QUESTIONS[2], stream=True),
        Rest(QUESTIONS[0], stream=True),
        Rest(QUESTIONS[1], stream=False),
    ]


GRPC_WAYS = 5


def post(http_address: str, path: str, body: Mapping[str, Any]) -> str:
    """Raises ConnectionError for an error of the server."""
    headers = {"content-type": "application/json"}
    url = f"http://{http_address}{path}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            return str(response.read().decode())
    except HTTPError as error:
        raise ConnectionError(f"{error}: {error.read().decode()}") from error


def _said_at_once(text: str) -> Said:
    (choice,) = json.loads(text)["choices"]
    return Said(choice["message"]["content"], (tuple(choice["token_ids"]),))


def _said_in_events(text: str) -> Said:
    """Raises ConnectionError for a stream that the gateway has ended with an error."""
    events = text.split("\n\n")
    for event in events:
        if event.startswith('data: {"error"'):
            raise ConnectionError(event)
    assert events[-2:] == ["data: [DONE]", ""]
    parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    choices = [event["choices"][0] for event in parsed]
    ids = tuple(i for choice in choices for i in choice.get("token_ids") or ())
    return Said("".join(c["delta"].get("content") or "" for c in choices), (ids,))
