"""Reads and measures prompts of JSON bodies. Pure; called by `http_bodies`.

`prompt_list` reads a field that is a text, token ids, or a list of these. The `of_...` functions
are for requests whose fields the pod alone validates: they read just enough of a body to know its
text, its token ids and its longest output. Media count nothing beside text, since their tokens
depend on the model; the pod's own count settles that.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import msgspec

from autoglm.common.errors import InvalidRequest
from autoglm.validation import prefix_hash
from autoglm.validation.constraints import shown
from autoglm.validation.request_info import (
    MEDIA_FIELDS,
    Operation,
    Prompt,
    RequestInfo,
    Sampling,
    utf8_size,
)
from autoglm.validation.scan.abridged import Cut
from autoglm.validation.scan.json_text import decode

# How a body names media: by a field, or by the type of a part.
_MARKS = tuple(f'"{name}"'.encode() for name in (*sorted(MEDIA_FIELDS), "input_image", "image"))
# The size of a prompt without text: about one image's tokens, at four bytes each. Its base64 would
# be a hundred times that.
_MEDIA_BYTES = 4096
# Blocks of Anthropic's API whose `source` is not text.
_SOURCED = ("image", "document")
_MAX_TOKEN_ID = 2**31 - 1


class _Messages(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    system: Any = None
    messages: Any = None
    tools: Any = None


class _Pairs(msgspec.Struct):
    """Scores and rankings; which fields there are depends on the API's dialect."""

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
    """Classification, pooling and Cohere's embeddings."""

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


def prompt_prefix(path: str, prompt: str | list[Any] | None, cut: Cut) -> prefix_hash.Prefix:
    """Return the prefix of the first prompt; all have been found well formed."""
    if isinstance(prompt, str):
        return prefix_hash.of_text(prompt)
    first = prompt[0] if prompt else None
    if isinstance(first, str | list):
        return prompt_prefix(f"{path}[0]", first, cut)
    return prefix_hash.of_token_ids(*_ids(path, prompt, cut)) if prompt else prefix_hash.NO_PREFIX


def prompt_list(path: str, prompt: str | list[Any] | None, cut: Cut) -> Sequence[Prompt]:
    """Return the prompts of a field: a text, token ids, or a list of these."""
    if prompt is None:
        return ()
    if isinstance(prompt, str):
        return (Prompt(path, utf8_size(prompt)),)
    if prompt and all(type(item) is int for item in prompt):
        return (_token_prompt(path, prompt, cut),)
    found = []
    for number, item in enumerate(prompt):
        place = f"{path}[{number}]"
        if isinstance(item, str):
            found.append(Prompt(place, utf8_size(item)))
        elif isinstance(item, list) and all(type(token) is int for token in item):
            found.append(_token_prompt(place, item, cut))
        else:
            raise InvalidRequest(
                f"{place} is {shown(item)}; give a text or a list of token ids", field=place
            )
    return tuple(found)


def _token_prompt(path: str, ids: Sequence[int], cut: Cut) -> Prompt:
    known, count = _ids(path, ids, cut)
    low, high = (min(known), max(known)) if known else (0, 0)
    if rest := cut.numbers.get(path):
        if not rest.is_whole:
            raise InvalidRequest(
                f"{path} has numbers that are not whole; give a list of token ids", field=path
            )
        low, high = min(low, int(rest.low)), max(high, int(rest.high))
    if not 0 <= low <= high <= _MAX_TOKEN_ID:
        raise InvalidRequest(
            f"{path} has token ids from {low} to {high}; send ids of the model's tokens",
            field=path,
        )
    return Prompt.of_ids(path, count)


def _ids(path: str, ids: Sequence[int], cut: Cut) -> tuple[Sequence[int], int]:
    """Return the ids of the list that are kept, and the number of all."""
    rest = cut.numbers.get(path)
    if rest is None:
        return ids, len(ids)
    kept = ids[: len(ids) - rest.stand_ins]
    if rest.ids and all(0 <= n <= _MAX_TOKEN_ID for n in kept):
        # Without an object for each, as there may be very many.
        return array("I", kept) + rest.ids, len(kept) + rest.count
    return kept, len(kept) + rest.count


def weigh(path: str, value: Any, times: int = 1) -> tuple[Prompt, ...]:
    """Return the text and the token ids within a decoded JSON value, `times` over."""
    size = tokens = 0
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            size += utf8_size(part)
        elif isinstance(part, list):
            if part and type(part[0]) is int:
                tokens += len(part)
            else:
                pending += part
        elif isinstance(part, dict):
            has_source = part.get("type") in _SOURCED
            pending += [
                value
                for name, value in part.items()
                if name not in MEDIA_FIELDS and not (has_source and name == "source")
            ]
    text = (Prompt(path, size * times),) if size else ()
    ids = (Prompt.of_ids(path, tokens * times),) if tokens else ()
    return text + ids


def of_media(body: bytes) -> tuple[Prompt, ...]:
    """Estimate a prompt that has media and no text; empty where no media are named."""
    named = any(mark in body for mark in _MARKS)
    return (Prompt("media", _MEDIA_BYTES),) if named else ()


def of_messages(body: bytes) -> RequestInfo:
    """Return the facts of a request of Anthropic's Messages API."""
    request = decode(body, _Messages)
    text = sum(p.size for p in (*weigh("", request.system), *weigh("", request.messages)))
    return RequestInfo(
        Operation.CHAT,
        request.model or "",
        streaming=bool(request.stream),
        prompts=(Prompt("messages", text),) if text else None,
        sampling=Sampling(max_tokens=request.max_tokens),
        unchecked=weigh("tools", request.tools),
        prefix=messages_prefix(request.system, request.messages, request.tools),
    )


def of_pairs(body: bytes) -> RequestInfo:
    """Return the facts of a request for scores or a ranking.

    The first text goes with each of the second, or one with one.
    """
    request = decode(body, _Pairs)
    first = _given(request.query, request.queries, request.text_1, request.data_1)
    second = _given(request.documents, request.items, request.text_2, request.data_2)
    times = _count(second) if _count(first) == 1 else 1
    return RequestInfo(
        Operation.SCORE,
        request.model or "",
        unchecked=(*weigh("query", first, times), *weigh("documents", second)),
    )


def of_inputs(body: bytes) -> RequestInfo:
    """Return the facts of classification, pooling, and embeddings as Cohere has them."""
    request = decode(body, _Inputs)
    parts = (request.input, request.messages, request.texts, request.inputs)
    return RequestInfo(
        Operation.POOL,
        request.model or "",
        unchecked=tuple(prompt for part in parts for prompt in weigh("input", part)),
    )


def of_batch(body: bytes) -> RequestInfo:
    """Return the facts of several conversations; each may have its longest output."""
    request = decode(body, _Batch)
    conversations = request.messages if isinstance(request.messages, list) else []
    most = request.max_completion_tokens
    if most is None:
        most = request.max_tokens
    return RequestInfo(
        Operation.CHAT,
        request.model or "",
        # Not `max_tokens`: as a default it counts and is the pod's to validate.
        sampling=Sampling(default_max_tokens=(most or 0) * len(conversations) or None),
        unchecked=weigh("messages", conversations),
    )


def of_any(body: bytes) -> RequestInfo:
    """Return the facts of an API of which only the model's name is read."""
    request = decode(body, _Any)
    return RequestInfo(Operation.INFER, request.model or "", streaming=bool(request.stream))


def messages_prefix(system: Any, messages: Any, tools: Any) -> prefix_hash.Prefix:
    """Name the blocks of a conversation, in the order in which chat templates have it."""
    turns = [prefix_hash.Message("system", _parts(system))] if system else []
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content", message) if isinstance(message, dict) else message
        fields = message if isinstance(message, dict) else {}
        role, kind = fields.get("role"), fields.get("type")
        if not isinstance(role, str):
            # Items of the Responses API that are no messages have a type; most are the model's.
            is_output = isinstance(kind, str) and kind.endswith("_output")
            role = "tool" if is_output else "assistant"
        turns.append(prefix_hash.Message(role, _parts(content)))
    found = (msgspec.json.encode(tool) for tool in (tools if isinstance(tools, list) else ()))
    return prefix_hash.of_chat(turns, found)


def _parts(content: Any) -> Sequence[str | bytes]:
    if isinstance(content, str):
        return [content]
    found: list[str | bytes] = []
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text") if isinstance(part, dict) else part
        found.append(text if isinstance(text, str) else msgspec.json.encode(part))
    return found


def _given(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list) else 1
