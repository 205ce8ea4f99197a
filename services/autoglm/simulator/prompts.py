"""Reads requests for the echo engine: prompt ids, the text to generate, and bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoglm import v1
from autoglm.common import errors
from autoglm.simulator import tokenizer
from autoglm.simulator.structured import shaped

_GENERATE_MAX_TOKENS = 16
_MAX_COMPLETIONS = 128
# vLLM's max_logprobs where it is not set.
_MAX_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Task:
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


def generate_task(request: v1.GenerateRequest, capacity: int) -> Task:
    kind = request.WhichOneof("prompt")
    if kind is None:
        raise errors.InvalidRequest("set text or token_ids", field="prompt")
    ids = tokenizer.encode(request.text) if kind == "text" else list(request.token_ids.ids)
    text = tokenizer.decode(ids)
    output = shaped(request.response_format, text)
    output_ids = ids if output == text else tokenizer.encode(output)
    return _task(ids, output_ids, request, _GENERATE_MAX_TOKENS, capacity)


def chat_task(request: v1.ChatRequest, capacity: int) -> Task:
    choice = request.tool_choice
    if choice.function or choice.mode == v1.ToolChoice.MODE_REQUIRED:
        raise errors.Unimplemented("the echo engine calls no tools", field="tool_choice")
    ids = tokenizer.encode(render(request))
    users = [m for m in request.messages if m.role == "user"]
    output = shaped(request.response_format, content(users[-1]) if users else "")
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
) -> Task:
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
    return Task(ids, output, params, max(1, min(wanted, room)), request.priority, resumed)
