"""Converts responses of vLLM's chat serving to the API's messages. Pure.

The serving class returns pydantic objects, and with server-sent events where it streams. The
events are decoded into structs with the same attributes, so one set of functions serves both.
"""

from __future__ import annotations

from typing import Any

import msgspec

from autoglm import v1
from autoglm.inference.vllm.text.results import finish_reason, stop_reason
from autoglm.validation.openai_stream import Choice


class CalledFunction(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    id: str | None = None
    index: int = 0
    function: CalledFunction | None = None


class Delta(msgspec.Struct):
    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] = []


class Token(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[Token] = []


class Logprobs(msgspec.Struct):
    content: list[Token] | None = None


class StreamedChoice(Choice):
    delta: Delta = msgspec.field(default_factory=Delta)
    logprobs: Logprobs | None = None
    stop_reason: int | str | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class UsageCounts(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: PromptDetails | None = None


class RequestMetrics(msgspec.Struct):
    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None
    queue_time_ms: float | None = None


class Error(msgspec.Struct):
    message: str
    code: int
    param: str | None = None


class ChatEvent(msgspec.Struct):
    """One event of a stream: a delta of a choice, the usage at its end, or an error."""

    model: str = ""
    choices: list[StreamedChoice] = []
    usage: UsageCounts | None = None
    metrics: RequestMetrics | None = None
    error: Error | None = None


_decode = msgspec.json.Decoder(ChatEvent).decode


def parse(event: str) -> ChatEvent | None:
    """Return the event in `data: …`; None for the mark at the end of the stream."""
    data = event.removeprefix("data: ")
    return None if data.startswith("[DONE]") else _decode(data)


def chunk(request_id: str, model: str, choice: Any) -> v1.ChatChunk:
    """Convert the delta of one choice."""
    made = v1.ChatChunk(
        id=request_id,
        model=model,
        index=choice.index,
        delta=message(choice.delta),
    )
    if choice.logprobs and choice.logprobs.content:
        made.logprobs.extend(map(token, choice.logprobs.content))
    if choice.finish_reason is not None:
        made.finish_reason = finish_reason(choice.finish_reason)
        made.stop_reason = stop_reason(choice.stop_reason)
    return made


def joined(first: v1.ChatChunk, second: v1.ChatChunk) -> v1.ChatChunk:
    """Join two chunks of one choice."""
    content = first.delta.content + second.delta.content
    reasoning = first.delta.reasoning + second.delta.reasoning
    first.MergeFrom(second)
    first.delta.content, first.delta.reasoning = content, reasoning
    return first


def response(request_id: str, found: Any) -> v1.ChatResponse:
    return v1.ChatResponse(
        id=request_id,
        model=found.model,
        choices=[
            v1.ChatChoice(
                index=choice.index,
                message=message(choice.message),
                logprobs=map(token, (choice.logprobs and choice.logprobs.content) or ()),
                finish_reason=finish_reason(choice.finish_reason),
                stop_reason=stop_reason(choice.stop_reason),
            )
            for choice in found.choices
        ],
        usage=usage(found.usage),
        timing=timing(found.metrics),
    )


def message(found: Any) -> v1.ChatMessage:
    return v1.ChatMessage(
        role=found.role or "",
        content=found.content or "",
        reasoning=found.reasoning or "",
        tool_calls=[_tool_call(i, c) for i, c in enumerate(found.tool_calls)],
    )


def _tool_call(position: int, found: Any) -> v1.ToolCall:
    function = found.function
    return v1.ToolCall(
        id=found.id or "",
        name=(function and function.name) or "",
        arguments=(function and function.arguments) or "",
        # Only calls in a stream carry an index.
        index=getattr(found, "index", position),
    )


def token(found: Any) -> v1.TokenLogprob:
    likeliest = sorted(getattr(found, "top_logprobs", ()), key=lambda t: -t.logprob)
    return v1.TokenLogprob(
        token=found.token, logprob=found.logprob, top_logprobs=map(token, likeliest)
    )


def usage(found: Any) -> v1.Usage:
    details = found.prompt_tokens_details
    return v1.Usage(
        prompt_tokens=found.prompt_tokens,
        completion_tokens=found.completion_tokens or 0,
        cached_tokens=(details and details.cached_tokens) or 0,
    )


def timing(found: Any) -> v1.Timing | None:
    if found is None:
        return None
    return v1.Timing(
        queue_seconds=(found.queue_time_ms or 0) / 1000,
        prefill_seconds=(found.time_to_first_token_ms or 0) / 1000,
        decode_seconds=(found.generation_time_ms or 0) / 1000,
    )
