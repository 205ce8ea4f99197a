"""Measures the prompts of requests whose fields the pod alone validates, for estimates of tokens.

Reads just enough of a body to know its text, its token ids and its longest output. Media count
nothing beside text, since their tokens depend on the model; the pod's own count settles that. Pure;
called by `openai`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from autoglm.validation import prefix_hash
from autoglm.validation.grpc_messages import TOKEN_BYTES
from autoglm.validation.request_info import Operation, Prompt, RequestInfo, Sampling
from autoglm.validation.scan.json_text import decode

_MEDIA = frozenset(
    ("image_url", "audio_url", "video_url", "input_audio", "file", "file_data", "images")
)
# How a body names media: by a field, or by the type of a part.
_MARKS = tuple(f'"{name}"'.encode() for name in (*sorted(_MEDIA), "input_image", "image"))
# Of a prompt without text: about what models make of one image, at four bytes a token. Its base64
# would be a hundred times that.
_MEDIA_BYTES = 4096
# Blocks of Anthropic's API whose `source` is not text.
_SOURCED = ("image", "document")


class _Messages(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    system: Any = None
    messages: Any = None
    tools: Any = None


class _Pairs(msgspec.Struct):
    """Of scores and rankings; which fields there are depends on the API's dialect."""

    model: str | None = None
    query: Any = None
    queries: Any = None
    text_1: Any = None
    data_1: Any = None
    documents: Any = None
    items: Any = None
    text_2: Any = None
    data_2: Any = None


class _Inputs(msgspec.Struct):
    """Of classification, pooling and Cohere's embeddings."""

    model: str | None = None
    input: Any = None
    messages: Any = None
    texts: Any = None
    inputs: Any = None


class _Batch(msgspec.Struct):
    model: str | None = None
    messages: Any = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


class _Any(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None


def weigh(path: str, value: Any, times: int = 1) -> tuple[Prompt, ...]:
    """The text and the token ids within a decoded JSON value, `times` over."""
    size = tokens = 0
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            size += len(part) if part.isascii() else len(part.encode())
        elif isinstance(part, list):
            if part and type(part[0]) is int:
                tokens += len(part)
            else:
                pending += part
        elif isinstance(part, dict):
            pending += _texts(part)
    text = (Prompt(path, size * times),) if size else ()
    ids = (Prompt(path, tokens * TOKEN_BYTES * times, tokens * times),) if tokens else ()
    return text + ids


def of_media(body: bytes) -> tuple[Prompt, ...]:
    """The estimate of a prompt that has media and no text; empty where no media are named."""
    named = any(mark in body for mark in _MARKS)
    return (Prompt("media", _MEDIA_BYTES),) if named else ()


def _texts(part: Mapping[str, Any]) -> Sequence[Any]:
    has_source = part.get("type") in _SOURCED
    return [
        value
        for name, value in part.items()
        if name not in _MEDIA and not (has_source and name == "source")
    ]


def of_messages(body: bytes) -> RequestInfo:
    """Anthropic's Messages API."""
    asked = decode(body, _Messages)
    text = sum(p.size for p in (*weigh("", asked.system), *weigh("", asked.messages)))
    return RequestInfo(
        Operation.CHAT,
        asked.model or "",
        streaming=bool(asked.stream),
        prompts=(Prompt("messages", text),) if text else None,
        sampling=Sampling(max_tokens=asked.max_tokens),
        unchecked=weigh("tools", asked.tools),
        prefix=messages_prefix(asked.system, asked.messages, asked.tools),
    )


def of_pairs(body: bytes) -> RequestInfo:
    """Scores and rankings: the first text goes with each of the second, or one with one."""
    asked = decode(body, _Pairs)
    first = _given(asked.query, asked.queries, asked.text_1, asked.data_1)
    second = _given(asked.documents, asked.items, asked.text_2, asked.data_2)
    times = _count(second) if _count(first) == 1 else 1
    return RequestInfo(
        Operation.SCORE,
        asked.model or "",
        unchecked=(*weigh("query", first, times), *weigh("documents", second)),
    )


def of_inputs(body: bytes) -> RequestInfo:
    """Classification, pooling, and embeddings as Cohere has them."""
    asked = decode(body, _Inputs)
    parts = (asked.input, asked.messages, asked.texts, asked.inputs)
    return RequestInfo(
        Operation.POOL,
        asked.model or "",
        unchecked=tuple(prompt for part in parts for prompt in weigh("input", part)),
    )


def of_batch(body: bytes) -> RequestInfo:
    """Several conversations in one request; each may have its longest output."""
    asked = decode(body, _Batch)
    conversations = asked.messages if isinstance(asked.messages, list) else []
    most = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    return RequestInfo(
        Operation.CHAT,
        asked.model or "",
        # Not `max_tokens`: as a default it counts and is the pod's to validate.
        sampling=Sampling(default_max_tokens=(most or 0) * len(conversations) or None),
        unchecked=weigh("messages", conversations),
    )


def of_any(body: bytes) -> RequestInfo:
    """An API of which only the model's name is read."""
    asked = decode(body, _Any)
    return RequestInfo(Operation.INFER, asked.model or "", streaming=bool(asked.stream))


def messages_prefix(system: Any, messages: Any, tools: Any) -> prefix_hash.Prefix:
    """The names of a conversation's blocks, in the order in which chat templates have it."""
    turns = [prefix_hash.Message("system", _parts(system))] if system else []
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content", message) if isinstance(message, dict) else message
        turns.append(prefix_hash.Message(_role(message), _parts(content)))
    found = (msgspec.json.encode(tool) for tool in (tools if isinstance(tools, list) else ()))
    return prefix_hash.of_chat(turns, found)


def _role(message: Any) -> str:
    """Items of the Responses API that are no messages have a type; most are the model's."""
    fields = message if isinstance(message, dict) else {}
    role, kind = fields.get("role"), fields.get("type")
    if isinstance(role, str):
        return role
    return "tool" if isinstance(kind, str) and kind.endswith("_output") else "assistant"


def _parts(content: Any) -> Sequence[str | bytes]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else [content]
    return [_part(part) for part in parts]


def _part(part: Any) -> str | bytes:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    return part if isinstance(part, str) else msgspec.json.encode(part)


def _given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list) else 1
