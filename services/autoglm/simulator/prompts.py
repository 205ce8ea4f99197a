"""Reads requests for the echo engine: prompt ids, the text to generate, and bounds. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autoglm import v1
from autoglm.common import errors
from autoglm.simulator import tokenizer
from autoglm.validation.request_info import COMPLETION_MAX_TOKENS

_MAX_COMPLETIONS = 128
# vLLM's max_logprobs where it is not set.
_MAX_LOGPROBS = 20
_SIMPLEST: Mapping[str, object] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "null": None,
    "array": [],
}


@dataclass(frozen=True, slots=True)
class EchoTask:
    """A request as the engine serves it; `output` is the whole text, before any limit."""

    prompt: Sequence[int]
    output: Sequence[int]
    params: v1.SamplingParams
    max_tokens: int
    priority: int = 0
    resumed: Mapping[int, v1.ResumedChoice] = field(default_factory=dict)
    """Where another pod's stream broke, by completion."""

    @property
    def n(self) -> int:
        return self.params.n or 1


def generate_task(request: v1.GenerateRequest, capacity: int) -> EchoTask:
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise errors.InvalidRequest("set text or token_ids", field="prompt")
    ids = tokenizer.encode(request.text) if kind == "text" else list(request.token_ids.ids)
    text = tokenizer.decode(ids)
    output = _shaped(request.response_format, text)
    output_ids = ids if output == text else tokenizer.encode(output)
    return _task(ids, output_ids, request, COMPLETION_MAX_TOKENS, capacity)


def chat_task(request: v1.ChatRequest, capacity: int) -> EchoTask:
    choice = request.tool_choice
    if choice.function or choice.mode == v1.ToolChoice.MODE_REQUIRED:
        raise errors.Unimplemented("the echo engine calls no tools", field="tool_choice")
    ids = tokenizer.encode(render(request))
    users = [m for m in request.messages if m.role == "user"]
    output = _shaped(request.response_format, content(users[-1]) if users else "")
    return _task(ids, tokenizer.encode(output), request, capacity, capacity)


def render(request: v1.ChatRequest) -> str:
    """Return the conversation as the prompt that the "model" sees."""
    opens = not request.HasField("add_generation_prompt") or request.add_generation_prompt
    return conversation(request.messages) + ("<|assistant|>\n" if opens else "")


def conversation(messages: Sequence[v1.ChatMessage]) -> str:
    return "".join(f"<|{m.role}|>\n{content(m)}\n" for m in messages)


def content(message: v1.ChatMessage) -> str:
    if any(p.WhichOneof("part") != "text" for p in message.parts):
        raise errors.InvalidRequest("this model reads text only", field="messages.parts")
    return message.content + "".join(p.text for p in message.parts)


def not_followed(name: str) -> errors.Unimplemented:
    return errors.Unimplemented(
        f"the echo engine does not implement {name}; leave it out, or use a vLLM pod", field=name
    )


def check_logprobs(count: int) -> None:
    """Raises InvalidRequest for more than the engine reports, or for a whole vocabulary (-1)."""
    if not 0 <= count <= _MAX_LOGPROBS:
        raise errors.InvalidRequest(
            f"logprobs is {count}; the echo engine reports 0 to {_MAX_LOGPROBS}", field="logprobs"
        )


def _task(
    ids: Sequence[int],
    output: Sequence[int],
    request: v1.GenerateRequest | v1.ChatRequest,
    default_max_tokens: int,
    capacity: int,
) -> EchoTask:
    params = request.sampling_params
    if not ids:
        raise errors.InvalidRequest("the prompt is empty", field="prompt")
    if params.n > _MAX_COMPLETIONS:
        raise errors.InvalidRequest(f"n is at most {_MAX_COMPLETIONS}", field="sampling_params.n")
    check_logprobs(max(params.logprobs, params.prompt_logprobs))
    if params.truncate_prompt_tokens:
        ids = ids[-params.truncate_prompt_tokens :]
    room = capacity - len(ids)
    if room < 1:
        message = f"the prompt has {len(ids)} tokens, and {capacity} are the most for all"
        raise errors.InvalidRequest(message, field="prompt")
    wanted = params.max_tokens if params.HasField("max_tokens") else default_max_tokens
    resumed = {choice.index: choice for choice in request.resume.choices}
    return EchoTask(ids, output, params, max(1, min(wanted, room)), request.priority, resumed)


def _shaped(response_format: v1.ResponseFormat, text: str) -> str:
    """Return `text`, or the smallest output that fits where a format is set.

    Covers what is cheap: any JSON object, plain JSON schemas, and literal choices. Anything else is
    Unimplemented; only a real engine follows grammars.
    """
    kind = response_format.WhichOneof("format")
    if kind is None or (kind == "json_object" and not response_format.json_object):
        return text
    if kind == "json_object":
        return "{}"
    if kind == "json_schema":
        return json.dumps(_minimal(_parsed(response_format.json_schema.schema)))
    if kind == "choice" and response_format.choice.values:
        values = response_format.choice.values
        return next((v for v in values if v in text), values[0])
    raise not_followed(f"response_format.{kind}")


def _minimal(schema: Mapping[str, Any]) -> object:
    """Return the smallest JSON value that fits a plain schema."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _minimal(properties.get(name, {})) for name in schema.get("required", [])}
    bounded = any(k.startswith("min") or k == "pattern" for k in schema)
    if isinstance(kind, str) and kind in _SIMPLEST and not bounded:
        return _SIMPLEST[kind]
    message = "the echo engine fills only plain JSON schemas"
    raise errors.Unimplemented(message, field="response_format.json_schema.schema")


def _parsed(text: str) -> Mapping[str, Any]:
    field = "response_format.json_schema.schema"
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise errors.InvalidRequest(f"the schema is not JSON: {error}", field=field) from error
    if not isinstance(schema, dict):
        raise errors.InvalidRequest("the schema is not a JSON object", field=field)
    return schema
