"""The requests of `benchmarks.bounds`: many small values, few large ones, and ordinary ones."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from tests.support.processes import Process

from autoglm import v1
from autoglm.common import rpc
from benchmarks.neighbour import Sent

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_MANY = 500_000


@dataclass(frozen=True, slots=True)
class Case:
    """`send` returns the status."""

    wire: str
    body: str
    size: int
    send: Sent


def cases(model: str, scale: int) -> Iterator[Case]:
    """Of a tenth of the size with a `scale` of 10."""
    for name, (path, body) in _bodies(model, scale).items():
        yield Case("REST", name, len(body), _rest(path, body))
    for name, (method, request) in _messages(model, scale).items():
        yield Case("gRPC", name, request.ByteSize(), _grpc(method, request))


def neighbour(model: str) -> Sent:
    """A small request."""
    return _rest(*_bodies(model, _MANY)["an ordinary chat"])


def _bodies(model: str, scale: int) -> dict[str, tuple[str, bytes]]:
    many, message = _MANY // scale, '{"role":"user","content":"x"}'
    image = {"type": "image_url", "image_url": {"url": "data:," + "A" * (10_000_000 // scale)}}

    def listed(entry: str, count: int) -> str:
        return "[" + ",".join([entry] * count) + "]"

    def chat(messages: str, more: str = "") -> tuple[str, bytes]:
        return CHAT, f'{{"model":"{model}","max_tokens":2,"messages":{messages}{more}}}'.encode()

    def completion(prompt: object) -> tuple[str, bytes]:
        fields = {"model": model, "max_tokens": 2, "prompt": prompt}
        return COMPLETIONS, json.dumps(fields).encode()

    biases = "{" + ",".join(f'"{i}":1' for i in range(many)) + "}"
    parts = listed('{"type":"text","text":"x"}', many)
    return {
        "an ordinary chat": chat(listed(message, 100)),
        "messages": chat(listed(message, many)),
        "messages, twice as many": chat(listed(message, 2 * many)),
        "messages, as many as allowed": chat(listed(message, 2048)),
        "content parts": chat('[{"role":"user","content":' + parts + "}]"),
        "logit_bias": chat(f"[{message}]", f',"logit_bias":{biases}'),
        "tools": chat(f"[{message}]", ',"tools":' + listed("{}", many)),
        "schemas": chat(f"[{message}]", ',"tools":' + json.dumps(_tools(1000 // scale))),
        "an unknown field": chat(f"[{message}]", ',"x":' + listed("[]", 2 * many)),
        "token ids": completion([353] * (many // 5)),
        "prompts": completion(["x"] * many),
        "a text": completion("word " * (3_000_000 // scale)),
        "a text of escapes": completion('"\\' * (7_500_000 // scale)),
        "six images": chat(json.dumps([{"role": "user", "content": [image] * 6}])),
        "white space": chat(f"[{message}{' ' * (60_000_000 // scale)}]"),
    }


def _messages(model: str, scale: int) -> dict[str, tuple[str, Message]]:
    many, message = _MANY // scale, v1.ChatMessage(role="user", content="x")
    params = v1.SamplingParams(max_tokens=2)
    image = v1.ContentPart(image_url="data:," + "A" * (10_000_000 // scale))

    def chat(*messages: v1.ChatMessage, **more: Any) -> tuple[str, Message]:
        fields: dict[str, Any] = {"model": model, "messages": messages, "sampling_params": params}
        return "Chat", v1.ChatRequest(**fields | more)

    def prompt(**given: Any) -> tuple[str, Message]:
        return "Generate", v1.GenerateRequest(model=model, sampling_params=params, **given)

    biased = v1.SamplingParams(logit_bias=dict.fromkeys(range(many), 1.0))
    tool = v1.Tool(name="f", parameters=json.dumps(_schema(1000)))
    return {
        "an ordinary chat": chat(*[message] * 100),
        "messages": chat(*[message] * many),
        "messages, as many as allowed": chat(*[message] * 2048),
        "content parts": chat(v1.ChatMessage(parts=[v1.ContentPart(text="x")] * many)),
        "logit_bias": chat(message, sampling_params=biased),
        "schemas": chat(message, tools=[tool] * (90 // scale)),
        "token ids": prompt(token_ids=v1.TokenIds(ids=[353] * (many // 5))),
        "a text of 4 MB": prompt(text="word " * (800_000 // scale)),
        "a text": prompt(text="word " * (3_000_000 // scale)),
        "six images": chat(v1.ChatMessage(role="user", parts=[image] * 6)),
    }


def _schema(properties: int) -> dict[str, Any]:
    kind = {"type": "string", "minLength": 1}
    return {"type": "object", "properties": {f"p{i}": kind for i in range(properties)}}


def _tools(count: int) -> list[dict[str, Any]]:
    """Of 100 values each."""
    return [
        {"type": "function", "function": {"name": f"f{i}", "parameters": _schema(32)}}
        for i in range(count)
    ]


def _rest(path: str, body: bytes) -> Sent:
    def send(server: Process) -> str:
        connection = http.client.HTTPConnection(server.http_address, timeout=120)
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        try:
            connection.request("POST", path, io.BytesIO(body), headers)
            response = connection.getresponse()
            response.read()
            return str(response.status)
        except OSError as error:
            return type(error).__name__
        finally:
            connection.close()

    return send


def _grpc(method: str, request: Message) -> Sent:
    def send(server: Process) -> str:
        with rpc.sync_channel(server.grpc_address) as channel:
            call: grpc.UnaryUnaryMultiCallable[None, bytes] = channel.unary_unary(
                f"/autoglm.v1.Inference/{method}",
                request_serializer=lambda _: request.SerializeToString(),
            )
            try:
                call(None, timeout=120)
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

    return send
