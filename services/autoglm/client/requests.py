"""Builds requests and their routing hints from Python arguments. Pure.

Both clients call the `*_request` functions. The TypedDicts declare the keyword arguments; names and
meanings are those of the API (protos/autoglm/v1). An invalid value raises InvalidRequest with the
field; an unknown keyword raises TypeError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, TypeVar

from google.protobuf.message import Message

from autoglm import v1
from autoglm.client import openai_shapes as shapes
from autoglm.common import errors

try:
    from autoglm.validation import of_chat, of_generate
    from autoglm.validation.routing_hint import HINT_METADATA, write_hint
except ModuleNotFoundError:
    # Hashing prompts needs packages that a core install lacks.
    CAN_HINT = False
else:
    CAN_HINT = True

Prompt: TypeAlias = str | Sequence[int] | v1.TokenIds
ChatMessages: TypeAlias = Sequence[v1.ChatMessage | Mapping[str, Any]]
M = TypeVar("M", bound=Message)


class CallOptions(TypedDict, total=False):
    """Options of every method: `timeout` in seconds (None: no limit) and the request id."""

    timeout: float | None
    request_id: str


class Sampling(TypedDict, total=False):
    """vLLM's sampling parameters; None: the server's default."""

    n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    max_tokens: int | None
    min_tokens: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    skip_special_tokens: bool | None
    spaces_between_special_tokens: bool | None
    include_stop_str_in_output: bool | None
    logit_bias: Mapping[int, float] | None
    truncate_prompt_tokens: int | None


class ModelOptions(CallOptions, total=False):
    """`model` overrides the client's model."""

    model: str


class SamplingOptions(ModelOptions, Sampling, total=False):
    """Keywords take precedence over the fields of `sampling_params`."""

    sampling_params: v1.SamplingParams | None
    priority: int


class GenerateOptions(SamplingOptions, total=False):
    """Keywords of `generate` and `generate_stream`."""

    response_format: v1.ResponseFormat | Mapping[str, Any] | None
    session_id: str


class ChatOptions(GenerateOptions, total=False):
    """Keywords of `chat` and `chat_stream`. Tools may be OpenAI's dictionaries."""

    tools: Sequence[v1.Tool | Mapping[str, Any]]
    tool_choice: v1.ToolChoice | Mapping[str, Any] | str | None
    parallel_tool_calls: bool | None
    chat_template_kwargs: Mapping[str, Any] | str
    add_generation_prompt: bool | None
    continue_final_message: bool


class PredictOptions(SamplingOptions, total=False):
    """Keywords of `predict`."""

    labels: Sequence[str]
    task: str


class EmbedOptions(ModelOptions, total=False):
    """Keywords of `embed`."""

    dimensions: int | None


class TokenizeOptions(ModelOptions, total=False):
    """Keywords of `tokenize`."""

    add_special_tokens: bool | None
    return_tokens: bool


def generate_request(prompt: Prompt, options: GenerateOptions, model: str) -> v1.GenerateRequest:
    _check(options, GenerateOptions)
    content: dict[str, Any]
    if isinstance(prompt, str):
        content = {"text": prompt}
    elif isinstance(prompt, v1.TokenIds):
        content = {"token_ids": prompt}
    else:
        content = {"token_ids": _build(v1.TokenIds, "prompt", ids=prompt)}
    return _build(
        v1.GenerateRequest,
        **content,
        model=options.get("model", model),
        sampling_params=_sampling(options),
        response_format=shapes.response_format(options.get("response_format")),
        **_given(options, "priority", "session_id"),
    )


def chat_request(messages: str | ChatMessages, options: ChatOptions, model: str) -> v1.ChatRequest:
    _check(options, ChatOptions)
    return _build(
        v1.ChatRequest,
        messages=_messages(messages),
        model=options.get("model", model),
        sampling_params=_sampling(options),
        response_format=shapes.response_format(options.get("response_format")),
        tools=[shapes.tool(t, f"tools[{i}]") for i, t in enumerate(options.get("tools", ()))],
        tool_choice=shapes.tool_choice(options.get("tool_choice")),
        chat_template_kwargs=shapes.json_text(options.get("chat_template_kwargs", "")),
        **_given(
            options,
            "priority",
            "session_id",
            "parallel_tool_calls",
            "add_generation_prompt",
            "continue_final_message",
        ),
    )


def predict_request(text: str, options: PredictOptions, model: str) -> v1.PredictRequest:
    _check(options, PredictOptions)
    return _build(
        v1.PredictRequest,
        model_name=options.get("model", model),
        input_data=text,
        sampling_params=_sampling(options),
        **_given(options, "labels", "task", "priority"),
    )


def embed_request(texts: str | Sequence[str], options: EmbedOptions, model: str) -> v1.EmbedRequest:
    _check(options, EmbedOptions)
    return _build(
        v1.EmbedRequest,
        model=options.get("model", model),
        texts=[texts] if isinstance(texts, str) else texts,
        **_given(options, "dimensions"),
    )


def tokenize_request(
    text: str | ChatMessages, options: TokenizeOptions, model: str
) -> v1.TokenizeRequest:
    _check(options, TokenizeOptions)
    content: dict[str, Any] = {"text": text}
    if not isinstance(text, str):
        content = {"chat": v1.ChatMessages(messages=_messages(text))}
    return _build(
        v1.TokenizeRequest,
        **content,
        model=options.get("model", model),
        **_given(options, "add_special_tokens", "return_tokens"),
    )


def hint_metadata(request: v1.GenerateRequest | v1.ChatRequest) -> dict[str, bytes]:
    """Return the routing hint as metadata of the call, so that gateways need not parse the body.

    It is empty if the request has no hint, and in a core install; gateways parse the body then.
    """
    if not CAN_HINT:
        return {}
    try:
        if isinstance(request, v1.ChatRequest):
            hint = write_hint(of_chat(request))
        else:
            hint = write_hint(of_generate(request))
    except errors.AutoGLMError:
        # The server reports the error, with its request id.
        hint = b""
    return {HINT_METADATA: hint} if hint else {}


def _messages(messages: str | ChatMessages) -> list[v1.ChatMessage]:
    if isinstance(messages, str):
        return [v1.ChatMessage(role="user", content=messages)]
    return [shapes.message(m, f"messages[{i}]") for i, m in enumerate(messages)]


def _sampling(options: Mapping[str, Any]) -> v1.SamplingParams | None:
    given = _given(options, *Sampling.__annotations__)
    base = options.get("sampling_params")
    if isinstance(given.get("stop"), str):
        given["stop"] = [given["stop"]]
    if not given:
        return base
    built = _build(v1.SamplingParams, "sampling_params", **given)
    if base is None:
        return built
    merged = v1.SamplingParams()
    merged.CopyFrom(base)
    for name in given:
        # Merging would append to lists and maps; a keyword replaces them.
        merged.ClearField(name)
    merged.MergeFrom(built)
    return merged


def _given(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if options.get(name) is not None}


def _build(cls: type[M], field: str = "", /, **values: Any) -> M:
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise errors.InvalidRequest(str(error), field=field) from error


def _check(options: Mapping[str, Any], declared: type) -> None:
    unknown = sorted(options.keys() - declared.__annotations__.keys())
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
